//! The engine on a real disk: one RocksDB with a column family for each family of keys. Its write-ahead log
//! carries the log and the member's own records; the state's tables are flushed together.

use super::engine::{Change, Engine, EngineError, Family, Reads, WriteBatch};
use bytes::Bytes;
use mvcc::{Table, Visit};
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBCompressionType,
    DBRawIteratorWithThreadMode, DBRecoveryMode, DBWithThreadMode, FlushOptions, MultiThreaded,
    Options, ReadOptions, SnapshotWithThreadMode,
};
use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;

/// RocksDB as the store uses it.
type Rocks = DBWithThreadMode<MultiThreaded>;
type Handle<'a> = Arc<BoundColumnFamily<'a>>;

const LOG_CF: &str = "log";

const BLOCK_CACHE_BYTES: usize = 24 << 20;
/// Never reached: each flush is one of all tables of the state, or one of everything.
const WRITE_BUFFER_BYTES: usize = 256 << 20;
/// Beyond it everything is flushed, should the state not have been persisted in time.
const WRITE_BUFFERS_TOTAL_BYTES: usize = 96 << 20;
/// When the log's records in memory go to a file, and with them everything else. By then most of them were purged, and those are
/// never written there.
const LOG_BUFFER_BYTES: usize = 32 << 20;
/// The same for a log whose records compress well, or hardly at all.
const WAL_TOTAL_BYTES: u64 = 48 << 20;
/// Files of a table that may wait until they are merged into the others: fewer merges write less, and reads look into more files.
const FILES_TO_MERGE: i32 = 8;
const OPEN_FILES_MAX: i32 = 256;
const DELETIONS_WINDOW: usize = 128;
const DELETIONS_IN_WINDOW: usize = 64;

/// RocksDB in a folder.
pub struct RocksEngine {
    rocks: Rocks,
    cache: Cache,
    found: Vec<u64>,
}

impl RocksEngine {
    /// Opens the database in `dir`, creating it if there is none.
    pub fn open(dir: &Path) -> Result<Self, EngineError> {
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let options = db_options();
        let mut names = match dir.join("CURRENT").exists() {
            true => Rocks::list_cf(&options, dir)?,
            false => vec![rocksdb::DEFAULT_COLUMN_FAMILY_NAME.to_owned()],
        };
        if !names.iter().any(|name| name == LOG_CF) {
            names.push(LOG_CF.to_owned());
        }
        let descriptors = names.iter().map(|name| {
            let mut options = table_options(&cache);
            if name == LOG_CF {
                options.set_write_buffer_size(LOG_BUFFER_BYTES);
            }
            ColumnFamilyDescriptor::new(name, options)
        });
        let rocks = Rocks::open_cf_descriptors(&options, dir, descriptors)?;
        let found = generations(&names);
        let engine = RocksEngine {
            rocks,
            cache,
            found,
        };
        for generation in engine.found.iter().copied() {
            engine.spare_rewriting(generation)?;
        }
        Ok(engine)
    }

    /// RocksDB would rewrite each file that reached the last level once more, only to drop the sequence numbers in it.
    fn spare_rewriting(&self, generation: u64) -> Result<(), EngineError> {
        const OPTION: (&str, &str) = ("bottommost_file_compaction_delay", "86400");
        for table in Table::ALL {
            if let Some(handle) = self.handle(Family::State(generation, table)) {
                self.rocks.set_options_cf(&handle, &[OPTION])?;
            }
        }
        Ok(())
    }

    /// Copies everything to the new folder `dir` on the same disk: by hard links to the files that never change.
    pub fn copy_to(&self, dir: &Path) -> Result<(), EngineError> {
        Ok(rocksdb::checkpoint::Checkpoint::new(&self.rocks)?.create_checkpoint(dir)?)
    }

