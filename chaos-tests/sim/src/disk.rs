//! The disk of a simulated member: in memory, with what is synced and what is not kept apart.
//!
//! A power cut forgets what was not synced, from some batch on; a killed process forgets nothing of it. What the log can repeat stands
//! apart: it is on disk up to some moment of its own, whichever way a life ends. Syncs can be made slow or
//! fail. A handle belongs to one life of its member: when that is over, nothing it does counts any more. Every write is told
//! to the judge.

use crate::judge::{Event, Judge, Written};
use bytes::Bytes;
use mvcc::{Meta, Table, Tables, TablesError, Visit};
use raft_store::db::{Change, Engine, EngineError, Family, GENERATION_KEY, Reads, WriteBatch};
use raft_store::log::{PURGED_KEY, VOTE_KEY, record};
use raft_store::state::OwnRecords;
use raft_store::types::{LogId, MemberId, Vote};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What becomes of unsynced writes when a member's life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed: the kernel still has them.
    Kill,
    /// The power is cut: they are gone from some batch on.
    PowerCut,
}

/// The disk, as the one who owns the member holds it.
#[derive(Clone)]
pub struct Disk {
    member: MemberId,
    state: Arc<Mutex<State>>,
    judge: Judge,
}

struct State {
    life: u64,
    now: Image,
    durable: Image,
    /// Written since the last sync, in order.
    pending: Vec<WriteBatch>,
    /// What the log can repeat, written since it was last persisted, in order.
    repeatable: Vec<WriteBatch>,
    rng: StdRng,
    sync: Range,
    fails: bool,
}

/// How long a sync takes, in microseconds.
#[derive(Clone, Copy)]
struct Range(u64, u64);

const USUAL_SYNC: Range = Range(100, 3_000);
const SLOW_SYNC: Range = Range(50_000, 900_000);
const HANGING_SYNC: Range = Range(1_500_000, 4_000_000);

impl Disk {
    /// An empty disk.
    pub fn new(member: MemberId, seed: u64, judge: Judge) -> Self {
        let state = State {
            life: 0,
            now: Image::default(),
            durable: Image::default(),
            pending: Vec::new(),
            repeatable: Vec::new(),
            rng: StdRng::seed_from_u64(seed ^ member),
            sync: USUAL_SYNC,
            fails: false,
        };
        Disk {
            member,
            state: Arc::new(Mutex::new(state)),
            judge,
        }
    }

    /// The engine of the member's next life.
    pub fn engine(&self) -> Box<dyn Engine> {
        let life = self.state().life;
        Box::new(Handle {
            disk: self.clone(),
            life,
        })
    }

    /// Ends the member's life.
    pub fn crash(&self, crash: Crash) {
        let mut state = self.state();
        state.life += 1;
        state.sync = USUAL_SYNC;
        state.fails = false;
        let pending = std::mem::take(&mut state.pending);
        let kept = match crash {
            Crash::Kill => pending.len(),
            // The kernel may have written some of them by itself.
            Crash::PowerCut => match state.rng.random_bool(0.5) {
                true => 0,
                false => state.rng.random_range(0..=pending.len()),
            },
        };
        let repeatable = std::mem::take(&mut state.repeatable);
        let kept_state = match state.rng.random_bool(0.5) {
            true => 0,
            false => state.rng.random_range(0..=repeatable.len()),
        };
        let survivors = pending.iter().take(kept);
        let survivors = survivors.chain(repeatable.iter().take(kept_state));
        for change in survivors.flat_map(|batch| &batch.0) {
            state.durable.apply(change);
        }
        state.now = state.durable.clone();
        drop(state);
        self.judge.see(&Event::Crashed {
            member: self.member,
            kept,
            lost: pending.len() - kept,
            kept_state,
        });
    }

    /// Syncs take long, or very long, or as usual.
    pub fn slow(&self, is_slow: bool, hangs: bool) {
        self.state().sync = match (is_slow, hangs) {
            (false, _) => USUAL_SYNC,
            (true, false) => SLOW_SYNC,
            (true, true) => HANGING_SYNC,
        };
    }

