//! What processes ask of a store and what they are told, a vocabulary a workload. Pure.
//!
//! A value is written once a key, so that whoever sees it knows who wrote it. A revision is the store's own count; where an
//! answer names one it is evidence, never taken for truth by itself.

use serde::{Deserialize, Serialize};
use std::fmt::{Display, Formatter, Result};

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Step {
    /// Reads a key: a list or a register.
    Read {
        /// The key.
        key: String,
    },
    /// Appends to a list.
    Append {
        /// The key.
        key: String,
        /// The element; unique a key.
        value: u64,
    },
    /// Overwrites a register.
    Write {
        /// The key.
        key: String,
        /// The value; unique a key.
        value: u64,
    },
}

impl Step {
    /// The key that it is about.
    pub fn key(&self) -> &str {
        match self {
            Step::Read { key } | Step::Append { key, .. } | Step::Write { key, .. } => key,
        }
    }

    /// What it puts into the key.
    pub fn value(&self) -> Option<u64> {
        match self {
            Step::Read { .. } => None,
            Step::Append { value, .. } | Step::Write { value, .. } => Some(*value),
        }
    }
}

/// A change of one key: a put, or a delete where there is no value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The key.
    pub key: String,
    /// What is put; None deletes.
    pub value: Option<u64>,
}

/// What a process asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub enum Request {
    /// Reads a register.
    Read {
        /// The register.
        key: String,
        /// Whether the asked member's own state will do, however old.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        serializable: bool,
    },
    /// Writes a register unconditionally.
    Write {
        /// The register.
        key: String,
        /// The value written.
        value: u64,
    },
    /// Writes a register on the condition that it still has a revision, at which it held `from`.
    Cas {
        /// The register.
        key: String,
        /// The value at that revision.
        from: u64,
        /// The value written.
        value: u64,
        /// The revision.
        revision: u64,
    },
    /// Creates an element of a set; the store must not have it.
    Add {
        /// The set.
        set: String,
        /// The element; added once in a run.
        element: u64,
    },
    /// Removes an element.
    Remove {
        /// The set.
        set: String,
        /// The element.
        element: u64,
    },
    /// Lists a set.
    Elements {
        /// The set.
        set: String,
    },
    /// All steps or none, at one revision.
    Txn {
        /// The steps.
        steps: Vec<Step>,
    },
    /// Moves an amount between accounts, on the condition that neither changed since its balance was read.
    Transfer {
        /// From this account.
        from: u32,
        /// To this one.
        to: u32,
        /// How much.
        amount: u64,
    },
    /// Reads all accounts at one revision.
    Balances {
        /// An earlier revision, at which any member may answer; None asks for the newest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<u64>,
    },
    /// Changes keys that others watch, in one transaction.
    Change {
        /// The changes; a key once.
        changes: Vec<Change>,
    },
    /// Makes a lease and attaches a key to it.
    Grant {
        /// The lease.
        lease: u64,
        /// Seconds to live.
        ttl: u64,
    },
    /// Prolongs a lease.
    KeepAlive {
        /// The lease.
        lease: u64,
    },
    /// Asks whether the key attached to a lease is still there.
    IsAttached {
        /// The lease.
        lease: u64,
    },
    /// Ends a lease, and its keys with it.
    Revoke {
        /// The lease.
        lease: u64,
    },
    /// Takes a lock, if nobody holds it: creates its key with a lease.
    Acquire {
        /// The lock.
        lock: String,
        /// The lease.
        lease: u64,
    },
    /// Writes what a lock guards.
    Guarded {
        /// The lock.
        lock: String,
        /// The revision at which the writer took the lock.
        token: u64,
        /// Whether the write is conditional on the lock being held at that revision.
        fenced: bool,
    },
    /// Gives a lock back.
    Release {
        /// The lock.
        lock: String,
        /// The revision at which it was taken.
        token: u64,
    },
    /// Forgets the past before a revision.
    Compact {
        /// The revision.
        revision: u64,
    },
    /// A member's hash over all keys at a revision.
    Hash {
        /// The revision.
        revision: u64,
    },
    /// Fetches a whole snapshot of a member and verifies its checksum.
    Snapshot,
    /// Puts a key that is to be kept, whatever is lost.
    Keep {
        /// The key.
        key: u64,
        /// The value; put once in a run.
        value: u64,
    },
    /// Reads all keys that are to be kept.
    Kept,
    /// Saves the whole state as an administrator does, to restore it when everything is lost.
    Save,
    /// A digest over all keys of the run that have no lease, with their values and revisions.
    Digest {
        /// The revision; None asks for the newest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<u64>,
    },
    /// Opens a watch that goes on from a revision, as a watcher does who knows no later one.
    Follow {
        /// The revision.
        from: u64,
    },
}

