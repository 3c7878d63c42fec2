//! The types that openraft is run with, and how a member is known to the others.
//!
//! One leader a term at most (`leader_id_std`), so that a term alone fences a controller.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A member's number in Raft. Never reused: a member that lost its data comes back under a new one.
pub type MemberId = u64;

/// How a member is known and reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name, unique among the members.
    pub name: String,
    /// `host:port` of its Raft service.
    pub peer_address: String,
    /// Where its API server answers, as `https://host:port`.
    pub api_url: String,
    /// What is meant to become of it.
    #[serde(default)]
    pub plan: Plan,
}

/// What is meant to become of a member. It stands in the membership itself, so that it outlives every leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// A learner that does not vote before it is promoted by hand.
    #[serde(default)]
    pub is_held: bool,
    /// The member that goes in the same step in which this one votes.
    #[serde(default)]
    pub replaces: Option<MemberId>,
    /// The name of the master that takes this one's place when it joins.
    #[serde(default)]
    pub replaced_by: Option<String>,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.peer_address)
    }
}

/// Batches of commands in the encoded form that log and wire share: one frame of `mvcc::Batch` behind the other.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// One reply a command of the batches; none for entries that are not batches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replies(pub Vec<mvcc::Reply>);

openraft::declare_raft_types!(
    /// The types that openraft is run with.
    pub TypeConfig:
        D = Payload,
        R = Replies,
        NodeId = MemberId,
        Node = Node,
        AsyncRuntime = crate::runtime::Runtime,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

use openraft::alias;
/// A log entry.
pub type Entry = alias::EntryOf<TypeConfig>;
/// Term and index of an entry.
pub type LogId = alias::LogIdOf<TypeConfig>;
/// Whom a member voted for in its term, and whether a quorum did.
pub type Vote = alias::VoteOf<TypeConfig>;
/// The members, and the entry that made them so.
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
/// Which entries a snapshot holds.
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
/// The members.
pub type Membership = openraft::Membership<MemberId, Node>;
/// The consensus over our state machine.
pub type Raft = openraft::Raft<TypeConfig, crate::state::StateMachine>;

/// The log id of `term` and `index`.
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// The term of a log id.
pub fn term_of(log_id: &LogId) -> u64 {
    log_id.committed_leader_id().term
}
