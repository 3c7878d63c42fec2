//! Who is served when more is asked than can be done at once: which flow a request belongs to, whether it runs, waits or is
//! refused, and whose turn comes next.
//!
//! Pure: time is an argument, and whoever waits is woken by [`Flows::take_called`]. Semantics: Kubernetes' API priority and
//! fairness. Streams (watches, logs, tunnels) are classified and take no seat.

mod defaults;
mod level;
mod limits;
mod schema;

use defaults::{as_it_counts, mandatory_objects};
pub use defaults::{default_objects, mend};
pub use limits::{Bounds, LevelConfig, Response};
pub use schema::Schema;

use crate::Caller;
use crate::rbac::Request;
use level::{Arrived, Level, Seat};
use limits::divide;
use objects::{Object, ObjectKey};
use std::collections::BTreeMap;
use std::time::Duration;

/// The group of flow schemas and priority levels.
pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const CATCH_ALL: &str = "catch-all";
/// Seats are divided anew this often at most for whoever asks for more than his own.
const DIVIDE_AFTER: Duration = Duration::from_millis(100);

/// Names one request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// Where a request belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// The flow schema.
    pub schema: String,
    /// Its uid.
    pub schema_uid: String,
    /// The priority level.
    pub level: String,
    /// Its uid.
    pub level_uid: String,
    /// A number of the flow, the same for all of its requests.
    pub flow: u64,
}

/// What became of a request that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It runs; [`Flows::end`] must be told.
    Runs(Ticket),
    /// It waits until [`Flows::take_called`] names it; [`Flows::end`] or [`Flows::time_out`] must be told.
    Waits(Ticket),
    /// It is refused.
    Refused(Refusal),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Its queue is full.
    QueueFull,
    /// No seat is free, and its level has no queues.
    NoSeat,
    /// It waited too long.
    TimeOut,
    /// Whoever asked is gone.
    Cancelled,
}

impl Refusal {
    /// As metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::QueueFull => "queue-full",
            Refusal::NoSeat => "concurrency-limit",
            Refusal::TimeOut => "time-out",
            Refusal::Cancelled => "cancelled",
        }
    }
}

/// What is counted for a flow schema in a priority level.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Requests that wait now.
    pub waiting: usize,
    /// Requests that run now.
    pub running: usize,
    /// Requests that ever ran.
    pub dispatched: u64,
    /// Requests that were refused.
    pub refused: BTreeMap<Refusal, u64>,
    /// For how long those waited that ran, by [`WAIT_BOUNDS`]; the last is for all longer ones.
    pub waits: [u64; WAIT_BOUNDS.len() + 1],
    /// The sum of that time.
    pub waited: Duration,
}

/// The bounds of [`Counts::waits`], in seconds.
pub const WAIT_BOUNDS: [f64; 8] = [0.0, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0];

/// Levels, schemas and all requests on their way.
pub struct Flows {
    seats: u32,
    schemas: Vec<Schema>,
    levels: BTreeMap<String, Level>,
    on_their_way: BTreeMap<Ticket, OnItsWay>,
    called: Vec<Ticket>,
    counts: BTreeMap<(String, String), Counts>,
    tickets: u64,
    divided: Duration,
}

struct OnItsWay {
    schema: String,
    level: String,
    seat: Seat,
    came: Duration,
    runs_since: Option<Duration>,
}

impl Flows {
    /// For a server that does so much at once; with the levels and schemas that every cluster has.
    pub fn new(seats: u32) -> Self {
        let mut flows = Flows {
            seats,
            schemas: Vec::new(),
            levels: BTreeMap::new(),
            on_their_way: BTreeMap::new(),
            called: Vec::new(),
            counts: BTreeMap::new(),
            tickets: 0,
            divided: Duration::ZERO,
        };
        flows.replace(default_objects());
        flows
    }

    /// From now on these are all that are stored. What is mandatory is there in any case.
    pub fn replace(&mut self, stored: &[Object]) {
        self.schemas.clear();
        for level in self.levels.values_mut() {
            level.retired = true;
        }
        mandatory_objects().for_each(|object| self.put(object));
        stored.iter().for_each(|object| self.put(object));
        self.settle();
    }

    /// Takes in an object of the group, or that it is gone.
    pub fn set(&mut self, key: &ObjectKey, object: Option<&Object>) {
        match object {
            Some(object) => self.put(object),
            None => self.remove(&key.resource.resource, &key.name),
        }
        self.settle();
    }

