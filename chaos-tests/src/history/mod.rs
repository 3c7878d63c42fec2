//! What happened in a run, in order: one JSON line a record, with nanoseconds of one monotonic clock.
//! Never judges; the checkers read what is here. The vocabulary (invoke, ok, fail, info) is Jepsen's.

mod operations;
mod recorder;

pub use operations::{Attempt, FaultSpan, Outcome, Timeline, timeline};
pub use recorder::{Recorder, read};

use serde::{Deserialize, Serialize};

/// What a process asks of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "lowercase")]
pub enum Request {
    /// A read.
    Read,
    /// An unconditional write.
    Write {
        /// The value written.
        value: u64,
    },
    /// A write on the condition that the object still has a revision, at which it held `from`.
    Cas {
        /// The value at that revision.
        from: u64,
        /// The value written.
        value: u64,
        /// The revision.
        revision: u64,
    },
}

/// Why something failed, for grouping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A short class: `unreachable`, `interrupted`, `503`, …
    pub class: String,
    /// The whole text.
    pub text: String,
}

/// How a fault went on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase")]
pub enum FaultPhase {
    /// It is in force.
    Installed,
    /// It could not be put in force.
    Skipped {
        /// Why.
        reason: String,
    },
    /// It is over.
    Healed,
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Event {
    /// A process sends a request.
    Invoke {
        /// The request's number.
        id: u64,
        /// The process; it has one request at a time, and is never heard of again after an `info`.
        process: u64,
        /// The key.
        key: String,
        /// The master asked.
        server: String,
        /// What is asked.
        #[serde(flatten)]
        request: Request,
    },
    /// The request was done. For a read: what was read. A compare that found another revision is `ok` with `swapped: false`.
    Ok {
        /// The request's number.
        id: u64,
        /// The value read; None for writes, and for a read of nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<u64>,
        /// The object's revision after it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<u64>,
        /// Whether a compare held; true for all else.
        swapped: bool,
    },
    /// The request surely was not done.
    Fail {
        /// The request's number.
        id: u64,
        /// Why.
        error: Failure,
    },
    /// Whether the request was or will be done is not known.
    Info {
        /// The request's number.
        id: u64,
        /// Why.
        error: Failure,
    },
    /// A fault begins, cannot begin or ends.
    Fault {
        /// The fault's number in the run.
        number: u32,
        /// Its kind: `kill`, `pause`, …
        kind: String,
        /// The masters it is about.
        targets: Vec<String>,
        /// What happened to it.
        #[serde(flatten)]
        phase: FaultPhase,
    },
    /// The masters were asked who leads; written when the answer changes.
    Leader {
        /// The leader's name; None while none is known.
        name: Option<String>,
        /// Its term.
        term: u64,
    },
}

/// An event and when it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Nanoseconds since the history began.
    pub ns: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}
