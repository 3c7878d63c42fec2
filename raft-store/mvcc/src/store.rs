//! The `Store` trait and what goes through it: how the parts of a master use the store without knowing Raft or RocksDB.

use crate::notes::{At, Author, Moment, Past};
use crate::versions::{KeyVersions, VersionsRequest};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use objects::{Revision, Term};
use serde::{Deserialize, Serialize};
use std::ops::Bound;
use std::sync::Arc;

/// A lease's id; zero means none, as in etcd.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct LeaseId(pub i64);

/// A key with its value and history numbers, as etcd's `mvccpb.KeyValue`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty when only keys were asked.
    pub value: Bytes,
    /// The revision at which the key came into being (since it was last deleted).
    pub create_revision: Revision,
    /// The revision of its last change.
    pub mod_revision: Revision,
    /// How many changes since it came into being; the first is 1.
    pub version: u64,
    /// The lease that holds it.
    pub lease: LeaseId,
}

/// Which keys: one, or all from `start` to before `end`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyRange {
    /// The first key.
    pub start: Bytes,
    /// One key, or up to where.
    pub end: KeyRangeEnd,
}

/// Where a range of keys ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyRangeEnd {
    /// The range is the key `start` alone.
    Single,
    /// Up to this key, without it.
    Before(Bytes),
    /// To the last key.
    Unbounded,
}

impl KeyRange {
    /// One key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        KeyRange {
            start: key.into(),
            end: KeyRangeEnd::Single,
        }
    }

    /// All keys that begin with `prefix`; every key for an empty one.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start: Bytes = prefix.into();
        let end = match start.iter().rposition(|byte| *byte != u8::MAX) {
            None => KeyRangeEnd::Unbounded,
            Some(last) => {
                let mut end = start[..=last].to_vec();
                end[last] += 1;
                KeyRangeEnd::Before(end.into())
            }
        };
        KeyRange { start, end }
    }

    /// The range as bounds of an ordered table; a table scanned with them visits exactly the keys that the range contains.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = match &self.end {
            KeyRangeEnd::Single => Bound::Included(&self.start[..]),
            KeyRangeEnd::Before(end) => Bound::Excluded(&end[..]),
            KeyRangeEnd::Unbounded => Bound::Unbounded,
        };
        (Bound::Included(&self.start[..]), end)
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            KeyRangeEnd::Single => key == self.start,
            KeyRangeEnd::Before(end) => key >= &self.start[..] && key < &end[..],
            KeyRangeEnd::Unbounded => key >= &self.start[..],
        }
    }
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// It sees every write acknowledged before it began (read index); fails without a quorum.
    #[default]
    Linearizable,
    /// It sees the local replica as it is; works without a quorum.
    Stale,
}

/// By what an answer is sorted. Keys of which it is the same come in their own order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// The count of changes.
    Version,
    /// The revision at which it came into being.
    CreateRevision,
    /// The revision of the last change.
    ModRevision,
    /// The value.
    Value,
}

/// Which keys of a range are answered, and in which order; the limit cuts what is left. As in etcd, the count of a range
/// is that of all its keys, and a bound of 0 bounds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// The order; keys come in their own, ascending, where nothing is said.
    pub sort: SortTarget,
    /// The greatest first.
    pub is_descending: bool,
    /// Only keys changed last at this revision or later,
    pub mod_revision_min: Revision,
    /// and at this revision or earlier.
    pub mod_revision_max: Revision,
    /// Only keys that came into being at this revision or later,
    pub create_revision_min: Revision,
    /// and at this revision or earlier.
    pub create_revision_max: Revision,
}

/// A read of a range.
#[derive(Clone, Debug)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// At which revision; None for the newest.
    pub revision: Option<Revision>,
    /// At most so many keys; None for all.
    pub limit: Option<usize>,
    /// Only keys and numbers, without values.
    pub keys_only: bool,
    /// Only the count.
    pub count_only: bool,
    /// Look no further than the limit: `count` then tells of no more keys than were looked at. A page of a long range costs as
    /// much as the page, not as all that follows. A hint: a store that counts anyway may do so.
    pub is_uncounted: bool,
    /// Which of its keys, and in which order.
    pub selection: Selection,
    /// How fresh.
    pub consistency: Consistency,
}

impl RangeRequest {
    /// The newest state of a range, linearizable, without limit.
    pub fn new(range: KeyRange) -> Self {
        RangeRequest {
            range,
            revision: None,
            limit: None,
            keys_only: false,
            count_only: false,
            is_uncounted: false,
            selection: Selection::default(),
            consistency: Consistency::Linearizable,
        }
    }
}

/// What a range read found, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeResponse {
    /// The store's revision when it was read (not the one asked for).
    pub revision: Revision,
    /// The keys.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut the answer.
    pub more: bool,
    /// How many keys the range holds in all.
    pub count: u64,
}

