//! Watches that never were. Pure.

use super::layout::{Made, STEP_NS, lay_out, luck};
use crate::history::{Change, Notice, Record, Reply, Request, Told, Wanted, WatchPart};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;

const OPS: usize = 300;
const KEYS: u32 = 5;
/// How long after its change an event comes.
const LATE_NS: u64 = 50_000;

pub fn right(seed: u64) -> Option<Vec<Record>> {
    make(seed, |_| true)
}

/// An event is left out.
pub fn skipped(seed: u64) -> Option<Vec<Record>> {
    make(seed, |parts| {
        let Some(at) = middle(parts, 1) else {
            return false;
        };
        parts.remove(at);
        true
    })
}

/// A message comes a second time.
pub fn twice(seed: u64) -> Option<Vec<Record>> {
    make(seed, |parts| {
        let Some(at) = middle(parts, 1) else {
            return false;
        };
        parts.insert(at, parts[at].clone());
        true
    })
}

/// Two messages change places.
pub fn swapped(seed: u64) -> Option<Vec<Record>> {
    make(seed, |parts| {
        let Some(at) = middle(parts, 1) else {
            return false;
        };
        let Some(next) = (at + 1..parts.len()).find(|next| events_of(&parts[*next].1).is_some())
        else {
            return false;
        };
        // A bookmark in between would tell another fault first.
        if next != at + 1 {
            return false;
        }
        let (one, other) = (parts[at].1.clone(), parts[next].1.clone());
        (parts[at].1, parts[next].1) = (other, one);
        true
    })
}

/// A revision's events come in two messages.
pub fn torn(seed: u64) -> Option<Vec<Record>> {
    make(seed, |parts| {
        let Some(at) = middle(parts, 2) else {
            return false;
        };
        let (ns, part) = parts[at].clone();
        let WatchPart::Events {
            revision, events, ..
        } = part
        else {
            return false;
        };
        let half = |events: &[Notice]| WatchPart::Events {
            revision,
            more: false,
            events: events.to_vec(),
        };
        parts[at].1 = half(&events[..1]);
        parts.insert(at + 1, (ns, half(&events[1..])));
        true
    })
}

/// A bookmark promises what has not come.
pub fn bookmark(seed: u64) -> Option<Vec<Record>> {
    make(seed, |parts| {
        let Some(at) = middle(parts, 1) else {
            return false;
        };
        let revision = first_revision(&parts[at].1);
        parts.insert(at, (parts[at].0, WatchPart::Progress { revision }));
        true
    })
}

/// A watch begins before the revision that it was to begin with.
pub fn resumed(seed: u64) -> Option<Vec<Record>> {
    make_with(seed, |wanted, parts| {
        let Some(at) = middle(parts, 1) else {
            return false;
        };
        wanted.from = first_revision(&parts[at].1) + 1;
        true
    })
}

/// A filter is not kept.
pub fn unfiltered(seed: u64) -> Option<Vec<Record>> {
    make_with(seed, |wanted, _| {
        wanted.no_delete = true;
        true
    })
}

/// What was there before is told wrongly.
pub fn previous(seed: u64) -> Option<Vec<Record>> {
    change_one(seed, |event| {
        let had = event.prev.take().is_some();
        event.version > 1 && had
    })
}

/// A value is told that nobody put.
pub fn wrong(seed: u64) -> Option<Vec<Record>> {
    change_one(seed, |event| {
        event.value = event.value.map(|value| value + 1_000_000);
        event.value.is_some()
    })
}

/// A watch ends before the store does.
pub fn stuck(seed: u64) -> Option<Vec<Record>> {
    make(seed, |parts| {
        let Some(at) = middle(parts, 1) else {
            return false;
        };
        let last = parts.len() - 1;
        parts.drain(at..last);
        true
    })
}

fn change_one(seed: u64, change: fn(&mut Notice) -> bool) -> Option<Vec<Record>> {
    make(seed, |parts| {
        let from = parts.len() / 2;
        parts[from..].iter_mut().any(|(_, part)| match part {
            WatchPart::Events { events, .. } => events.iter_mut().any(change),
            _ => false,
        })
    })
}

fn events_of(part: &WatchPart) -> Option<&[Notice]> {
    match part {
        WatchPart::Events { events, .. } => Some(events),
        _ => None,
    }
}

fn first_revision(part: &WatchPart) -> u64 {
    events_of(part)
        .and_then(|events| events.first())
        .map_or(0, |event| event.revision)
}

