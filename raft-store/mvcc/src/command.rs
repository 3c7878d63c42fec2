//! What goes into the Raft log, and what comes back when it is applied.
//!
//! Both are encoded by `codec`: append variants and fields at the end, never reorder or remove them.

use crate::codec::{self, CodecError};
use crate::notes::HistoryLimits;
use crate::store::{Event, LeaseId, StoreError, Txn, TxnResponse};
use bytes::Bytes;
use objects::{Revision, Term};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One change of the store. `apply` asks no clock: `now_ms` is the leases' clock as the proposing leader reads it, which is
/// [`Meta::lease_clock_ms`](crate::Meta::lease_clock_ms) when it began to lead and the time since, so that no wall clock matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Run a transaction.
    Txn(Txn),
    /// Forget what only revisions before this one need.
    Compact {
        /// The oldest revision to keep.
        revision: Revision,
    },
    /// Create a lease.
    LeaseGrant {
        /// Its id, chosen by the proposer; not zero.
        id: LeaseId,
        /// How long it lives without a keep-alive.
        ttl_ms: u64,
        /// The time.
        now_ms: u64,
    },
    /// End a lease and delete the keys that it holds.
    LeaseRevoke {
        /// Which.
        id: LeaseId,
    },
    /// Let a lease live for its whole time to live again.
    LeaseKeepAlive {
        /// Which.
        id: LeaseId,
        /// The time.
        now_ms: u64,
    },
    /// End those of these leases whose time is over; each takes a revision of its own if it holds keys.
    LeaseExpire {
        /// Which.
        ids: Vec<LeaseId>,
        /// The time.
        now_ms: u64,
    },
    /// Renew every lease: a new leader trusts no time measured before it led.
    LeaseRenewAll {
        /// The time.
        now_ms: u64,
    },
    /// Move the revision forward and forget all history, so that whoever knows revisions of before a restore is told so.
    RaiseRevision {
        /// By how much.
        by: u64,
    },
    /// Note at which time the store is at its revision.
    Tick {
        /// Milliseconds since 1970, for people.
        wall_ms: u64,
        /// The leases' clock, by which history ages.
        now_ms: u64,
    },
    /// Set how much of the past is kept.
    KeepHistory {
        /// So much.
        limits: HistoryLimits,
    },
}

/// The commands of one Raft entry, of as many clients as were waiting: each is applied by itself and has its own reply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch(pub Vec<Command>);

impl Batch {
    /// One frame, for the log and the wire.
    pub fn encode(&self) -> Result<Bytes, CodecError> {
        codec::encode(self)
    }

    /// How many commands a frame holds; its commands are not read.
    pub fn count(frame: &[u8]) -> Result<usize, CodecError> {
        let (payload, _) = codec::split_frame(frame)?;
        let (count, _): (u64, usize) = codec::decode_bare(payload)?;
        usize::try_from(count).map_err(|err| CodecError::Malformed(err.to_string()))
    }

    /// Reads frames that stand behind each other.
    pub fn decode_all(mut frames: &[u8]) -> Result<Vec<Self>, CodecError> {
        let mut batches = vec![];
        while !frames.is_empty() {
            let (_, rest) = codec::split_frame(frames)?;
            let (frame, _) = frames.split_at(frames.len() - rest.len());
            batches.push(Batch::decode(frame)?);
            frames = rest;
        }
        Ok(batches)
    }

    /// Reads a frame.
    pub fn decode(frame: &[u8]) -> Result<Self, CodecError> {
        codec::decode(frame)
    }
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// The transaction was run.
    Txn(TxnResponse),
    /// History before this revision is forgotten.
    Compacted(Revision),
    /// The lease lives: granted or kept alive.
    Lease {
        /// Which.
        id: LeaseId,
        /// How long from now on.
        ttl_ms: u64,
    },
    /// So many leases ended.
    LeasesEnded(u64),
    /// So many leases were renewed.
    LeasesRenewed(u64),
    /// The store is at this revision.
    Raised(Revision),
    /// The time of this revision is noted.
    Ticked(Revision),
    /// So much of the past is kept from now on.
    HistoryKept(HistoryLimits),
}

/// What the proposer of a command is told.
pub type Reply = Result<Done, StoreError>;

/// Where in the log a command stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The entry's index.
    pub index: u64,
    /// The term in which it was proposed.
    pub term: Term,
}

/// What applying a command came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// For the proposer.
    pub reply: Reply,
    /// What changed, in order; for the watch hub.
    pub events: Vec<Arc<Event>>,
    /// The store's revision after it.
    pub revision: Revision,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_behind_each_other_are_told_apart() {
        let batch = |count: u64| {
            let compact = |revision| Command::Compact {
                revision: Revision(revision),
            };
            Batch((0..count).map(compact).collect())
        };
        let batches = [batch(3), batch(0), batch(300)];
        let frames: Vec<Bytes> = batches
            .iter()
            .map(|batch| batch.encode().expect("it fits"))
            .collect();
        let counts: Vec<usize> = frames
            .iter()
            .map(|frame| Batch::count(frame).expect("it was just written"))
            .collect();
        assert_eq!(counts, [3, 0, 300]);
        let joined = frames.concat();
        assert_eq!(Batch::decode_all(&joined).expect("all are whole"), batches);
        assert!(Batch::decode_all(&joined[..joined.len() - 1]).is_err());
    }
}
