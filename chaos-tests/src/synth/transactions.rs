//! Transactions that never were. Pure.

use super::layout::{APART, End, Luck, Made, STEP_NS, lay_out, luck};
use crate::history::{Record, Reply, Request, Seen, Step, Told};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;

const OPS: usize = 400;
const KEYS: u32 = 6;

/// Keys with their values and the revisions that made them.
type State = BTreeMap<String, (Vec<u64>, u64)>;

pub fn right_lists(seed: u64) -> Option<Vec<Record>> {
    Some(World::run(seed, true, &mut |_| false).0)
}

pub fn right_registers(seed: u64) -> Option<Vec<Record>> {
    Some(World::run(seed, false, &mut |_| false).0)
}

/// A refused append takes effect, and is read.
pub fn aborted(seed: u64) -> Option<Vec<Record>> {
    planted(seed, true, |world| {
        let (key, value) = (world.key(), world.value());
        let steps = vec![append(&key, value)];
        world.apply(&steps);
        world.push(steps, End::Fail);
        world.read(&[&key]);
        true
    })
}

/// Of two appends to one key in one transaction only the first was there when somebody read.
pub fn intermediate(seed: u64) -> Option<Vec<Record>> {
    planted(seed, true, |world| {
        let (key, first, second) = (world.key(), world.value(), world.value());
        let steps = vec![append(&key, first), append(&key, second)];
        let seen = world.seen_by(&steps);
        let made = Reply::at(world.revision + 2, Told::Read { seen });
        world.push(steps.clone(), End::Ok(made));
        world.apply(&steps[..1]);
        world.read(&[&key]);
        world.apply(&steps[1..]);
        true
    })
}

/// One append takes effect a second time.
pub fn twice(seed: u64) -> Option<Vec<Record>> {
    planted(seed, true, |world| {
        let (key, value) = (world.key(), world.value());
        let steps = vec![append(&key, value)];
        world.commit(steps.clone());
        world.apply(&steps);
        world.read(&[&key]);
        true
    })
}

/// An acknowledged append is gone after it was read.
pub fn lost(seed: u64) -> Option<Vec<Record>> {
    planted(seed, true, |world| {
        let (key, value) = (world.key(), world.value());
        world.commit(vec![append(&key, value)]);
        world.read(&[&key]);
        world.revision += 1;
        let revision = world.revision;
        let Some((values, changed)) = world.state.get_mut(&key) else {
            return false;
        };
        values.pop();
        *changed = revision;
        let next = world.value();
        world.commit(vec![append(&key, next)]);
        world.read(&[&key]);
        true
    })
}

/// Two transactions read one version and both overwrite it.
pub fn lost_update(seed: u64) -> Option<Vec<Record>> {
    planted(seed, false, |world| {
        let key = world.key();
        let first = vec![read(&key), write(&key, world.value())];
        let second = vec![read(&key), write(&key, world.value())];
        let seen = world.seen_by(&second);
        world.commit(first);
        world.commit_having_seen(second, seen);
        true
    })
}

/// A reader sees one key before and another after a transaction that wrote both.
pub fn read_skew(seed: u64) -> Option<Vec<Record>> {
    planted(seed, false, |world| {
        let (one, other) = ("txn-0".to_owned(), "txn-1".to_owned());
        let steps = vec![read(&one), read(&other)];
        let before = world.seen_by(&steps);
        let both = vec![write(&one, world.value()), write(&other, world.value())];
        world.commit(both);
        let after = world.seen_by(&steps);
        let seen = vec![before[0].clone(), after[1].clone()];
        let reply = Reply::at(world.revision, Told::Read { seen });
        world.push(steps, End::Ok(reply));
        true
    })
}

/// Two transactions read both keys and each writes another one, as if the other had not.
pub fn write_skew(seed: u64) -> Option<Vec<Record>> {
    planted(seed, false, |world| {
        let (one, other) = ("txn-0".to_owned(), "txn-1".to_owned());
        let first = vec![read(&one), read(&other), write(&one, world.value())];
        let second = vec![read(&one), read(&other), write(&other, world.value())];
        let seen = world.seen_by(&second);
        world.commit(first);
        world.commit_having_seen(second, seen);
        true
    })
}

/// Each of two transactions reads what the other wrote.
pub fn circular(seed: u64) -> Option<Vec<Record>> {
    planted(seed, false, |world| {
        let (one, other) = ("txn-0".to_owned(), "txn-1".to_owned());
        let first = vec![write(&one, world.value()), read(&other)];
        let second = vec![write(&other, world.value()), read(&one)];
        world.apply(&first[..1]);
        let made = world.revision;
        let seen = world.seen_by(&second);
        world.commit_having_seen(second, seen);
        let seen = world.seen_by(&first);
        let seen = seen.into_iter().filter(|seen| seen.key == other).collect();
        world.push(first, End::Ok(Reply::at(made, Told::Read { seen })));
        true
    })
}

