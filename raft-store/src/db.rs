//! The RocksDB instance that holds log and state: column families, options, and consistent views of the state.
//!
//! Log and state share one write-ahead log, so that what was applied is never on disk without the entries before it. The
//! tables of the state belong to a generation: installing a snapshot fills the tables of the next one and then switches in a
//! single write, so that a crash leaves either the old state or the new one.

use bytes::Bytes;
use mvcc::{Table, Tables, TablesError, Visit, Write};
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBCompressionType,
    DBRawIteratorWithThreadMode, DBRecoveryMode, DBWithThreadMode, MultiThreaded, Options,
    ReadOptions, SnapshotWithThreadMode, WriteBatch,
};
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// RocksDB as the store uses it.
pub type Rocks = DBWithThreadMode<MultiThreaded>;

const LOG_CF: &str = "log";
const GENERATION_KEY: &[u8] = b"generation";

const BLOCK_CACHE_BYTES: usize = 24 << 20;
const WRITE_BUFFER_BYTES: usize = 8 << 20;
const WRITE_BUFFERS_TOTAL_BYTES: usize = 32 << 20;
const WAL_TOTAL_BYTES: u64 = 64 << 20;
const OPEN_FILES_MAX: i32 = 256;

/// The database of one member.
pub struct Db {
    rocks: Rocks,
    cache: Cache,
    generation: AtomicU64,
    /// Dropped after `rocks`, since fields are dropped in their order: then the files are closed.
    open: watch::Sender<()>,
}

impl Db {
    /// Ends (with an error, as a channel without sender) when the last handle is gone and the files are closed.
    pub fn closed(&self) -> watch::Receiver<()> {
        self.open.subscribe()
    }

    /// Opens the database in `dir`, creating it if there is none. Tables of other generations are leftovers of an
    /// interrupted installation and are removed.
    pub fn open(dir: &Path) -> Result<Self, rocksdb::Error> {
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let options = db_options();
        let mut names = match dir.join("CURRENT").exists() {
            true => Rocks::list_cf(&options, dir)?,
            false => vec![rocksdb::DEFAULT_COLUMN_FAMILY_NAME.to_owned()],
        };
        if !names.iter().any(|name| name == LOG_CF) {
            names.push(LOG_CF.to_owned());
        }
        let descriptors = names
            .iter()
            .map(|name| ColumnFamilyDescriptor::new(name, table_options(&cache)));
        let rocks = Rocks::open_cf_descriptors(&options, dir, descriptors)?;
        let generation = match rocks.get(GENERATION_KEY)? {
            None => 0,
            Some(bytes) => bytes.try_into().map_or(0, u64::from_le_bytes),
        };
        let db = Db {
            rocks,
            cache,
            generation: AtomicU64::new(generation),
            open: watch::Sender::new(()),
        };
        for name in names
            .iter()
            .filter(|name| is_other_generation(name, generation))
        {
            db.rocks.drop_cf(name)?;
        }
        db.create_tables(generation)?;
        Ok(db)
    }

    /// RocksDB itself; its default column family holds the member's own records.
    pub fn rocks(&self) -> &Rocks {
        &self.rocks
    }

    /// The log's column family.
    pub fn log_cf(&self) -> Arc<BoundColumnFamily<'_>> {
        self.rocks
            .cf_handle(LOG_CF)
            .expect("the log's column family is created at open and never dropped")
    }

    /// The state as it is now; later writes do not show in it.
    pub fn view(&self) -> View<'_> {
        let families = self.families();
        View {
            rocks: &self.rocks,
            snapshot: Some(self.rocks.snapshot()),
            families,
        }
    }

    /// The state with every later write, for the one that writes it.
    pub fn live(&self) -> View<'_> {
        View {
            rocks: &self.rocks,
            snapshot: None,
            families: self.families(),
        }
    }

    /// Writes without waiting for the disk; the next sync of the log carries it along.
    pub fn write(&self, batch: WriteBatch) -> Result<(), rocksdb::Error> {
        self.rocks.write(batch)
    }

    /// Waits until everything written so far is on disk.
    pub fn sync(&self) -> Result<(), rocksdb::Error> {
        self.rocks.flush_wal(true)
    }

    /// Adds changes of the state's tables to a batch.
    pub fn add_writes(&self, batch: &mut WriteBatch, writes: Vec<Write>) {
        let families = self.families();
        for Write { table, key, value } in writes {
            let family = &families[table.number()];
            match value {
                Some(value) => batch.put_cf(family, key, value),
                None => batch.delete_cf(family, key),
            }
        }
    }

    /// Empty tables of the next generation, for a snapshot to be installed.
    pub fn next_generation(&self) -> Result<NextGeneration<'_>, rocksdb::Error> {
        let number = self.generation.load(Ordering::Acquire) + 1;
        for table in Table::ALL {
            let name = family_name(number, table);
            if self.rocks.cf_handle(&name).is_some() {
                self.rocks.drop_cf(&name)?;
            }
        }
        self.create_tables(number)?;
        Ok(NextGeneration { db: self, number })
    }

    /// How many bytes the database takes on disk.
    pub fn size_bytes(&self) -> u64 {
        let files: u64 = self
            .rocks
            .live_files()
            .map(|files| files.iter().map(|file| file.size as u64).sum())
            .unwrap_or(0);
        files + wal_bytes(self.rocks.path())
    }

    fn create_tables(&self, generation: u64) -> Result<(), rocksdb::Error> {
        for table in Table::ALL {
            let name = family_name(generation, table);
            if self.rocks.cf_handle(&name).is_none() {
                self.rocks.create_cf(&name, &table_options(&self.cache))?;
            }
        }
        Ok(())
    }

    fn families(&self) -> [Arc<BoundColumnFamily<'_>>; Table::ALL.len()] {
        loop {
            let generation = self.generation.load(Ordering::Acquire);
            let families =
                Table::ALL.map(|table| self.rocks.cf_handle(&family_name(generation, table)));
            if families.iter().all(Option::is_some) {
                return families.map(|family| family.expect("each was just seen to be there"));
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
    pub fn put(&self, batch: &mut WriteBatch, table: Table, key: &[u8], value: &[u8]) {
        let family = self
            .db
            .rocks
            .cf_handle(&family_name(self.number, table))
            .expect("the tables of the next generation are created before they are filled");
        batch.put_cf(&family, key, value);
    }

    /// Makes the new tables the state, together with `batch`, and removes the old ones.
    pub fn switch(self, mut batch: WriteBatch) -> Result<(), rocksdb::Error> {
        let db = self.db;
        batch.put(GENERATION_KEY, self.number.to_le_bytes());
        db.write(batch)?;
        db.sync()?;
        let old = db.generation.swap(self.number, Ordering::AcqRel);
        for table in Table::ALL {
            db.rocks.drop_cf(&family_name(old, table))?;
        }
        Ok(())
    }
}

/// The state's tables, read consistently.
pub struct View<'a> {
    rocks: &'a Rocks,
    snapshot: Option<SnapshotWithThreadMode<'a, Rocks>>,
    families: [Arc<BoundColumnFamily<'a>>; Table::ALL.len()],
}

impl View<'_> {
    fn iterator(
        &self,
        table: Table,
        options: ReadOptions,
    ) -> DBRawIteratorWithThreadMode<'_, Rocks> {
        let family = &self.families[table.number()];
        match &self.snapshot {
            Some(snapshot) => snapshot.raw_iterator_cf_opt(family, options),
            None => self.rocks.raw_iterator_cf_opt(family, options),
        }
    }
}

