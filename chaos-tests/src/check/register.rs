//! The register that the checkers know: one value, read, written, compared and swapped.
//! Never touches a history's transport or files. Values are unique per key, so that a compare on an object's revision is the
//! same as a compare on its value.

use serde::{Deserialize, Serialize};

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

impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = |ns: u64| ns as f64 / 1e6;
        write!(f, "process {}: {}", self.process, self.action)?;
        if let Some(revision) = self.revision {
            write!(f, " (revision {revision})")?;
        }
        match self.returned_ns {
            Some(returned) => write!(
                f,
                ", {:.3} to {:.3} ms",
                millis(self.invoked_ns),
                millis(returned)
            ),
            None => write!(
                f,
                ", from {:.3} ms, outcome unknown",
                millis(self.invoked_ns)
            ),
        }
    }
}