/// A reader is told what had been overwritten long before it asked.
pub fn stale(seed: u64) -> Option<Vec<Record>> {
    planted(seed, false, |world| {
        let key = world.key();
        let steps = vec![read(&key)];
        let seen = world.seen_by(&steps);
        let overwrite = vec![write(&key, world.value())];
        world.commit(overwrite);
        world.at += APART;
        let reply = Reply::at(world.revision, Told::Read { seen });
        world.push(steps, End::Ok(reply));
        true
    })
}

fn planted(
    seed: u64,
    lists: bool,
    mut plant: impl FnMut(&mut World) -> bool,
) -> Option<Vec<Record>> {
    let (records, planted) = World::run(seed, lists, &mut plant);
    planted.then_some(records)
}

struct World {
    rng: StdRng,
    lists: bool,
    state: State,
    revision: u64,
    next: u64,
    at: usize,
    made: Vec<Made>,
}

impl World {
    /// Transactions at random; in the middle of them `plant`, once. Whether it planted.
    fn run(
        seed: u64,
        lists: bool,
        plant: &mut dyn FnMut(&mut World) -> bool,
    ) -> (Vec<Record>, bool) {
        let mut world = World {
            rng: StdRng::seed_from_u64(seed),
            lists,
            state: State::new(),
            revision: 100,
            next: 0,
            at: 10,
            made: Vec::new(),
        };
        let mut planted = false;
        for number in 0..OPS {
            if number == OPS / 2 {
                planted = plant(&mut world);
            }
            world.step();
        }
        let records = lay_out(&mut world.rng, world.made);
        (records, planted)
    }

    fn step(&mut self) {
        let mut steps = Vec::new();
        let mut keys: Vec<String> = Vec::new();
        for _ in 0..self.rng.random_range(1..4) {
            let key = self.key();
            if keys.contains(&key) {
                continue;
            }
            keys.push(key.clone());
            steps.push(match self.rng.random_range(0..2) {
                0 => read(&key),
                _ if self.lists => append(&key, self.value()),
                _ => write(&key, self.value()),
            });
        }
        let writes = steps.iter().any(|step| step.value().is_some());
        let luck = if writes {
            luck(&mut self.rng)
        } else {
            Luck::Done
        };
        let seen = self.seen_by(&steps);
        if luck.takes_effect() {
            self.apply(&steps);
        }
        let end = luck.end(Reply::at(self.revision, Told::Read { seen }));
        self.push(steps, end);
    }

    fn key(&mut self) -> String {
        format!("txn-{}", self.rng.random_range(0..KEYS))
    }

    fn value(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn seen_by(&self, steps: &[Step]) -> Vec<Seen> {
        let mut seen: Vec<Seen> = Vec::new();
        for step in steps {
            let key = step.key();
            if seen.iter().any(|seen| seen.key == key) {
                continue;
            }
            let (values, revision) = self.state.get(key).cloned().unwrap_or_default();
            seen.push(Seen {
                key: key.to_owned(),
                values,
                revision,
            });
        }
        // Who overwrites a register without reading it has not looked.
        seen.retain(|seen| {
            let is_read = |step: &Step| matches!(step, Step::Read { .. } | Step::Append { .. });
            steps
                .iter()
                .any(|step| step.key() == seen.key && is_read(step))
        });
        seen
    }

    fn apply(&mut self, steps: &[Step]) {
        if !steps.iter().any(|step| step.value().is_some()) {
            return;
        }
        self.revision += 1;
        for step in steps {
            let Some(value) = step.value() else { continue };
            let (values, revision) = self.state.entry(step.key().to_owned()).or_default();
            *revision = self.revision;
            if matches!(step, Step::Write { .. }) {
                values.clear();
            }
            values.push(value);
        }
    }

    fn commit(&mut self, steps: Vec<Step>) {
        let seen = self.seen_by(&steps);
        self.commit_having_seen(steps, seen);
    }

    fn commit_having_seen(&mut self, steps: Vec<Step>, seen: Vec<Seen>) {
        self.apply(&steps);
        let reply = Reply::at(self.revision, Told::Read { seen });
        self.push(steps, End::Ok(reply));
    }

    fn read(&mut self, keys: &[&String]) {
        self.commit(keys.iter().map(|key| read(key)).collect());
    }

    fn push(&mut self, steps: Vec<Step>, end: End) {
        let ns = self.at as u64 * STEP_NS;
        self.at += 1;
        self.made.push(Made::op(ns, Request::Txn { steps }, end));
    }
}

fn read(key: &str) -> Step {
    let key = key.to_owned();
    Step::Read { key }
}

fn append(key: &str, value: u64) -> Step {
    let key = key.to_owned();
    Step::Append { key, value }
}

fn write(key: &str, value: u64) -> Step {
    let key = key.to_owned();
    Step::Write { key, value }
}