impl Tables for View<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, TablesError> {
        let family = &self.families[table.number()];
        let value = match &self.snapshot {
            Some(snapshot) => snapshot.get_pinned_cf(family, key),
            None => self.rocks.get_pinned_cf(family, key),
        };
        let value = value.map_err(|err| storage(table, err))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        table: Table,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        reverse: bool,
        visit: Visit<'_>,
    ) -> Result<(), TablesError> {
        let mut options = ReadOptions::default();
        if let Bound::Included(start) | Bound::Excluded(start) = start {
            options.set_iterate_lower_bound(start);
        }
        if let Bound::Excluded(end) = end {
            options.set_iterate_upper_bound(end);
        }
        let mut iterator = self.iterator(table, options);
        seek_first(&mut iterator, start, end, reverse);
        while let Some((key, value)) = iterator.item() {
            let flow = match is_within(key, start, end) {
                true => visit(key, value),
                false if is_edge(key, start, end) => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            };
            if flow.is_break() {
                break;
            }
            match reverse {
                true => iterator.prev(),
                false => iterator.next(),
            }
        }
        iterator.status().map_err(|err| storage(table, err))
    }
}

fn seek_first(
    iterator: &mut DBRawIteratorWithThreadMode<'_, Rocks>,
    start: Bound<&[u8]>,
    end: Bound<&[u8]>,
    reverse: bool,
) {
    match (reverse, start, end) {
        (false, Bound::Included(start) | Bound::Excluded(start), _) => iterator.seek(start),
        (false, Bound::Unbounded, _) => iterator.seek_to_first(),
        (true, _, Bound::Included(end)) => iterator.seek_for_prev(end),
        (true, ..) => iterator.seek_to_last(),
    }
}

fn is_within(key: &[u8], start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
    use std::ops::RangeBounds;
    RangeBounds::<[u8]>::contains(&(start, end), key)
}

/// Whether `key` is outside only because its bound excludes it, so that keys within may follow.
fn is_edge(key: &[u8], start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
    start == Bound::Excluded(key) || end == Bound::Excluded(key)
}

fn storage(table: Table, err: rocksdb::Error) -> TablesError {
    TablesError::Storage {
        table,
        source: Box::new(err),
    }
}

fn family_name(generation: u64, table: Table) -> String {
    format!("state-{generation}-{}", table.name())
}

fn is_other_generation(name: &str, generation: u64) -> bool {
    name.starts_with("state-")
        && !Table::ALL
            .iter()
            .any(|table| name == family_name(generation, *table))
}

fn wal_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "log")
        })
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

fn db_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(2);
    options.set_db_write_buffer_size(WRITE_BUFFERS_TOTAL_BYTES);
    options.set_max_total_wal_size(WAL_TOTAL_BYTES);
    // A torn tail is an unfinished write and is cut; damage before the tail would be the loss of acknowledged entries.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

fn table_options(cache: &Cache) -> Options {
    let mut block = BlockBasedOptions::default();
    block.set_block_cache(cache);
    block.set_cache_index_and_filter_blocks(true);
    block.set_pin_l0_filter_and_index_blocks_in_cache(true);
    block.set_bloom_filter(10.0, false);
    block.set_block_size(16 << 10);
    let mut options = Options::default();
    options.set_block_based_table_factory(&block);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(3);
    options.set_target_file_size_base(16 << 20);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

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
        next.put(&mut batch, Table::Latest, b"x", b"v");
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
        next.put(&mut batch, Table::Latest, b"x", b"v");
        db.write(batch).expect("the tables can be written");
        drop(db);
        let db = Db::open(dir.path()).expect("the database opens again");
        assert_eq!(
            keys(&db.view(), Bound::Unbounded, Bound::Unbounded, false),
            "abc"
        );
    }
}
