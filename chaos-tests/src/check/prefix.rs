//! Reads that asked for no more than the asked member's own state: it may be old, but it must be one that the store had. What
//! is told of a register at a revision is its newest change up to that revision.

use super::anomaly::{Anomaly, Class};
use super::{Checked, register::INITIAL};
use crate::history::{Attempt, Request, Timeline, Told};
use std::collections::{BTreeMap, HashMap};

/// The acknowledged writes of a register.
#[derive(Default)]
struct Writes<'a> {
    by_value: HashMap<u64, &'a Attempt>,
    by_revision: BTreeMap<u64, &'a Attempt>,
}

pub(super) fn check(timeline: &Timeline) -> Checked {
    let mut keys: BTreeMap<&str, Writes> = BTreeMap::new();
    for attempt in timeline
        .attempts
        .iter()
        .filter(|one| one.may_have_changed())
    {
        let (Request::Write { key, value } | Request::Cas { key, value, .. }) = &attempt.request
        else {
            continue;
        };
        let writes = keys.entry(key).or_default();
        writes.by_value.insert(*value, attempt);
        if let Some(revision) = attempt.reply().and_then(|reply| reply.revision) {
            writes.by_revision.insert(revision, attempt);
        }
    }
    let mut checked = Checked::default();
    for attempt in &timeline.attempts {
        let Request::Read {
            key,
            serializable: true,
        } = &attempt.request
        else {
            continue;
        };
        checked.subjects += 1;
        checked.ops += 1;
        if let Some(writes) = keys.get(key.as_str()) {
            checked
                .anomalies
                .extend(contradiction(key, attempt, writes));
        }
    }
    checked
}

fn contradiction(key: &str, read: &Attempt, writes: &Writes) -> Option<Anomaly> {
    let reply = read.reply()?;
    let (Told::Value { value, changed }, Some(at)) = (&reply.told, reply.revision) else {
        return None;
    };
    let since = changed.unwrap_or(0);
    if since > at {
        let why = format!("told at revision {at} of a change at revision {since}");
        return Some(Anomaly::new(Class::NotAPrefix, key, read, [], why));
    }
    if let Some(value) = value.filter(|value| *value != INITIAL) {
        let Some(writer) = writes.by_value.get(&value) else {
            let why = format!("nobody wrote {value}, or its write was told to have failed");
            return Some(Anomaly::new(Class::Phantom, key, read, [], why));
        };
        let written = writer.reply().and_then(|reply| reply.revision);
        if written.is_some_and(|written| written != since) {
            let why = format!("{value} was not written at revision {since}");
            return Some(Anomaly::new(Class::NotAPrefix, key, read, [*writer], why));
        }
    }
    let newer = writes.by_revision.range(since..=at);
    let (revision, between) = newer.into_iter().find(|(revision, _)| **revision > since)?;
    let why = format!(
        "the state of revision {at} has to hold the write of revision {revision}, but the newest told is of {since}"
    );
    Some(Anomaly::new(Class::NotAPrefix, key, read, [*between], why))
}
