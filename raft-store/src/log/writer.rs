//! The one thread that writes the log: votes, entries, truncations and purges, in the order in which they were asked.
//!
//! It takes everything that waits, writes it as one batch, waits for the disk once, and then tells all who waited. After a
//! failed write it refuses all further ones: what is on disk is unknown, and the member must restart to find out.

use crate::db::{Db, Family, WriteBatch};
use crate::log::mark::Mark;
use crate::log::{COMMITTED_KEY, PURGED_KEY, VOTE_KEY};
use crate::metrics::Metrics;
use crate::runtime;
use crate::types::{LogId, TypeConfig, Vote};
use bytes::Bytes;
use mvcc::planted::{self, Bug};
use openraft::storage::IOFlushed;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait for the writer; whoever asks beyond that waits.
const QUEUE: usize = 4096;
/// A batch is closed at so many bytes, so that its fsync stays short.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// What the writer is asked.
pub enum Request {
    /// Write entries.
    Append {
        /// Index and record of each.
        records: Vec<(u64, Bytes)>,
        /// What is committed, when that is news.
        committed: Option<LogId>,
        /// The last of them.
        last: Option<LogId>,
        /// Whom to tell when they are on disk.
        done: Done,
    },
    /// Note what is committed; nobody waits for it.
    Committed(LogId),
    /// Write the vote.
    Vote(Vote, oneshot::Sender<io::Result<()>>),
    /// Remove the entries after this one.
    Truncate(Option<LogId>, oneshot::Sender<io::Result<()>>),
    /// Remove the entries up to and with this one.
    Purge(LogId, oneshot::Sender<io::Result<()>>),
}

/// Whom to tell that entries are on disk, and what else happens then.
pub struct Done {
    /// openraft's callback.
    pub callback: IOFlushed<TypeConfig>,
    /// Called before the callback when the write succeeded, with the last index.
    pub flushed: Box<dyn FnOnce() + Send>,
}

/// The thread, as those who ask it hold it. With the last holder the thread ends, and that is waited for: a thread that
/// still had the database when the process ends would close it beside RocksDB's own exit handlers, which aborts.
pub struct Writer {
    sender: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub fn spawn(db: Arc<Db>, metrics: Arc<Metrics>, mark: Option<Mark>) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let turn = Turn::new(db, metrics, mark);
        let thread = match runtime::is_simulated() {
            true => {
                tokio::spawn(run_simulated(turn, receiver));
                None
            }
            false => Some(
                std::thread::Builder::new()
                    .name("log-writer".to_owned())
                    .spawn(move || run(turn, receiver))?,
            ),
        };
        Ok(Writer {
            sender: Some(sender),
            thread,
        })
    }

    /// Asks it; Err when it is gone.
    pub async fn send(&self, request: Request) -> Result<(), ()> {
        let sender = self.sender.as_ref().ok_or(())?;
        sender.send(request).await.map_err(drop)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.sender = None; // The thread ends when it has done what waits.
        let is_other =
            |thread: &JoinHandle<()>| thread.thread().id() != std::thread::current().id();
        if let Some(thread) = self.thread.take().filter(is_other)
            && thread.join().is_err()
        {
            tracing::error!("the log's writer thread panicked");
        }
    }
}

fn run(mut turn: Turn, mut requests: mpsc::Receiver<Request>) {
    while let Some(first) = requests.blocking_recv() {
        turn.gather(first, &mut requests);
        if turn.write() {
            turn.sync();
        }
        turn.answer();
    }
}

/// The same as a task of a simulation, whose disk takes its time by the simulation's clock.
async fn run_simulated(mut turn: Turn, mut requests: mpsc::Receiver<Request>) {
    while let Some(first) = requests.recv().await {
        turn.gather(first, &mut requests);
        if turn.write() {
            tokio::time::sleep(turn.db.simulated_sync()).await;
            turn.sync();
        }
        turn.answer();
    }
}

/// What the writer does over and over: gather, write, sync, answer.
struct Turn {
    db: Arc<Db>,
    metrics: Arc<Metrics>,
    mark: Option<Mark>,
    waiting: Vec<Request>,
    failure: Option<String>,
}

impl Turn {
    fn new(db: Arc<Db>, metrics: Arc<Metrics>, mark: Option<Mark>) -> Self {
        Turn {
            db,
            metrics,
            mark,
            waiting: Vec::new(),
            failure: None,
        }
    }

    /// Takes everything that waits.
    fn gather(&mut self, first: Request, requests: &mut mpsc::Receiver<Request>) {
        let mut bytes = size(&first);
        self.waiting.push(first);
        while bytes < BATCH_BYTES_MAX
            && self.waiting.len() < QUEUE
            && let Ok(next) = requests.try_recv()
        {
            bytes += size(&next);
            self.waiting.push(next);
        }
    }

