//! A process of a workload: one request at a time, at its pace, mostly to one member, on connections of its own. After an unknown
//! outcome its number is never used again, and it goes on under a new one at the next member.

use super::client::{Client, TIMEOUT};
use crate::history::{Event, Outcome, Recorder, Request};
use crate::testbed::Endpoint;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Requests without an answer in a row after which a process connects anew: a connection may be dead, and one more handshake for
/// each request that a busy member is late with would keep it busy.
const TIMEOUTS_MAX: u32 = 3;
/// Of a hundred operations, how many ask another member than the process' own.
const STRAY_PERCENT: u32 = 20;

/// Shared by all processes of a run.
pub(super) struct Shared {
    /// The members.
    pub endpoints: Vec<Endpoint>,
    /// Before every key.
    pub prefix: String,
    pub recorder: Arc<Recorder>,
    /// Ends the load.
    pub stop: CancellationToken,
    pub seed: u64,
    /// Planted fault: reads take any member's word, and are told as if they had not.
    pub stale_reads: bool,
    pub next_process: AtomicU64,
    pub next_id: AtomicU64,
    /// The newest revision that any answer named.
    pub newest: AtomicU64,
}

impl Shared {
    /// A number that no other caller gets.
    pub fn number(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::Relaxed)
    }

    /// The member at a place, counted around.
    pub fn endpoint(&self, at: usize) -> Endpoint {
        self.endpoints[at % self.endpoints.len()].clone()
    }

    pub fn members(&self) -> usize {
        self.endpoints.len()
    }
}

/// A process.
pub(super) struct Process {
    pub shared: Arc<Shared>,
    pub rng: StdRng,
    id: u64,
    home: usize,
    clients: HashMap<String, Client>,
    timeouts: u32,
    pause: Duration,
    due: Instant,
}

impl Process {
    /// The process of a number, which decides what it asks, with so many requests a second.
    pub fn new(shared: &Arc<Shared>, number: u64, per_second: f64) -> Self {
        let mut rng =
            StdRng::seed_from_u64(shared.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let pause = Duration::from_secs_f64(1.0 / per_second.max(0.01));
        let due = Instant::now() + pause.mul_f64(rng.random::<f64>());
        Process {
            shared: shared.clone(),
            rng,
            id: shared.next_process.fetch_add(1, Ordering::Relaxed),
            home: number as usize,
            clients: HashMap::new(),
            timeouts: 0,
            pause,
            due,
        }
    }

    /// Waits until the next request is due; false where the load is over.
    pub async fn is_due(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.shared.stop.cancelled() => return false,
            () = tokio::time::sleep_until(self.due.into()) => {}
        }
        // A process that was held up does not catch up: that would be a storm after each fault.
        let pause = self.pause.mul_f64(0.5 + self.rng.random::<f64>());
        self.due = self.due.max(Instant::now()) + pause;
        true
    }

    /// Waits; false where the load is over before.
    pub async fn rest(&mut self, time: Duration) -> bool {
        tokio::select! {
            () = self.shared.stop.cancelled() => false,
            () = tokio::time::sleep(time) => true,
        }
    }

    /// One request, to the process' own member or now and then to another.
    pub async fn ask(&mut self, request: Request) -> Outcome {
        let members = self.shared.members();
        let is_any = self.rng.random_range(0..100) < STRAY_PERCENT
            || self.shared.stale_reads && !request.is_write();
        let at = if is_any {
            self.rng.random_range(0..members)
        } else {
            self.home
        };
        let outcome = self.ask_at(at, request).await;
        if !is_any && !matches!(outcome, Outcome::Ok(_)) {
            self.home += 1;
        }
        outcome
    }

    /// One request to one member.
    pub async fn ask_at(&mut self, at: usize, request: Request) -> Outcome {
        let endpoint = self.shared.endpoint(at);
        let id = self.shared.number();
        self.shared.recorder.add(Event::Invoke {
            id,
            process: self.id,
            server: endpoint.name.clone(),
            request: request.clone(),
        });
        let outcome = self.answer(&endpoint, &request).await;
        self.shared.recorder.add(match outcome.clone() {
            Outcome::Ok(reply) => Event::Ok { id, reply },
            Outcome::Fail(error) => Event::Fail { id, error },
            Outcome::Info(error) => Event::Info { id, error },
        });
        match &outcome {
            Outcome::Ok(reply) => {
                self.timeouts = 0;
                let revision = reply.revision.unwrap_or(0);
                self.shared.newest.fetch_max(revision, Ordering::Relaxed);
            }
            Outcome::Info(error) => {
                self.id = self.shared.next_process.fetch_add(1, Ordering::Relaxed);
                self.connect_anew(&error.class);
            }
            Outcome::Fail(error) => self.connect_anew(&error.class),
        }
        outcome
    }

    /// Asks without a record, for what is no part of the history.
    pub async fn prepare(&mut self, at: usize, request: &Request) -> Outcome {
        let endpoint = self.shared.endpoint(at);
        self.answer(&endpoint, request).await
    }

    async fn answer(&mut self, endpoint: &Endpoint, request: &Request) -> Outcome {
        let key = format!("{} {}", endpoint.name, endpoint.url);
        let client = match self.clients.get_mut(&key) {
            Some(client) => client,
            None => match Client::new(endpoint, &self.shared.prefix) {
                Ok(client) => self.clients.entry(key).or_insert(client),
                Err(error) => {
                    let text = format!("{error:#}");
                    return Outcome::Fail(crate::history::Failure::new("harness", text));
                }
            },
        };
        match request {
            Request::Read { key, .. } if self.shared.stale_reads => {
                let serializable = true;
                let key = key.clone();
                client.ask(&Request::Read { key, serializable }).await
            }
            _ => client.ask(request).await,
        }
    }

    /// Drops the connections where they are likely to be dead.
    fn connect_anew(&mut self, class: &str) {
        match class {
            TIMEOUT => self.timeouts += 1,
            "unknown" | "cancelled" | "internal" => self.timeouts = TIMEOUTS_MAX,
            _ => return,
        }
        if self.timeouts >= TIMEOUTS_MAX {
            self.timeouts = 0;
            self.clients.clear();
        }
    }

    /// Asks again and again until there is an answer; None where there is none within the time. Each try is a request of its
    /// own: what changes something has to change it to something else each time.
    pub async fn insist(
        &mut self,
        mut request: impl FnMut() -> Request,
        within: Duration,
    ) -> Option<Outcome> {
        let until = Instant::now() + within;
        while Instant::now() < until {
            let outcome = self.ask(request()).await;
            if let Outcome::Ok(_) = outcome {
                return Some(outcome);
            }
            self.home += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        None
    }
}
