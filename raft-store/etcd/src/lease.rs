//! The Lease service. Any member answers; only the leader's clock tells the leases' time.

use crate::clock;
use crate::error::{LEASE_TTL_TOO_LARGE, status_of};
use crate::header::Headers;
use crate::leader::{Guarded, Hearing};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use mvcc::{LeaseId, StoreError};
use raft_store::RaftStore;
use rpc::etcd::etcdserverpb as pb;
use rpc::etcd::etcdserverpb::lease_server::Lease;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// The longest time to live, in seconds: etcd's bound, 285 years.
const TTL_MAX: i64 = 9_000_000_000;
/// The shortest: an election must fit, or a lease would end before its holder could be heard again. Etcd's with its defaults.
const TTL_MIN: i64 = 2;

/// The Lease service of one member.
pub struct LeaseService {
    pub store: RaftStore,
    pub headers: Headers,
    pub hearing: Hearing,
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let pb::LeaseGrantRequest { ttl, id } = request.into_inner();
        if ttl > TTL_MAX {
            return Err(LEASE_TTL_TOO_LARGE.into());
        }
        let id = match id {
            0 => clock::lease_id(),
            id => LeaseId(id),
        };
        let ttl_ms = ttl.max(TTL_MIN).unsigned_abs() * 1000;
        let ttl_ms = self
            .store
            .lease_grant(id, ttl_ms)
            .await
            .map_err(status_of)?;
        Ok(Response::new(pb::LeaseGrantResponse {
            header: self.headers.now(),
            id: id.0,
            ttl: seconds(ttl_ms),
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let id = LeaseId(request.into_inner().id);
        self.store.lease_revoke(id).await.map_err(status_of)?;
        Ok(Response::new(pb::LeaseRevokeResponse {
            header: self.headers.now(),
        }))
    }

    type LeaseKeepAliveStream =
        Guarded<BoxStream<'static, Result<pb::LeaseKeepAliveResponse, Status>>>;

    /// One after the other: a client that sends faster than the store answers waits.
    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let state = (self.store.clone(), self.headers.clone());
        let (metadata, _, requests) = request.into_parts();
        let answers = stream::unfold(Some((requests, state)), |running| async move {
            let (mut requests, (store, headers)) = running?;
            let answer = match requests.message().await.transpose()? {
                Ok(request) => keep_alive(&store, &headers, LeaseId(request.id)).await,
                Err(status) => Err(status),
            };
            let after = answer.is_ok().then_some((requests, (store, headers)));
            Some((answer, after))
        });
        // A client keeps its stream for as long as it lives; a member that leaves does not wait for that.
        let answers = answers.take_until(self.stop.clone().cancelled_owned());
        let answers = self.hearing.guard(&metadata, answers.boxed());
        Ok(Response::new(answers))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let life = self.store.lease_life(LeaseId(id), keys).await;
        let answer = match life.map_err(status_of)? {
            Some(life) => pb::LeaseTimeToLiveResponse {
                header: self.headers.now(),
                id,
                ttl: seconds(life.remaining_ms),
                granted_ttl: seconds(life.ttl_ms),
                keys: life.keys,
            },
            None => pb::LeaseTimeToLiveResponse {
                header: self.headers.now(),
                id,
                ttl: -1,
                ..pb::LeaseTimeToLiveResponse::default()
            },
        };
        Ok(Response::new(answer))
    }

    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let leases = self.store.leases().await.map_err(status_of)?;
        Ok(Response::new(pb::LeaseLeasesResponse {
            header: self.headers.now(),
            leases: leases
                .into_iter()
                .map(|lease| pb::LeaseStatus { id: lease.id.0 })
                .collect(),
        }))
    }
}

/// A lease that does not exist is told by a time to live of 0, as in etcd.
async fn keep_alive(
    store: &RaftStore,
    headers: &Headers,
    id: LeaseId,
) -> Result<pb::LeaseKeepAliveResponse, Status> {
    let ttl = match store.lease_keep_alive(id).await {
        Ok(ttl_ms) => seconds(ttl_ms),
        Err(StoreError::LeaseNotFound) => 0,
        Err(err) => return Err(status_of(err)),
    };
    Ok(pb::LeaseKeepAliveResponse {
        header: headers.now(),
        id: id.0,
        ttl,
    })
}

fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1000).unwrap_or(i64::MAX)
}
