//! The Maintenance service: how a member is, its hashes, its state as a file, and handing leadership over.

use crate::error::{
    BAD_LEADER_TRANSFEREE, INVALID_DOWNGRADE_TARGET, NO_INFLIGHT_DOWNGRADE, NO_LEADER, NOT_LEADER,
    membership_status, status_of,
};
use crate::front::is_learner;
use crate::header::{Headers, signed};
use crate::{API_VERSION, bolt};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use objects::Revision;
use objects::cluster::Alarm;
use raft_store::RaftStore;
use rpc::etcd::etcdserverpb as pb;
use rpc::etcd::etcdserverpb::maintenance_server::Maintenance;
use sha2::{Digest, Sha256};
use tonic::{Request, Response, Status};

/// The Maintenance service of one member.
pub struct MaintenanceService {
    pub store: RaftStore,
    pub headers: Headers,
}

impl MaintenanceService {
    /// Whether this member's disk is full, without asking the others.
    fn own_alarms(&self) -> Vec<pb::AlarmMember> {
        let is_full = self.store.local_status().is_full;
        let alarm = pb::AlarmMember {
            member_id: self.headers.member_id(),
            alarm: pb::AlarmType::Nospace.into(),
        };
        is_full.then_some(alarm).into_iter().collect()
    }

    /// The alarms of all members that are raised now; etcd has none for a slow disk.
    async fn alarms(&self) -> Vec<pb::AlarmMember> {
        let raised = self.store.alarms().await;
        let known = raised.into_iter().filter_map(|(member_id, alarm)| {
            let alarm = match alarm {
                Alarm::NoSpace => pb::AlarmType::Nospace.into(),
                Alarm::Corrupt => pb::AlarmType::Corrupt.into(),
                Alarm::SlowDisk => return None,
            };
            Some(pb::AlarmMember { member_id, alarm })
        });
        known.collect()
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    /// Alarms are raised by the store when it sees the trouble and end with it: there is none to set or to disarm by hand.
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        use pb::alarm_request::AlarmAction;
        let request = request.into_inner();
        let is_asked = |alarm: &pb::AlarmMember| {
            (request.member_id == 0 || request.member_id == alarm.member_id)
                && (request.alarm() == pb::AlarmType::None || request.alarm == alarm.alarm)
        };
        let alarms = match request.action() {
            AlarmAction::Get => {
                let raised = self.alarms().await;
                raised.into_iter().filter(is_asked).collect()
            }
            AlarmAction::Deactivate => {
                tracing::info!(
                    "an etcd client disarmed alarms: they end by themselves with their cause"
                );
                vec![]
            }
            AlarmAction::Activate => {
                return Err(Status::unimplemented(
                    "alarms are raised by the store itself, when it sees their cause",
                ));
            }
        };
        Ok(Response::new(pb::AlarmResponse {
            header: self.headers.now(),
            alarms,
        }))
    }

    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let status = self.store.local_status();
        let mut errors: Vec<String> = self
            .own_alarms()
            .iter()
            .map(|alarm| {
                format!(
                    "memberID:{} alarm:{} ",
                    alarm.member_id,
                    alarm.alarm().as_str_name()
                )
            })
            .collect();
        if status.leader.is_none() {
            errors.push(NO_LEADER.text().to_owned());
        }
        let size = i64::try_from(status.db_size_bytes).unwrap_or(i64::MAX);
        Ok(Response::new(pb::StatusResponse {
            header: self.headers.at(status.revision),
            version: API_VERSION.to_owned(),
            db_size: size,
            leader: status.leader.unwrap_or(0),
            raft_index: status.last_log_index,
            raft_term: status.term,
            raft_applied_index: status.applied_index,
            errors,
            db_size_in_use: size,
            is_learner: is_learner(&self.store),
            ..pb::StatusResponse::default()
        }))
    }

    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        tracing::info!(
            "an etcd client asked to defragment: nothing to do, space is given back in the background"
        );
        Ok(Response::new(pb::DefragmentResponse {
            header: self.headers.now(),
        }))
    }

    async fn hash(
        &self,
        _: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        let (revision, hash) = self.store.fingerprint().await.map_err(status_of)?;
        Ok(Response::new(pb::HashResponse {
            header: self.headers.at(revision),
            hash,
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let asked = u64::try_from(request.into_inner().revision).unwrap_or(0);
        let revision = Some(Revision(asked)).filter(|revision| *revision != Revision(0));
        let hash = self.store.hash_at(revision).await.map_err(status_of)?;
        let compacted = match hash.compacted {
            // etcd's word for a store that was never compacted.
            Revision(0) => -1,
            compacted => signed(compacted),
        };
        Ok(Response::new(pb::HashKvResponse {
            header: self.headers.now(),
            hash: hash.hash,
            compact_revision: compacted,
            hash_revision: signed(hash.revision),
        }))
    }

    type SnapshotStream = BoxStream<'static, Result<pb::SnapshotResponse, Status>>;

    /// A database file as etcd's own, from which an etcd can be restored, and the SHA-256 that etcdctl looks for behind it. What a
    /// cluster of this store is restored from, its keys included, only `ctl snapshot` saves.
    async fn snapshot(
        &self,
        _: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        // No entry that is applied later is in the file, so that it may say an older index, and never a newer one.
        let applied = self.store.local_status().applied_index;
        let chunks = self
            .store
            .export(move |view, out| bolt::write_state(view, applied, out));
        let chunks = chunks.await.map_err(status_of)?;
        let headers = self.headers.clone();
        let hash = Some(Sha256::new());
        let pieces = stream::unfold((chunks.boxed(), hash), |(mut chunks, hash)| async move {
            let mut hash = hash?;
            match chunks.next().await {
                Some(Ok(chunk)) => {
                    hash.update(&chunk);
                    Some((Ok(chunk), (chunks, Some(hash))))
                }
                Some(Err(error)) => {
                    let failed = Status::unavailable(format!(
                        "etcdserver: the snapshot was not finished: {error}"
                    ));
                    Some((Err(failed), (chunks, None)))
                }
                None => Some((Ok(Bytes::copy_from_slice(&hash.finalize())), (chunks, None))),
            }
        });
        let answers = pieces.map(move |piece| {
            Ok(pb::SnapshotResponse {
                header: headers.now(),
                remaining_bytes: 0,
                blob: piece?,
                version: API_VERSION.to_owned(),
            })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let target = request.into_inner().target_id;
        if self.store.local_status().leader != Some(self.headers.member_id()) {
            return Err(NOT_LEADER.into());
        }
        let members = self.store.members();
        let target = members
            .iter()
            .find(|member| member.id == target && member.voter);
        let target = target.ok_or_else(|| Status::from(BAD_LEADER_TRANSFEREE))?;
        let moved = self.store.transfer_leadership(Some(&target.name)).await;
        moved.map_err(|error| membership_status(&error))?;
        Ok(Response::new(pb::MoveLeaderResponse {
            header: self.headers.now(),
        }))
    }

    /// There is no older version of this store to go back to.
    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        use pb::downgrade_request::DowngradeAction;
        match request.into_inner().action() {
            DowngradeAction::Validate | DowngradeAction::Enable => {
                Err(INVALID_DOWNGRADE_TARGET.into())
            }
            DowngradeAction::Cancel => Err(NO_INFLIGHT_DOWNGRADE.into()),
        }
    }
}