    /// Syncs work, and take as long as usual.
    pub fn heal(&self) {
        self.slow(false, false);
        self.state().fails = false;
    }

    /// The next sync fails.
    pub fn fail_next_sync(&self) {
        self.state().fails = true;
    }

    /// Flips a bit of a log entry of a member that is down; returns its index, and what undoes it.
    pub fn damage_log(&self, rng: &mut StdRng) -> Option<(u64, WriteBatch)> {
        let mut state = self.state();
        let log = state.durable.families.get(&Family::Log)?;
        let (key, value) = log.iter().nth(rng.random_range(0..log.len().max(1)))?;
        let (key, value) = (key.clone(), value.clone());
        let mut damaged = value.to_vec();
        let bit = rng.random_range(0..damaged.len() * 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
        let mut undo = WriteBatch::default();
        undo.put(Family::Log, key.clone(), value);
        let change = Change::Put(Family::Log, key.clone(), damaged.into());
        state.durable.apply(&change);
        state.now = state.durable.clone();
        Some((index_of(&key), undo))
    }

    /// Undoes damage.
    pub fn mend(&self, undo: &WriteBatch) {
        let mut state = self.state();
        for change in &undo.0 {
            state.durable.apply(change);
        }
        state.now = state.durable.clone();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }
}

/// The disk as one life of the member uses it.
struct Handle {
    disk: Disk,
    life: u64,
}

impl Handle {
    fn state(&self) -> Result<MutexGuard<'_, State>, EngineError> {
        let state = self.disk.state();
        match state.life == self.life {
            true => Ok(state),
            false => Err(EngineError::new("this life of the member is over")),
        }
    }
}

impl Handle {
    fn put(&self, batch: WriteBatch, is_repeatable: bool) -> Result<(), EngineError> {
        let mut state = self.state()?;
        let before = state.now.marks();
        for change in &batch.0 {
            state.now.apply(change);
        }
        let written = written(&state.now, &before, &batch);
        match is_repeatable {
            true => state.repeatable.push(batch),
            false => state.pending.push(batch),
        }
        drop(state);
        self.disk.judge.see(&Event::Written {
            member: self.disk.member,
            written: &written,
            is_repeatable,
        });
        Ok(())
    }
}

impl Reads for Handle {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.state()?.now.get(family, key))
    }

    fn scan(
        &self,
        family: Family,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        reverse: bool,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        self.state()?.now.scan(family, start, end, reverse, visit);
        Ok(())
    }
}

impl Engine for Handle {
    fn tables(&self, generation: u64, frozen: bool) -> Option<Box<dyn Reads + '_>> {
        match (self.state(), frozen) {
            (Ok(state), true) => {
                let image = state.now.tables(generation);
                Some(Box::new(Frozen(image)))
            }
            _ => Some(Box::new(Live(self))),
        }
    }

    fn write(&self, batch: WriteBatch) -> Result<(), EngineError> {
        self.put(batch, false)
    }

    fn write_repeatable(&self, batch: WriteBatch) -> Result<(), EngineError> {
        self.put(batch, true)
    }

    fn persist(&self, _: u64) -> Result<(), EngineError> {
        let mut state = self.state()?;
        for batch in std::mem::take(&mut state.repeatable) {
            batch
                .0
                .iter()
                .for_each(|change| state.durable.apply(change));
        }
        drop(state);
        self.disk.judge.see(&Event::Persisted {
            member: self.disk.member,
        });
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        let mut state = self.state()?;
        let member = self.disk.member;
        if std::mem::take(&mut state.fails) {
            drop(state);
            self.disk.judge.see(&Event::SyncFailed { member });
            return Err(EngineError::new("simulated: the disk cannot sync"));
        }
        for change in std::mem::take(&mut state.pending)
            .iter()
            .flat_map(|batch| &batch.0)
        {
            state.durable.apply(change);
        }
        drop(state);
        self.disk.judge.see(&Event::Synced { member });
        Ok(())
    }

    fn generations(&self) -> Vec<u64> {
        let Ok(state) = self.state() else {
            return Vec::new();
        };
        let generation = |family: &Family| match family {
            Family::State(generation, _) => Some(*generation),
            _ => None,
        };
        let found: BTreeSet<u64> = state.now.families.keys().filter_map(generation).collect();
        found.into_iter().collect()
    }

    fn create(&self, generation: u64) -> Result<(), EngineError> {
        let mut state = self.state()?;
        for table in Table::ALL {
            let family = Family::State(generation, table);
            state.now.families.entry(family).or_default();
            state.durable.families.entry(family).or_default();
        }
        Ok(())
    }

    fn remove(&self, generation: u64) -> Result<(), EngineError> {
        let mut state = self.state()?;
        for table in Table::ALL {
            let family = Family::State(generation, table);
            state.now.families.remove(&family);
            state.durable.families.remove(&family);
        }
        state.now.hashes.remove(&generation);
        state.durable.hashes.remove(&generation);
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.state().map_or(0, |state| state.now.bytes())
    }

    fn simulated_sync(&self) -> Duration {
        let Ok(mut state) = self.state() else {
            return Duration::ZERO;
        };
        let Range(min, max) = state.sync;
        Duration::from_micros(state.rng.random_range(min..max))
    }
}

