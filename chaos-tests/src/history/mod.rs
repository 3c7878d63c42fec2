//! What happened in a run, in order: one JSON line a record, with nanoseconds of one monotonic clock.
//! Never judges; the checkers read what is here. The vocabulary (invoke, ok, fail, info) is Jepsen's.

mod operations;
mod recorder;
mod request;
mod watch;

pub use operations::{Attempt, FaultSpan, Outcome, TermTold, Timeline, Watched, timeline};
pub use recorder::{Recorder, read};
pub use request::{Change, Reply, Request, Seen, Step, Told};
pub use watch::{Notice, Wanted, WatchPart};

use serde::{Deserialize, Serialize};

/// The class of a failure that is a transaction's condition, which did not hold.
pub const CONDITION: &str = "condition";

/// Why something failed, for grouping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A short class: `unreachable`, `interrupted`, `unavailable`, …
    pub class: String,
    /// The whole text.
    pub text: String,
}

impl Failure {
    /// A failure of a class.
    pub fn new(class: &str, text: impl Into<String>) -> Self {
        Failure {
            class: class.to_owned(),
            text: text.into(),
        }
    }
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
    Healed {
        /// What was seen of it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        effect: String,
    },
    /// It is over, and nothing was seen of it: whether it did anything is not known.
    Indeterminate {
        /// What was not seen.
        reason: String,
    },
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
        /// The member asked.
        server: String,
        /// What is asked.
        #[serde(flatten)]
        request: Request,
    },
    /// The request was answered. A condition that did not hold is an answer too.
    Ok {
        /// The request's number.
        id: u64,
        /// The answer.
        #[serde(flatten)]
        reply: Reply,
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
    /// Something of a watch.
    Watch {
        /// The watch's number.
        watch: u64,
        /// What.
        #[serde(flatten)]
        part: WatchPart,
    },
    /// A fault begins, cannot begin or ends.
    Fault {
        /// The fault's number in the run.
        number: u32,
        /// Its kind: `kill`, `pause`, …
        kind: String,
        /// The members it is about.
        targets: Vec<String>,
        /// What happened to it.
        #[serde(flatten)]
        phase: FaultPhase,
    },
    /// A member told a term; written when it is another than the one that it told before.
    Term {
        /// The member's name.
        name: String,
        /// Its number, which one that comes with an empty disk under an old name does not share.
        member: u64,
        /// The term.
        term: u64,
    },
    /// The members were asked who leads; written when the answer changes.
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
