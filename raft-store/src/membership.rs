//! Who the members are: beginning a cluster, adding, removing and replacing members, handing leadership over, status.
//!
//! A new member first learns and votes only when it caught up, which the leader does by itself. Ids are never used again. A
//! change that would leave too few live voters for a quorum is refused.

use crate::net::Purpose;
use crate::store::{Inner, RaftStore, matched};
use crate::types::{MemberId, Node, Raft};
use objects::cluster::{ClusterStatus, Member, MemberAdd, MemberStatus};
use openraft::errors::{ClientWriteError, RaftError};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use openraft::{ChangeMembers, Instant as _, ServerState};
use rpc::raft as proto;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long a member may take to tell its status.
const STATUS_MAX: Duration = Duration::from_millis(800);
/// How long a change of the members may take.
const CHANGE_MAX: Duration = Duration::from_secs(15);
/// How long a change may wait for the one before it.
const TURN_MAX: Duration = Duration::from_secs(5);
/// How long a hand-over may take before it is given up.
const TRANSFER_MAX: Duration = Duration::from_secs(3);
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// A voter that was not heard for so many of the longest election timeouts counts as gone.
const GONE_AFTER_ELECTIONS: u32 = 2;
/// A learner so few entries behind has caught up.
const CAUGHT_UP_ENTRIES: u64 = 100;

/// Why the members were not changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MembershipError {
    /// The cluster exists already.
    #[error("the cluster has members already; a new member joins it")]
    AlreadyBegun,
    /// The name is taken.
    #[error("a member named {0} exists already; remove it first or choose another name")]
    NameTaken(String),
    /// The address is taken.
    #[error("the member {0} has the address {1} already; remove it first")]
    AddressTaken(String, String),
    /// Nobody has that name or id.
    #[error("no member has the name or id {0}")]
    Unknown(String),
    /// The change would lose the quorum.
    #[error(
        "removing {name} would leave {healthy} reachable voters of {voters}, fewer than the {quorum} that a quorum needs; \
         bring a member back or add one first"
    )]
    WouldLoseQuorum {
        /// Who was to go.
        name: String,
        /// The voters that would be left and are reachable.
        healthy: usize,
        /// The voters that would be left.
        voters: usize,
        /// How many of them a quorum needs.
        quorum: usize,
    },
    /// The last member.
    #[error("{0} is the only voter; a cluster cannot be without one")]
    LastVoter(String),
    /// Another change is under way.
    #[error("another change of the members is under way; try again when it is done")]
    InProgress,
    /// Leadership was not handed over.
    #[error("leadership was not handed over: {0}")]
    NotTransferred(String),
    /// No leader or no quorum.
    #[error("the members cannot be changed now: {0}")]
    Unavailable(String),
}

/// A change as it is handed to the leader.
#[derive(Debug, Serialize, Deserialize)]
enum Change {
    Add(MemberAdd),
    Remove(String),
    Transfer(Option<String>),
}

