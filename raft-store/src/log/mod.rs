//! The Raft log: entries and vote, on disk through one writer thread, and the recent entries in memory.
//!
//! Entries are readable as soon as `append` returns, from memory; openraft is told of them when they are on disk. At open
//! every record is checked: a damaged or missing entry stops the member, since it may be one that was acknowledged.

pub mod mark;
mod recent;
pub mod record;
mod writer;

use crate::db::{Db, EngineError, Family, WriteBatch};
use crate::metrics::Metrics;
use crate::types::{Entry, LogId, TypeConfig, Vote};
use bytes::Bytes;
use mark::{Mark, Synced};
use mvcc::planted::{self, Bug};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use recent::Recent;
use record::RecordError;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::oneshot;
use writer::{Done, Request, Writer};

/// The own record that holds the vote.
pub const VOTE_KEY: &[u8] = b"vote";
/// The own record that says up to where the log was cut.
pub const PURGED_KEY: &[u8] = b"purged";
/// The own record that says what is known to be committed.
pub const COMMITTED_KEY: &[u8] = b"committed";

/// One append to a follower carries about so many bytes of records at most, but always one entry.
pub const APPEND_BYTES_MAX: usize = 2 << 20;

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The database failed.
    #[error("the log cannot be read; check the disk")]
    Storage(#[from] EngineError),
    /// The writer thread cannot be started.
    #[error("the thread that writes the log cannot be started")]
    Thread(#[source] io::Error),
    /// An entry is damaged.
    #[error(
        "log entry {index} is damaged and may be one that was acknowledged, so this member refuses to start; \
         remove it from the cluster, clear its data folder and let it join again"
    )]
    Damaged {
        /// Which.
        index: u64,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// An entry is not where it should be.
    #[error(
        "log entry {expected} is missing ({found} stands in its place), so this member refuses to start; \
         remove it from the cluster, clear its data folder and let it join again"
    )]
    Gap {
        /// The index that should come next.
        expected: u64,
        /// What comes.
        found: LogId,
    },
    /// The end of the log, or the vote, is not what was synced.
    #[error(
        "the log ends with {found} and the vote {vote}, though {marked} was synced, so acknowledged entries are damaged \
         and this member refuses to start; it must be fed again by the others"
    )]
    Lost {
        /// What was synced.
        marked: String,
        /// The last entry, or the one at the place of the last that was synced.
        found: String,
        /// The vote.
        vote: String,
    },
    /// Vote or purge mark cannot be read.
    #[error("the member's record {name:?} cannot be read; remove the member and let it join again")]
    Record {
        /// Which.
        name: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// The log of one member.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
    writer: Arc<Writer>,
}

/// Reads the log; many may read at once.
#[derive(Clone)]
pub struct LogReader {
    shared: Arc<Shared>,
}

struct Shared {
    db: Arc<Db>,
    metrics: Arc<Metrics>,
    memory: Mutex<Memory>,
}

struct Memory {
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
    committed: Option<LogId>,
    /// What of `committed` the writer was told.
    committed_noted: Option<LogId>,
    recent: Recent,
    bytes: u64,
}

impl Memory {
    /// What is committed, if the writer was not told yet.
    fn take_committed(&mut self) -> Option<LogId> {
        let news = self.committed > self.committed_noted;
        self.committed_noted = self.committed;
        self.committed.filter(|_| news)
    }

    fn purge(&mut self, upto: LogId) {
        let held = entries_between(self.purged, self.last);
        self.purged = self.purged.max(Some(upto));
        self.last = self.last.max(Some(upto));
        self.recent.purge(upto.index);
        // An estimate is enough: it only says when the log is long enough to be cut again.
        let kept = entries_between(self.purged, self.last);
        self.bytes = self.bytes / held.max(1) * kept;
    }
}

fn entries_between(purged: Option<LogId>, last: Option<LogId>) -> u64 {
    let next = |log_id: Option<LogId>| log_id.map_or(0, |log_id| log_id.index + 1);
    next(last).saturating_sub(next(purged))
}

impl LogStore {
    /// Opens the log and checks every record of it.
    pub fn open(db: Arc<Db>, metrics: Arc<Metrics>) -> Result<Self, LogError> {
        LogStore::open_marked(db, metrics, None)
    }

