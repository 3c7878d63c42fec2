//! What a checker found: a contradiction, named as the field names it, with the few operations that show it. Pure.

use crate::history::{Attempt, Outcome, Request, Told};
use serde::{Deserialize, Serialize};

/// The kind of an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// An overwritten value was read, while the newer one was there for others.
    StaleRead,
    /// An acknowledged write is gone, or was overwritten by somebody who had not seen it.
    LostWrite,
    /// A write took effect twice.
    Duplicate,
    /// Something was read that nobody wrote, or that was told not to be written, or before it was written.
    Phantom,
    /// Something that was removed is there again.
    Resurrected,
    /// No order of a register's operations explains its answers.
    NotLinearizable,
    /// The store's revision went back, or was given twice.
    RevisionWentBack,
    /// A member's own state was none that the store ever had.
    NotAPrefix,
    /// Transactions overwrite each other in a circle.
    G0,
    /// A transaction that was refused was read.
    G1a,
    /// A half of a transaction was read.
    G1b,
    /// Transactions read and overwrite each other in a circle.
    G1c,
    /// A circle with one transaction that read what another overwrote.
    GSingle,
    /// A circle with several transactions that read what others overwrote.
    G2,
    /// A circle of overwriting that real time closes.
    G0Realtime,
    /// A circle of reading and overwriting that real time closes.
    G1cRealtime,
    /// A circle with one outdated read that real time closes.
    GSingleRealtime,
    /// A circle with several outdated reads that real time closes.
    G2Realtime,
    /// Two transactions read one version and both overwrote it.
    LostUpdate,
    /// A list's versions do not continue each other.
    IncompatibleOrder,
    /// A watch told revisions out of order.
    WatchUnordered,
    /// A watch told one event twice.
    WatchDuplicate,
    /// A watch left out an event.
    WatchMissed,
    /// A watch told a revision's events in more than one message.
    WatchTorn,
    /// A watch promised that nothing up to a revision was left, and then told something.
    WatchBookmark,
    /// A watch told something from before the revision asked for.
    WatchResume,
    /// A watch told something that it was not asked for.
    WatchFilter,
    /// A watch told a change that was none, or told it wrongly.
    WatchWrong,
    /// A watch told wrongly what was there before.
    WatchPrevious,
    /// A watch stood still although the store did not.
    WatchStuck,
    /// A lease ended before its time.
    EarlyExpiry,
    /// A lease lived on long after its time.
    LateExpiry,
    /// Somebody wrote under a lock that another held.
    LockBroken,
    /// Money came to be, or went.
    WrongSum,
    /// Members tell different states at one revision.
    Divergent,
    /// A snapshot's checksum is wrong.
    TornSnapshot,
    /// A member told a lower term than before: it forgot a vote.
    TermWentBack,
    /// What was restored is not what was saved.
    RestoredWrongly,
    /// A watcher from before a restore was left to believe that it missed nothing.
    WatchBlind,
}

impl Class {
    /// As it is written in results and on the command line.
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => format!("{self:?}"),
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Class::StaleRead => "stale read",
            Class::LostWrite => "lost write",
            Class::Duplicate => "duplicate",
            Class::Phantom => "phantom",
            Class::Resurrected => "resurrected",
            Class::NotLinearizable => "not linearizable",
            Class::RevisionWentBack => "revision went back",
            Class::NotAPrefix => "state that never was",
            Class::G0 => "G0 (dirty write)",
            Class::G1a => "G1a (aborted read)",
            Class::G1b => "G1b (intermediate read)",
            Class::G1c => "G1c (circular flow)",
            Class::GSingle => "G-single (read skew)",
            Class::G2 => "G2 (write skew)",
            Class::G0Realtime => "G0-realtime",
            Class::G1cRealtime => "G1c-realtime",
            Class::GSingleRealtime => "G-single-realtime (stale read)",
            Class::G2Realtime => "G2-realtime",
            Class::LostUpdate => "lost update",
            Class::IncompatibleOrder => "incompatible order",
            Class::WatchUnordered => "watch out of order",
            Class::WatchDuplicate => "watch event twice",
            Class::WatchMissed => "watch event missed",
            Class::WatchTorn => "watch revision torn",
            Class::WatchBookmark => "watch bookmark too early",
            Class::WatchResume => "watch resumed wrongly",
            Class::WatchFilter => "watch filter ignored",
            Class::WatchWrong => "watch event wrong",
            Class::WatchPrevious => "watch previous value wrong",
            Class::WatchStuck => "watch stuck",
            Class::EarlyExpiry => "lease expired early",
            Class::LateExpiry => "lease expired late",
            Class::LockBroken => "lock broken",
            Class::WrongSum => "wrong sum",
            Class::Divergent => "members differ",
            Class::TornSnapshot => "snapshot torn",
            Class::TermWentBack => "term went back",
            Class::RestoredWrongly => "restored wrongly",
            Class::WatchBlind => "watch left blind by a restore",
        })
    }
}

/// An operation or an event as an anomaly tells it. Times are nanoseconds since the history began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// Its number in the history.
    pub id: u64,
    /// When it was sent.
    pub from_ns: u64,
    /// When its answer came; None where the outcome is unknown.
    pub until_ns: Option<u64>,
    /// In words.
    pub text: String,
}

impl From<&Attempt> for Moment {
    fn from(attempt: &Attempt) -> Self {
        let outcome = match &attempt.outcome {
            Outcome::Ok(reply) => match (&attempt.request, &reply.told) {
                (Request::IsAttached { .. }, Told::Held { held }) => {
                    if *held { "yes" } else { "no" }.to_owned()
                }
                _ => reply.to_string(),
            },
            Outcome::Fail(error) => format!("refused: {}", error.text),
            Outcome::Info(error) => format!("outcome unknown: {}", error.text),
        };
        Moment {
            id: attempt.id,
            from_ns: attempt.invoked_ns,
            until_ns: attempt.returned_ns(),
            text: format!(
                "process {} at {}: {} -> {outcome}",
                attempt.process, attempt.server, attempt.request
            ),
        }
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = |ns: u64| ns as f64 / 1e6;
        let from = millis(self.from_ns);
        match self.until_ns {
            Some(until) => write!(f, "{}, {from:.3} to {:.3} ms", self.text, millis(until)),
            None => write!(f, "{}, from {from:.3} ms", self.text),
        }
    }
}

/// One contradiction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Anomaly {
    /// What kind.
    pub class: Class,
    /// Which key, set, watch, …
    pub key: String,
    /// In words.
    pub why: String,
    /// What cannot be.
    pub offending: Moment,
    /// What it contradicts, in order: the smallest window that shows it.
    pub against: Vec<Moment>,
    /// Other operations that were under way with the offending one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concurrent: Vec<Moment>,
}

impl Anomaly {
    /// An anomaly of one operation against others.
    pub fn new<M: Into<Moment>>(
        class: Class,
        key: &str,
        offending: M,
        against: impl IntoIterator<Item = M>,
        why: impl Into<String>,
    ) -> Self {
        Anomaly {
            class,
            key: key.to_owned(),
            why: why.into(),
            offending: offending.into(),
            against: against.into_iter().map(Into::into).collect(),
            concurrent: Vec::new(),
        }
    }
}

impl std::fmt::Display for Anomaly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} of {}: {}", self.class, self.key, self.why)?;
        writeln!(f, "  offending: {}", self.offending)?;
        for moment in &self.against {
            writeln!(f, "    against: {moment}")?;
        }
        for moment in &self.concurrent {
            writeln!(f, "  meanwhile: {moment}")?;
        }
        Ok(())
    }
}
