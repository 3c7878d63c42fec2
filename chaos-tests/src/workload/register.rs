//! Registers: few processes and few operations each, since the search for an order grows with what is concurrent; then the
//! next key takes its place.

use super::process::{Process, Shared};
use super::{Kind, LAST_WORD_DEADLINE, number, together};
use crate::check::register::INITIAL;
use crate::history::{Outcome, Request, Told};
use rand::RngExt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Processes that share a key.
const PROCESSES_PER_KEY: u64 = 5;
/// Operations on a key before the next takes its place.
const OPS_PER_KEY: u32 = 250;
/// Operations of unknown outcome on a key before the next takes its place.
const UNKNOWN_PER_KEY: u32 = 6;

/// One key and what its processes share.
struct Key {
    name: String,
    with_stale_reads: bool,
    ops_left: AtomicU32,
    unknown_left: AtomicU32,
    is_spent: AtomicBool,
    next_value: AtomicU64,
    /// The newest value that anybody saw, and its revision: what a compare-and-swap compares with.
    known: Mutex<(u64, u64)>,
}

/// Runs lanes, a key each at a time.
pub(super) async fn run(
    shared: Arc<Shared>,
    per_second: f64,
    lanes: u32,
    with_stale_reads: bool,
) -> Vec<String> {
    let per_second = per_second / f64::from(lanes.max(1));
    let lanes: Vec<_> = (0..lanes)
        .map(|lane| tokio::spawn(run_lane(shared.clone(), lane, per_second, with_stale_reads)))
        .collect();
    let mut unread = Vec::new();
    for lane in lanes {
        unread.extend(lane.await.expect("a lane does not panic"));
    }
    unread
}

async fn run_lane(
    shared: Arc<Shared>,
    lane: u32,
    per_second: f64,
    with_stale_reads: bool,
) -> Vec<String> {
    let (kind, what) = if with_stale_reads {
        (Kind::Stale, "stale")
    } else {
        (Kind::Register, "register")
    };
    let mut unread = Vec::new();
    for generation in 0_u64.. {
        if shared.stop.is_cancelled() {
            break;
        }
        let name = format!("{what}-{lane}-{generation}");
        let numbers = |process| number(kind, u64::from(lane) << 20 | generation, process);
        let mut maker = Process::new(&shared, numbers(PROCESSES_PER_KEY), per_second);
        let Some(revision) = create(&mut maker, lane, &name).await else {
            continue;
        };
        let key = Arc::new(Key {
            name: name.clone(),
            with_stale_reads,
            ops_left: AtomicU32::new(OPS_PER_KEY),
            unknown_left: AtomicU32::new(UNKNOWN_PER_KEY),
            is_spent: AtomicBool::new(false),
            next_value: AtomicU64::new(INITIAL + 1),
            known: Mutex::new((INITIAL, revision)),
        });
        let per_process = per_second / PROCESSES_PER_KEY as f64;
        together(PROCESSES_PER_KEY, |process| {
            let process = Process::new(&shared, numbers(process), per_process);
            run_process(process, key.clone())
        })
        .await;
        // The last word, after which nothing is concurrent but what is of unknown outcome.
        let last = maker.insist(|| key.read(false), LAST_WORD_DEADLINE).await;
        if last.is_none() {
            unread.push(name);
        }
    }
    unread
}

/// Makes a key, however often that must be tried: it is no part of the history.
async fn create(maker: &mut Process, lane: u32, name: &str) -> Option<u64> {
    for at in lane as usize.. {
        // A create of unknown outcome that is late finds the key there and does nothing.
        let make = Request::Cas {
            key: name.to_owned(),
            from: INITIAL,
            value: INITIAL,
            revision: 0,
        };
        maker.prepare(at, &make).await;
        let read = Request::Read {
            key: name.to_owned(),
            serializable: false,
        };
        if let Outcome::Ok(reply) = maker.prepare(at, &read).await
            && let Told::Value {
                changed: Some(changed),
                ..
            } = reply.told
        {
            return Some(changed);
        }
        if !maker.rest(Duration::from_millis(200)).await {
            break;
        }
    }
    None
}

async fn run_process(mut process: Process, key: Arc<Key>) {
    while process.is_due().await && key.take_op() {
        let request = key.choose(&mut process);
        let outcome = process.ask(request.clone()).await;
        if let Outcome::Info(_) = outcome {
            key.spend_unknown();
        }
        key.learn(&request, &outcome);
    }
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

    fn choose(&self, process: &mut Process) -> Request {
        let key = self.name.clone();
        let value = || self.next_value.fetch_add(1, Ordering::Relaxed);
        match process.rng.random_range(0..4) {
            0 | 1 => self.read(self.with_stale_reads && process.rng.random()),
            2 => Request::Write {
                key,
                value: value(),
            },
            _ => {
                let (from, revision) = *self.known.lock().expect("no holder of this lock panics");
                Request::Cas {
                    key,
                    from,
                    value: value(),
                    revision,
                }
            }
        }
    }

    fn read(&self, serializable: bool) -> Request {
        Request::Read {
            key: self.name.clone(),
            serializable,
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