    /// Opens the log and checks every record of it, and that it holds what `mark` says.
    pub fn open_marked(
        db: Arc<Db>,
        metrics: Arc<Metrics>,
        mark: Option<Mark>,
    ) -> Result<Self, LogError> {
        let vote = read_json(&db, VOTE_KEY, "vote")?;
        let purged: Option<LogId> = read_json(&db, PURGED_KEY, "purged")?;
        let committed: Option<LogId> = read_json(&db, COMMITTED_KEY, "committed")?;
        let mark = mark.filter(|_| !planted::is(Bug::TornCommitted));
        let synced = mark.as_ref().map(Mark::synced).unwrap_or_default();
        let verified = match verify(&db, purged, synced.last) {
            Err(LogError::Damaged { index, .. }) if planted::is(Bug::TornCommitted) => {
                cut_from(&db, index)?;
                verify(&db, purged, synced.last)?
            }
            verified => verified?,
        };
        check_mark(&synced, vote, purged, &verified)?;
        let last = verified.last.or(purged);
        // A member may learn that entries are committed before its own disk has them.
        let committed = committed.map(|committed| match last {
            Some(last) if last.index < committed.index => last,
            _ => committed,
        });
        let committed = committed.filter(|_| last.is_some());
        let memory = Memory {
            vote,
            purged,
            last,
            committed,
            committed_noted: committed,
            recent: Recent::default(),
            bytes: verified.bytes,
        };
        let writer = Writer::spawn(db.clone(), metrics.clone(), mark).map_err(LogError::Thread)?;
        let writer = Arc::new(writer);
        let shared = Arc::new(Shared {
            db,
            metrics,
            memory: Mutex::new(memory),
        });
        Ok(LogStore { shared, writer })
    }

    /// About how many bytes of entries the log holds.
    pub fn bytes(&self) -> u64 {
        self.shared.memory().bytes
    }

    /// About at which index the newest entries begin that have so many bytes together.
    pub fn newest(&self, bytes: u64) -> Option<u64> {
        let memory = self.shared.memory();
        let entries = entries_between(memory.purged, memory.last);
        let bytes_each = (memory.bytes / entries.max(1)).max(1);
        let index = memory.last?.index;
        Some(index.saturating_sub(bytes / bytes_each))
    }

    /// Has the writer note what is committed, so that a restart applies all of it; appends do so too.
    pub async fn note_committed(&self) {
        let committed = self.shared.memory().take_committed();
        if let Some(committed) = committed
            && self.send(Request::Committed(committed)).await.is_err()
        {
            tracing::debug!("what is committed was not noted, since the member is stopping");
        }
    }

