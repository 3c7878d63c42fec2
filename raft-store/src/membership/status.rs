//! How each member is: what it tells of itself, and what is known of one that does not answer.

use super::members;
use crate::net::Purpose;
use crate::store::{Inner, RaftStore};
use crate::types::MemberId;
use objects::cluster::{ClusterStatus, Member, MemberStatus};
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
    last_log_index: Option<u64>,
    applied_index: Option<u64>,
    revision: u64,
    db_size_bytes: u64,
    problem: Option<String>,
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
}

/// What this member tells of itself.
pub(crate) fn own_status(inner: &Inner) -> OwnStatus {
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
        _ if inner.space.is_full() => Some("the disk is full".to_owned()),
        _ => None,
    };
    let applied = *inner.applied.borrow();
    OwnStatus {
        term: metrics.current_term,
        last_log_index: metrics.last_log_index,
        applied_index: applied.log_id.map(|log_id| log_id.index),
        revision: applied.revision.0,
        db_size_bytes: inner.db.size_bytes(),
        problem,
    }
}

async fn ask_status(inner: &Inner, member: Member, leader: Option<MemberId>) -> MemberStatus {
    let own = match member.id == inner.identity.member_id {
        true => Ok(own_status(inner)),
        false => ask_other(inner, &member).await,
    };
    let leader = leader == Some(member.id);
    match own {
        Ok(own) => MemberStatus {
            member,
            leader,
            healthy: own.problem.is_none(),
            last_log_index: own.last_log_index,
            applied_index: own.applied_index,
            revision: Some(own.revision),
            db_size_bytes: Some(own.db_size_bytes),
            problem: own.problem,
        },
        Err(problem) => MemberStatus {
            member,
            leader,
            healthy: false,
            last_log_index: None,
            applied_index: None,
            revision: None,
            db_size_bytes: None,
            problem: Some(problem),
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
