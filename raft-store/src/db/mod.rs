//! The database that holds log and state: what is where, consistent views of the state, and how a state is replaced.
//!
//! The log has a write-ahead log; what is applied to the state needs none, since it can be applied again: it goes to disk now and
//! then, as a whole, and only then may the log be cut. The tables of the state belong to a generation: installing a snapshot fills the tables of the next one and then switches in a
//! single write, so that a crash leaves either the old state or the new one.

mod engine;
mod rocks;

pub use engine::{Change, Engine, EngineError, Family, Reads, WriteBatch};
pub use rocks::RocksEngine;

use crate::damage;
use bytes::Bytes;
use mvcc::{Table, Tables, TablesError, Visit, Write};
use std::ops::{Bound, Range};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// The own record that says which generation is the state.
pub const GENERATION_KEY: &[u8] = b"generation";

/// The database of one member.
pub struct Db {
    engine: Box<dyn Engine>,
    generation: AtomicU64,
    /// Bytes written to the state that a crash may take back.
    unpersisted: AtomicU64,
    damage: OnceLock<String>,
    /// Dropped after `engine`, since fields are dropped in their order: then the files are closed.
    open: watch::Sender<()>,
}

impl Db {
    /// Ends (with an error, as a channel without sender) when the last handle is gone and the files are closed.
    pub fn closed(&self) -> watch::Receiver<()> {
        self.open.subscribe()
    }

    /// Opens the RocksDB in `dir`, creating it if there is none.
    pub fn open(dir: &Path) -> Result<Self, EngineError> {
        Db::over(Box::new(RocksEngine::open(dir)?))
    }

    /// A database over an engine. Tables of other generations are leftovers of an interrupted installation and are removed.
    pub fn over(engine: Box<dyn Engine>) -> Result<Self, EngineError> {
        let generation = match engine.get(Family::Own, GENERATION_KEY)? {
            None => 0,
            Some(bytes) => bytes[..].try_into().map_or(0, u64::from_le_bytes),
        };
        for other in engine.generations() {
            if other != generation {
                engine.remove(other)?;
            }
        }
        engine.create(generation)?;
        Ok(Db {
            engine,
            generation: AtomicU64::new(generation),
            unpersisted: AtomicU64::new(0),
            damage: OnceLock::new(),
            open: watch::Sender::new(()),
        })
    }

    /// What damage was found in the files since they were opened.
    pub fn damage(&self) -> Option<String> {
        self.damage.get().cloned()
    }

    /// Notes it where an error means damage.
    pub fn notice(&self, err: &(dyn std::error::Error + 'static)) {
        if damage::is_corruption(err) {
            self.damaged(err);
        }
    }

    /// Notes that what was read is not what was written.
    pub fn damaged(&self, err: &(dyn std::error::Error + 'static)) {
        if self.damage.set(damage::reason(err)).is_ok() {
            tracing::error!(
                reason = damage::reason(err),
                "the database's files are damaged"
            );
        }
    }

    fn noticed(&self, err: EngineError) -> EngineError {
        self.notice(&err);
        err
    }

    /// One of the member's own records.
    pub fn own(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.engine.get(Family::Own, key)
    }

    /// Visits log entries in order, as they are now.
    pub fn scan_log(&self, indexes: Range<u64>, visit: Visit<'_>) -> Result<(), EngineError> {
        let (start, end) = (indexes.start.to_be_bytes(), indexes.end.to_be_bytes());
        let (start, end) = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
        let scanned = self.engine.scan(Family::Log, start, end, false, visit);
        scanned.map_err(|err| self.noticed(err))
    }

    /// The state as it is now; later writes do not show in it.
    pub fn view(&self) -> View<'_> {
        self.tables(true)
    }

    /// The state with every later write, for the one that writes it.
    pub fn live(&self) -> View<'_> {
        self.tables(false)
    }

    /// Writes without waiting for the disk; the next sync of the log carries it along.
    pub fn write(&self, batch: WriteBatch) -> Result<(), EngineError> {
        self.engine.write(batch).map_err(|err| self.noticed(err))
    }