/// What the leader answers: Err(None) when it does not lead.
type Answer = Result<Option<Member>, Option<MembershipError>>;

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
    /// Begins a new cluster with this member alone.
    pub async fn bootstrap(&self) -> Result<(), MembershipError> {
        let inner = &self.inner;
        let members = BTreeMap::from([(inner.identity.member_id, inner.node())]);
        match inner.raft.initialize(members).await {
            Ok(()) => self.wait_for_leader().await,
            Err(RaftError::APIError(_)) => Err(MembershipError::AlreadyBegun),
            Err(err) => Err(MembershipError::Unavailable(err.to_string())),
        }
    }

    /// Admits a member that is about to start with an empty data folder; it learns first and votes when it caught up. Its
    /// id is in the answer.
    pub async fn add_member(&self, member: MemberAdd) -> Result<Member, MembershipError> {
        let answer = self.change(Change::Add(member)).await?;
        answer.ok_or_else(|| {
            MembershipError::Unavailable("the leader answered without the member".to_owned())
        })
    }

    /// Removes a member by its name or id. A leader that is to go hands over first.
    pub async fn remove_member(&self, name_or_id: &str) -> Result<(), MembershipError> {
        self.change(Change::Remove(name_or_id.to_owned()))
            .await
            .map(|_| ())
    }

    /// Hands leadership to the named member, or to the one that is furthest.
    pub async fn transfer_leadership(&self, to: Option<&str>) -> Result<(), MembershipError> {
        self.change(Change::Transfer(to.map(str::to_owned)))
            .await
            .map(|_| ())
    }

    /// The members, as this one knows them.
    pub fn members(&self) -> Vec<Member> {
        members(&self.inner.raft)
    }

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

    /// Leaves in order: hands leadership over, then stops.
    pub async fn shutdown(self) {
        let inner = self.inner.clone();
        let is_leader = inner.raft.current_leader().await == Some(inner.identity.member_id);
        if is_leader
            && has_other_voter(&inner)
            && let Err(err) = transfer_here(&inner, None).await
        {
            tracing::warn!(error = %err, "leadership was not handed over before the stop");
        }
        drop(inner);
        self.kill().await;
    }

    async fn wait_for_leader(&self) -> Result<(), MembershipError> {
        let mut leader = self.inner.leader.clone();
        match timeout(CHANGE_MAX, leader.wait_for(|state| state.is_leader)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(MembershipError::Unavailable(
                "the new cluster has no leader yet".to_owned(),
            )),
        }
    }

    /// Has the leader do the change, wherever it is.
    async fn change(&self, change: Change) -> Result<Option<Member>, MembershipError> {
        let deadline = Instant::now() + CHANGE_MAX;
        while Instant::now() < deadline {
            if let Some(leader) = self.inner.raft.current_leader().await {
                match change_at(&self.inner, leader, &change).await {
                    Ok(member) => return Ok(member),
                    Err(Some(err)) => return Err(err),
                    Err(None) => {}
                }
            }
            sleep(RETRY_AFTER).await;
        }
        Err(MembershipError::Unavailable(
            "no leader is known".to_owned(),
        ))
    }
}

async fn change_at(inner: &Arc<Inner>, leader: MemberId, change: &Change) -> Answer {
    if leader == inner.identity.member_id {
        return change_here(inner, change).await;
    }
    let unavailable = |reason: String| Some(MembershipError::Unavailable(reason));
    let address = inner.address_of(leader).ok_or(None)?;
    let mut client = inner.peers.client(leader, &address, Purpose::Forward);
    let json = serde_json::to_vec(change)
        .expect("a change is plain data")
        .into();
    match timeout(CHANGE_MAX, client.change(proto::ChangeRequest { json })).await {
        Ok(Ok(response)) => serde_json::from_slice::<Answer>(&response.into_inner().json)
            .unwrap_or_else(|err| Err(unavailable(err.to_string()))),
        Ok(Err(status)) => Err(unavailable(status.message().to_owned())),
        Err(_) => Err(unavailable(
            "the leader did not answer in time; look at the members".to_owned(),
        )),
    }
}

/// Does a change that came from another member.
pub(crate) async fn change_from(inner: &Arc<Inner>, json: &[u8]) -> Vec<u8> {
    let answer = match serde_json::from_slice(json) {
        Ok(change) => change_here(inner, &change).await,
        Err(err) => Err(Some(MembershipError::Unavailable(format!(
            "the change is not understood: {err}"
        )))),
    };
    serde_json::to_vec(&answer).expect("an answer is plain data")
}

async fn change_here(inner: &Arc<Inner>, change: &Change) -> Answer {
    if inner.raft.current_leader().await != Some(inner.identity.member_id) {
        return Err(None);
    }
    let Ok(_one_at_a_time) = timeout(TURN_MAX, inner.changing.lock()).await else {
        return Err(Some(MembershipError::InProgress));
    };
    match change {
        Change::Add(member) => add_here(inner, member).await.map(Some),
        Change::Remove(name_or_id) => remove_here(inner, name_or_id).await.map(|()| None),
        Change::Transfer(to) => {
            let to = match to {
                Some(name_or_id) => Some(find(inner, name_or_id)?.id),
                None => None,
            };
            transfer_here(inner, to).await.map(|()| None).map_err(Some)
        }
    }
}

