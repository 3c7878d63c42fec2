//! What is on a simulated disk at one moment, and what a write to it means to the judge.

use crate::judge::Written;
use bytes::Bytes;
use mvcc::{Meta, Table, Tables, TablesError, Visit};
use raft_store::db::{Change, Family, GENERATION_KEY, WriteBatch};
use raft_store::log::{PURGED_KEY, VOTE_KEY, record};
use raft_store::state::OwnRecords;
use raft_store::types::{LogId, Vote};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;

/// Everything on a disk at one moment. Cloning it is cheap.
#[derive(Clone, Default)]
pub(super) struct Image {
    pub families: BTreeMap<Family, Arc<BTreeMap<Bytes, Bytes>>>,
    /// Of each generation: a hash over the tables that members must have alike.
    pub hashes: BTreeMap<u64, u64>,
}

/// What a write is compared with.
pub(super) struct Marks {
    generation: u64,
    log_end: u64,
}

impl Image {
    pub fn apply(&mut self, change: &Change) {
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

    pub fn get(&self, family: Family, key: &[u8]) -> Option<Bytes> {
        self.families.get(&family)?.get(key).cloned()
    }

    pub fn scan(
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

    pub fn tables(&self, generation: u64) -> Image {
        let families = Table::ALL.into_iter().filter_map(|table| {
            let family = Family::State(generation, table);
            Some((family, self.families.get(&family)?.clone()))
        });
        Image {
            families: families.collect(),
            hashes: BTreeMap::new(),
        }
    }

    pub fn generation(&self) -> u64 {
        let bytes = self.get(Family::Own, GENERATION_KEY);
        bytes.map_or(0, |bytes| {
            bytes[..].try_into().map_or(0, u64::from_le_bytes)
        })
    }

    pub fn marks(&self) -> Marks {
        let last = self.families.get(&Family::Log);
        let last = last.and_then(|log| log.last_key_value());
        Marks {
            generation: self.generation(),
            log_end: last.map_or(0, |(key, _)| index_of(key) + 1),
        }
    }

    pub fn bytes(&self) -> u64 {
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
pub(super) fn written(now: &Image, before: &Marks, batch: &WriteBatch) -> Vec<Written> {
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

pub(super) fn index_of(key: &[u8]) -> u64 {
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
