//! Registers under load: processes that read, write and compare-and-swap ConfigMaps through the API of real masters.
//!
//! A process has one request at a time and never repeats one. After an unknown outcome its number is never used again. Keys
//! rotate, with few processes and few operations each, because the search grows with what is concurrent.

mod register;

pub use register::Api;

use crate::history::{Event, Outcome, Recorder, Request, Told};
use client::Client;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Processes that share a key.
const PROCESSES_PER_KEY: u64 = 5;
/// Operations on a key before the next takes its place.
const OPS_PER_KEY: u32 = 250;
/// Operations of unknown outcome on a key before the next takes its place.
const UNKNOWN_PER_KEY: u32 = 6;
/// How long the last read of a key may take to succeed, once everything is healed.
const LAST_READ_DEADLINE: Duration = Duration::from_secs(20);
/// Of a hundred operations, how many ask another master than the process' own.
const STRAY_PERCENT: u32 = 20;

/// What is asked of the masters.
#[derive(Clone)]
pub struct Workload {
    /// A client for each master.
    pub clients: Vec<(String, Client)>,
    /// Operations a second, in all.
    pub rate: u32,
    /// Keys in use at any time.
    pub lanes: u32,
    /// Decides who asks what; what comes of it depends on the machine too.
    pub seed: u64,
    /// Planted fault: reads take any replica's word.
    pub stale_reads: bool,
}

/// Shared by all processes of a run.
struct Shared {
    workload: Workload,
    recorder: Arc<Recorder>,
    stop: CancellationToken,
    next_process: AtomicU64,
    next_id: AtomicU64,
}

/// One key and the processes on it.
struct Key {
    name: String,
    ops_left: AtomicU32,
    unknown_left: AtomicU32,
    is_spent: AtomicBool,
    next_value: AtomicU64,
    /// The newest value that anybody saw, and its revision: what a compare-and-swap compares with.
    known: Mutex<(u64, u64)>,
}

/// Runs until `stop`, then reads every open key a last time. Keys whose last read did not succeed are returned.
pub async fn run(
    workload: Workload,
    recorder: Arc<Recorder>,
    stop: CancellationToken,
) -> Vec<String> {
    let lanes = workload.lanes;
    let shared = Arc::new(Shared {
        workload,
        recorder,
        stop,
        next_process: AtomicU64::new(0),
        next_id: AtomicU64::new(0),
    });
    let lanes: Vec<_> = (0..lanes)
        .map(|lane| tokio::spawn(run_lane(shared.clone(), lane)))
        .collect();
    let mut unread = Vec::new();
    for lane in lanes {
        unread.extend(lane.await.expect("a lane does not panic"));
    }
    unread
}

async fn run_lane(shared: Arc<Shared>, lane: u32) -> Vec<String> {
    let mut unread = Vec::new();
    let mut generation = 0;
    while !shared.stop.is_cancelled() {
        let name = format!("register-{lane}-{generation}");
        generation += 1;
        let Some(revision) = create(&shared, lane, &name).await else {
            continue;
        };
        let key = Arc::new(Key {
            name: name.clone(),
            ops_left: AtomicU32::new(OPS_PER_KEY),
            unknown_left: AtomicU32::new(UNKNOWN_PER_KEY),
            is_spent: AtomicBool::new(false),
            next_value: AtomicU64::new(1),
            known: Mutex::new((crate::check::register::INITIAL, revision)),
        });
        let processes = (0..PROCESSES_PER_KEY).map(|number| {
            let seed = shared.workload.seed ^ (u64::from(lane) << 32 | generation << 8 | number);
            tokio::spawn(run_process(shared.clone(), key.clone(), number, seed))
        });
        for process in processes.collect::<Vec<_>>() {
            process.await.expect("a process does not panic");
        }
        if !last_read(&shared, &key).await {
            unread.push(name);
        }
    }
    unread
}

