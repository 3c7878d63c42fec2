//! Who calls whom: every call carries the cluster's id, the sender's member id and the receiver's, and what does not fit is
//! refused. So a member that was restored into another cluster, or whose address another took over, does no harm.

use super::traffic::Meter;
use crate::types::MemberId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status};

const CLUSTER: &str = "trireme-cluster";
const FROM: &str = "trireme-from";
const TO: &str = "trireme-to";

/// The same refusal is logged once in so long.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Refused senders that are remembered for that.
const LOGGED_MAX: usize = 64;

/// Signs calls to one member.
#[derive(Clone)]
pub struct Outgoing {
    cluster: MetadataValue<Ascii>,
    from: MetadataValue<Ascii>,
    to: MetadataValue<Ascii>,
}

impl Outgoing {
    /// None when the cluster's id cannot stand in a header.
    pub fn new(cluster_id: &str, from: MemberId, to: MemberId) -> Option<Self> {
        Some(Outgoing {
            cluster: cluster_id.parse().ok()?,
            from: from.into(),
            to: to.into(),
        })
    }
}

impl tonic::service::Interceptor for Outgoing {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER, self.cluster.clone());
        metadata.insert(FROM, self.from.clone());
        metadata.insert(TO, self.to.clone());
        Ok(request)
    }
}

/// Checks the calls of others.
#[derive(Clone)]
pub struct Incoming {
    cluster_id: Arc<str>,
    member_id: MemberId,
    logged: Arc<Mutex<BTreeMap<String, Instant>>>,
}

impl Incoming {
    /// Lets in what is meant for this member of this cluster.
    pub fn new(cluster_id: &str, member_id: MemberId) -> Self {
        Incoming {
            cluster_id: cluster_id.into(),
            member_id,
            logged: Arc::default(),
        }
    }

    fn check(&self, request: &Request<()>) -> Result<(), String> {
        let field = |name| {
            request
                .metadata()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or("nothing")
        };
        let from = field(FROM);
        let cluster = field(CLUSTER);
        if cluster != &*self.cluster_id {
            return Err(format!(
                "member {from} belongs to cluster {cluster}, this is cluster {}; \
                 check the peer addresses; a member of a cluster from before a restore or recovery must join anew",
                self.cluster_id
            ));
        }
        let to = field(TO);
        if to != self.member_id.to_string() {
            return Err(format!(
                "member {from} calls member {to}, this is member {}; check the members' peer addresses",
                self.member_id
            ));
        }
        // A simulated call comes over no connection.
        if let (Some(meter), Ok(from)) = (request.extensions().get::<Meter>(), from.parse()) {
            meter.belongs_to(from);
        }
        Ok(())
    }

    fn log(&self, refusal: &str) {
        let now = Instant::now();
        let mut logged = self.logged.lock().expect("no holder of the lock panics");
        let is_new = logged
            .get(refusal)
            .is_none_or(|last| now - *last >= LOG_EVERY);
        if is_new {
            if logged.len() >= LOGGED_MAX {
                logged.clear();
            }
            logged.insert(refusal.to_owned(), now);
            tracing::warn!(%refusal, "a call to the members' port was refused");
        }
    }
}

impl tonic::service::Interceptor for Incoming {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        match self.check(&request) {
            Ok(()) => Ok(request),
            Err(refusal) => {
                self.log(&refusal);
                Err(Status::permission_denied(refusal))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::service::Interceptor;

    fn call(cluster: &str, to: MemberId) -> Result<(), String> {
        let mut incoming = Incoming::new("c1", 2);
        let request = Outgoing::new(cluster, 1, to)
            .expect("the id fits")
            .call(Request::new(()))
            .expect("it only signs");
        incoming
            .call(request)
            .map(|_| ())
            .map_err(|status| status.message().to_owned())
    }

    #[test]
    fn only_calls_meant_for_this_member_of_this_cluster_pass() {
        assert_eq!(call("c1", 2), Ok(()));
        let other_cluster = call("c0", 2).expect_err("another cluster is refused");
        assert!(
            other_cluster.contains("cluster c0") && other_cluster.contains("cluster c1"),
            "{other_cluster}"
        );
        let other_member = call("c1", 3).expect_err("another member is refused");
        assert!(
            other_member.contains("calls member 3, this is member 2"),
            "{other_member}"
        );
        let unsigned = Incoming::new("c1", 2).call(Request::new(()));
        assert_eq!(
            unsigned.err().map(|status| status.code()),
            Some(tonic::Code::PermissionDenied)
        );
    }
}