impl Request {
    /// Whether it asks for a change, so that an answer that never came leaves the outcome unknown.
    pub fn is_write(&self) -> bool {
        match self {
            Request::Read { .. }
            | Request::Elements { .. }
            | Request::Balances { .. }
            | Request::IsAttached { .. }
            | Request::Hash { .. }
            | Request::Snapshot
            | Request::Kept
            | Request::Save
            | Request::Digest { .. }
            | Request::Follow { .. } => false,
            Request::Txn { steps } => steps.iter().any(|step| step.value().is_some()),
            Request::Write { .. }
            | Request::Cas { .. }
            | Request::Add { .. }
            | Request::Remove { .. }
            | Request::Transfer { .. }
            | Request::Change { .. }
            | Request::Grant { .. }
            | Request::KeepAlive { .. }
            | Request::Revoke { .. }
            | Request::Acquire { .. }
            | Request::Guarded { .. }
            | Request::Release { .. }
            | Request::Keep { .. }
            | Request::Compact { .. } => true,
        }
    }

    /// Whether its answer must not be older than what anybody saw before it was sent.
    pub fn is_linearizable(&self) -> bool {
        match self {
            Request::Read { serializable, .. } => !serializable,
            Request::Balances { at } | Request::Digest { at } => at.is_none(),
            Request::Hash { .. } | Request::Snapshot | Request::Compact { .. } => false,
            Request::Save | Request::Follow { .. } => false,
            // Leases are granted and prolonged beside the keys; their answers' revisions promise nothing of them.
            Request::KeepAlive { .. } | Request::Grant { .. } | Request::Revoke { .. } => false,
            _ => true,
        }
    }
}

/// What was read of a key within a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The key.
    pub key: String,
    /// The list, or the register's one value; empty where there is no key.
    pub values: Vec<u64>,
    /// The revision of the key's last change; 0 where there is no key.
    pub revision: u64,
}

/// What an answer tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "kebab-case")]
pub enum Told {
    /// It was done.
    Done,
    /// A register's content.
    Value {
        /// None where there is no key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<u64>,
        /// The revision of its last change.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        changed: Option<u64>,
    },
    /// Whether a condition held, and with it whether anything was done.
    Held {
        /// Whether it held.
        held: bool,
    },
    /// A set's elements.
    Elements {
        /// In ascending order.
        elements: Vec<u64>,
    },
    /// What a transaction read, before its own writes.
    Read {
        /// A key each.
        seen: Vec<Seen>,
    },
    /// Balances by account.
    Balances {
        /// From account 0 on.
        accounts: Vec<i64>,
    },
    /// For each change, whether there was a key to delete; true for a put.
    Changed {
        /// As the changes were asked.
        took: Vec<bool>,
    },
    /// A lease.
    Lease {
        /// The seconds that it was given; 0 where there is no such lease.
        ttl: u64,
    },
    /// A hash.
    Hash {
        /// Over keys and their revisions.
        hash: u64,
        /// From this revision on.
        compacted: u64,
    },
    /// A snapshot.
    Snapshot {
        /// Its length.
        bytes: u64,
        /// Whether its checksum is right.
        whole: bool,
    },
    /// The keys that are there of those that are to be kept.
    Kept {
        /// In ascending order: the key, its value and the revision of its last change.
        kept: Vec<(u64, u64, u64)>,
    },
    /// A digest.
    Digest {
        /// The first bytes of a SHA-256.
        digest: u64,
        /// Over so many keys.
        keys: u64,
    },
    /// That the revisions a watch asks for are no more.
    Compacted {
        /// The lowest that can be had.
        revision: u64,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The store's revision that the answer names; for a write that took effect, the one that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// What it tells.
    #[serde(flatten)]
    pub told: Told,
}

impl Reply {
    /// What it tells, without the revision.
    pub fn told_shortly(&self) -> String {
        let told = Reply {
            revision: None,
            told: self.told.clone(),
        };
        told.to_string()
    }

    /// An answer at a revision.
    pub fn at(revision: u64, told: Told) -> Self {
        Reply {
            revision: Some(revision),
            told,
        }
    }

    /// Whether a change took effect; a condition that did not hold changes nothing.
    pub fn took_effect(&self) -> bool {
        match &self.told {
            Told::Held { held } => *held,
            Told::Changed { took } => took.contains(&true),
            _ => true,
        }
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Step::Read { key } => write!(f, "read {key}"),
            Step::Append { key, value } => write!(f, "append {value} to {key}"),
            Step::Write { key, value } => write!(f, "{key} = {value}"),
        }
    }
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.value {
            Some(value) => write!(f, "put {} = {value}", self.key),
            None => write!(f, "delete {}", self.key),
        }
    }
}

