//! Puts a second and their latency: three members in this one process, over loopback and TLS, each with its RocksDB in a
//! temporary folder (`TRIREME_BENCH_DIR` says where). Clients are spread over all members, as a load balancer would do;
//! `TRIREME_BENCH_LEADER=1` sends all to the leader. `cargo bench -p trireme-raft-store --bench put [-- SECONDS]`.

#[path = "../tests/common/mod.rs"]
mod common;

use common::Cluster;
use mvcc::{KeyRange, Op, RangeRequest, Store, Txn};
use raft_store::{Limits, RaftStore};
use std::time::{Duration, Instant};

const VALUE_BYTES: usize = 256;

#[derive(Clone, Copy)]
enum Work {
    Put,
    Get,
}

fn main() {
    let seconds = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(5);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run(Duration::from_secs(seconds)));
}

async fn run(time: Duration) {
    let mut cluster = Cluster::with_limits(3, Limits::default()).await;
    let leader = cluster.leader().await;
    let stores: Vec<RaftStore> = match std::env::var_os("TRIREME_BENCH_LEADER") {
        Some(_) => vec![cluster.member(leader).clone()],
        None => cluster.members.iter().flatten().cloned().collect(),
    };
    println!(
        "three in-process members over loopback TLS, {VALUE_BYTES}-byte values, {} asked, {time:?} each",
        stores.len()
    );
    let idle = cpu();
    tokio::time::sleep(time).await;
    println!(
        "idle: {:.1} % of a core for all members",
        (cpu() - idle).as_secs_f64() / time.as_secs_f64() * 100.0
    );
    for clients in [1, 64, 512] {
        measure("put", Work::Put, clients, time, &stores).await;
    }
    for clients in [1, 64, 512] {
        measure("linearizable get", Work::Get, clients, time, &stores).await;
    }
    let metrics = cluster.member(leader).metrics();
    println!(
        "leader: {} log writes, mean {} us; {} commands in {} entries",
        metrics.fsync.count(),
        metrics.fsync.total_us / metrics.fsync.count().max(1),
        metrics.proposals,
        metrics.entries,
    );
    drop(stores);
    for place in 0..3 {
        cluster.kill(place).await;
    }
}

async fn measure(name: &str, work: Work, clients: usize, time: Duration, stores: &[RaftStore]) {
    let cpu_before = cpu();
    let began = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            tokio::spawn(one_client(
                stores[client % stores.len()].clone(),
                client,
                work,
                began + time,
            ))
        })
        .collect();
    let mut micros = Vec::new();
    for task in tasks {
        micros.extend(task.await.expect("no client panics"));
    }
    let elapsed = began.elapsed();
    let cpu = cpu() - cpu_before;
    micros.sort_unstable();
    let at = |part: f64| micros[((micros.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
    println!(
        "{name:>16} {clients:>4} clients: {:>8.0}/s  p50 {:>7.2} ms  p99 {:>7.2} ms  max {:>7.2} ms  {:>5.0} us CPU each",
        micros.len() as f64 / elapsed.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0),
        cpu.as_micros() as f64 / micros.len() as f64,
    );
}

async fn one_client(store: RaftStore, client: usize, work: Work, until: Instant) -> Vec<u32> {
    let mut micros = Vec::new();
    let value = vec![b'v'; VALUE_BYTES];
    for number in 0u64.. {
        let began = Instant::now();
        if began >= until {
            break;
        }
        let key = format!("/registry/bench/{client:04}/{:04}", number % 1000);
        match work {
            Work::Put => {
                let txn = Txn {
                    success: vec![Op::put(key, value.clone())],
                    ..Txn::default()
                };
                store.txn(txn).await.expect("the put is acknowledged");
            }
            Work::Get => {
                let response = store.range(RangeRequest::new(KeyRange::key(key))).await;
                response.expect("the read is answered");
            }
        }
        micros.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    micros
}

/// CPU time of this process, members and clients together.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |place: usize| {
        fields
            .get(place)
            .and_then(|field| field.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