    /// Writes it as one batch; returns whether the disk must be waited for.
    fn write(&mut self) -> bool {
        if self.failure.is_some() {
            return false;
        }
        self.metrics.write_begins();
        if let Err(err) = self.lower_mark() {
            self.fail(&err);
            return false;
        }
        if let Err(err) = self.db.write(batch_of(&self.waiting)) {
            self.fail(&err);
        }
        let must_sync = |request: &Request| match request {
            Request::Purge(..) | Request::Committed(_) => false,
            Request::Vote(..) => !planted::is(Bug::VoteNotSynced),
            Request::Append { .. } | Request::Truncate(..) => true,
        };
        let must_sync = self.failure.is_none() && self.waiting.iter().any(must_sync);
        if !must_sync {
            self.metrics.write_ended();
        }
        must_sync
    }

    /// Waits for the disk.
    fn sync(&mut self) {
        if planted::is(Bug::FsyncOff) {
            return self.metrics.write_ended();
        }
        match self.db.sync() {
            Ok(()) => self.metrics.write_ended(),
            Err(err) => return self.fail(&err),
        }
        if let Err(err) = self.note_synced() {
            self.fail(&err);
        }
    }

    /// Entries that are about to be cut are no longer noted as being on disk.
    fn lower_mark(&mut self) -> io::Result<()> {
        let Some(mark) = &mut self.mark else {
            return Ok(());
        };
        for request in &self.waiting {
            if let Request::Truncate(last, _) = request {
                mark.lower(*last)?;
            }
        }
        Ok(())
    }

    /// What was just synced is noted. What is purged may not be on disk yet, nor the snapshot that holds it.
    fn note_synced(&mut self) -> io::Result<()> {
        let Some(mark) = &mut self.mark else {
            return Ok(());
        };
        let mut synced = mark.synced();
        for request in &self.waiting {
            match request {
                Request::Append { last, .. } => synced.last = last.or(synced.last),
                Request::Vote(vote, _) => synced.vote = Some(*vote),
                Request::Truncate(last, _) => synced.last = synced.last.min(*last),
                Request::Purge(..) | Request::Committed(_) => {}
            }
        }
        mark.note(synced)
    }

    fn fail(&mut self, err: &dyn std::error::Error) {
        tracing::error!(error = %err, "the log cannot be written; this member stops");
        self.failure = Some(err.to_string());
    }

    /// Tells all who wait.
    fn answer(&mut self) {
        for request in self.waiting.drain(..) {
            let result = match &self.failure {
                None => Ok(()),
                Some(reason) => Err(io::Error::other(reason.clone())),
            };
            answer(request, result);
        }
    }
}

fn batch_of(requests: &[Request]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for request in requests {
        match request {
            Request::Append {
                records, committed, ..
            } => {
                for (index, record) in records {
                    batch.put(Family::Log, index_key(*index), record.clone());
                }
                if let Some(committed) = committed {
                    batch.put(Family::Own, COMMITTED_KEY, encode_json(committed));
                }
            }
            Request::Committed(committed) => {
                batch.put(Family::Own, COMMITTED_KEY, encode_json(committed));
            }
            Request::Vote(vote, _) => batch.put(Family::Own, VOTE_KEY, encode_json(vote)),
            Request::Truncate(last, _) => {
                let from = last.map_or(0, |last| last.index + 1);
                batch.delete_range(Family::Log, index_key(from), index_key(u64::MAX));
            }
            Request::Purge(upto, _) => {
                batch.put(Family::Own, PURGED_KEY, encode_json(upto));
                batch.delete_range(Family::Log, index_key(0), index_key(upto.index + 1));
            }
        }
    }
    batch
}

fn answer(request: Request, result: io::Result<()>) {
    match request {
        Request::Append {
            done: Done { callback, flushed },
            ..
        } => {
            if result.is_ok() {
                flushed();
            }
            callback.io_completed(result);
        }
        Request::Committed(_) => {}
        // Nobody listening any more means that the member is shutting down.
        Request::Vote(_, reply) | Request::Truncate(_, reply) | Request::Purge(_, reply) => {
            let _ = reply.send(result);
        }
    }
}

fn size(request: &Request) -> usize {
    match request {
        Request::Append { records, .. } => records.iter().map(|(_, record)| record.len()).sum(),
        _ => 64,
    }
}

fn index_key(index: u64) -> Bytes {
    Bytes::copy_from_slice(&index.to_be_bytes())
}

fn encode_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("votes and log ids are plain numbers")
}