    /// The column family of a family; the member's own records are in the default one.
    fn handle(&self, family: Family) -> Option<Handle<'_>> {
        match family {
            Family::Own => self.rocks.cf_handle(rocksdb::DEFAULT_COLUMN_FAMILY_NAME),
            Family::Log => self.rocks.cf_handle(LOG_CF),
            Family::State(generation, table) => self.rocks.cf_handle(&cf_name(generation, table)),
        }
    }

    fn known(&self, family: Family) -> Result<Handle<'_>, EngineError> {
        self.handle(family)
            .ok_or_else(|| EngineError::new(format!("there is no column family for {family:?}")))
    }

    /// The batch as RocksDB takes it.
    fn translate(&self, batch: WriteBatch) -> Result<rocksdb::WriteBatch, EngineError> {
        let mut rocks_batch = rocksdb::WriteBatch::default();
        // Most changes of a batch go where the one before went.
        let mut last: Option<(Family, Handle<'_>)> = None;
        for change in batch.0 {
            let (Change::Put(family, ..)
            | Change::Delete(family, _)
            | Change::DeleteRange(family, ..)) = change;
            let handle = match &last {
                Some((known, handle)) if *known == family => handle,
                _ => &last.insert((family, self.known(family)?)).1,
            };
            match change {
                Change::Put(_, key, value) => rocks_batch.put_cf(handle, key, value),
                Change::Delete(_, key) => rocks_batch.delete_cf(handle, key),
                Change::DeleteRange(_, start, end) => {
                    rocks_batch.delete_range_cf(handle, start, end);
                }
            }
        }
        Ok(rocks_batch)
    }
}

impl Reads for RocksEngine {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let value = self.rocks.get_pinned_cf(&self.known(family)?, key)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        family: Family,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        reverse: bool,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        let options = read_options(start, end);
        let iterator = self
            .rocks
            .raw_iterator_cf_opt(&self.known(family)?, options);
        visit_all(iterator, start, end, reverse, visit)
    }
}

impl Engine for RocksEngine {
    fn tables(&self, generation: u64, frozen: bool) -> Option<Box<dyn Reads + '_>> {
        let handles = Table::ALL.map(|table| self.handle(Family::State(generation, table)));
        if handles.iter().any(Option::is_none) {
            return None;
        }
        Some(Box::new(RocksTables {
            rocks: &self.rocks,
            handles: handles.map(|handle| handle.expect("each was just seen to be there")),
            snapshot: frozen.then(|| self.rocks.snapshot()),
        }))
    }

    fn write(&self, batch: WriteBatch) -> Result<(), EngineError> {
        Ok(self.rocks.write(self.translate(batch)?)?)
    }

    fn write_repeatable(&self, batch: WriteBatch) -> Result<(), EngineError> {
        Ok(self.rocks.write_without_wal(self.translate(batch)?)?)
    }

    fn persist(&self, generation: u64) -> Result<(), EngineError> {
        let handles = Table::ALL
            .into_iter()
            .filter_map(|table| self.handle(Family::State(generation, table)))
            .collect::<Vec<_>>();
        // All of them in one change of RocksDB's manifest, so that they are of one moment after a crash.
        let handles: Vec<&Handle<'_>> = handles.iter().collect();
        Ok(self
            .rocks
            .flush_cfs_opt(&handles, &FlushOptions::default())?)
    }

    fn sync(&self) -> Result<(), EngineError> {
        Ok(self.rocks.flush_wal(true)?)
    }

    fn generations(&self) -> Vec<u64> {
        self.found.clone()
    }

    fn create(&self, generation: u64) -> Result<(), EngineError> {
        let mut is_new = false;
        for table in Table::ALL {
            if self.handle(Family::State(generation, table)).is_none() {
                let name = cf_name(generation, table);
                self.rocks.create_cf(name, &table_options(&self.cache))?;
                is_new = true;
            }
        }
        match is_new {
            true => self.spare_rewriting(generation),
            false => Ok(()),
        }
    }

    fn remove(&self, generation: u64) -> Result<(), EngineError> {
        for table in Table::ALL {
            if self.handle(Family::State(generation, table)).is_some() {
                self.rocks.drop_cf(&cf_name(generation, table))?;
            }
        }
        Ok(())
    }

    fn live_bytes(&self, generation: u64) -> u64 {
        let mut families = vec![Family::Own, Family::Log];
        families.extend(Table::ALL.map(|table| Family::State(generation, table)));
        let live = families.iter().filter_map(|family| {
            let handle = self.handle(*family)?;
            let property = rocksdb::properties::ESTIMATE_LIVE_DATA_SIZE;
            self.rocks.property_int_value_cf(&handle, property).ok()?
        });
        live.sum::<u64>() + wal_bytes(self.rocks.path())
    }

    fn keys(&self, generation: u64) -> Option<u64> {
        let handle = self.handle(Family::State(generation, Table::Latest))?;
        let property = rocksdb::properties::ESTIMATE_NUM_KEYS;
        self.rocks.property_int_value_cf(&handle, property).ok()?
    }

    fn size_bytes(&self) -> u64 {
        let files: u64 = self
            .rocks
            .live_files()
            .map(|files| files.iter().map(|file| file.size as u64).sum())
            .unwrap_or(0);
        files + wal_bytes(self.rocks.path())
    }
}

