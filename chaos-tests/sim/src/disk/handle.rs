//! A simulated disk as one life of its member uses it. When that life is over, nothing that it does counts any more.

use super::image::{Image, written};
use super::{Disk, Range, State};
use crate::judge::Event;
use bytes::Bytes;
use mvcc::{Table, Visit};
use raft_store::db::{Engine, EngineError, Family, Reads, WriteBatch};
use raft_store::log::mark::{SLOT_BYTES, Slots};
use rand::RngExt;
use std::collections::BTreeSet;
use std::io;
use std::ops::Bound;
use std::sync::MutexGuard;
use std::time::Duration;

/// The disk as one life of the member uses it.
pub(super) struct Handle {
    pub disk: Disk,
    pub life: u64,
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
        state.take_room(batch.bytes())?;
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

impl State {
    fn take_room(&mut self, bytes: u64) -> Result<(), EngineError> {
        let Some(free) = &mut self.free else {
            return Ok(());
        };
        match free.checked_sub(bytes) {
            Some(left) => *free = left,
            None => return Err(EngineError::new("simulated: no space left on the disk")),
        }
        Ok(())
    }
}

impl Slots for Handle {
    fn read(&self, slot: u64) -> Option<[u8; SLOT_BYTES]> {
        Some(self.state().ok()?.notes.read(slot))
    }

    fn write(&mut self, slot: u64, bytes: &[u8; SLOT_BYTES]) -> io::Result<()> {
        let mut state = self.state().map_err(io::Error::other)?;
        state.notes.write(slot, *bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.state().map_err(io::Error::other)?;
        state.notes.sync();
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

    fn simulated_free_bytes(&self) -> Option<u64> {
        let free = self.state().map_or(None, |state| state.free);
        Some(free.unwrap_or(u64::MAX))
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