    /// Asks the writer for something and waits until it is done.
    async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Request,
    ) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply)).await?;
        answer.await.map_err(|_| writer_gone())?
    }

    async fn send(&self, request: Request) -> io::Result<()> {
        self.writer.send(request).await.map_err(|()| writer_gone())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let memory = self.shared.memory();
        Ok(LogState {
            last_purged_log_id: memory.purged,
            last_log_id: memory.last,
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader {
            shared: self.shared.clone(),
        }
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.shared.memory().vote = Some(*vote);
        self.ask(|reply| Request::Vote(*vote, reply)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.shared.memory().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.memory().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        let mut last = None;
        let committed;
        {
            let mut memory = self.shared.memory();
            for entry in entries {
                let record = record::encode(&entry);
                memory.bytes += record.len() as u64;
                last = Some(entry.log_id);
                self.shared.metrics.stages.appended(entry.log_id.index);
                records.push((entry.log_id.index, record.clone()));
                memory.recent.push(entry, record.len());
            }
            memory.last = last.or(memory.last);
            committed = memory.take_committed();
        }
        let shared = self.shared.clone();
        let flushed = Box::new(move || {
            if let Some(last) = last {
                shared.memory().recent.flushed(last.index);
            }
        });
        self.send(Request::Append {
            records,
            committed,
            last,
            done: Done { callback, flushed },
        })
        .await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let from = last_log_id.map_or(0, |last| last.index + 1);
        {
            let mut memory = self.shared.memory();
            memory.recent.truncate(from);
            memory.last = memory.last.min(last_log_id).or(memory.purged);
        }
        self.ask(|reply| Request::Truncate(last_log_id, reply))
            .await?;
        // Appends from before are told as flushed until the writer got here; the entries that replace them are not.
        self.shared.memory().recent.truncate(from);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.shared.memory().purge(log_id);
        self.ask(|reply| Request::Purge(log_id, reply)).await
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.shared
            .read(first_of(&range), end_of(&range), usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.memory().vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.shared.read(start, end, APPEND_BYTES_MAX)
    }
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no holder of the lock panics")
    }

    /// The entries from `start` to before `end`, cut after `bytes_max` bytes but never before the first entry.
    fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let (recent, recent_start) = {
            let memory = self.memory();
            let first = memory.recent.first_index().unwrap_or(u64::MAX);
            let start = start.max(first);
            (memory.recent.range(start, end, bytes_max), start)
        };
        if start >= recent_start.min(end) {
            return Ok(recent);
        }
        let mut entries = Vec::new();
        let whole = read_stored(
            &self.db,
            start,
            recent_start.min(end),
            bytes_max,
            &mut entries,
        )?;
        if whole && bytes_max == usize::MAX {
            entries.extend(recent);
        }
        Ok(entries)
    }
}

/// Reads stored entries into `entries`; false when `bytes_max` cut it.
fn read_stored(
    db: &Db,
    start: u64,
    end: u64,
    bytes_max: usize,
    entries: &mut Vec<Entry>,
) -> io::Result<bool> {
    let mut bytes = 0;
    let mut is_whole = true;
    let mut damaged = None;
    let scanned = db.scan_log(start..end, &mut |_, value| {
        bytes += value.len();
        if bytes > bytes_max && !entries.is_empty() {
            is_whole = false;
            return ControlFlow::Break(());
        }
        match record::decode(&Bytes::copy_from_slice(value)) {
            Ok(entry) => {
                entries.push(entry);
                ControlFlow::Continue(())
            }
            Err(err) => {
                damaged = Some(err);
                ControlFlow::Break(())
            }
        }
    });
    scanned.map_err(io::Error::other)?;
    match damaged {
        Some(err) => {
            db.damaged(&err);
            Err(io::Error::other(err))
        }
        None => Ok(is_whole),
    }
}

/// What was found in the log.
#[derive(Default)]
struct Verified {
    last: Option<LogId>,
    bytes: u64,
    /// What stands at the place of the last entry that was synced.
    marked: Option<LogId>,
}

/// Checks that every entry after `purged` is whole and in its place.
fn verify(db: &Db, purged: Option<LogId>, marked: Option<LogId>) -> Result<Verified, LogError> {
    let mut expected = purged.map(|purged| purged.index + 1);
    let mut verified = Verified::default();
    let mut failed = None;
    db.scan_log(
        expected.unwrap_or(0)..u64::MAX,
        &mut |key, value| match verify_record(key, value, expected) {
            Ok(log_id) => {
                expected = Some(log_id.index + 1);
                verified.last = Some(log_id);
                verified.bytes += value.len() as u64;
                if marked.is_some_and(|marked| marked.index == log_id.index) {
                    verified.marked = Some(log_id);
                }
                ControlFlow::Continue(())
            }
            Err(err) => {
                failed = Some(err);
                ControlFlow::Break(())
            }
        },
    )?;
    match failed {
        Some(err) => Err(err),
        None => Ok(verified),
    }
}

/// Checks that what was synced is there: the entry up to which the log was, of the same term, and the vote or a later one.
fn check_mark(
    synced: &Synced,
    vote: Option<Vote>,
    purged: Option<LogId>,
    verified: &Verified,
) -> Result<(), LogError> {
    let is_there = |marked| purged >= Some(marked) || verified.marked == Some(marked);
    if synced.last.is_none_or(is_there) && vote >= synced.vote {
        return Ok(());
    }
    let found = verified.marked.or(verified.last).or(purged);
    let text = |value: Option<String>| value.unwrap_or_else(|| "nothing".to_owned());
    Err(LogError::Lost {
        marked: format!(
            "{} with the vote {}",
            text(synced.last.map(|last| last.to_string())),
            text(synced.vote.map(|vote| vote.to_string()))
        ),
        found: text(found.map(|found| found.to_string())),
        vote: text(vote.map(|vote| vote.to_string())),
    })
}

/// Removes the entries from `index` on.
fn cut_from(db: &Db, index: u64) -> Result<(), EngineError> {
    let mut batch = WriteBatch::default();
    let key = |index: u64| Bytes::copy_from_slice(&index.to_be_bytes());
    batch.delete_range(Family::Log, key(index), key(u64::MAX));
    db.write(batch)
}

fn verify_record(key: &[u8], value: &[u8], expected: Option<u64>) -> Result<LogId, LogError> {
    let index = key.try_into().map_or(u64::MAX, u64::from_be_bytes);
    let entry = record::decode(&Bytes::copy_from_slice(value))
        .map_err(|source| LogError::Damaged { index, source })?;
    let expected = expected.unwrap_or(index);
    match entry.log_id.index == expected && index == expected {
        true => Ok(entry.log_id),
        false => Err(LogError::Gap {
            expected,
            found: entry.log_id,
        }),
    }
}

/// Adds to `batch` that the log is empty and nobody was voted for.
pub(crate) fn clear(batch: &mut WriteBatch) {
    let (start, end) = (0u64.to_be_bytes().to_vec(), u64::MAX.to_be_bytes().to_vec());
    batch.delete_range(Family::Log, start, end);
    batch.delete(Family::Own, PURGED_KEY);
    batch.delete(Family::Own, VOTE_KEY);
    batch.delete(Family::Own, COMMITTED_KEY);
}

fn read_json<T: serde::de::DeserializeOwned>(
    db: &Db,
    key: &[u8],
    name: &'static str,
) -> Result<Option<T>, LogError> {
    let Some(bytes) = db.own(key)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| LogError::Record { name, source })
}