async fn add_here(inner: &Inner, add: &MemberAdd) -> Result<Member, Option<MembershipError>> {
    let members = members(&inner.raft);
    if members.iter().any(|member| member.name == add.name) {
        return Err(Some(MembershipError::NameTaken(add.name.clone())));
    }
    if let Some(member) = members
        .iter()
        .find(|member| member.peer_address == add.peer_address)
    {
        return Err(Some(MembershipError::AddressTaken(
            member.name.clone(),
            add.peer_address.clone(),
        )));
    }
    let ever = inner.raft.with_state_machine(|state| {
        let ever = state.member_id_max();
        Box::pin(async move { ever })
    });
    let ever = ever
        .await
        .map_err(|err| Some(MembershipError::Unavailable(err.to_string())))?;
    let id = members
        .iter()
        .map(|member| member.id)
        .max()
        .unwrap_or(0)
        .max(ever)
        + 1;
    let node = Node {
        name: add.name.clone(),
        peer_address: add.peer_address.clone(),
        api_url: add.api_url.clone(),
    };
    let added = timeout(CHANGE_MAX, inner.raft.add_learner(id, node, false)).await;
    written(added)?;
    tracing::info!(
        member = id,
        name = add.name,
        "a member was added; it votes when it caught up"
    );
    Ok(Member {
        id,
        name: add.name.clone(),
        peer_address: add.peer_address.clone(),
        api_url: add.api_url.clone(),
        voter: false,
    })
}

async fn remove_here(inner: &Inner, name_or_id: &str) -> Result<(), Option<MembershipError>> {
    let member = find(inner, name_or_id)?;
    if member.voter {
        check_quorum_without(inner, &member)?;
    }
    if member.id == inner.identity.member_id {
        transfer_here(inner, None).await.map_err(Some)?;
        return Err(None);
    }
    let ids = BTreeSet::from([member.id]);
    if member.voter {
        written(
            timeout(
                CHANGE_MAX,
                inner
                    .raft
                    .change_membership(ChangeMembers::RemoveVoters(ids), false),
            )
            .await,
        )?;
    } else {
        written(
            timeout(
                CHANGE_MAX,
                inner
                    .raft
                    .change_membership(ChangeMembers::RemoveNodes(ids), false),
            )
            .await,
        )?;
    }
    tracing::info!(
        member = member.id,
        name = member.name,
        "a member was removed"
    );
    Ok(())
}

