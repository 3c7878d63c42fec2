//! What happened to the watched keys: the acknowledged changes at the revisions of their answers, and whatever any watch saw.
//! Pure.

use super::super::anomaly::Class;
use super::compacts_to;
use crate::history::{Attempt, Notice, Request, Timeline, Told, WatchPart, Watched};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The merged order.
pub(super) struct Truth<'a> {
    /// Of each revision the keys changed and what they then held.
    changes: BTreeMap<u64, BTreeMap<&'a str, Option<u64>>>,
    /// The same by key.
    of_key: HashMap<&'a str, BTreeMap<u64, Option<u64>>>,
    /// Values put, and by whom.
    putters: HashMap<u64, &'a Attempt>,
    /// Acknowledged deletes.
    deleted: HashSet<(u64, &'a str)>,
    /// Keys that a request of unknown outcome may have deleted.
    maybe_deleted: HashSet<&'a str>,
    /// Keys of which a request of unknown outcome may have made a change that nobody saw.
    uncertain: HashSet<&'a str>,
    /// Revisions of which some watch of everything told all, first and last.
    covered: Vec<(u64, u64)>,
    /// Revisions compacted to, and when that was asked for.
    compactions: Vec<(u64, u64)>,
}

impl<'a> Truth<'a> {
    pub fn of(timeline: &'a Timeline) -> Self {
        let mut truth = Truth {
            changes: BTreeMap::new(),
            of_key: HashMap::new(),
            putters: HashMap::new(),
            deleted: HashSet::new(),
            maybe_deleted: HashSet::new(),
            uncertain: HashSet::new(),
            covered: timeline.watches.iter().filter_map(covers).collect(),
            compactions: Vec::new(),
        };
        for attempt in &timeline.attempts {
            truth.attempted(attempt);
        }
        for watch in &timeline.watches {
            for (_, part) in &watch.parts {
                if let WatchPart::Events { events, .. } = part {
                    events.iter().for_each(|event| truth.seen(event));
                }
            }
        }
        truth.doubt(timeline);
        truth
    }

    fn attempted(&mut self, attempt: &'a Attempt) {
        if let Some(revision) = compacts_to(attempt) {
            self.compactions.push((revision, attempt.invoked_ns));
        }
        let Request::Change { changes } = &attempt.request else {
            return;
        };
        for change in changes {
            if let Some(value) = change.value {
                self.putters.insert(value, attempt);
            } else if attempt.reply().is_none() && attempt.may_have_changed() {
                self.maybe_deleted.insert(&change.key);
            }
        }
        let Some(reply) = attempt.reply() else { return };
        if let (Told::Changed { took }, Some(revision)) = (&reply.told, reply.revision) {
            for (change, _) in changes.iter().zip(took).filter(|(_, took)| **took) {
                self.happened(revision, &change.key, change.value);
                if change.value.is_none() {
                    self.deleted.insert((revision, &change.key));
                }
            }
        }
    }

    fn seen(&mut self, event: &'a Notice) {
        // What was acknowledged stands; an event that differs from it is told as wrong.
        self.happened(event.revision, &event.key, event.value);
        if let Some((value, revision)) = event.prev {
            self.happened(revision, &event.key, Some(value));
        }
    }

    fn happened(&mut self, revision: u64, key: &'a str, value: Option<u64>) {
        let change = self.changes.entry(revision).or_default();
        let value = *change.entry(key).or_insert(value);
        self.of_key.entry(key).or_default().insert(revision, value);
    }

    /// Which keys have a change of unknown outcome that nobody saw.
    fn doubt(&mut self, timeline: &'a Timeline) {
        let seen: HashSet<u64> = self
            .of_key
            .values()
            .flat_map(|changes| changes.values().flatten().copied())
            .collect();
        for attempt in &timeline.attempts {
            let Request::Change { changes } = &attempt.request else {
                continue;
            };
            if attempt.reply().is_some() || !attempt.may_have_changed() {
                continue;
            }
            let was_seen = changes
                .iter()
                .any(|change| change.value.is_some_and(|value| seen.contains(&value)));
            if !was_seen {
                let keys = changes.iter().map(|change| change.key.as_str());
                self.uncertain.extend(keys);
            }
        }
    }

    /// Whether all before a revision may have been compacted when something was told.
    pub fn is_compacted(&self, revision: u64, told_ns: u64) -> bool {
        self.compactions
            .iter()
            .any(|(to, asked_ns)| *to >= revision && *asked_ns < told_ns)
    }