/// A message of at least so many events, somewhere in the middle.
fn middle(parts: &[(u64, WatchPart)], events: usize) -> Option<usize> {
    (parts.len() / 2..parts.len() - 5)
        .find(|at| events_of(&parts[*at].1).is_some_and(|told| told.len() >= events))
}

type Parts = Vec<(u64, WatchPart)>;

fn make(seed: u64, fault: impl Fn(&mut Parts) -> bool) -> Option<Vec<Record>> {
    make_with(seed, |_, parts| fault(parts))
}

/// Two watches of all keys, of which the second has the fault.
fn make_with(seed: u64, fault: impl Fn(&mut Wanted, &mut Parts) -> bool) -> Option<Vec<Record>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut made, changes) = changes(&mut rng);
    let wanted = Wanted {
        from: 101,
        key: None,
        prev: true,
        no_put: false,
        no_delete: false,
        resumes: None,
    };
    for watch in 0..2 {
        let (mut wanted, mut parts) = (wanted.clone(), messages(&mut rng, &changes));
        if watch == 1 && !fault(&mut wanted, &mut parts) {
            return None;
        }
        let asked = WatchPart::Asked {
            server: format!("m{watch}"),
            wanted,
        };
        parts.insert(0, (1, asked));
        let parts = parts
            .into_iter()
            .map(|(ns, part)| Made::Watch { ns, watch, part });
        made.extend(parts);
    }
    Some(lay_out(&mut rng, made))
}

/// When, at which revision, what.
type Changes = Vec<(u64, u64, Vec<Notice>)>;

fn changes(rng: &mut StdRng) -> (Vec<Made>, Changes) {
    let mut state: BTreeMap<String, Notice> = BTreeMap::new();
    let (mut made, mut told, mut revision, mut next) = (Vec::new(), Vec::new(), 100, 0);
    for at in 0..OPS {
        let ns = (at as u64 + 10) * STEP_NS;
        let mut asked: Vec<Change> = Vec::new();
        for _ in 0..rng.random_range(1..4) {
            let key = format!("watched-{}", rng.random_range(0..KEYS));
            if asked.iter().all(|change| change.key != key) {
                next += 1;
                let value = rng.random_bool(0.7).then_some(next);
                asked.push(Change { key, value });
            }
        }
        let luck = luck(rng);
        let took: Vec<bool> = asked
            .iter()
            .map(|change| change.value.is_some() || state.contains_key(&change.key))
            .collect();
        if luck.takes_effect() && took.contains(&true) {
            revision += 1;
            let happened = asked.iter().zip(&took).filter(|(_, took)| **took);
            let events = happened
                .map(|(change, _)| happen(&mut state, revision, change))
                .collect();
            told.push((ns, revision, events));
        }
        let reply = Reply::at(revision, Told::Changed { took });
        let request = Request::Change { changes: asked };
        made.push(Made::op(ns, request, luck.end(reply)));
    }
    (made, told)
}

fn happen(state: &mut BTreeMap<String, Notice>, revision: u64, change: &Change) -> Notice {
    let before = state.remove(&change.key);
    let prev = before
        .as_ref()
        .and_then(|before| Some((before.value?, before.revision)));
    let (created, version) = match (&before, change.value) {
        (_, None) => (0, 0),
        (None, Some(_)) => (revision, 1),
        (Some(before), Some(_)) => (before.created, before.version + 1),
    };
    let notice = Notice {
        key: change.key.clone(),
        value: change.value,
        revision,
        created,
        version,
        prev,
    };
    if change.value.is_some() {
        state.insert(change.key.clone(), notice.clone());
    }
    notice
}

/// A message a revision, bookmarks now and then, and the end.
fn messages(rng: &mut StdRng, changes: &Changes) -> Parts {
    let mut parts = vec![(2, WatchPart::Created { revision: 100 })];
    let mut last_ns = 2;
    for (ns, revision, events) in changes {
        last_ns = ns + LATE_NS;
        let events = WatchPart::Events {
            revision: *revision,
            more: false,
            events: events.clone(),
        };
        parts.push((last_ns, events));
        if rng.random_range(0..10) == 0 {
            let revision = *revision;
            parts.push((last_ns + 1, WatchPart::Progress { revision }));
        }
    }
    let why = "the run is over".to_owned();
    let complete = true;
    parts.push((last_ns + LATE_NS, WatchPart::Closed { why, complete }));
    parts
}