/// What a comparison looks at; an absent key has revision, version and lease 0, and, as in etcd, no comparison of its value holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareTarget {
    /// The revision of the last change; 0 means that the key does not exist.
    ModRevision(Revision),
    /// The revision at which it came into being.
    CreateRevision(Revision),
    /// The count of changes.
    Version(u64),
    /// The value.
    Value(Bytes),
    /// The lease.
    Lease(LeaseId),
}

/// How a comparison compares: `actual OP given`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareOp {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// The actual is greater.
    Greater,
    /// The actual is less.
    Less,
}

/// A condition of a transaction; over a range it must hold for every key in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// Which keys.
    pub range: KeyRange,
    /// How.
    pub op: CompareOp,
    /// With what.
    pub target: CompareTarget,
}

impl Compare {
    /// The key's last change is still `revision`; 0 for a key that must not exist.
    pub fn unchanged(key: impl Into<Bytes>, revision: Revision) -> Self {
        Compare {
            range: KeyRange::key(key),
            op: CompareOp::Equal,
            target: CompareTarget::ModRevision(revision),
        }
    }

    /// The key does not exist.
    pub fn absent(key: impl Into<Bytes>) -> Self {
        Compare::unchanged(key, Revision(0))
    }
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Write a key.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The lease that holds it; zero for none.
        lease: LeaseId,
        /// Whether to answer with the value before.
        prev_kv: bool,
    },
    /// Delete a range.
    DeleteRange {
        /// Which keys.
        range: KeyRange,
        /// Whether to answer with the values before.
        prev_kv: bool,
    },
    /// Read a range, within the transaction.
    Range {
        /// Which keys.
        range: KeyRange,
        /// At most so many.
        limit: Option<u64>,
    },
    /// A transaction within the transaction.
    Txn(Box<Txn>),
    /// Note who writes; kept with the revision if the transaction writes anything. The last one counts.
    Sign(Author),
    /// Write a key that exists, keeping what is not given; without the key the transaction is refused.
    Update {
        /// The key.
        key: Bytes,
        /// The value; None keeps it.
        value: Option<Bytes>,
        /// The lease that holds it, zero for none; None keeps it.
        lease: Option<LeaseId>,
        /// Whether to answer with the value before.
        prev_kv: bool,
    },
    /// Read a range with every option, within the transaction.
    Query(Box<Query>),
}

/// A read of a range within a transaction: what a [`RangeRequest`] says, but for its consistency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Which keys.
    pub range: KeyRange,
    /// At which revision; None for the newest, with what the transaction wrote before.
    pub revision: Option<Revision>,
    /// At most so many keys; None for all.
    pub limit: Option<u64>,
    /// Only keys and numbers, without values.
    pub keys_only: bool,
    /// Only the count.
    pub count_only: bool,
    /// Which of its keys, and in which order.
    pub selection: Selection,
}

impl Query {
    /// The same as a read for itself.
    pub fn request(&self) -> RangeRequest {
        RangeRequest {
            revision: self.revision,
            limit: self
                .limit
                .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            keys_only: self.keys_only,
            count_only: self.count_only,
            selection: self.selection,
            ..RangeRequest::new(self.range.clone())
        }
    }
}

impl Op {
    /// Write `value` under `key`.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Op::Put {
            key: key.into(),
            value: value.into(),
            lease: LeaseId(0),
            prev_kv: false,
        }
    }

    /// Delete one key, answering with what it was.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Op::DeleteRange {
            range: KeyRange::key(key),
            prev_kv: true,
        }
    }

    /// Read one key.
    pub fn get(key: impl Into<Bytes>) -> Self {
        Op::Range {
            range: KeyRange::key(key),
            limit: None,
        }
    }
}

/// A transaction: when every comparison holds, `success` is done, else `failure`; all at one revision or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// The conditions.
    pub compare: Vec<Compare>,
    /// What to do when all hold.
    pub success: Vec<Op>,
    /// What to do otherwise.
    pub failure: Vec<Op>,
    /// The term under which a controller acts. The store refuses the transaction with [`StoreError::Fenced`] when it is
    /// applied in a later term, so that two leaders never act. None for everybody else.
    pub fence: Option<Term>,
}

/// What a transaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnResponse {
    /// The store's revision after it; the revision of its writes if it wrote.
    pub revision: Revision,
    /// Whether the comparisons held.
    pub succeeded: bool,
    /// One result for each step done.
    pub results: Vec<OpResult>,
}

/// What one step did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpResult {
    /// Written; with the value before if it was asked and there was one.
    Put(Option<KeyValue>),
    /// Deleted so many; with the values before if they were asked.
    Deleted(u64, Vec<KeyValue>),
    /// Read.
    Range(RangeResponse),
    /// An inner transaction's result.
    Txn(TxnResponse),
    /// Noted.
    Signed,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was written.
    Put {
        /// As it is now.
        kv: KeyValue,
        /// As it was, if it existed; always filled by the watch.
        prev: Option<KeyValue>,
    },
    /// A key was deleted.
    Delete {
        /// The key.
        key: Bytes,
        /// The revision of the deletion.
        revision: Revision,
        /// As it was before; None only when compaction took it.
        prev: Option<KeyValue>,
    },
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Event::Put { kv, .. } => &kv.key,
            Event::Delete { key, .. } => key,
        }
    }

    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        match self {
            Event::Put { kv, .. } => kv.mod_revision,
            Event::Delete { revision, .. } => *revision,
        }
    }
}