/// Tables that show every later write.
struct Live<'a>(&'a Handle);

impl Reads for Live<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.0.get(family, key)
    }

    fn scan(
        &self,
        family: Family,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        reverse: bool,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        self.0.scan(family, start, end, reverse, visit)
    }
}

/// Tables as they were.
struct Frozen(Image);

impl Reads for Frozen {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.0.get(family, key))
    }

    fn scan(
        &self,
        family: Family,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        reverse: bool,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        self.0.scan(family, start, end, reverse, visit);
        Ok(())
    }
}

/// Everything on a disk at one moment. Cloning it is cheap.
#[derive(Clone, Default)]
struct Image {
    families: BTreeMap<Family, Arc<BTreeMap<Bytes, Bytes>>>,
    /// Of each generation: a hash over the tables that members must have alike.
    hashes: BTreeMap<u64, u64>,
}

/// What a write is compared with.
struct Marks {
    generation: u64,
    log_end: u64,
}

impl Image {
    fn apply(&mut self, change: &Change) {
        let (Change::Put(family, ..) | Change::Delete(family, _) | Change::DeleteRange(family, ..)) =
            change;
        let is_own = matches!(family, Family::Own | Family::Log);
        let map = match self.families.get_mut(family) {
            Some(map) => map,
            None if is_own => self.families.entry(*family).or_default(),
            None => return, // Its generation was removed meanwhile.
        };
        let map = Arc::make_mut(map);
        let mut hash = 0;
        match change {
            Change::Put(family, key, value) => {
                hash ^= hash_of(*family, key, value);
                if let Some(old) = map.insert(key.clone(), value.clone()) {
                    hash ^= hash_of(*family, key, &old);
                }
            }
            Change::Delete(family, key) => {
                if let Some(old) = map.remove(key) {
                    hash ^= hash_of(*family, key, &old);
                }
            }
            Change::DeleteRange(_, start, end) => {
                let mut rest = map.split_off(start);
                map.append(&mut rest.split_off(end));
            }
        }
        if let Family::State(generation, _) = family {
            *self.hashes.entry(*generation).or_default() ^= hash;
        }
    }

    fn get(&self, family: Family, key: &[u8]) -> Option<Bytes> {
        self.families.get(&family)?.get(key).cloned()
    }

    fn scan(
        &self,
        family: Family,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        reverse: bool,
        visit: Visit<'_>,
    ) {
        let Some(map) = self.families.get(&family).filter(|_| !is_empty(start, end)) else {
            return;
        };
        let mut range = map.range::<[u8], _>((start, end));
        while let Some((key, value)) = match reverse {
            true => range.next_back(),
            false => range.next(),
        } {
            if visit(key, value).is_break() {
                return;
            }
        }
    }

