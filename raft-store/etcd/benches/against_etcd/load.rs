//! Clients that ask, wait for the answer and ask again, spread evenly over all members of one side: through etcd's gRPC, or,
//! on ours, from within each member's process, as the API server of a master does.

use crate::http2::{Connection, Event};
use crate::requests::{Content, Requests};
use crate::wire::{self, PUT, RANGE};
use anyhow::{Context, Result};
use mvcc::{KeyRange, Op, Store, Txn};
use raft_store::RaftStore;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);
/// No answer is waited for longer.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);
/// What the clients do.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Write a key.
    Put,
    /// Read a key, linearizably.
    Get,
}

/// One round.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Load {
    pub work: Work,
    /// The number of the first client.
    pub first: usize,
    pub clients: usize,
    pub content: Content,
    pub value_bytes: usize,
    pub time: Duration,
}

/// What the clients of a round saw: how long each answered request took, and how many failed.
#[derive(Default, Serialize, Deserialize)]
pub struct Seen {
    pub micros: Vec<u32>,
    pub failed: u64,
}

impl Seen {
    fn add(&mut self, other: Seen) {
        self.micros.extend(other.micros);
        self.failed += other.failed;
    }

    fn answered(&mut self, since: Instant) {
        let micros = u32::try_from(since.elapsed().as_micros());
        self.micros.push(micros.unwrap_or(u32::MAX));
    }
}

/// The longest time in which no request of any client was answered.
pub struct Gaps {
    began: Instant,
    /// Microseconds since then.
    last: AtomicU64,
    longest: AtomicU64,
}

impl Gaps {
    pub fn new() -> Arc<Gaps> {
        Arc::new(Gaps {
            began: Instant::now(),
            last: AtomicU64::new(0),
            longest: AtomicU64::new(0),
        })
    }

    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.longest.load(Ordering::Relaxed))
    }

    fn answered(&self) {
        let now = self.began.elapsed().as_micros() as u64;
        let last = self.last.fetch_max(now, Ordering::Relaxed);
        self.longest
            .fetch_max(now.saturating_sub(last), Ordering::Relaxed);
    }
}

/// Loads the members at `endpoints` through gRPC, over one connection each.
pub async fn over_grpc(endpoints: &[SocketAddr], load: &Load) -> Result<Seen> {
    over_grpc_with(endpoints, load, &Gaps::new()).await
}

/// The same, and tells `gaps` of each answer.
pub async fn over_grpc_with(
    endpoints: &[SocketAddr],
    load: &Load,
    gaps: &Arc<Gaps>,
) -> Result<Seen> {
    let (members, mut first) = (endpoints.len(), load.first);
    let mut threads = Vec::new();
    for (place, endpoint) in endpoints.iter().copied().enumerate() {
        let clients = load.clients / members + usize::from(place < load.clients % members);
        let part = Load {
            first,
            clients,
            ..*load
        };
        first += clients;
        if clients > 0 {
            let gaps = gaps.clone();
            threads.push(tokio::task::spawn_blocking(move || {
                one_connection(endpoint, &part, &gaps)
            }));
        }
    }
    let mut all = Seen::default();
    for thread in threads {
        all.add(thread.await??);
    }
    Ok(all)
}

