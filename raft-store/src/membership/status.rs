//! How each member is: what it tells of itself, and what is known of one that does not answer.

use super::members;
use crate::net::Purpose;
use crate::store::{Inner, RaftStore, compare, is_slow};
use crate::types::MemberId;
use mvcc::StoreError;
use objects::cluster::{Alarm, ClusterStatus, Member, MemberCheck, MemberFigures, MemberStatus};
use openraft::ServerState;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use rpc::raft as proto;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::timeout;

/// How long a member may take to tell its status.
const STATUS_MAX: Duration = Duration::from_millis(800);

/// What a member tells of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OwnStatus {
    term: u64,
    pub last_log_index: Option<u64>,
    applied_index: Option<u64>,
    revision: u64,
    db_size_bytes: u64,
    problem: Option<String>,
    #[serde(default)]
    pub alarms: Vec<Alarm>,
    #[serde(default)]
    figures: MemberFigures,
}

impl RaftStore {
    /// How each member is, asked of each itself.
    pub async fn status(&self) -> ClusterStatus {
        let inner = &self.inner;
        let leader = inner.raft.current_leader().await;
        let asked = members(&inner.raft)
            .into_iter()
            .map(|member| ask_status(inner, member, leader));
        let members = futures::future::join_all(asked).await;
        let term = self.leader_state().term.0;
        ClusterStatus {
            cluster_id: inner.identity.cluster_id.clone(),
            term,
            leader,
            members,
        }
    }

    /// What is wrong with the disks and data of the members, as far as they answer.
    pub async fn alarms(&self) -> Vec<(MemberId, Alarm)> {
        let statuses = ask_all(&self.inner).await;
        let raised = statuses.into_iter().flat_map(|(member, status)| {
            let alarms = status.map(|status| status.alarms).unwrap_or_default();
            alarms.into_iter().map(move |alarm| (member.id, alarm))
        });
        raised.collect()
    }

    /// Compares the data of all members now, as is also done now and then. A member that differs from the majority is fed
    /// again when this one leads.
    pub async fn compare_members(&self) -> Result<Vec<MemberCheck>, StoreError> {
        compare(&self.inner).await
    }
}

/// What this member tells of itself.
pub(crate) fn own_status(inner: &Inner) -> OwnStatus {
    // First, since the consensus waits while its numbers are looked at.
    let figures = crate::figures::figures(inner).told();
    let metrics = inner.raft.metrics();
    let metrics = metrics.borrow_watched();
    let problem = match (
        &metrics.running_state,
        metrics.state,
        metrics.current_leader,
    ) {
        (Err(fatal), ..) => Some(format!("the consensus stopped: {fatal}")),
        (_, ServerState::Shutdown, _) => Some("the member is shutting down".to_owned()),
        (_, _, None) => Some("the member knows no leader".to_owned()),
        _ => own_trouble(inner),
    };
    let applied = *inner.applied.borrow();
    OwnStatus {
        term: metrics.current_term,
        last_log_index: metrics.last_log_index,
        applied_index: applied.log_id.map(|log_id| log_id.index),
        revision: applied.revision.0,
        db_size_bytes: inner.db.size_bytes(),
        problem,
        alarms: own_alarms(inner),
        figures,
    }
}

fn own_alarms(inner: &Inner) -> Vec<Alarm> {
    let alarms = [
        (Alarm::NoSpace, inner.space.is_full()),
        (Alarm::Corrupt, inner.damage().is_some()),
        (Alarm::SlowDisk, is_slow(inner)),
    ];
    let raised = alarms.into_iter().filter(|(_, is_raised)| *is_raised);
    raised.map(|(alarm, _)| alarm).collect()
}

fn own_trouble(inner: &Inner) -> Option<String> {
    if let Some(reason) = inner.damage() {
        return Some(format!("its data are damaged: {reason}"));
    }
    if inner.space.is_full() {
        return Some("the disk is full: puts are refused, deletes are taken".to_owned());
    }
    is_slow(inner).then(|| "the disk is slow".to_owned())
}

/// Asks all members how they are, each itself; Err tells why one does not answer.
pub(crate) async fn ask_all(inner: &Inner) -> Vec<(Member, Result<OwnStatus, String>)> {
    let asked = members(&inner.raft).into_iter().map(async |member| {
        let status = ask_one(inner, &member).await;
        (member, status)
    });
    futures::future::join_all(asked).await
}

async fn ask_one(inner: &Inner, member: &Member) -> Result<OwnStatus, String> {
    match member.id == inner.identity.member_id {
        true => Ok(own_status(inner)),
        false => ask_other(inner, member).await,
    }
}

async fn ask_status(inner: &Inner, member: Member, leader: Option<MemberId>) -> MemberStatus {
    let own = ask_one(inner, &member).await;
    let leader = leader == Some(member.id);
    let known_corrupt = inner.health.corrupt(member.id);
    match own {
        Ok(own) => MemberStatus {
            member,
            leader,
            healthy: own.problem.is_none(),
            last_log_index: own.last_log_index,
            applied_index: own.applied_index,
            revision: Some(own.revision),
            db_size_bytes: Some(own.db_size_bytes),
            problem: own.problem.or(known_corrupt),
            alarms: own.alarms,
            figures: Some(own.figures),
        },
        Err(problem) => MemberStatus {
            member,
            leader,
            healthy: false,
            last_log_index: None,
            applied_index: None,
            revision: None,
            db_size_bytes: None,
            problem: Some(known_corrupt.clone().unwrap_or(problem)),
            alarms: known_corrupt.map(|_| Alarm::Corrupt).into_iter().collect(),
            figures: None,
        },
    }
}

/// Asks another member how it is; Err tells why it does not answer.
pub(super) async fn ask_other(inner: &Inner, member: &Member) -> Result<OwnStatus, String> {
    let mut client = inner
        .peers
        .client(member.id, &member.peer_address, Purpose::Forward);
    match timeout(STATUS_MAX, client.status(proto::StatusRequest {})).await {
        Ok(Ok(response)) => {
            serde_json::from_slice(&response.into_inner().json).map_err(|err| err.to_string())
        }
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => {
            inner.peers.reset(member.id, Purpose::Forward);
            Err(format!("it did not answer within {STATUS_MAX:?}"))
        }
    }
}
