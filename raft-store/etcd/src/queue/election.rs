//! The Election service: a lock with a value that everybody may see.

use super::{Place, created, holder, leave, prefix_of};
use crate::error::status_of;
use crate::header::Headers;
use crate::leader::{Guarded, Hearing};
use crate::to_proto;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use mvcc::{
    Event, KeyRange, KeyValue, LeaseId, Op, Store, StoreError, Txn, WatchRequest, WatchStream,
};
use objects::Revision;
use raft_store::RaftStore;
use rpc::etcd::v3electionpb as pb;
use rpc::etcd::v3electionpb::election_server::Election;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// The Election service of one member.
pub struct ElectionService {
    pub store: RaftStore,
    pub headers: Headers,
    pub hearing: Hearing,
    pub stop: CancellationToken,
}

impl ElectionService {
    /// Changes the leader's value, if it leads; returns the revision.
    async fn proclaim_as(
        &self,
        (key, rev): (&Bytes, Revision),
        lease: LeaseId,
        value: Bytes,
    ) -> Result<Revision, Status> {
        let put = Op::Put {
            key: key.clone(),
            value,
            lease,
            prev_kv: false,
        };
        let txn = Txn {
            compare: vec![created(key, rev)],
            success: vec![put],
            ..Txn::default()
        };
        let response = self.store.txn(txn).await.map_err(status_of)?;
        match response.succeeded {
            true => Ok(response.revision),
            false => Err(Status::unknown("election: not leader")),
        }
    }
}

#[tonic::async_trait]
impl Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<pb::CampaignRequest>,
    ) -> Result<Response<pb::CampaignResponse>, Status> {
        let pb::CampaignRequest { name, lease, value } = request.into_inner();
        let (place, before) = Place::enter(&self.store, &name, lease, value.clone()).await?;
        if before.is_some_and(|before| before.value != value) {
            let own = (&place.key, place.revision);
            self.proclaim_as(own, place.lease, value).await?;
        }
        place.first_until(&self.stop).await?;
        Ok(Response::new(pb::CampaignResponse {
            header: self.headers.now(),
            leader: Some(pb::LeaderKey {
                name,
                key: place.key,
                rev: crate::header::signed(place.revision),
                lease: place.lease.0,
            }),
        }))
    }

    async fn proclaim(
        &self,
        request: Request<pb::ProclaimRequest>,
    ) -> Result<Response<pb::ProclaimResponse>, Status> {
        let pb::ProclaimRequest { leader, value } = request.into_inner();
        let leader = leader.ok_or_else(no_leader_given)?;
        let own = (&leader.key, revision_of(&leader));
        let revision = self.proclaim_as(own, LeaseId(leader.lease), value).await?;
        Ok(Response::new(pb::ProclaimResponse {
            header: self.headers.at(revision),
        }))
    }

    async fn leader(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<pb::LeaderResponse>, Status> {
        let prefix = prefix_of(&request.into_inner().name);
        let (leader, revision) = holder(&self.store, &prefix).await?;
        let leader = leader.ok_or_else(|| Status::unknown("election: no leader"))?;
        Ok(Response::new(told(&self.headers, leader, revision)))
    }

    type ObserveStream = Guarded<BoxStream<'static, Result<pb::LeaderResponse, Status>>>;

    async fn observe(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let (metadata, _, request) = request.into_parts();
        let observing = Observing {
            store: self.store.clone(),
            prefix: prefix_of(&request.name),
            told_at: Revision(0),
            changes: None,
        };
        let headers = self.headers.clone();
        let leaders = stream::unfold(Some(observing), |observing| async move {
            let mut observing = observing?;
            let next = observing.next().await;
            let after = next.is_ok().then_some(observing);
            Some((next, after))
        });
        let leaders = leaders.take_until(self.stop.clone().cancelled_owned());
        let leaders = leaders.map(move |next| {
            let (leader, revision) = next?;
            Ok(told(&headers, leader, revision))
        });
        Ok(Response::new(
            self.hearing.guard(&metadata, leaders.boxed()),
        ))
    }

    async fn resign(
        &self,
        request: Request<pb::ResignRequest>,
    ) -> Result<Response<pb::ResignResponse>, Status> {
        let leader = request.into_inner().leader.ok_or_else(no_leader_given)?;
        let left = leave(&self.store, &leader.key, revision_of(&leader)).await;
        let revision = left.map_err(status_of)?.revision;
        Ok(Response::new(pb::ResignResponse {
            header: self.headers.at(revision),
        }))
    }
}

/// Who looks on.
struct Observing {
    store: RaftStore,
    prefix: Bytes,
    /// The revision of the last leader's value that was told.
    told_at: Revision,
    changes: Option<WatchStream>,
}

impl Observing {
    /// The next leader, or the next value of the same one. Whatever changes in the line, who leads is looked up.
    async fn next(&mut self) -> Result<(KeyValue, Revision), Status> {
        loop {
            let (leader, revision) = holder(&self.store, &self.prefix).await?;
            if self.changes.is_none() {
                let request = WatchRequest {
                    range: KeyRange::prefix(self.prefix.clone()),
                    start: revision.next(),
                };
                let changes = self.store.watch(request).await.map_err(status_of)?;
                self.changes = Some(changes);
            }
            if let Some(leader) = leader
                && leader.mod_revision != self.told_at
            {
                self.told_at = leader.mod_revision;
                return Ok((leader, revision));
            }
            self.wait().await?;
        }
    }

    /// Waits for a change in the line.
    async fn wait(&mut self) -> Result<(), Status> {
        let Some(changes) = &mut self.changes else {
            return Ok(());
        };
        while let Some(batch) = changes.next().await {
            let events: Vec<std::sync::Arc<Event>> = match batch {
                Ok(batch) => batch.events,
                Err(StoreError::SlowWatcher | StoreError::Compacted { .. }) => {
                    self.changes = None;
                    return Ok(());
                }
                Err(error) => return Err(status_of(error)),
            };
            if !events.is_empty() {
                return Ok(());
            }
        }
        Err(status_of(StoreError::ShuttingDown))
    }
}

fn told(headers: &Headers, leader: KeyValue, revision: Revision) -> pb::LeaderResponse {
    pb::LeaderResponse {
        header: headers.at(revision),
        kv: Some(to_proto::key_value(leader)),
    }
}

fn revision_of(leader: &pb::LeaderKey) -> Revision {
    Revision(u64::try_from(leader.rev).unwrap_or(0))
}

fn no_leader_given() -> Status {
    Status::unknown("\"leader\" field must be provided")
}