    fn put(&mut self, object: &Object) {
        let object = &as_it_counts(object);
        if object.types.kind == "FlowSchema" {
            let Some(schema) = Schema::read(object) else {
                return;
            };
            self.schemas.retain(|it| it.name != schema.name);
            self.schemas.push(schema);
            let rank = |schema: &Schema| (schema.precedence, schema.name.clone());
            self.schemas.sort_by_key(rank);
        } else if let Some(config) = LevelConfig::read(object) {
            match self.levels.get_mut(&config.name) {
                Some(level) => level.configure(config),
                None => drop(self.levels.insert(config.name.clone(), Level::new(config))),
            }
        }
    }

    fn remove(&mut self, resource: &str, name: &str) {
        let is_level = resource == "prioritylevelconfigurations";
        let is_it =
            |it: &&Object| it.metadata.name == name && (it.types.kind != "FlowSchema") == is_level;
        match (mandatory_objects().find(is_it), is_level) {
            (Some(object), _) => self.put(object),
            (None, false) => self.schemas.retain(|schema| schema.name != name),
            (None, true) => {
                if let Some(level) = self.levels.get_mut(name) {
                    level.retired = true;
                }
            }
        }
    }

    /// Gives every level its bounds after a change.
    fn settle(&mut self) {
        self.levels
            .retain(|_, level| !(level.retired && level.is_idle()));
        let shares = |level: &Level| match level.retired {
            true => 0,
            false => level.config().shares,
        };
        let sum = self.levels.values().map(shares).sum();
        for level in self.levels.values_mut().filter(|level| !level.retired) {
            level.bounds = level.config().bounds(self.seats, sum);
        }
        self.divide(self.divided);
        self.counts.retain(|(schema, level), counts| {
            counts.waiting + counts.running > 0
                || self.levels.contains_key(level)
                    && self.schemas.iter().any(|it| it.name == *schema)
        });
    }

    /// Where a request belongs.
    pub fn classify(&self, caller: &Caller, request: &Request<'_>) -> Class {
        let level_of = |schema: &Schema| {
            let level = self.levels.get(&schema.level);
            level.filter(|level| !level.retired)
        };
        let found = self
            .schemas
            .iter()
            .filter(|schema| schema.fits(caller, request))
            .find_map(|schema| Some((schema, level_of(schema)?)));
        let found = found.or_else(|| {
            let schema = self.schemas.iter().find(|it| it.name == CATCH_ALL)?;
            Some((schema, level_of(schema)?))
        });
        let (schema, level) = found.expect("the mandatory objects are always there");
        let distinguisher = schema.distinguisher(caller, request);
        Class {
            schema: schema.name.clone(),
            schema_uid: schema.uid.clone(),
            level: level.config().name.clone(),
            level_uid: level.config().uid.clone(),
            flow: hash(&schema.name, distinguisher),
        }
    }

    /// Whether a level's requests run at once, however many there are.
    pub fn is_exempt(&self, level: &str) -> bool {
        self.levels.get(level).is_some_and(Level::is_exempt)
    }

    /// A request arrives that needs so many seats.
    pub fn arrive(&mut self, class: &Class, seats: u32, now: Duration) -> Arrival {
        let name = match self.levels.contains_key(&class.level) {
            true => &*class.level,
            // It was there when the request was classified.
            false => CATCH_ALL,
        };
        let is_due = now.saturating_sub(self.divided) >= DIVIDE_AFTER;
        if let Some(level) = self.levels.get_mut(name)
            && level.is_full(seats)
        {
            level.want(seats);
            // What it lent it gets back at once.
            if is_due || level.limit < level.bounds.nominal {
                self.divide(now);
            }
        }
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        let level = self.levels.get_mut(name);
        let level = level.expect("the mandatory levels are always there");
        let arrived = level.arrive(ticket, class.flow, seats, now);
        let key = (class.schema.clone(), name.to_owned());
        let counts = self.counts.entry(key).or_default();
        let (seat, runs) = match arrived {
            Arrived::Refused(why) => {
                *counts.refused.entry(why).or_default() += 1;
                return Arrival::Refused(why);
            }
            Arrived::Runs(seat) => (seat, true),
            Arrived::Waits(seat) => (seat, false),
        };
        counts.waiting += 1;
        let on_its_way = OnItsWay {
            schema: class.schema.clone(),
            level: name.to_owned(),
            seat,
            came: now,
            runs_since: None,
        };
        self.on_their_way.insert(ticket, on_its_way);
        if runs {
            self.note_start(ticket, now);
            return Arrival::Runs(ticket);
        }
        // Its level may just have got more seats.
        self.call(now);
        match self.called.iter().position(|called| *called == ticket) {
            Some(at) => {
                self.called.remove(at);
                Arrival::Runs(ticket)
            }
            None => Arrival::Waits(ticket),
        }
    }