/// The tables of one generation.
struct RocksTables<'a> {
    rocks: &'a Rocks,
    handles: [Handle<'a>; Table::ALL.len()],
    snapshot: Option<SnapshotWithThreadMode<'a, Rocks>>,
}

impl RocksTables<'_> {
    fn handle(&self, family: Family) -> Result<&Handle<'_>, EngineError> {
        match family {
            Family::State(_, table) => Ok(&self.handles[table.number()]),
            other => Err(EngineError::new(format!("{other:?} is no table"))),
        }
    }
}

impl Reads for RocksTables<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let handle = self.handle(family)?;
        let value = match &self.snapshot {
            Some(snapshot) => snapshot.get_pinned_cf(handle, key),
            None => self.rocks.get_pinned_cf(handle, key),
        };
        Ok(value?.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        family: Family,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        reverse: bool,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        let options = read_options(start, end);
        let handle = self.handle(family)?;
        let iterator = match &self.snapshot {
            Some(snapshot) => snapshot.raw_iterator_cf_opt(handle, options),
            None => self.rocks.raw_iterator_cf_opt(handle, options),
        };
        visit_all(iterator, start, end, reverse, visit)
    }
}

fn read_options(start: Bound<&[u8]>, end: Bound<&[u8]>) -> ReadOptions {
    let mut options = ReadOptions::default();
    if let Bound::Included(start) | Bound::Excluded(start) = start {
        options.set_iterate_lower_bound(start);
    }
    if let Bound::Excluded(end) = end {
        options.set_iterate_upper_bound(end);
    }
    options
}

fn visit_all(
    mut iterator: DBRawIteratorWithThreadMode<'_, Rocks>,
    start: Bound<&[u8]>,
    end: Bound<&[u8]>,
    reverse: bool,
    visit: Visit<'_>,
) -> Result<(), EngineError> {
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
    Ok(iterator.status()?)
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

/// The generations to which column families of these names belong.
fn generations(names: &[String]) -> Vec<u64> {
    let numbers = names.iter().filter_map(|name| {
        let (number, _) = name.strip_prefix("state-")?.split_once('-')?;
        number.parse().ok()
    });
    numbers.collect::<BTreeSet<u64>>().into_iter().collect()
}

fn cf_name(generation: u64, table: Table) -> String {
    format!("state-{generation}-{}", table.name())
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
    options.set_atomic_flush(true);
    options.set_wal_compression_type(DBCompressionType::Zstd);
    // What is read is the longest prefix of what was written, never a state with a hole. Whether more was acknowledged than
    // that is told by the note beside the log.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
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
    options.set_level_zero_file_num_compaction_trigger(FILES_TO_MERGE);
    options.set_target_file_size_base(16 << 20);
    // A file in which so many of so many neighbours are deletions is compacted before its turn, until they are gone.
    options.add_compact_on_deletion_collector_factory(DELETIONS_WINDOW, DELETIONS_IN_WINDOW, 0.5);
    options
}