/// All clients of one connection.
fn one_connection(endpoint: SocketAddr, load: &Load, gaps: &Gaps) -> Result<Seen> {
    let path = match load.work {
        Work::Put => PUT,
        Work::Get => RANGE,
    };
    let requests = Requests::new(load.work, load.content, load.value_bytes);
    let mut connection = Connection::open(endpoint, path, ANSWER_MAX)?;
    let until = Instant::now() + load.time;
    let mut seen = Seen::default();
    let mut waiting: HashMap<u32, Call> = HashMap::new();
    for client in load.first..load.first + load.clients {
        let stream = connection.call(&requests.message(client, 0), true);
        waiting.insert(stream, Call::new(client, 0));
    }
    while !waiting.is_empty() {
        connection.flush()?;
        let came = connection.receive(|connection, event| match event {
            Event::Data(stream, _) => {
                if let Some(call) = waiting.get_mut(&stream) {
                    call.has_answer = true;
                }
            }
            Event::End(stream) => {
                let Some(call) = waiting.remove(&stream) else {
                    return;
                };
                match call.has_answer {
                    true => {
                        seen.answered(call.began);
                        gaps.answered();
                    }
                    false => seen.failed += 1,
                }
                if Instant::now() < until {
                    let next = Call::new(call.client, call.number + 1);
                    let stream = connection.call(&requests.message(next.client, next.number), true);
                    waiting.insert(stream, next);
                }
            }
        })?;
        if !came {
            seen.failed += waiting.len() as u64;
            break;
        }
    }
    Ok(seen)
}

/// A request on its way.
struct Call {
    client: usize,
    number: u64,
    began: Instant,
    has_answer: bool,
}

impl Call {
    fn new(client: usize, number: u64) -> Self {
        Call {
            client,
            number,
            began: Instant::now(),
            has_answer: false,
        }
    }
}

/// All clients of a round in this member's process.
pub async fn within(load: &Load, store: &RaftStore) -> Result<Seen> {
    let until = Instant::now() + load.time;
    let requests = Arc::new(Requests::new(load.work, load.content, load.value_bytes));
    let tasks: Vec<_> = (load.first..load.first + load.clients)
        .map(|client| {
            let (store, requests) = (store.clone(), requests.clone());
            tokio::spawn(one_client_within(store, client, load.work, requests, until))
        })
        .collect();
    let mut all = Seen::default();
    for task in tasks {
        all.add(task.await.context("a client panicked")?);
    }
    Ok(all)
}

async fn one_client_within(
    store: RaftStore,
    client: usize,
    work: Work,
    requests: Arc<Requests>,
    until: Instant,
) -> Seen {
    let mut seen = Seen::default();
    for number in 0u64.. {
        let began = Instant::now();
        if began >= until {
            break;
        }
        let key = Requests::key(client, number);
        let is_answered = match work {
            Work::Put => {
                let put = Op::put(key, requests.value(client, number));
                let txn = Txn {
                    success: vec![put],
                    ..Txn::default()
                };
                store.txn(txn).await.is_ok()
            }
            Work::Get => {
                let request = mvcc::RangeRequest::new(KeyRange::key(key));
                store.range(request).await.is_ok()
            }
        };
        match is_answered {
            true => seen.answered(began),
            false => {
                seen.failed += 1;
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
    seen
}

/// Writes `count` keys below `prefix` with values of `value_bytes`, each once, over one connection to `endpoint`.
pub fn fill(endpoint: SocketAddr, prefix: &str, count: u64, value_bytes: usize) -> Result<()> {
    const ON_THEIR_WAY: u64 = 100;
    let requests = Requests::new(Work::Put, Content::Objects, value_bytes);
    let mut connection = Connection::open(endpoint, PUT, ANSWER_MAX)?;
    let message = |number: u64| {
        let key = format!("{prefix}{number:08}");
        wire::put(key.into(), requests.value(0, number))
    };
    let (mut begun, mut done, mut answers) = (0, 0, 0);
    while done < count {
        while begun < count && begun - done < ON_THEIR_WAY {
            connection.call(&message(begun), true);
            begun += 1;
        }
        connection.flush()?;
        let came = connection.receive(|_, event| match event {
            Event::Data(..) => answers += 1,
            Event::End(_) => done += 1,
        })?;
        anyhow::ensure!(came, "{endpoint} did not answer in {ANSWER_MAX:?}");
    }
    anyhow::ensure!(
        answers >= count,
        "{endpoint} refused {} of {count} puts",
        count - answers
    );
    Ok(())
}