    /// A request has ended, or whoever asked is gone.
    pub fn end(&mut self, ticket: Ticket, now: Duration) {
        self.leave(ticket, Refusal::Cancelled, now);
    }

    /// A request has waited too long; false when its turn came in this moment: it runs.
    pub fn time_out(&mut self, ticket: Ticket, now: Duration) -> bool {
        let waits = self.on_their_way.get(&ticket);
        let waits = waits.is_some_and(|it| it.runs_since.is_none());
        if waits {
            self.leave(ticket, Refusal::TimeOut, now);
        }
        waits
    }

    fn leave(&mut self, ticket: Ticket, why: Refusal, now: Duration) {
        let Some(gone) = self.on_their_way.remove(&ticket) else {
            return;
        };
        let level = self.levels.get_mut(&gone.level);
        let level = level.expect("a level stays while requests are in it");
        let key = (gone.schema, gone.level);
        let counts = self.counts.entry(key).or_default();
        match gone.runs_since {
            Some(since) => {
                level.end(gone.seat, now.saturating_sub(since), now);
                counts.running -= 1;
            }
            None => {
                level.give_up(ticket, gone.seat, now);
                counts.waiting -= 1;
                *counts.refused.entry(why).or_default() += 1;
            }
        }
        if level.retired && level.is_idle() {
            self.settle();
        }
        self.call(now);
    }

    /// Divides the seats by what the levels asked for lately; to be told every second or so.
    pub fn tick(&mut self, now: Duration) {
        self.divide(now);
        self.call(now);
    }

    /// Those whose turn came since the last call.
    pub fn take_called(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.called)
    }

    /// Every level as it is now.
    pub fn levels(&self) -> impl Iterator<Item = LevelFigures<'_>> {
        self.levels.values().map(|level| LevelFigures {
            name: &level.config().name,
            bounds: level.bounds,
            limit: level.limit,
            seats: level.seats,
            running: level.running,
            waiting: level.waiting,
        })
    }

    /// What was counted, by flow schema and priority level.
    pub fn counts(&self) -> &BTreeMap<(String, String), Counts> {
        &self.counts
    }

    fn divide(&mut self, now: Duration) {
        let since = now.saturating_sub(self.divided);
        self.divided = now;
        let limited = |level: &&mut Level| !level.is_exempt();
        let levels = self.levels.values_mut().filter(limited);
        let (mut levels, mut claims) = (levels.collect::<Vec<_>>(), Vec::new());
        claims.extend(levels.iter_mut().map(|level| level.claim(since)));
        for (level, seats) in levels.into_iter().zip(divide(self.seats, &claims)) {
            level.limit = seats;
        }
    }

    fn call(&mut self, now: Duration) {
        let mut called = Vec::new();
        for level in self.levels.values_mut() {
            while let Some(ticket) = level.next(now) {
                called.push(ticket);
            }
        }
        for ticket in called {
            self.note_start(ticket, now);
            self.called.push(ticket);
        }
    }

    fn note_start(&mut self, ticket: Ticket, now: Duration) {
        let Some(starts) = self.on_their_way.get_mut(&ticket) else {
            return;
        };
        starts.runs_since = Some(now);
        let key = (starts.schema.clone(), starts.level.clone());
        let counts = self.counts.entry(key).or_default();
        counts.waiting -= 1;
        counts.running += 1;
        counts.dispatched += 1;
        let waited = now.saturating_sub(starts.came);
        counts.waited += waited;
        let within = |bound: &f64| waited.as_secs_f64() <= *bound;
        let bucket = WAIT_BOUNDS.iter().position(within);
        counts.waits[bucket.unwrap_or(WAIT_BOUNDS.len())] += 1;
    }
}

/// A level's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelFigures<'a> {
    /// Its name.
    pub name: &'a str,
    /// Between what its seats lie.
    pub bounds: Bounds,
    /// Its seats now.
    pub limit: u32,
    /// Seats that are taken.
    pub seats: u32,
    /// Requests that run.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
}

/// FNV-1a, and a mixing of its bits at the end so that the remainders differ too.
fn hash(schema: &str, distinguisher: &str) -> u64 {
    let bytes = schema.bytes().chain([0]).chain(distinguisher.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests;