    /// Writes to the state what the log can repeat.
    pub fn write_state(&self, batch: WriteBatch) -> Result<(), EngineError> {
        let bytes = batch.bytes();
        let written = self.engine.write_repeatable(batch);
        written.map_err(|err| self.noticed(err))?;
        self.unpersisted.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until the state as it is now is on disk, so that the entries of which it was made are needed no longer.
    pub fn persist(&self) -> Result<(), EngineError> {
        let bytes = self.unpersisted.load(Ordering::Relaxed);
        if bytes > 0 {
            let persisted = self.engine.persist(self.generation.load(Ordering::Acquire));
            persisted.map_err(|err| self.noticed(err))?;
            self.unpersisted.fetch_sub(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// How many bytes of the state only the log could give again.
    pub fn unpersisted_bytes(&self) -> u64 {
        self.unpersisted.load(Ordering::Relaxed)
    }

    /// Waits until everything written so far is on disk.
    pub fn sync(&self) -> Result<(), EngineError> {
        self.engine.sync().map_err(|err| self.noticed(err))
    }

    /// Adds changes of the state's tables to a batch.
    pub fn add_writes(&self, batch: &mut WriteBatch, writes: Vec<Write>) {
        let generation = self.generation.load(Ordering::Acquire);
        for Write { table, key, value } in writes {
            let family = Family::State(generation, table);
            match value {
                Some(value) => batch.put(family, key, value),
                None => batch.delete(family, key),
            }
        }
    }

    /// Empty tables of the next generation, for a snapshot to be installed.
    pub fn next_generation(&self) -> Result<NextGeneration<'_>, EngineError> {
        let number = self.generation.load(Ordering::Acquire) + 1;
        self.engine.remove(number)?;
        self.engine.create(number)?;
        Ok(NextGeneration { db: self, number })
    }

    /// Lets the room of what was deleted from history be given back: once the deletions are in files, RocksDB compacts those in the
    /// background, a few files at a time.
    pub fn give_back(&self) -> Result<(), EngineError> {
        self.engine.persist(self.generation.load(Ordering::Acquire))
    }

    /// How many bytes the database takes on disk.
    pub fn size_bytes(&self) -> u64 {
        self.engine.size_bytes()
    }

    /// How many of them hold something that is still there, as far as is known.
    pub fn live_bytes(&self) -> u64 {
        self.engine
            .live_bytes(self.generation.load(Ordering::Acquire))
    }

    /// How many keys exist, as RocksDB estimates; each change that was not compacted yet may count too.
    pub fn keys(&self) -> Option<u64> {
        self.engine.keys(self.generation.load(Ordering::Acquire))
    }

    /// How long the next sync takes by a simulation's clock; zero for a real disk.
    pub(crate) fn simulated_sync(&self) -> Duration {
        self.engine.simulated_sync()
    }

    /// How much room a simulated disk has left; None for a real one.
    pub(crate) fn simulated_free_bytes(&self) -> Option<u64> {
        self.engine.simulated_free_bytes()
    }

    fn tables(&self, frozen: bool) -> View<'_> {
        loop {
            let generation = self.generation.load(Ordering::Acquire);
            if let Some(reads) = self.engine.tables(generation, frozen) {
                return View {
                    db: self,
                    reads,
                    generation,
                };
            }
            // The generation was switched between the two reads.
        }
    }
}

/// The tables that an installation fills.
pub struct NextGeneration<'a> {
    db: &'a Db,
    number: u64,
}

impl NextGeneration<'_> {
    /// Adds one key to the new tables.
    pub fn put(&self, batch: &mut WriteBatch, table: Table, key: Bytes, value: Bytes) {
        batch.put(Family::State(self.number, table), key, value);
    }

    /// Makes the new tables the state, together with `batch`, and removes the old ones.
    pub fn switch(self, mut batch: WriteBatch) -> Result<(), EngineError> {
        let db = self.db;
        let number = self.number.to_le_bytes().to_vec();
        batch.put(Family::Own, GENERATION_KEY, number);
        db.write(batch)?;
        db.sync()?;
        let old = db.generation.swap(self.number, Ordering::AcqRel);
        db.engine.remove(old)
    }
}

/// The state's tables, read consistently.
pub struct View<'a> {
    db: &'a Db,
    reads: Box<dyn Reads + 'a>,
    generation: u64,
}

impl Tables for View<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, TablesError> {
        let value = self.reads.get(Family::State(self.generation, table), key);
        value.map_err(|err| storage(table, self.db.noticed(err)))
    }

    fn scan(
        &self,
        table: Table,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        reverse: bool,
        visit: Visit<'_>,
    ) -> Result<(), TablesError> {
        let family = Family::State(self.generation, table);
        let scanned = self.reads.scan(family, start, end, reverse, visit);
        scanned.map_err(|err| storage(table, self.db.noticed(err)))
    }
}

