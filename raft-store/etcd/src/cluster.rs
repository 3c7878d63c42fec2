//! The Cluster service over the store's own membership: a member that is added learns first and votes when it has caught up,
//! by itself, unless it was added as a learner; a change that would lose the quorum is refused.

use crate::error::{
    BAD_MEMBER_URLS, MEMBER_NOT_FOUND, MEMBER_NOT_LEARNER, membership_status, status_of,
};
use crate::header::Headers;
use objects::cluster::{Member, MemberAdd};
use raft_store::{MembershipError, RaftStore};
use rpc::etcd::etcdserverpb as pb;
use rpc::etcd::etcdserverpb::cluster_server::Cluster;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status};

/// How long a learner that is asked to vote may take to catch up.
const PROMOTE_MAX: Duration = Duration::from_secs(3);
const PROMOTE_LOOK: Duration = Duration::from_millis(50);

/// The Cluster service of one member.
pub struct ClusterService {
    pub store: RaftStore,
    pub headers: Headers,
    pub urls: Urls,
}

/// How members are told to clients. Every member serves this API on the same port, each on the host at which its peers
/// reach it.
#[derive(Clone, Copy, Debug)]
pub struct Urls {
    pub is_tls: bool,
    pub port: u16,
}

impl Urls {
    fn scheme(self) -> &'static str {
        match self.is_tls {
            true => "https",
            false => "http",
        }
    }

    fn member(self, member: Member) -> pb::Member {
        let scheme = self.scheme();
        let host = member.peer_address.rsplit_once(':').map(|(host, _)| host);
        let client_url = host.map(|host| format!("{scheme}://{host}:{}", self.port));
        pb::Member {
            id: member.id,
            name: member.name,
            peer_ur_ls: vec![format!("{scheme}://{}", member.peer_address)],
            client_ur_ls: client_url.into_iter().collect(),
            is_learner: !member.voter,
        }
    }
}

impl ClusterService {
    fn members(&self) -> Vec<pb::Member> {
        let members = self.store.members().into_iter();
        members.map(|member| self.urls.member(member)).collect()
    }

    fn find(&self, id: u64) -> Result<Member, Status> {
        let mut members = self.store.members().into_iter();
        let found = members.find(|member| member.id == id);
        found.ok_or_else(|| MEMBER_NOT_FOUND.into())
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let request = request.into_inner();
        let peer_address = peer_address(&request.peer_ur_ls)?;
        // etcd knows a member's name only when it starts; the store wants one now, and its address is one that nobody else has.
        let member = MemberAdd {
            name: peer_address.clone(),
            peer_address,
            api_url: String::new(),
        };
        let added = match request.is_learner {
            true => self.store.add_learner(member).await,
            false => self.store.add_member(member).await,
        };
        let added = added.map_err(|error| membership_status(&error))?;
        Ok(Response::new(pb::MemberAddResponse {
            header: self.headers.now(),
            member: Some(self.urls.member(added)),
            members: self.members(),
        }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let member = self.find(request.into_inner().id)?;
        let removed = self.store.remove_member(&member.name).await;
        removed.map_err(|error| membership_status(&error))?;
        Ok(Response::new(pb::MemberRemoveResponse {
            header: self.headers.now(),
            members: self.members(),
        }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let request = request.into_inner();
        let peer_address = peer_address(&request.peer_ur_ls)?;
        let updated = self.store.update_member(request.id, &peer_address).await;
        updated.map_err(|error| membership_status(&error))?;
        Ok(Response::new(pb::MemberUpdateResponse {
            header: self.headers.now(),
            members: self.members(),
        }))
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.store.barrier().await.map_err(status_of)?;
        }
        Ok(Response::new(pb::MemberListResponse {
            header: self.headers.now(),
            members: self.members(),
        }))
    }

    /// Waits a while for a learner that is about to have caught up.
    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let id = request.into_inner().id;
        if self.find(id)?.voter {
            return Err(MEMBER_NOT_LEARNER.into());
        }
        let deadline = Instant::now() + PROMOTE_MAX;
        loop {
            match self.store.promote_member(id).await {
                // It was promoted meanwhile, by itself.
                Ok(_) | Err(MembershipError::VotesAlready(_)) => break,
                Err(MembershipError::NotCaughtUp(_)) if Instant::now() < deadline => {}
                Err(error) => return Err(membership_status(&error)),
            }
            sleep(PROMOTE_LOOK).await;
        }
        Ok(Response::new(pb::MemberPromoteResponse {
            header: self.headers.now(),
            members: self.members(),
        }))
    }
}

/// `host:port` of the one URL that a member has.
fn peer_address(urls: &[String]) -> Result<String, Status> {
    let parse = || {
        let [url] = urls else {
            return None;
        };
        let uri: tonic::transport::Uri = url.parse().ok()?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let (host, port) = (uri.host()?, uri.port_u16()?);
        is_http.then(|| format!("{host}:{port}"))
    };
    parse().ok_or_else(|| BAD_MEMBER_URLS.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_url_has_scheme_host_and_port() {
        let address = |urls: &[&str]| {
            let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
            peer_address(&urls).ok()
        };
        assert_eq!(
            address(&["https://10.0.0.4:2380"]),
            Some("10.0.0.4:2380".to_owned())
        );
        assert_eq!(
            address(&["http://[::1]:2380"]),
            Some("[::1]:2380".to_owned())
        );
        for bad in [
            &[][..],
            &["10.0.0.4:2380"],
            &["http://10.0.0.4"],
            &["unix://x:1"],
            &["http://a:1", "http://b:1"],
        ] {
            assert_eq!(address(bad), None, "{bad:?}");
        }
    }
}