/// Makes a key, however often that must be tried: it is not part of the history.
async fn create(shared: &Shared, lane: u32, name: &str) -> Option<u64> {
    let clients = &shared.workload.clients;
    for attempt in 0.. {
        let (_, client) = &clients[(lane as usize + attempt) % clients.len()];
        if let Some(revision) = Api::new(client).create(name).await {
            return Some(revision);
        }
        tokio::select! {
            () = shared.stop.cancelled() => return None,
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
    None
}

async fn run_process(shared: Arc<Shared>, key: Arc<Key>, number: u64, seed: u64) {
    let workload = &shared.workload;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut id = shared.next_process.fetch_add(1, Ordering::Relaxed);
    let mut home = number as usize;
    let processes = f64::from(workload.lanes) * PROCESSES_PER_KEY as f64;
    let pause = Duration::from_secs_f64(processes / f64::from(workload.rate.max(1)));
    let mut due = Instant::now() + pause.mul_f64(rng.random::<f64>());
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep_until(due.into()) => {}
        }
        // A process that was held up does not catch up: that would be a storm after each fault.
        due = due.max(Instant::now()) + pause.mul_f64(0.5 + rng.random::<f64>());
        if !key.take_op() {
            return;
        }
        let request = key.choose(&mut rng);
        let strays = rng.random_range(0..100) < STRAY_PERCENT;
        let is_any = strays || workload.stale_reads && !request.is_write();
        let at = if is_any {
            rng.random_range(0..workload.clients.len())
        } else {
            home % workload.clients.len()
        };
        match attempt(&shared, &key, id, at, request).await {
            Outcome::Ok(_) => {}
            Outcome::Fail(_) => home = if is_any { home } else { home + 1 },
            Outcome::Info(_) => {
                key.spend_unknown();
                home = if is_any { home } else { home + 1 };
                id = shared.next_process.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// One request and its records.
async fn attempt(shared: &Shared, key: &Key, process: u64, at: usize, request: Request) -> Outcome {
    let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
    let (server, client) = &shared.workload.clients[at];
    shared.recorder.add(Event::Invoke {
        id,
        process,
        server: server.clone(),
        request: request.clone(),
    });
    let api = Api::new(client).with_stale_reads(shared.workload.stale_reads);
    let outcome = api.ask(&request).await;
    shared.recorder.add(match outcome.clone() {
        Outcome::Ok(reply) => Event::Ok { id, reply },
        Outcome::Fail(error) => Event::Fail { id, error },
        Outcome::Info(error) => Event::Info { id, error },
    });
    key.learn(&request, &outcome);
    outcome
}

/// The last word on a key, after which nothing is concurrent but what is of unknown outcome.
async fn last_read(shared: &Shared, key: &Key) -> bool {
    let until = Instant::now() + LAST_READ_DEADLINE;
    for at in 0.. {
        let process = shared.next_process.fetch_add(1, Ordering::Relaxed);
        let at = at % shared.workload.clients.len();
        if let Outcome::Ok(_) = attempt(shared, key, process, at, key.read()).await {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    false
}

impl Key {
    fn take_op(&self) -> bool {
        if self.is_spent.load(Ordering::Relaxed) {
            return false;
        }
        let take = |left: u32| left.checked_sub(1);
        self.ops_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    fn spend_unknown(&self) {
        if self.unknown_left.fetch_sub(1, Ordering::Relaxed) <= 1 {
            self.is_spent.store(true, Ordering::Relaxed);
        }
    }

    fn choose(&self, rng: &mut StdRng) -> Request {
        let value = || self.next_value.fetch_add(1, Ordering::Relaxed);
        match rng.random_range(0..4) {
            0 | 1 => self.read(),
            2 => Request::Write {
                key: self.name.clone(),
                value: value(),
            },
            _ => {
                let (from, revision) = *self.known.lock().expect("no holder of this lock panics");
                Request::Cas {
                    key: self.name.clone(),
                    from,
                    value: value(),
                    revision,
                }
            }
        }
    }

    fn read(&self) -> Request {
        Request::Read {
            key: self.name.clone(),
            serializable: false,
        }
    }

    fn learn(&self, request: &Request, outcome: &Outcome) {
        let Outcome::Ok(reply) = outcome else { return };
        let (held, revision) = match (request, &reply.told) {
            (_, Told::Value { value, changed }) => (*value, *changed),
            (Request::Write { value, .. } | Request::Cas { value, .. }, _) => {
                (Some(*value).filter(|_| reply.took_effect()), reply.revision)
            }
            _ => return,
        };
        let mut known = self.known.lock().expect("no holder of this lock panics");
        if let (Some(held), Some(revision)) = (held, revision)
            && revision > known.1
        {
            *known = (held, revision);
        }
    }
}
