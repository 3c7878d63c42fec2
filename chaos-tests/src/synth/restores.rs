//! Clusters that were lost and restored, and terms that members told, which never were. Pure.

use super::layout::{End, Made, STEP_NS, lay_out, luck};
use crate::history::{Event, FaultPhase, Record, Reply, Request, Told};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;

const PUTS: u64 = 300;
const KEYS: u64 = 20;
/// By how much the restored store's revision is higher.
const RAISED_BY: u64 = 1_000_000;

/// What is wrong with a restored cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plant {
    Nothing,
    /// A key is of an earlier revision.
    Lost,
    /// A key is of a later revision.
    Later,
    /// A member has another digest.
    Digest,
    /// A watcher is not told.
    Blind,
    /// Revisions are handed out again.
    Revision,
}

pub fn right(seed: u64) -> Option<Vec<Record>> {
    let mut records = restored(seed, Plant::Nothing)?;
    records.extend(terms(seed, 0));
    records.sort_by_key(|record| record.ns);
    Some(records)
}

pub fn lost(seed: u64) -> Option<Vec<Record>> {
    restored(seed, Plant::Lost)
}

pub fn later(seed: u64) -> Option<Vec<Record>> {
    restored(seed, Plant::Later)
}

pub fn other_digest(seed: u64) -> Option<Vec<Record>> {
    restored(seed, Plant::Digest)
}

pub fn blind(seed: u64) -> Option<Vec<Record>> {
    restored(seed, Plant::Blind)
}

pub fn revisions_again(seed: u64) -> Option<Vec<Record>> {
    restored(seed, Plant::Revision)
}

/// A member forgets a vote.
pub fn forgotten_vote(seed: u64) -> Option<Vec<Record>> {
    Some(terms(seed, 1))
}

fn ok(ns: u64, request: Request, revision: Option<u64>, told: Told) -> Made {
    Made::op(ns, request, End::Ok(Reply { revision, told }))
}

fn restored(seed: u64, plant: Plant) -> Option<Vec<Record>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut made, mut revision, mut ns) = (Vec::new(), 100, STEP_NS * 100);
    let (mut there, mut saved) = (BTreeMap::new(), None);
    // Puts go on for a while after the state was saved.
    let saved_at = PUTS / 2 + rng.random_range(0..PUTS / 4);
    for value in 0..PUTS {
        ns += STEP_NS;
        if value == saved_at {
            let told = Told::Snapshot {
                bytes: 1000,
                whole: true,
            };
            made.push(ok(ns, Request::Save, Some(revision), told));
            let digest = Request::Digest { at: Some(revision) };
            made.push(ok(ns, digest, Some(revision), digested(7)));
            saved = Some((revision, there.clone()));
        }
        let (key, luck) = (rng.random_range(0..KEYS), luck(&mut rng));
        let put = Request::Keep { key, value };
        let done = Reply::at(revision + 1, Told::Done);
        made.push(Made::op(ns, put, luck.end(done)));
        if luck.takes_effect() {
            revision += 1;
            there.insert(key, (value, revision));
        }
    }
    let (at, mut kept) = saved?;
    let lost_ns = ns + 100 * STEP_NS;
    let key = match plant {
        Plant::Lost => kept
            .iter()
            .find(|(_, (value, _))| is_acknowledged(&made, *value)),
        Plant::Later => there.iter().find(|(_, (_, since))| *since > at),
        _ => there.iter().next(),
    };
    let key = *key?.0;
    match plant {
        Plant::Lost => drop(kept.remove(&key)),
        Plant::Later => drop(kept.insert(key, there[&key])),
        _ => {}
    }
    let raised = match plant {
        Plant::Revision => at,
        _ => at + RAISED_BY,
    };
    ns = lost_ns + 100 * STEP_NS;
    for member in 0..3 {
        ns += 20 * STEP_NS;
        let told = match plant {
            Plant::Blind if member == 1 => Told::Done,
            _ => Told::Compacted { revision: raised },
        };
        made.push(ok(ns, Request::Follow { from: at + 1 }, None, told));
        let digest = if plant == Plant::Digest && member == 2 {
            8
        } else {
            7
        };
        let request = Request::Digest { at: None };
        made.push(ok(ns, request, Some(raised), digested(digest)));
    }
    ns += 20 * STEP_NS;
    let kept = kept
        .iter()
        .map(|(key, (value, since))| (*key, *value, *since));
    let told = Told::Kept {
        kept: kept.collect(),
    };
    made.push(ok(ns, Request::Kept, Some(raised), told));
    let mut records = lay_out(&mut rng, made);
    for (ns, phase) in [
        (lost_ns, FaultPhase::Installed),
        (
            ns + STEP_NS,
            FaultPhase::Healed {
                effect: "restored".to_owned(),
            },
        ),
    ] {
        let event = Event::Fault {
            number: 1,
            kind: "restore".to_owned(),
            targets: vec![],
            phase,
        };
        records.push(Record { ns, event });
    }
    records.sort_by_key(|record| record.ns);
    Some(records)
}

fn digested(digest: u64) -> Told {
    Told::Digest { digest, keys: KEYS }
}

fn is_acknowledged(made: &[Made], value: u64) -> bool {
    made.iter().any(|made| match made {
        Made::Op {
            request: Request::Keep { value: put, .. },
            end: End::Ok(_),
            ..
        } => *put == value,
        _ => false,
    })
}

/// Terms of three members, which only rise; one of them falls by `by` in the end.
fn terms(seed: u64, by: u64) -> Vec<Record> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut terms = [1_u64; 3];
    let mut records = Vec::new();
    let mut tell = |step: u64, member: usize, term| {
        let event = Event::Term {
            name: format!("m{}", member + 1),
            member: member as u64 + 1,
            term,
        };
        let ns = step * STEP_NS;
        records.push(Record { ns, event });
    };
    for step in 0..50 {
        let member = rng.random_range(0..3);
        terms[member] += rng.random_range(1..3);
        tell(step, member, terms[member]);
    }
    let member = rng.random_range(0..3);
    // Each of them rose, or nobody would have told its term.
    terms[member] += 1;
    tell(50, member, terms[member]);
    tell(51, member, terms[member] - by);
    records
}
