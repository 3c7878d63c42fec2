//! Keys that are to be kept when everything is lost: writers that go on until the members are gone, and an observer who asks,
//! before and after, what a restored cluster must answer.

use super::LAST_WORD_DEADLINE;
use super::process::{Process, Shared};
use crate::history::{Event, Failure, Outcome, Recorder, Reply, Request};
use crate::testbed::Endpoint;
use rand::RngExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const WRITERS: u64 = 6;
const PER_SECOND: f64 = 40.0;
const KEYS: u64 = 200;
/// Far from the numbers of the load before, of whose processes none is there any more.
const FIRST_NUMBER: u64 = 1 << 50;

/// The observer, and what the writers share.
pub struct Keepers {
    shared: Arc<Shared>,
    observer: Process,
    writers: Vec<JoinHandle<()>>,
}

impl Keepers {
    /// Begins to write.
    pub fn start(
        endpoints: Vec<Endpoint>,
        prefix: String,
        seed: u64,
        recorder: Arc<Recorder>,
    ) -> Self {
        let shared = Arc::new(Shared {
            endpoints,
            prefix,
            recorder,
            stop: CancellationToken::new(),
            seed,
            stale_reads: false,
            next_process: AtomicU64::new(FIRST_NUMBER),
            next_id: AtomicU64::new(FIRST_NUMBER),
            newest: AtomicU64::new(0),
        });
        let writers = (0..WRITERS)
            .map(|writer| tokio::spawn(write(Process::new(&shared, writer, PER_SECOND))))
            .collect();
        Keepers {
            observer: Process::new(&shared, WRITERS, PER_SECOND),
            shared,
            writers,
        }
    }

    /// Ends the writers; each waits for its last answer.
    pub async fn stop(&mut self) {
        self.shared.stop.cancel();
        for writer in self.writers.drain(..) {
            writer.await.expect("a process does not panic");
        }
    }

    /// The newest revision that anybody was told.
    pub fn newest(&self) -> u64 {
        self.shared.newest.load(Ordering::Relaxed)
    }

    /// A new value for a key that is to be kept.
    pub fn put(&self) -> Request {
        Request::Keep {
            key: 0,
            value: self.shared.number(),
        }
    }

    /// Asks every member; how many answered.
    pub async fn ask_all(&mut self, request: &Request) -> usize {
        let mut answered = 0;
        for at in 0..self.shared.members() {
            let outcome = self.observer.ask_at(at, request.clone()).await;
            answered += usize::from(matches!(outcome, Outcome::Ok(_)));
        }
        answered
    }

    /// Asks again and again until there is an answer; None where there is none in time.
    pub async fn insist(&mut self, request: impl FnMut() -> Request) -> Option<Reply> {
        let outcome = self.observer.insist(request, LAST_WORD_DEADLINE).await;
        match outcome? {
            Outcome::Ok(reply) => Some(reply),
            Outcome::Fail(_) | Outcome::Info(_) => None,
        }
    }

    /// Records what somebody else did who is no client, and how it ended.
    pub async fn record<E: std::fmt::Display>(
        &self,
        server: &str,
        request: Request,
        done: impl Future<Output = Result<Reply, E>>,
    ) -> Result<Reply, E> {
        let id = self.shared.number();
        self.shared.recorder.add(Event::Invoke {
            id,
            process: self.shared.next_process.fetch_add(1, Ordering::Relaxed),
            server: server.to_owned(),
            request,
        });
        let done = done.await;
        self.shared.recorder.add(match &done {
            Ok(reply) => Event::Ok {
                id,
                reply: reply.clone(),
            },
            Err(error) => Event::Fail {
                id,
                error: Failure::new("administrator", format!("{error:#}")),
            },
        });
        done
    }
}

async fn write(mut process: Process) {
    while process.is_due().await {
        let key = process.rng.random_range(0..KEYS);
        let value = process.shared.number();
        process.ask(Request::Keep { key, value }).await;
    }
}
