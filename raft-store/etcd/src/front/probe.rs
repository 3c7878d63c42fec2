//! What is looked at to say whether a member is well.

use mvcc::{Consistency, KeyRange, RangeRequest, Store, StoreError};
use objects::cluster::Alarm;
use raft_store::RaftStore;

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// No member's data is known to differ.
    DataCorruption,
    /// The member answers from what it has.
    SerializableRead,
    /// A quorum confirms what it has.
    LinearizableRead,
    /// The member votes.
    NonLearner,
}

/// What a check came to: nothing, or what is wrong.
pub type Outcome = Result<(), String>;

impl Check {
    /// Its name in paths and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }
}

/// Checks. Ends with the store's own deadline at the latest.
pub async fn run(store: &RaftStore, check: Check) -> Outcome {
    match check {
        Check::DataCorruption => match store.alarms().await.iter().find(is_corrupt) {
            None => Ok(()),
            Some((member, _)) => Err(format!("the data of member {member} differs")),
        },
        Check::SerializableRead => read(store, Consistency::Stale).await,
        Check::LinearizableRead => read(store, Consistency::Linearizable).await,
        Check::NonLearner => match is_learner(store) {
            true => Err("this member only learns".to_owned()),
            false => Ok(()),
        },
    }
}

/// The alarms of this member alone, without asking another.
pub fn own_alarms(store: &RaftStore) -> Vec<Alarm> {
    let is_full = store.local_status().is_full;
    is_full.then_some(Alarm::NoSpace).into_iter().collect()
}

/// Whether this member does not vote.
pub fn is_learner(store: &RaftStore) -> bool {
    let own = store.identity().member_id;
    let members = store.members();
    members
        .iter()
        .any(|member| member.id == own && !member.voter)
}

fn is_corrupt(alarm: &&(u64, Alarm)) -> bool {
    alarm.1 == Alarm::Corrupt
}

async fn read(store: &RaftStore, consistency: Consistency) -> Outcome {
    let request = RangeRequest {
        limit: Some(1),
        keys_only: true,
        consistency,
        ..RangeRequest::new(KeyRange::key("\0"))
    };
    let read = store.range(request).await;
    read.map(|_| ())
        .map_err(|error: StoreError| error.to_string())
}
