//! The register that the checkers know: one value, read, written, compared and swapped.
//! Never touches a history's transport or files. Values are unique per key, so that a compare on an object's revision is the
//! same as a compare on its value.

use super::anomaly::Moment;
use crate::history::{Outcome, Request, Timeline, Told};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a register holds. [`INITIAL`] before the first write, [`ABSENT`] where there is no object.
pub type Value = u64;

/// The value with which every key is made.
pub const INITIAL: Value = 0;
/// What a read of a missing object returns; no write writes it, so that it is never legal.
pub const ABSENT: Value = u64::MAX;

/// What an operation asked and was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// A read and what it returned.
    Read(Value),
    /// An unconditional write.
    Write(Value),
    /// A write that holds only if the register held `from`; `swapped` tells whether it did.
    Cas {
        /// What the register had to hold.
        from: Value,
        /// What was written then.
        to: Value,
        /// Whether it was written; an operation of unknown outcome says true and is checked when it takes effect.
        swapped: bool,
    },
}

impl Action {
    /// The register after the operation, or None where it cannot have happened in `state`.
    pub fn step(self, state: Value) -> Option<Value> {
        match self {
            Action::Read(seen) => (seen == state).then_some(state),
            Action::Write(to) => Some(to),
            Action::Cas {
                from,
                to,
                swapped: true,
            } => (from == state).then_some(to),
            Action::Cas { from, .. } => (from != state).then_some(state),
        }
    }

    /// Whether it leaves every register as it was.
    pub fn is_pure(self) -> bool {
        self.writes().is_none()
    }

    /// The value that it puts into the register.
    pub fn writes(self) -> Option<Value> {
        match self {
            Action::Write(to)
            | Action::Cas {
                to, swapped: true, ..
            } => Some(to),
            Action::Read(_) | Action::Cas { swapped: false, .. } => None,
        }
    }

    /// The value that it proves to have been in the register.
    pub fn observes(self) -> Option<Value> {
        match self {
            Action::Read(seen) => Some(seen),
            Action::Cas {
                from,
                swapped: true,
                ..
            } => Some(from),
            Action::Write(_) | Action::Cas { swapped: false, .. } => None,
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Action::Read(ABSENT) => write!(f, "read -> no object"),
            Action::Read(seen) => write!(f, "read -> {seen}"),
            Action::Write(to) => write!(f, "write {to}"),
            Action::Cas { from, to, swapped } => {
                let outcome = if *swapped { "swapped" } else { "refused" };
                write!(f, "cas {from} to {to} -> {outcome}")
            }
        }
    }
}

/// One operation on one key. Times are nanoseconds since the history began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Op {
    /// Its number in the history.
    pub id: u64,
    /// Who did it.
    pub process: u64,
    /// When it was sent.
    pub invoked_ns: u64,
    /// When its answer came; None where the outcome is unknown, so that it may take effect at any later time, or never.
    pub returned_ns: Option<u64>,
    /// What it was.
    pub action: Action,
    /// The revision that the answer named.
    pub revision: Option<u64>,
}

impl Op {
    /// Whether it was over before the other was sent.
    pub fn is_before(&self, other: &Op) -> bool {
        self.returned_ns
            .is_some_and(|returned| returned < other.invoked_ns)
    }
}

impl From<&Op> for Moment {
    fn from(op: &Op) -> Self {
        let revision = op
            .revision
            .map_or_else(String::new, |revision| format!(" (revision {revision})"));
        let outcome = if op.returned_ns.is_none() {
            ", outcome unknown"
        } else {
            ""
        };
        Moment {
            id: op.id,
            from_ns: op.invoked_ns,
            until_ns: op.returned_ns,
            text: format!("process {}: {}{revision}{outcome}", op.process, op.action),
        }
    }
}

/// The operations on registers by key, as the checkers need them: without what surely was not done, without reads of unknown
/// outcome, and without reads that asked for no more than any member's own state.
pub fn by_key(timeline: &Timeline) -> BTreeMap<String, Vec<Op>> {
    let mut keys: BTreeMap<String, Vec<Op>> = BTreeMap::new();
    for attempt in &timeline.attempts {
        let Some((key, action, revision)) = action_of(&attempt.request, &attempt.outcome) else {
            continue;
        };
        keys.entry(key.to_owned()).or_default().push(Op {
            id: attempt.id,
            process: attempt.process,
            invoked_ns: attempt.invoked_ns,
            returned_ns: attempt.returned_ns(),
            action,
            revision,
        });
    }
    keys
}

fn action_of<'a>(
    request: &'a Request,
    outcome: &Outcome,
) -> Option<(&'a str, Action, Option<u64>)> {
    let reply = match outcome {
        Outcome::Ok(reply) => Some(reply),
        Outcome::Info(_) if request.is_write() => None,
        Outcome::Info(_) | Outcome::Fail(_) => return None,
    };
    let revision = reply.and_then(|reply| reply.revision);
    match request {
        Request::Read {
            key,
            serializable: false,
        } => match reply?.told {
            Told::Value { value, changed } => {
                Some((key, Action::Read(value.unwrap_or(ABSENT)), changed))
            }
            _ => None,
        },
        Request::Write { key, value } => Some((key, Action::Write(*value), revision)),
        Request::Cas {
            key, from, value, ..
        } => {
            let swapped = reply.is_none_or(|reply| reply.took_effect());
            let action = Action::Cas {
                from: *from,
                to: *value,
                swapped,
            };
            // What a refusal names is the store's revision, not one of this register.
            Some((key, action, revision.filter(|_| swapped)))
        }
        _ => None,
    }
}
