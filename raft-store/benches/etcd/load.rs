//! Clients that ask, wait for the answer and ask again, spread evenly over all members of one side.

use crate::kv::{KvClient, PutRequest, RangeRequest};
use crate::sides::Side;
use anyhow::Result;
use bytes::Bytes;
use std::time::{Duration, Instant};
use tonic::transport::Endpoint;

/// Clients share connections, as the callers in an API server do.
pub const CONNECTIONS_A_MEMBER: usize = 4;
/// Each client writes so many keys again and again.
const KEYS_A_CLIENT: u64 = 1000;
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

/// What the clients do.
#[derive(Clone, Copy)]
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
#[derive(Clone, Copy)]
pub struct Load {
    pub work: Work,
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

/// Loads one side.
pub async fn run(side: &Side, load: &Load) -> Result<Sample> {
    let mut connections = Vec::new();
    for number in 0..side.endpoints.len() * CONNECTIONS_A_MEMBER {
        let endpoint = side.endpoints[number % side.endpoints.len()].clone();
        let endpoint = Endpoint::from_shared(endpoint)?.timeout(Duration::from_secs(10));
        connections.push(KvClient::new(endpoint.connect().await?));
    }
    let cpu_before = side.cpu()?;
    let began = Instant::now();
    let tasks: Vec<_> = (0..load.clients)
        .map(|client| {
            let connection = connections[client % connections.len()].clone();
            tokio::spawn(one_client(connection, client, *load, began + load.time))
        })
        .collect();
    let (mut micros, mut failed) = (Vec::new(), 0);
    for task in tasks {
        let (more, failures) = task.await?;
        micros.extend(more);
        failed += failures;
    }
    Ok(Sample {
        micros,
        failed,
        elapsed: began.elapsed(),
        server_cpu: side.cpu()?.saturating_sub(cpu_before),
    })
}

async fn one_client(
    mut connection: KvClient,
    client: usize,
    load: Load,
    until: Instant,
) -> (Vec<u32>, u64) {
    let value = Bytes::from(vec![b'v'; load.value_bytes]);
    let (mut micros, mut failed) = (Vec::new(), 0);
    for number in 0u64.. {
        let began = Instant::now();
        if began >= until {
            break;
        }
        let key = Bytes::from(format!(
            "/registry/bench/{client:04}/{:04}",
            number % KEYS_A_CLIENT
        ));
        let answer = match load.work {
            Work::Put => {
                let value = value.clone();
                connection.put(PutRequest { key, value }).await.map(drop)
            }
            Work::Get => {
                let request = RangeRequest {
                    key,
                    serializable: false,
                };
                connection.range(request).await.map(drop)
            }
        };
        match answer {
            Ok(()) => micros.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX)),
            Err(_) => {
                failed += 1;
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
    (micros, failed)
}
