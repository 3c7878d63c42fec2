//! Who the members are: beginning a cluster, adding, replacing and removing members, handing leadership over, status.
//!
//! A new member first learns and votes only when it caught up, which the leader does by itself; one that takes another's
//! place votes in the same step in which the other goes. Ids are never used again. A change that would leave too few live
//! voters for a quorum is refused.
//!
//! ```text
//! join ──> learner ──(caught up)──> voter
//!             └─ replaces X ──(caught up)──> voter, and X is gone, in one joint step
//! ```

mod ask;
mod change;
mod moved;
mod promote;
mod quorum;
mod removed;
mod status;
mod transfer;

pub(crate) use ask::{Question, Reply, answer, ask, condemn};
pub(crate) use change::change_from;
pub(crate) use moved::tell_own_address;
pub(crate) use promote::finish_changes;
pub(crate) use removed::look as look_whether_removed;
pub(crate) use status::{OwnStatus, ask_all, own_status};
pub(crate) use transfer::transfer_here;

use crate::store::RaftStore;
use crate::types::{MemberId, Node, Raft};
use change::Change;
use objects::cluster::{Member, MemberAdd};
use openraft::errors::RaftError;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long a change of the members may take.
const CHANGE_MAX: Duration = Duration::from_secs(15);
const RETRY_AFTER: Duration = Duration::from_millis(50);

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
        "without {name} there would be {healthy} reachable voters of {voters}, fewer than the {quorum} that a quorum needs; \
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
    /// A machine wants the place of a member that runs.
    #[error(
        "the member {0} is alive, and two machines cannot be one member; stop it first, or join under another name and address"
    )]
    Alive(String),
    /// A learner cannot vote yet.
    #[error(
        "the learner {0} cannot vote yet: it is not heard or has not caught up; wait until it has"
    )]
    NotCaughtUp(String),
    /// It votes, so it cannot be promoted, nor take the place of another.
    #[error("{0} votes already, so it only remains to remove the member that it replaces")]
    VotesAlready(String),
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
        self.change_one(Change::Add(member)).await
    }

    /// Admits a member that only learns until it is [promoted](Self::promote_member).
    pub async fn add_learner(&self, member: MemberAdd) -> Result<Member, MembershipError> {
        self.change_one(Change::AddLearner(member)).await
    }

    /// Admits a machine with an empty data folder as [`add_member`](Self::add_member) does, and takes back a lost member of
    /// that name or address: the old one goes in the same step, if it is surely not there. It takes the place of the member
    /// `replaces`, a name or an id, or of the one for which [`replace_member`](Self::replace_member) announced it: that one
    /// goes in the step in which the new one votes.
    pub async fn join_member(
        &self,
        member: MemberAdd,
        replaces: Option<String>,
    ) -> Result<Member, MembershipError> {
        self.change_one(Change::Join { member, replaces }).await
    }

    /// Lets `by` take the place of a member: a learner, or whoever joins under that name later. Returns the member that
    /// will go, which it does in the step in which the other votes.
    pub async fn replace_member(
        &self,
        name_or_id: &str,
        by: &str,
    ) -> Result<Member, MembershipError> {
        let (name_or_id, by) = (name_or_id.to_owned(), by.to_owned());
        self.change_one(Change::Replace { name_or_id, by }).await
    }

    /// Makes a voter of a learner that caught up.
    pub async fn promote_member(&self, id: MemberId) -> Result<Member, MembershipError> {
        self.change_one(Change::Promote(id)).await
    }

    /// Tells the others where a member is reached from now on.
    pub async fn update_member(
        &self,
        id: MemberId,
        peer_address: &str,
    ) -> Result<Member, MembershipError> {
        let change = Change::Update {
            id,
            peer_address: peer_address.to_owned(),
            api_url: None,
        };
        self.change_one(change).await
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

    /// Why nothing can be had of this member, if it was removed and still runs: where the others are, and what to do.
    pub fn removed(&self) -> Option<String> {
        self.inner.removed.get().cloned()
    }

    /// Leaves in order: hands leadership over, then stops.
    pub async fn shutdown(self) {
        let inner = self.inner.clone();
        let own = inner.identity.member_id;
        let leads = inner.raft.current_leader().await == Some(own);
        if leads
            && inner.raft.voter_ids().any(|id| id != own)
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

    async fn change_one(&self, change: Change) -> Result<Member, MembershipError> {
        self.change(change).await?.ok_or_else(|| {
            MembershipError::Unavailable("the leader answered without the member".to_owned())
        })
    }

    /// Has the leader do the change, wherever it is.
    async fn change(&self, change: Change) -> Result<Option<Member>, MembershipError> {
        let deadline = Instant::now() + CHANGE_MAX;
        while Instant::now() < deadline {
            if let Some(leader) = self.inner.raft.current_leader().await {
                match change::change_at(&self.inner, leader, &change).await {
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

pub(crate) fn members(raft: &Raft) -> Vec<Member> {
    let metrics = raft.server_metrics();
    let membership = metrics.borrow_watched().membership_config.clone();
    let voters: BTreeSet<MemberId> = membership.voter_ids().collect();
    membership
        .nodes()
        .map(|(id, node)| member(*id, node, voters.contains(id)))
        .collect()
}

fn member(id: MemberId, node: &Node, voter: bool) -> Member {
    Member {
        id,
        name: node.name.clone(),
        peer_address: node.peer_address.clone(),
        api_url: node.api_url.clone(),
        voter,
        replaces: node.plan.replaces,
        replaced_by: node.plan.replaced_by.clone(),
    }
}