/// What to watch.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// Which keys.
    pub range: KeyRange,
    /// The first revision to tell of.
    pub start: Revision,
}

/// What a watch tells next. Batches come in the order of revisions; all changes of one revision come in one batch.
#[derive(Clone, Debug)]
pub struct WatchBatch {
    /// Every matching change up to and including this revision has been told, with this batch.
    pub revision: Revision,
    /// The changes that match, in order; empty when the batch only tells progress.
    pub events: Vec<Arc<Event>>,
}

/// A watch; it ends after its first error. [`StoreError::SlowWatcher`] asks the reader to resume from the last revision seen.
pub type WatchStream = BoxStream<'static, Result<WatchBatch, StoreError>>;

/// Who leads, as this member knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaderState {
    /// The current term.
    pub term: Term,
    /// Whether this member leads in that term, its log applied at least up to its first entry of the term.
    pub is_leader: bool,
    /// Whether any leader is known.
    pub has_leader: bool,
}

/// The state now, then each change of it.
pub type LeaderStream = BoxStream<'static, LeaderState>;

/// Why the store did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum StoreError {
    /// The revision asked for is gone from history.
    #[error("required revision {requested} has been compacted; the oldest kept is {oldest}")]
    Compacted {
        /// What was asked.
        requested: Revision,
        /// The oldest that can be asked.
        oldest: Revision,
    },
    /// The revision asked for has not happened yet.
    #[error("required revision {requested} is a future revision; the store is at {current}")]
    FutureRevision {
        /// What was asked.
        requested: Revision,
        /// Where the store is.
        current: Revision,
    },
    /// The writer's term is over.
    #[error("the term {held} under which this was written is over; the store is in term {current}")]
    Fenced {
        /// The writer's term.
        held: Term,
        /// The store's.
        current: Term,
    },
    /// No quorum, or no leader, was reached before the deadline; nothing is known of the outcome of a write.
    #[error(
        "the store cannot reach a quorum of its members: {0}; a write may or may not have taken effect"
    )]
    Unavailable(String),
    /// Surely not done: refused before it was proposed.
    #[error("the store refused the request: {0}")]
    Refused(String),
    /// More than a request may hold.
    #[error("the request is too large: {size} bytes, at most {limit}")]
    TooLarge {
        /// The request's size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The disk is full: only deletes and compaction pass.
    #[error(
        "the store has no space left on its disk; delete what is not needed or enlarge the disk"
    )]
    NoSpace,
    /// The lease does not exist.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// The reader of a watch was too slow and its bounded queue overflowed; resume from the last revision seen.
    #[error("the watcher was too slow; resume from the last revision seen")]
    SlowWatcher,
    /// The member is shutting down.
    #[error("this member is shutting down")]
    ShuttingDown,
    /// Surely not done: more requests wait than may.
    #[error("too many requests are waiting; try again later")]
    Busy,
    /// A key is empty where it may not be.
    #[error("key is not provided")]
    EmptyKey,
    /// A key that must exist does not.
    #[error("key not found")]
    KeyNotFound,
    /// One transaction would change a key twice.
    #[error("duplicate key given in txn request")]
    DuplicateKey,
    /// More operations than a transaction may hold.
    #[error("too many operations in txn request, at most {limit} are allowed")]
    TooManyOps {
        /// The limit.
        limit: usize,
    },
    /// A lease of that id exists.
    #[error("lease already exists")]
    LeaseExists,
}

/// The store as a master's parts see it. Every call has the implementation's deadline; all may be cancelled by dropping.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads a range.
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError>;

    /// Runs a transaction; it is fsynced on a quorum when this returns.
    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError>;

    /// Watches a range from a revision on: first from history, then live. Fails with `Compacted` when history does not reach back.
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError>;

    /// The versions of a key, the newest first, as far as they are kept. Linearizable.
    async fn versions(&self, request: VersionsRequest) -> Result<KeyVersions, StoreError>;

    /// What of the past is kept. Linearizable.
    async fn past(&self) -> Result<Past, StoreError>;

    /// The revision and time of a point in the past. Fails with `Compacted` when it is forgotten. Linearizable.
    async fn moment(&self, at: At) -> Result<Moment, StoreError>;

    /// Forgets history before `revision`.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// The revision that the local replica has applied.
    fn applied_revision(&self) -> Revision;

    /// Who leads, now and from now on.
    fn leader(&self) -> LeaderStream;
}
