//! Histories of registers that never were: right ones, and right ones with one planted fault. Pure: all of it follows from the
//! seed.

use crate::check::register::{self, INITIAL};
use crate::history::{Event, Failure, Record, Reply, Request, Told};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What is wrong with a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Nothing.
    Nothing,
    /// One read returns what had been overwritten.
    StaleRead,
    /// One acknowledged write never takes effect.
    LostWrite,
    /// One write takes effect a second time, after another.
    Duplicate,
    /// The history forgets a write that was read: a fault of the recorder.
    DropOp,
    /// Two reads have each other's answers: a fault of the recorder.
    SwapAnswers,
    /// A write of unknown outcome that was read is told to have failed: a fault of the client.
    InfoAsFail,
}

/// The shape of a history.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Keys.
    pub keys: u32,
    /// Processes a key.
    pub processes: u32,
    /// Operations a key.
    pub ops: u32,
    /// Of a thousand operations, how many have an unknown outcome.
    pub unknown_per_mille: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            keys: 4,
            processes: 5,
            ops: 200,
            unknown_per_mille: 20,
        }
    }
}

/// Makes a history; None where the seed gave no place for the fault.
pub fn history(seed: u64, shape: Shape, plant: Plant) -> Option<Vec<Record>> {
    let mut world = World::new(seed, shape, plant);
    for key in 0..shape.keys {
        world.run_key(key, key == shape.keys / 2);
    }
    let mut records = world.records;
    records.sort_by_key(|record| record.ns);
    match plant {
        Plant::Nothing => Some(records),
        Plant::StaleRead | Plant::LostWrite | Plant::Duplicate => world.planted.then_some(records),
        Plant::DropOp => drop_op(records),
        Plant::SwapAnswers => swap_answers(records),
        Plant::InfoAsFail => info_as_fail(records),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Invoke,
    Apply,
    Return,
}

/// A value that the register had, when it was acknowledged, and until when it was the newest.
#[derive(Clone, Copy)]
struct Version {
    value: u64,
    revision: u64,
    invoked_ns: u64,
    acknowledged_ns: Option<u64>,
}

impl Version {
    /// Whether it was acknowledged before something was sent: then no order can turn the two around.
    fn is_over_before(&self, invoked_ns: u64) -> bool {
        self.acknowledged_ns
            .is_some_and(|acknowledged| acknowledged < invoked_ns)
    }
}

struct Process {
    id: u64,
    request: Option<(u64, Request)>,
    invoked_ns: u64,
    known: (u64, u64),
    answer: Option<Event>,
    is_lost: bool,
}

struct World {
    rng: StdRng,
    shape: Shape,
    plant: Plant,
    planted: bool,
    records: Vec<Record>,
    revision: u64,
    next_id: u64,
    next_value: u64,
    next_process: u64,
}

/// One key's part of the world.
struct Key {
    name: String,
    versions: Vec<Version>,
    processes: Vec<Process>,
    left: u32,
    /// Operations that must be reads, so that a fault is seen.
    reads_due: u32,
    may_plant: bool,
}

impl World {
    fn new(seed: u64, shape: Shape, plant: Plant) -> Self {
        World {
            rng: StdRng::seed_from_u64(seed),
            shape,
            plant,
            planted: false,
            records: Vec::new(),
            revision: 100,
            next_id: 0,
            next_value: INITIAL,
            next_process: 0,
        }
    }

    fn run_key(&mut self, number: u32, may_plant: bool) {
        self.revision += 1;
        let first = Version {
            value: INITIAL,
            revision: self.revision,
            invoked_ns: 0,
            acknowledged_ns: Some(0),
        };
        let mut key = Key {
            name: format!("k{number}"),
            versions: vec![first],
            processes: Vec::new(),
            left: self.shape.ops,
            reads_due: 0,
            may_plant,
        };
        let mut agenda = BinaryHeap::new();
        // One key after another, so that one revision counter serves all.
        let begin = self.records.last().map_or(0, |record| record.ns) + 1_000_000;
        for at in 0..self.shape.processes as usize {
            let process = self.process(&first);
            key.processes.push(process);
            agenda.push(Reverse((
                begin + self.rng.random_range(0..1_000_000),
                at,
                Step::Invoke,
            )));
        }
        while let Some(Reverse((ns, at, step))) = agenda.pop() {
            let next = match step {
                Step::Invoke => self.invoke(&mut key, at, ns),
                Step::Apply => self.apply(&mut key, at),
                Step::Return => self.answer(&mut key, at, ns),
            };
            if let Some(next) = next {
                let ns = ns + self.rng.random_range(1_000..2_000_000);
                agenda.push(Reverse((ns, at, next)));
            }
        }
    }

    fn process(&mut self, known: &Version) -> Process {
        self.next_process += 1;
        Process {
            id: self.next_process,
            request: None,
            invoked_ns: 0,
            known: (known.value, known.revision),
            answer: None,
            is_lost: false,
        }
    }

    fn invoke(&mut self, key: &mut Key, at: usize, ns: u64) -> Option<Step> {
        key.left = key.left.checked_sub(1)?;
        let must_read = key.reads_due > 0;
        key.reads_due = key.reads_due.saturating_sub(1);
        let request = match self.rng.random_range(0..4) {
            0 | 1 => read(key),
            _ if must_read => read(key),
            2 => Request::Write {
                key: key.name.clone(),
                value: self.value(),
            },
            _ => Request::Cas {
                key: key.name.clone(),
                from: key.processes[at].known.0,
                value: self.value(),
                revision: key.processes[at].known.1,
            },
        };
        self.next_id += 1;
        let process = &mut key.processes[at];
        process.request = Some((self.next_id, request.clone()));
        process.invoked_ns = ns;
        process.is_lost = self.rng.random_range(0..1000) < self.shape.unknown_per_mille;
        let event = Event::Invoke {
            id: self.next_id,
            process: process.id,
            server: "synthetic".to_owned(),
            request,
        };
        self.records.push(Record { ns, event });
        Some(Step::Apply)
    }

    fn value(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value
    }

    /// The instant at which the operation takes effect, if it does.
    fn apply(&mut self, key: &mut Key, at: usize) -> Option<Step> {
        let (id, request) = key.processes[at].request.clone()?;
        if key.processes[at].is_lost && self.rng.random_range(0..2) == 0 {
            return Some(Step::Return);
        }
        let newest = *key.versions.last()?;
        let reply = match request {
            Request::Cas { from, .. } if from != newest.value => {
                Reply::at(self.revision, Told::Held { held: false })
            }
            Request::Cas { value, .. } => {
                let revision = self.write(key, at, value, newest);
                key.processes[at].known = (value, revision);
                Reply::at(revision, Told::Held { held: true })
            }
            Request::Write { value, .. } => {
                let revision = self.write(key, at, value, newest);
                key.processes[at].known = (value, revision);
                Reply::at(revision, Told::Done)
            }
            _ => {
                let seen = self.read(key, at, newest);
                key.processes[at].known = (seen.value, seen.revision);
                let told = Told::Value {
                    value: Some(seen.value),
                    changed: Some(seen.revision),
                };
                Reply::at(self.revision, told)
            }
        };
        key.processes[at].answer = Some(Event::Ok { id, reply });
        Some(Step::Return)
    }

    fn read(&mut self, key: &mut Key, at: usize, newest: Version) -> Version {
        let invoked_ns = key.processes[at].invoked_ns;
        if !self.is_the_place(key, at) || !newest.is_over_before(invoked_ns) {
            return newest;
        }
        let older = key.versions[key.versions.len() - 2];
        if !older.is_over_before(newest.invoked_ns) {
            return newest;
        }
        match self.plant {
            Plant::StaleRead => {
                self.planted = true;
                key.reads_due = 10;
                older
            }
            Plant::Duplicate => {
                self.planted = true;
                key.reads_due = 10;
                self.revision += 1;
                let again = Version {
                    revision: self.revision,
                    ..older
                };
                key.versions.push(again);
                again
            }
            _ => newest,
        }
    }

    fn write(&mut self, key: &mut Key, at: usize, value: u64, newest: Version) -> u64 {
        self.revision += 1;
        let invoked_ns = key.processes[at].invoked_ns;
        let is_place = self.is_the_place(key, at) && newest.is_over_before(invoked_ns);
        if self.plant == Plant::LostWrite && is_place {
            self.planted = true;
            key.reads_due = 10;
        } else {
            key.versions.push(Version {
                value,
                revision: self.revision,
                invoked_ns,
                acknowledged_ns: None,
            });
        }
        self.revision
    }

    /// Whether a fault may be planted now, so that it will surely be seen.
    fn is_the_place(&self, key: &Key, at: usize) -> bool {
        key.may_plant
            && !self.planted
            && key.versions.len() > 5
            && key.left > 20
            && !key.processes[at].is_lost
            && !key.is_writing(at)
    }

    fn answer(&mut self, key: &mut Key, at: usize, ns: u64) -> Option<Step> {
        let newest = *key.versions.last()?;
        let process = &mut key.processes[at];
        let (id, request) = process.request.take()?;
        let answer = process.answer.take();
        if process.is_lost {
            let error = Failure::new("synthetic", "the answer was lost");
            let event = if request.is_write() {
                Event::Info { id, error }
            } else {
                Event::Fail { id, error }
            };
            self.records.push(Record { ns, event });
            key.processes[at] = self.process(&newest);
            return Some(Step::Invoke);
        }
        if let Some(event) = answer {
            if let Event::Ok { reply, .. } = &event
                && let Some(revision) = &proves(reply)
            {
                let written = key
                    .versions
                    .iter_mut()
                    .find(|version| version.revision == *revision);
                if let Some(version) = written {
                    version.acknowledged_ns.get_or_insert(ns);
                }
            }
            self.records.push(Record { ns, event });
        }
        Some(Step::Invoke)
    }
}

impl Key {
    /// Whether another process has a write under way.
    fn is_writing(&self, besides: usize) -> bool {
        self.processes.iter().enumerate().any(|(at, process)| {
            at != besides && matches!(&process.request, Some((_, request)) if request.is_write())
        })
    }
}

fn read(key: &Key) -> Request {
    Request::Read {
        key: key.name.clone(),
        serializable: false,
    }
}

/// The revision of the register that an answer proves.
fn proves(reply: &Reply) -> Option<u64> {
    match reply.told {
        Told::Value { changed, .. } => changed,
        Told::Held { held: false } => None,
        _ => reply.revision,
    }
}

/// The value that an answer tells.
fn value_read(event: &Event) -> Option<u64> {
    match event {
        Event::Ok {
            reply:
                Reply {
                    told: Told::Value { value, .. },
                    ..
                },
            ..
        } => *value,
        _ => None,
    }
}

fn id_of(event: &Event) -> Option<u64> {
    match event {
        Event::Invoke { id, .. }
        | Event::Ok { id, .. }
        | Event::Fail { id, .. }
        | Event::Info { id, .. } => Some(*id),
        Event::Watch { .. } | Event::Fault { .. } | Event::Leader { .. } | Event::Term { .. } => {
            None
        }
    }
}

/// Forgets an acknowledged write that was read.
fn drop_op(records: Vec<Record>) -> Option<Vec<Record>> {
    let is_read = |wanted: u64| {
        let mut events = records.iter().map(|record| &record.event);
        events.any(|event| value_read(event) == Some(wanted))
    };
    let victim = records.iter().find_map(|record| match &record.event {
        Event::Invoke {
            id,
            request: Request::Write { value, .. },
            ..
        } if is_read(*value) => Some(*id),
        _ => None,
    })?;
    let kept = records
        .iter()
        .filter(|record| id_of(&record.event) != Some(victim));
    Some(kept.cloned().collect())
}

/// Tells a write that was read, though its outcome was unknown, to have failed.
fn info_as_fail(mut records: Vec<Record>) -> Option<Vec<Record>> {
    let read: Vec<u64> = records
        .iter()
        .filter_map(|record| value_read(&record.event))
        .collect();
    let writes: Vec<(u64, u64)> = records
        .iter()
        .filter_map(|record| match &record.event {
            Event::Invoke {
                id,
                request: Request::Write { value, .. } | Request::Cas { value, .. },
                ..
            } if read.contains(value) => Some((*id, *value)),
            _ => None,
        })
        .collect();
    for record in &mut records {
        if let Event::Info { id, error } = &record.event
            && writes.iter().any(|(write, _)| write == id)
        {
            record.event = Event::Fail {
                id: *id,
                error: error.clone(),
            };
            return Some(records);
        }
    }
    None
}

/// Gives two reads of a key each other's answers; the second one's value was written after the first one was over.
fn swap_answers(mut records: Vec<Record>) -> Option<Vec<Record>> {
    let timeline = crate::history::timeline(&records).ok()?;
    let keys = register::by_key(&timeline);
    let (first, second) = keys.values().find_map(|ops| {
        let reads = || {
            ops.iter()
                .filter(|op| matches!(op.action, register::Action::Read(value) if value != INITIAL))
        };
        reads().find_map(|first| {
            let is_later = |second: &&register::Op| {
                let writer = ops.iter().find(|op| {
                    op.action.writes().is_some() && op.action.writes() == second.action.observes()
                });
                writer.is_some_and(|writer| first.is_before(writer))
            };
            reads().find(is_later).map(|second| (first.id, second.id))
        })
    })?;
    let place = |wanted: u64| {
        records
            .iter()
            .position(|record| matches!(record.event, Event::Ok { id, .. } if id == wanted))
    };
    let (first_at, second_at) = (place(first)?, place(second)?);
    let (ns, later_ns) = (records[first_at].ns, records[second_at].ns);
    records.swap(first_at, second_at);
    records[first_at].ns = ns;
    records[second_at].ns = later_ns;
    for (at, number) in [(first_at, first), (second_at, second)] {
        if let Event::Ok { id, .. } = &mut records[at].event {
            *id = number;
        }
    }
    Some(records)
}