    /// Whether nobody can have changed a key between two revisions without it being in the merged order.
    fn is_certain(&self, key: &str, after: u64, before: u64) -> bool {
        let first = self.changes.keys().next().copied().unwrap_or(0);
        let from = (after + 1).max(first);
        let is_covered = |(start, end): &(u64, u64)| *start <= from && before <= *end + 1;
        !self.uncertain.contains(key) || self.covered.iter().any(is_covered)
    }

    /// All changes between two revisions, both included, in order.
    pub fn between(
        &self,
        from: u64,
        until: u64,
    ) -> impl Iterator<Item = (u64, &'a str, Option<u64>)> {
        let range = (from <= until).then(|| self.changes.range(from..=until));
        range.into_iter().flatten().flat_map(|(revision, changes)| {
            changes.iter().map(|(key, value)| (*revision, *key, *value))
        })
    }

    /// What an event tells against what happened.
    pub fn contradiction(
        &self,
        watch: &Watched,
        ns: u64,
        event: &Notice,
    ) -> Option<(Class, String)> {
        self.change(event)
            .or_else(|| self.versions(event))
            .map(|why| (Class::WatchWrong, why))
            .or_else(|| {
                self.previous(watch, ns, event)
                    .map(|why| (Class::WatchPrevious, why))
            })
    }

    fn change(&self, event: &Notice) -> Option<String> {
        let key = event.key.as_str();
        let happened = self.changes.get(&event.revision)?.get(key)?;
        if *happened != event.value {
            return Some(format!("what happened to {key} then was {happened:?}"));
        }
        let Some(value) = event.value else {
            let by_whom =
                self.maybe_deleted.contains(key) || self.deleted.contains(&(event.revision, key));
            return (!by_whom).then(|| format!("nobody deleted {key}"));
        };
        let Some(putter) = self.putters.get(&value) else {
            return Some(format!("nobody put {value}"));
        };
        if !putter.may_have_changed() {
            return Some(format!("putting {value} was refused"));
        }
        let revision = putter.reply().and_then(|reply| reply.revision);
        revision
            .filter(|revision| *revision != event.revision)
            .map(|revision| format!("{value} was acknowledged at revision {revision}"))
    }

    /// Whether a put names rightly since when the key is there.
    fn versions(&self, event: &Notice) -> Option<String> {
        event.value?;
        if event.created > event.revision
            || (event.version == 1) != (event.created == event.revision)
        {
            return Some(format!(
                "version {} since revision {} cannot be",
                event.version, event.created
            ));
        }
        let key = event.key.as_str();
        let before = self.of_key.get(key)?.range(..event.revision).next_back();
        let since = before.map_or(0, |(revision, _)| *revision);
        if !self.is_certain(key, since, event.revision) {
            return None;
        }
        let was_there = before.is_some_and(|(_, value)| value.is_some());
        if was_there != (event.version > 1) {
            let was = if was_there { "there" } else { "not there" };
            return Some(format!(
                "it tells version {}, but the key was {was} before",
                event.version
            ));
        }
        None
    }

    fn previous(&self, watch: &Watched, ns: u64, event: &Notice) -> Option<String> {
        let key = event.key.as_str();
        let before = self.of_key.get(key)?.range(..event.revision).next_back();
        let since = before.map_or(0, |(revision, _)| *revision);
        if !watch.wanted.prev || !self.is_certain(key, since, event.revision) {
            return None;
        }
        let before = before.and_then(|(revision, value)| Some(((*value)?, *revision)));
        if before == event.prev {
            return None;
        }
        // Where the past is compacted there is nothing to tell.
        if event.prev.is_none() && self.is_compacted(event.revision - 1, ns) {
            return None;
        }
        Some(format!(
            "before it there was {}, but it tells {}",
            told_of(before),
            told_of(event.prev)
        ))
    }
}

/// The first and the last revision of which a watch told everything.
fn covers(watch: &Watched) -> Option<(u64, u64)> {
    let wanted = &watch.wanted;
    if wanted.key.is_some() || wanted.no_put || wanted.no_delete {
        return None;
    }
    let mut from = Some(wanted.from).filter(|from| *from > 0);
    let mut reached = 0;
    for (_, part) in &watch.parts {
        match part {
            WatchPart::Created { revision } => {
                from.get_or_insert(revision + 1);
            }
            WatchPart::Progress { revision } => reached = reached.max(*revision),
            WatchPart::Events { more, events, .. } => {
                let last = events.last().map_or(0, |event| event.revision);
                reached = reached.max(last.saturating_sub(u64::from(*more)));
            }
            _ => {}
        }
    }
    Some((from?, reached))
}

fn told_of(before: Option<(u64, u64)>) -> String {
    match before {
        Some((value, revision)) => format!("{value} of revision {revision}"),
        None => "nothing".to_owned(),
    }
}