/// Hands leadership over and waits until another member leads.
pub(crate) async fn transfer_here(
    inner: &Inner,
    to: Option<MemberId>,
) -> Result<(), MembershipError> {
    let own = inner.identity.member_id;
    let failed = |reason: &str| MembershipError::NotTransferred(reason.to_owned());
    let to = to
        .or_else(|| furthest(inner))
        .ok_or_else(|| failed("no other voter is reachable"))?;
    if to == own {
        return Ok(());
    }
    if !inner.raft.voter_ids().any(|id| id == to) {
        return Err(failed("that member does not vote yet"));
    }
    inner
        .raft
        .trigger()
        .transfer_leader(to)
        .await
        .map_err(|err| failed(&err.to_string()))?;
    let deadline = Instant::now() + TRANSFER_MAX;
    while Instant::now() < deadline {
        if inner
            .raft
            .current_leader()
            .await
            .is_some_and(|leader| leader != own)
        {
            return Ok(());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Err(failed("no other member leads yet"))
}

/// Makes voters of learners that caught up. Only the leader's call does anything.
pub(crate) async fn promote_learners(inner: &Inner) {
    if !inner.leader.borrow().is_leader {
        return;
    }
    let learners: BTreeSet<MemberId> = inner.raft.learner_ids().collect();
    if learners.is_empty() {
        return;
    }
    let Some((last, matched)) = matched(inner) else {
        return;
    };
    let ready = |id: &MemberId| {
        let is_near = matched
            .iter()
            .any(|(member, index)| member == id && index + CAUGHT_UP_ENTRIES >= last && *index > 0);
        is_near && is_heard(inner, *id)
    };
    let Some(id) = learners.into_iter().find(ready) else {
        return;
    };
    let Ok(_one_at_a_time) = inner.changing.try_lock() else {
        return;
    };
    let change = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
    match written(timeout(CHANGE_MAX, inner.raft.change_membership(change, true)).await) {
        Ok(()) => tracing::info!(member = id, "a member caught up and votes from now on"),
        Err(err) => {
            tracing::warn!(member = id, error = ?err, "a member that caught up does not vote yet")
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

async fn ask_other(inner: &Inner, member: &Member) -> Result<OwnStatus, String> {
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

fn members(raft: &Raft) -> Vec<Member> {
    let metrics = raft.server_metrics();
    let membership = metrics.borrow_watched().membership_config.clone();
    let voters: BTreeSet<MemberId> = membership.voter_ids().collect();
    let member = |(id, node): (&MemberId, &Node)| Member {
        id: *id,
        name: node.name.clone(),
        peer_address: node.peer_address.clone(),
        api_url: node.api_url.clone(),
        voter: voters.contains(id),
    };
    membership.nodes().map(member).collect()
}

fn find(inner: &Inner, name_or_id: &str) -> Result<Member, MembershipError> {
    let members = members(&inner.raft);
    let by_name = members.iter().find(|member| member.name == name_or_id);
    let found = by_name.or_else(|| {
        members
            .iter()
            .find(|member| member.id.to_string() == name_or_id)
    });
    found
        .cloned()
        .ok_or_else(|| MembershipError::Unknown(name_or_id.to_owned()))
}

fn check_quorum_without(inner: &Inner, leaving: &Member) -> Result<(), MembershipError> {
    let rest: Vec<MemberId> = inner
        .raft
        .voter_ids()
        .filter(|id| *id != leaving.id)
        .collect();
    let quorum = rest.len() / 2 + 1;
    let healthy = rest.iter().filter(|id| is_heard(inner, **id)).count();
    match (rest.len(), healthy) {
        (0, _) => Err(MembershipError::LastVoter(leaving.name.clone())),
        (voters, healthy) if healthy < quorum => Err(MembershipError::WouldLoseQuorum {
            name: leaving.name.clone(),
            healthy,
            voters,
            quorum,
        }),
        _ => Ok(()),
    }
}

/// Whether this leader heard from a member lately.
fn is_heard(inner: &Inner, id: MemberId) -> bool {
    if id == inner.identity.member_id {
        return true;
    }
    let gone_after = inner.config.timings.election_max * GONE_AFTER_ELECTIONS;
    let data = inner.raft.data_metrics();
    let data = data.borrow_watched();
    let heard = data
        .heartbeat
        .as_ref()
        .and_then(|heartbeat| heartbeat.get(&id).copied().flatten());
    heard.is_some_and(|at| at.elapsed() < gone_after)
}

/// The other voter with the longest log that was heard lately.
fn furthest(inner: &Inner) -> Option<MemberId> {
    let (_, matched) = matched(inner)?;
    let voters: BTreeSet<MemberId> = inner.raft.voter_ids().collect();
    let others = matched.into_iter().filter(|(id, _)| {
        *id != inner.identity.member_id && voters.contains(id) && is_heard(inner, *id)
    });
    others.max_by_key(|(_, index)| *index).map(|(id, _)| id)
}

fn has_other_voter(inner: &Inner) -> bool {
    inner
        .raft
        .voter_ids()
        .any(|id| id != inner.identity.member_id)
}

type WriteResult = Result<
    openraft::raft::ClientWriteResponse<crate::types::TypeConfig>,
    RaftError<crate::types::TypeConfig, ClientWriteError<crate::types::TypeConfig>>,
>;

/// What a proposed change came to.
fn written(
    result: Result<WriteResult, tokio::time::error::Elapsed>,
) -> Result<(), Option<MembershipError>> {
    match result {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Err(None),
        Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
            openraft::errors::ChangeMembershipError::InProgress(_),
        )))) => Err(Some(MembershipError::InProgress)),
        Ok(Err(err)) => Err(Some(MembershipError::Unavailable(err.to_string()))),
        Err(_) => Err(Some(MembershipError::Unavailable(
            "no quorum answered in time; look at the members".to_owned(),
        ))),
    }
}