impl Display for Request {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Request::Read { key, serializable } => {
                let how = if *serializable { "any member's " } else { "" };
                write!(f, "read {how}{key}")
            }
            Request::Write { key, value } => write!(f, "write {key} = {value}"),
            Request::Cas {
                key, from, value, ..
            } => write!(f, "compare-and-swap {key} {from} to {value}"),
            Request::Add { set, element } => write!(f, "add {element} to {set}"),
            Request::Remove { set, element } => write!(f, "remove {element} from {set}"),
            Request::Elements { set } => write!(f, "list {set}"),
            Request::Txn { steps } => write!(f, "transaction: {}", listed(steps)),
            Request::Transfer { from, to, amount } => {
                write!(f, "transfer {amount} from account {from} to {to}")
            }
            Request::Balances { at: None } => write!(f, "read all accounts"),
            Request::Balances { at: Some(at) } => write!(f, "read all accounts at revision {at}"),
            Request::Change { changes } => write!(f, "{}", listed(changes)),
            Request::Grant { lease, ttl } => write!(f, "grant lease {lease} for {ttl} s"),
            Request::KeepAlive { lease } => write!(f, "keep lease {lease} alive"),
            Request::IsAttached { lease } => write!(f, "is the key of lease {lease} there?"),
            Request::Revoke { lease } => write!(f, "revoke lease {lease}"),
            Request::Acquire { lock, lease } => write!(f, "acquire {lock} with lease {lease}"),
            Request::Guarded {
                lock,
                token,
                fenced,
            } => {
                let how = if *fenced { "fenced" } else { "unfenced" };
                write!(f, "{how} write under {lock}, held since revision {token}")
            }
            Request::Release { lock, .. } => write!(f, "release {lock}"),
            Request::Compact { revision } => write!(f, "compact to revision {revision}"),
            Request::Hash { revision } => write!(f, "hash at revision {revision}"),
            Request::Snapshot => write!(f, "fetch a snapshot"),
            Request::Keep { key, value } => write!(f, "put {value} into {key}, to be kept"),
            Request::Kept => write!(f, "read all that is to be kept"),
            Request::Save => write!(f, "save the state"),
            Request::Digest { at: None } => write!(f, "digest of all keys"),
            Request::Digest { at: Some(at) } => write!(f, "digest of all keys at revision {at}"),
            Request::Follow { from } => write!(f, "watch on from revision {from}"),
        }
    }
}

impl Display for Reply {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.told {
            Told::Done => write!(f, "done")?,
            Told::Value {
                value: Some(value),
                changed,
            } => {
                write!(f, "{value}")?;
                if let Some(changed) = changed {
                    write!(f, ", changed at {changed}")?;
                }
            }
            Told::Value { value: None, .. } => write!(f, "no such key")?,
            Told::Held { held: true } => write!(f, "done, the condition held")?,
            Told::Held { held: false } => write!(f, "refused, the condition did not hold")?,
            Told::Elements { elements } => write!(f, "{} elements", elements.len())?,
            Told::Read { seen } => {
                let seen: Vec<String> = seen.iter().map(told_of_seen).collect();
                write!(f, "[{}]", seen.join("; "))?;
            }
            Told::Balances { accounts } => write!(f, "{accounts:?}")?,
            Told::Changed { .. } => write!(f, "changed")?,
            Told::Lease { ttl } => write!(f, "lives {ttl} s")?,
            Told::Hash { hash, compacted } => write!(f, "{hash:08x} from revision {compacted} on")?,
            Told::Snapshot { bytes, whole } => {
                let whole = if *whole { "whole" } else { "torn" };
                write!(f, "{bytes} bytes, {whole}")?;
            }
            Told::Kept { kept } => write!(f, "{} keys", kept.len())?,
            Told::Digest { digest, keys } => write!(f, "{digest:016x} of {keys} keys")?,
            Told::Compacted { revision } => write!(f, "compacted, begins at {revision}")?,
        }
        match self.revision {
            Some(revision) => write!(f, " (revision {revision})"),
            None => Ok(()),
        }
    }
}

/// A list's end is what tells versions apart; the whole of a long one would hide it.
fn told_of_seen(seen: &Seen) -> String {
    const END: usize = 4;
    let skipped = seen.values.len().saturating_sub(END);
    let end: Vec<String> = seen.values[skipped..]
        .iter()
        .map(ToString::to_string)
        .collect();
    let dots = if skipped > 0 { "…" } else { "" };
    format!(
        "{} = {dots}{} (changed at {})",
        seen.key,
        end.join(" "),
        seen.revision
    )
}

fn listed<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}
