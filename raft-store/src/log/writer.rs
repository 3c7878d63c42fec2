//! The one thread that writes the log: votes, entries, truncations and purges, in the order in which they were asked.
//!
//! It takes everything that waits, writes it as one batch, waits for the disk once, and then tells all who waited. After a
//! failed write it refuses all further ones: what is on disk is unknown, and the member must restart to find out.

use crate::db::Db;
use crate::log::{PURGED_KEY, VOTE_KEY};
use crate::metrics::Metrics;
use crate::types::{LogId, TypeConfig, Vote};
use bytes::Bytes;
use openraft::storage::IOFlushed;
use rocksdb::WriteBatch;
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
        /// Whom to tell when they are on disk.
        done: Done,
    },
    /// Write the vote.
    Vote(Vote, oneshot::Sender<io::Result<()>>),
    /// Remove the entries from this index on.
    Truncate(u64, oneshot::Sender<io::Result<()>>),
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
    pub fn spawn(db: Arc<Db>, metrics: Arc<Metrics>) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || run(&db, &metrics, receiver))?;
        Ok(Writer {
            sender: Some(sender),
            thread: Some(thread),
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

fn run(db: &Db, metrics: &Metrics, mut requests: mpsc::Receiver<Request>) {
    let mut waiting = Vec::new();
    let mut failure: Option<String> = None;
    while let Some(first) = requests.blocking_recv() {
        let mut bytes = size(&first);
        waiting.push(first);
        while bytes < BATCH_BYTES_MAX
            && waiting.len() < QUEUE
            && let Ok(next) = requests.try_recv()
        {
            bytes += size(&next);
            waiting.push(next);
        }
        if failure.is_none() {
            metrics.write_begins();
            match write(db, &waiting) {
                Ok(()) => metrics.write_ended(),
                Err(err) => {
                    tracing::error!(error = %err, "the log cannot be written; this member stops");
                    failure = Some(err.to_string());
                }
            }
        }
        for request in waiting.drain(..) {
            let result = match &failure {
                None => Ok(()),
                Some(reason) => Err(io::Error::other(reason.clone())),
            };
            answer(request, result);
        }
    }
}

fn write(db: &Db, requests: &[Request]) -> Result<(), rocksdb::Error> {
    let log = db.log_cf();
    let mut batch = WriteBatch::default();
    let mut must_sync = false;
    for request in requests {
        must_sync |= !matches!(request, Request::Purge(..));
        match request {
            Request::Append { records, .. } => {
                for (index, record) in records {
                    batch.put_cf(&log, index.to_be_bytes(), record);
                }
            }
            Request::Vote(vote, _) => batch.put(VOTE_KEY, encode_json(vote)),
            Request::Truncate(from, _) => {
                batch.delete_range_cf(&log, from.to_be_bytes(), u64::MAX.to_be_bytes());
            }
            Request::Purge(upto, _) => {
                batch.put(PURGED_KEY, encode_json(upto));
                batch.delete_range_cf(&log, 0u64.to_be_bytes(), (upto.index + 1).to_be_bytes());
            }
        }
    }
    db.write(batch)?;
    match must_sync {
        true => db.sync(),
        false => Ok(()),
    }
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

fn encode_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("votes and log ids are plain numbers")
}