fn storage(table: Table, err: EngineError) -> TablesError {
    TablesError::Storage {
        table,
        source: Box::new(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::ControlFlow;

    fn keys(view: &View<'_>, start: Bound<&[u8]>, end: Bound<&[u8]>, reverse: bool) -> String {
        let mut keys = Vec::new();
        view.scan(Table::Latest, start, end, reverse, &mut |key, _| {
            keys.push(String::from_utf8_lossy(key).into_owned());
            ControlFlow::Continue(())
        })
        .expect("the tables can be read");
        keys.concat()
    }

    fn fill(db: &Db, keys: &'static str) {
        let mut batch = WriteBatch::default();
        let writes = keys
            .as_bytes()
            .chunks(1)
            .map(|key| Write {
                table: Table::Latest,
                key: Bytes::from_static(key),
                value: Some(Bytes::from_static(b"v")),
            })
            .collect();
        db.add_writes(&mut batch, writes);
        db.write(batch).expect("the tables can be written");
    }

    #[test]
    fn scans_like_the_tables_in_memory() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let db = Db::open(dir.path()).expect("a new database");
        fill(&db, "abcdef");
        let view = db.view();
        use Bound::{Excluded, Included, Unbounded};
        let check = |start, end, expected: &str| {
            assert_eq!(keys(&view, start, end, false), expected);
            let backward: String = expected.chars().rev().collect();
            assert_eq!(keys(&view, start, end, true), backward);
        };
        check(Unbounded, Unbounded, "abcdef");
        check(Included(b"b"), Excluded(b"e"), "bcd");
        check(Excluded(b"b"), Included(b"e"), "cde");
        check(Excluded(b"bb"), Included(b"ee"), "cde");
        check(Included(b"x"), Unbounded, "");
        check(Included(b"d"), Excluded(b"d"), "");
    }

    #[test]
    fn a_view_shows_its_moment_and_a_switch_is_whole() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let db = Db::open(dir.path()).expect("a new database");
        fill(&db, "abc");
        let before = db.view();
        fill(&db, "d");
        let next = db.next_generation().expect("tables can be made");
        let mut batch = WriteBatch::default();
        next.put(&mut batch, Table::Latest, "x".into(), "v".into());
        next.switch(batch).expect("the switch is one write");
        let all = (Bound::Unbounded, Bound::Unbounded);
        assert_eq!(keys(&before, all.0, all.1, false), "abc");
        assert_eq!(keys(&db.view(), all.0, all.1, false), "x");
        drop(before);
        drop(db);
        let db = Db::open(dir.path()).expect("the database opens again");
        assert_eq!(keys(&db.view(), all.0, all.1, false), "x");
    }

    #[test]
    fn an_interrupted_installation_leaves_the_old_state() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let db = Db::open(dir.path()).expect("a new database");
        fill(&db, "abc");
        let next = db.next_generation().expect("tables can be made");
        let mut batch = WriteBatch::default();
        next.put(&mut batch, Table::Latest, "x".into(), "v".into());
        db.write(batch).expect("the tables can be written");
        drop(db);
        let db = Db::open(dir.path()).expect("the database opens again");
        assert_eq!(
            keys(&db.view(), Bound::Unbounded, Bound::Unbounded, false),
            "abc"
        );
    }

    #[test]
    fn the_room_of_deleted_history_is_given_back() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let db = Db::open(dir.path()).expect("a new database");
        let change = |from: u64, to: u64, value: Option<Bytes>| {
            let mut batch = WriteBatch::default();
            let writes = (from..to).map(|number| Write {
                table: Table::History,
                key: Bytes::copy_from_slice(&number.to_be_bytes()),
                value: value.clone(),
            });
            db.add_writes(&mut batch, writes.collect());
            db.write(batch).expect("the tables can be written");
        };
        let mut state = 1u64;
        let noise: Bytes = (0..64 << 10)
            .map(|_| {
                // Numbers of an xorshift: no compression makes them smaller.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        for number in 0..400 {
            change(number, number + 1, Some(noise.clone()));
        }
        db.give_back().expect("the files can be written");
        let files = || {
            let entries = std::fs::read_dir(dir.path()).expect("the folder can be read");
            let tables = entries.flatten().filter(|entry| {
                let path = entry.path();
                path.extension().is_some_and(|extension| extension == "sst")
            });
            let bytes = tables.filter_map(|table| table.metadata().ok());
            bytes.map(|metadata| metadata.len()).sum::<u64>()
        };
        let before = files();
        assert!(before > 20 << 20, "{before} bytes in files");
        change(0, 380, None);
        db.give_back().expect("the files can be written");
        let began = std::time::Instant::now();
        while files() > before / 8 {
            let took = began.elapsed();
            assert!(
                took < Duration::from_secs(30),
                "{} of {before} bytes are left",
                files()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