    fn tables(&self, generation: u64) -> Image {
        let families = Table::ALL.into_iter().filter_map(|table| {
            let family = Family::State(generation, table);
            Some((family, self.families.get(&family)?.clone()))
        });
        Image {
            families: families.collect(),
            hashes: BTreeMap::new(),
        }
    }

    fn generation(&self) -> u64 {
        let bytes = self.get(Family::Own, GENERATION_KEY);
        bytes.map_or(0, |bytes| {
            bytes[..].try_into().map_or(0, u64::from_le_bytes)
        })
    }

    fn marks(&self) -> Marks {
        let last = self.families.get(&Family::Log);
        let last = last.and_then(|log| log.last_key_value());
        Marks {
            generation: self.generation(),
            log_end: last.map_or(0, |(key, _)| index_of(key) + 1),
        }
    }

    fn bytes(&self) -> u64 {
        let entries = self.families.values().flat_map(|map| map.iter());
        entries
            .map(|(key, value)| (key.len() + value.len()) as u64)
            .sum()
    }
}

/// The state of one generation, to be read as the store's tables.
struct Of<'a>(&'a Image, u64);

impl Tables for Of<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, TablesError> {
        Ok(self.0.get(Family::State(self.1, table), key))
    }

    fn scan(
        &self,
        table: Table,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        reverse: bool,
        visit: Visit<'_>,
    ) -> Result<(), TablesError> {
        let family = Family::State(self.1, table);
        self.0.scan(family, start, end, reverse, visit);
        Ok(())
    }
}

/// What a batch means.
fn written(now: &Image, before: &Marks, batch: &WriteBatch) -> Vec<Written> {
    let mut written = Vec::new();
    let generation = now.generation();
    let mut moves_state = generation != before.generation;
    for change in &batch.0 {
        match change {
            Change::Put(Family::Own, key, value) if key == VOTE_KEY => {
                let vote: Vote = serde_json::from_slice(value).expect("the store writes votes");
                written.push(Written::Vote(vote));
            }
            Change::Put(Family::Own, key, value) if key == PURGED_KEY => {
                let upto: LogId = serde_json::from_slice(value).expect("the store writes log ids");
                written.push(Written::Purged(upto));
            }
            Change::Put(Family::Log, _, value) => {
                let entry = record::decode(value).expect("the store writes whole records");
                written.push(Written::Entry(entry));
            }
            Change::DeleteRange(Family::Log, from, _) if index_of(from) > 0 => {
                let from = index_of(from);
                if from < before.log_end {
                    written.push(Written::Truncated { from });
                }
            }
            Change::Put(Family::State(of, Table::Meta), ..) => moves_state |= *of == generation,
            _ => {}
        }
    }
    if moves_state {
        written.push(applied(now, generation, generation != before.generation));
    }
    written
}

fn applied(now: &Image, generation: u64, is_replaced: bool) -> Written {
    let tables = Of(now, generation);
    let own = OwnRecords::load(&tables).expect("the store writes its records");
    let meta = Meta::load(&tables).expect("the store writes its numbers");
    Written::Applied {
        log_id: own.applied,
        revision: meta.revision,
        compacted: meta.compacted,
        hash: now.hashes.get(&generation).copied().unwrap_or_default(),
        is_replaced,
    }
}

fn index_of(key: &[u8]) -> u64 {
    key.try_into().map_or(u64::MAX, u64::from_be_bytes)
}

/// Part of the hash over the tables that all members have alike at the same entry; zero for others.
pub fn hash_of(family: Family, key: &[u8], value: &[u8]) -> u64 {
    let Family::State(_, table @ (Table::Latest | Table::Leases | Table::LeaseKeys)) = family
    else {
        return 0;
    };
    let mut hasher = DefaultHasher::new();
    (table.number(), key, value).hash(&mut hasher);
    hasher.finish()
}

/// Whether no key can lie between the bounds; `BTreeMap::range` panics on such.
fn is_empty(start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (
            Bound::Included(start) | Bound::Excluded(start),
            Bound::Included(end) | Bound::Excluded(end),
        ) => start >= end,
    }
}
