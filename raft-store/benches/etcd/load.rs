//! Clients that ask, wait for the answer and ask again, spread evenly over all members of one side: through etcd's gRPC, or,
//! on ours, from within each member's process, as the API server of a master does.

use crate::kv::{KvClient, PutRequest, RangeRequest};
use crate::sides::Side;
use anyhow::Result;
use bytes::Bytes;
use mvcc::{KeyRange, Op, Store, Txn};
use raft_store::RaftStore;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tonic::transport::Endpoint;

/// Clients share connections, as the callers in an API server do.
pub const CONNECTIONS_A_MEMBER: usize = 4;
/// Each client writes so many keys again and again.
const KEYS_A_CLIENT: u64 = 1000;
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

/// What the clients do.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub enum Work {
    /// Write a key.
    Put,
    /// Read a key, linearizably.
    Get,
}

impl Work {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Work::Put => "puts",
            Work::Get => "linearizable gets",
        }
    }
}

/// One round.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Load {
    pub work: Work,
    /// Whether our members' clients are within their processes.
    pub within: bool,
    /// The number of the first client.
    pub first: usize,
    pub clients: usize,
    pub value_bytes: usize,
    pub time: Duration,
}

/// What a round showed.
pub struct Sample {
    /// How long each answered request took.
    pub micros: Vec<u32>,
    pub failed: u64,
    pub elapsed: Duration,
    /// CPU time of all members, the clients' not counted.
    pub server_cpu: Duration,
}

impl Sample {
    pub fn per_second(&self) -> f64 {
        self.micros.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// What the clients of a round saw: how long each answered request took, and how many failed.
#[derive(Default, Serialize, Deserialize)]
pub struct Seen {
    pub micros: Vec<u32>,
    pub failed: u64,
}

/// Loads one side.
pub async fn run(side: &mut Side, load: &Load) -> Result<Sample> {
    let connections = match load.within && side.takes_clients {
        true => vec![],
        false => connect(side).await?,
    };
    let cpu_before = side.cpu()?;
    let began = Instant::now();
    let seen = match connections.is_empty() {
        true => side.run_within(load).await?,
        false => {
            clients(load, |client| {
                Caller::Grpc(connections[client % connections.len()].clone())
            })
            .await?
        }
    };
    Ok(Sample {
        micros: seen.micros,
        failed: seen.failed,
        elapsed: began.elapsed(),
        server_cpu: side.cpu()?.saturating_sub(cpu_before),
    })
}

async fn connect(side: &Side) -> Result<Vec<KvClient>> {
    let mut connections = Vec::new();
    for number in 0..side.endpoints.len() * CONNECTIONS_A_MEMBER {
        let endpoint = side.endpoints[number % side.endpoints.len()].clone();
        let endpoint = Endpoint::from_shared(endpoint)?.timeout(Duration::from_secs(10));
        connections.push(KvClient::new(endpoint.connect().await?));
    }
    Ok(connections)
}

/// All clients of a round in this process.
pub async fn clients(load: &Load, caller: impl Fn(usize) -> Caller) -> Result<Seen> {
    let until = Instant::now() + load.time;
    let tasks: Vec<_> = (load.first..load.first + load.clients)
        .map(|client| tokio::spawn(one_client(caller(client), client, *load, until)))
        .collect();
    let mut all = Seen::default();
    for task in tasks {
        let seen = task.await?;
        all.micros.extend(seen.micros);
        all.failed += seen.failed;
    }
    Ok(all)
}

/// How a client asks.
pub enum Caller {
    Grpc(KvClient),
    Within(RaftStore),
}

impl Caller {
    /// Whether the request was answered.
    async fn ask(&mut self, work: Work, key: Bytes, value: &Bytes) -> bool {
        let value = value.clone();
        match (self, work) {
            (Caller::Grpc(client), Work::Put) => {
                client.put(PutRequest { key, value }).await.is_ok()
            }
            (Caller::Grpc(client), Work::Get) => {
                let request = RangeRequest {
                    key,
                    serializable: false,
                };
                client.range(request).await.is_ok()
            }
            (Caller::Within(store), Work::Put) => {
                let txn = Txn {
                    success: vec![Op::put(key, value)],
                    ..Txn::default()
                };
                store.txn(txn).await.is_ok()
            }
            (Caller::Within(store), Work::Get) => {
                let request = mvcc::RangeRequest::new(KeyRange::key(key));
                store.range(request).await.is_ok()
            }
        }
    }
}

async fn one_client(mut caller: Caller, client: usize, load: Load, until: Instant) -> Seen {
    let value = Bytes::from(vec![b'v'; load.value_bytes]);
    let mut seen = Seen::default();
    for number in 0u64.. {
        let began = Instant::now();
        if began >= until {
            break;
        }
        let key = format!("/registry/bench/{client:04}/{:04}", number % KEYS_A_CLIENT);
        if caller.ask(load.work, Bytes::from(key), &value).await {
            let micros = u32::try_from(began.elapsed().as_micros());
            seen.micros.push(micros.unwrap_or(u32::MAX));
        } else {
            seen.failed += 1;
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
    seen
}
