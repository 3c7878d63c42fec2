//! What log and state need of a disk, and no more: ordered families of keys, atomic batches, consistent views, a sync.
//!
//! RocksDB does it for real ([`super::rocks`]); a simulation puts a disk of its own in its place, which can be made to fail, to
//! hang and to forget what was not synced.

use bytes::Bytes;
use mvcc::{Table, Visit};
use std::ops::Bound;
use std::time::Duration;

/// Why the disk did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct EngineError(Box<dyn std::error::Error + Send + Sync>);

impl EngineError {
    /// What the engine said.
    pub fn new(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        EngineError(reason.into())
    }

    /// Whether the engine found its files to be other than it wrote them. A file that it knows and the disk does not is
    /// damage too.
    pub fn is_corruption(&self) -> bool {
        let Some(err) = self.0.downcast_ref::<rocksdb::Error>() else {
            return false;
        };
        let is_missing = err.kind() == rocksdb::ErrorKind::IOError
            && err.as_ref().contains("No such file or directory");
        is_missing || err.kind() == rocksdb::ErrorKind::Corruption
    }
}

impl From<rocksdb::Error> for EngineError {
    fn from(err: rocksdb::Error) -> Self {
        EngineError::new(err)
    }
}

/// One ordered family of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// The member's own records, such as its vote.
    Own,
    /// The log's entries.
    Log,
    /// A table of the state, of this generation.
    State(u64, Table),
}

/// One change of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Write a key.
    Put(Family, Bytes, Bytes),
    /// Delete a key.
    Delete(Family, Bytes),
    /// Delete the keys from the first to before the second.
    DeleteRange(Family, Bytes, Bytes),
}

/// Changes that are written together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch(pub Vec<Change>);

impl WriteBatch {
    /// Adds a key.
    pub fn put(&mut self, family: Family, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.0.push(Change::Put(family, key.into(), value.into()));
    }

    /// How many bytes of keys and values it writes.
    pub fn bytes(&self) -> u64 {
        let bytes = |change: &Change| match change {
            Change::Put(_, key, value) => key.len() + value.len(),
            Change::Delete(_, key) => key.len(),
            Change::DeleteRange(_, start, end) => start.len() + end.len(),
        };
        self.0.iter().map(bytes).sum::<usize>() as u64
    }

    /// Adds the deletion of a key.
    pub fn delete(&mut self, family: Family, key: impl Into<Bytes>) {
        self.0.push(Change::Delete(family, key.into()));
    }

    /// Adds the deletion of the keys from `start` to before `end`.
    pub fn delete_range(&mut self, family: Family, start: impl Into<Bytes>, end: impl Into<Bytes>) {
        let change = Change::DeleteRange(family, start.into(), end.into());
        self.0.push(change);
    }
}

/// Reads families.
pub trait Reads {
    /// The value under `key`.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Visits the keys between the bounds in order, or from the last to the first, until the visitor breaks. Where the start
    /// lies behind the end there are none.
    fn scan(
        &self,
        family: Family,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        reverse: bool,
        visit: Visit<'_>,
    ) -> Result<(), EngineError>;
}

/// The disk of one member. Reads of the engine itself see every write at once.
pub trait Engine: Reads + Send + Sync + 'static {
    /// Reads the tables of a generation: as they are now and stay, when `frozen`, or with every later write. None when there
    /// is no such generation.
    fn tables(&self, generation: u64, frozen: bool) -> Option<Box<dyn Reads + '_>>;

    /// Writes without waiting for the disk. What is synced later carries everything written before it along.
    fn write(&self, batch: WriteBatch) -> Result<(), EngineError>;

    /// Waits until everything written so far is on disk. After a failure nothing is known of it.
    fn sync(&self) -> Result<(), EngineError>;

    /// Writes to tables what can be had again from the log. Until [`persist`](Engine::persist), a crash may take it back to an
    /// earlier moment, all tables of a generation to the same one.
    fn write_repeatable(&self, batch: WriteBatch) -> Result<(), EngineError> {
        self.write(batch)
    }

    /// Waits until everything written so far to the tables of a generation is on disk.
    fn persist(&self, _generation: u64) -> Result<(), EngineError> {
        self.sync()
    }

    /// The generations whose tables were there, whole or in part, when the engine was opened.
    fn generations(&self) -> Vec<u64>;

    /// Makes the tables of a generation, as far as they are missing.
    fn create(&self, generation: u64) -> Result<(), EngineError>;

    /// Removes the tables of a generation, as far as they are there.
    fn remove(&self, generation: u64) -> Result<(), EngineError>;

    /// How many bytes it takes on disk.
    fn size_bytes(&self) -> u64;

    /// How many bytes of its files hold something that is still there, as far as it knows, with the tables of this generation.
    fn live_bytes(&self, _generation: u64) -> u64 {
        self.size_bytes()
    }

    /// How many keys exist, as far as it knows; nothing counts them.
    fn keys(&self, _generation: u64) -> Option<u64> {
        None
    }

    /// How long the next sync of a simulated disk takes, by the simulation's clock; a real one takes its time itself.
    fn simulated_sync(&self) -> Duration {
        Duration::ZERO
    }

    /// How much room a simulated disk has left; a real one is asked through the file system.
    fn simulated_free_bytes(&self) -> Option<u64> {
        None
    }
}