fn first_of(range: &impl RangeBounds<u64>) -> u64 {
    match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start + 1,
        Bound::Unbounded => 0,
    }
}

fn end_of(range: &impl RangeBounds<u64>) -> u64 {
    match range.end_bound() {
        Bound::Included(end) => end + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    }
}

fn writer_gone() -> io::Error {
    io::Error::other("the thread that writes the log has ended")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Payload, log_id};
    use openraft::EntryPayload;

    fn open(dir: &std::path::Path) -> (Arc<Db>, Result<LogStore, LogError>) {
        let db = Arc::new(Db::open(dir).expect("the database opens"));
        let log = LogStore::open(db.clone(), Arc::default());
        (db, log)
    }

    async fn fill(log: &mut LogStore, indexes: std::ops::Range<u64>, bytes: usize) {
        let entries = indexes.map(|index| Entry {
            log_id: log_id(1, index),
            payload: EntryPayload::Normal(Payload(vec![b'x'; bytes].into())),
        });
        let (sender, flushed) = oneshot::channel();
        let sender = openraft_flushed(sender);
        log.append(entries, sender)
            .await
            .expect("the log takes entries");
        flushed
            .await
            .expect("the writer answers")
            .expect("the entries are written");
    }

    fn openraft_flushed(sender: oneshot::Sender<io::Result<()>>) -> IOFlushed<TypeConfig> {
        use openraft::type_config::TypeConfigExt;
        let (signal, done) = TypeConfig::oneshot();
        tokio::spawn(async move {
            let result: Result<io::Result<()>, _> = done.await;
            // A test that does not wait for it does not want to know.
            let _ = sender.send(result.unwrap_or_else(|_| Err(writer_gone())));
        });
        IOFlushed::signal(signal)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_damaged_or_missing_entry_refuses_to_start() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (db, log) = open(dir.path());
        let mut log = log.expect("an empty log");
        fill(&mut log, 0..10, 100).await;
        let mut whole = Bytes::new();
        db.scan_log(4..5, &mut |_, record| {
            whole = Bytes::copy_from_slice(record);
            ControlFlow::Continue(())
        })
        .expect("it can be read");
        let mut record = whole.to_vec();
        record[30] ^= 1;
        change(&db, |batch| batch.put(Family::Log, key(4), record));
        let again = LogStore::open(db.clone(), Arc::default());
        assert!(matches!(
            again.err(),
            Some(LogError::Damaged { index: 4, .. })
        ));
        change(&db, |batch| batch.put(Family::Log, key(4), whole));
        change(&db, |batch| batch.delete(Family::Log, key(6)));
        let again = LogStore::open(db, Arc::default());
        assert!(matches!(
            again.err(),
            Some(LogError::Gap { expected: 6, .. })
        ));
    }

    fn key(index: u64) -> Bytes {
        Bytes::copy_from_slice(&index.to_be_bytes())
    }

    fn change(db: &Db, add: impl FnOnce(&mut WriteBatch)) {
        let mut batch = WriteBatch::default();
        add(&mut batch);
        db.write(batch).expect("it can be written");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn reads_join_disk_and_memory_and_are_cut_by_bytes() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (_db, log) = open(dir.path());
        let mut log = log.expect("an empty log");
        for start in (0..100).step_by(10) {
            fill(&mut log, start..start + 10, 256 << 10).await;
        }
        let first_in_memory = log
            .shared
            .memory()
            .recent
            .first_index()
            .expect("some are in memory");
        assert!((1..99).contains(&first_in_memory), "{first_in_memory}");
        let mut reader = log.get_log_reader().await;
        let all = reader
            .try_get_log_entries(0..100)
            .await
            .expect("the log can be read");
        assert!(all.iter().map(|entry| entry.log_id.index).eq(0..100));
        for start in [0, first_in_memory - 1, first_in_memory, 95] {
            let some = reader
                .limited_get_log_entries(start, 100)
                .await
                .expect("the log can be read");
            let bytes: usize = some.iter().map(|entry| record::encode(entry).len()).sum();
            assert!(
                some[0].log_id.index == start && bytes <= APPEND_BYTES_MAX,
                "{start}: {bytes}"
            );
        }
    }
}
