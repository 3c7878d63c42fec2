//! How long writes stop when the leader is killed, at a client that tries again.

use crate::cluster::{Binaries, Cluster, Options};
use anyhow::{Context, Result};
use client::{Client, Deadline, Payload};
use http::Method;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MASTERS: u8 = 3;
/// Clients that write all the time.
const WRITERS: usize = 4;
/// One request of a write; then the client tries again.
const TRY_DEADLINE: Deadline = Deadline(Duration::from_secs(1));
/// A write that did not succeed by then is an error that the user sees.
const WRITE_DEADLINE: Duration = Duration::from_secs(15);
/// Between tries, and between writes.
const PAUSE: Duration = Duration::from_millis(10);

/// One write of a client.
#[derive(Clone, Copy, Debug)]
struct Write {
    sent: Instant,
    acknowledged: Option<Instant>,
}

/// One kill of the leader.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    /// Who led.
    pub killed: String,
    /// Milliseconds from the kill until the first write that was sent after it was acknowledged.
    pub first_write_ms: f64,
    /// Milliseconds until each client had such a write, the slowest of them.
    pub all_clients_ms: f64,
    /// Milliseconds that the slowest write took, tries included.
    pub slowest_write_ms: f64,
    /// Writes that did not succeed in time, however often they were tried.
    pub errors: usize,
}

/// All rounds.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// The rounds.
    pub rounds: Vec<Round>,
    /// Median of the first writes, in milliseconds.
    pub median_ms: f64,
    /// The shortest, in milliseconds.
    pub min_ms: f64,
    /// The longest, in milliseconds.
    pub max_ms: f64,
    /// Errors that a client that tries again saw, in all.
    pub errors: usize,
    /// Milliseconds from the first process to three voting masters.
    pub start_ms: f64,
}

/// Kills the leader `rounds` times. `told` is called after each.
pub async fn run(binaries: Binaries, rounds: u32, told: &dyn Fn(&Round)) -> Result<Failover> {
    let began = Instant::now();
    let mut cluster = Cluster::start(Options {
        binaries,
        masters: MASTERS,
        logs: None,
    })
    .await?;
    let start_ms = began.elapsed().as_secs_f64() * 1e3;
    let mut done: Vec<Round> = Vec::new();
    for _ in 0..rounds {
        let round = one(&mut cluster).await?;
        told(&round);
        done.push(round);
    }
    let mut firsts: Vec<f64> = done.iter().map(|round| round.first_write_ms).collect();
    firsts.sort_by(f64::total_cmp);
    Ok(Failover {
        median_ms: firsts.get(firsts.len() / 2).copied().unwrap_or(0.0),
        min_ms: firsts.first().copied().unwrap_or(0.0),
        max_ms: firsts.last().copied().unwrap_or(0.0),
        errors: done.iter().map(|round| round.errors).sum(),
        rounds: done,
        start_ms,
    })
}

async fn one(cluster: &mut Cluster) -> Result<Round> {
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| Ok(tokio::spawn(write(cluster.client()?, number, stop.clone()))))
        .collect::<Result<_>>()?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let leader = cluster.wait_for_leader().await?.name;
    let killed_at = Instant::now();
    cluster.kill(&leader).await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    stop.store(true, Ordering::Relaxed);
    let mut firsts = Vec::new();
    let mut round = Round {
        killed: leader.clone(),
        first_write_ms: 0.0,
        all_clients_ms: 0.0,
        slowest_write_ms: 0.0,
        errors: 0,
    };
    for writer in writers {
        let writes = writer.await.context("a client panicked")?;
        for write in &writes {
            match write.acknowledged {
                None => round.errors += 1,
                Some(at) => {
                    let took = millis(at - write.sent);
                    round.slowest_write_ms = round.slowest_write_ms.max(took);
                }
            }
        }
        let first = writes
            .iter()
            .filter(|write| write.sent >= killed_at)
            .filter_map(|write| write.acknowledged)
            .min()
            .context("a client had no write acknowledged after the leader was killed")?;
        firsts.push(millis(first - killed_at));
    }
    round.first_write_ms = firsts.iter().copied().fold(f64::INFINITY, f64::min);
    round.all_clients_ms = firsts.iter().copied().fold(0.0, f64::max);
    cluster.start_machine(&leader)?;
    cluster.wait_until_whole().await?;
    Ok(round)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Writes one object again and again, each write until it succeeds: a PUT without a revision may be sent twice.
async fn write(client: Client, number: usize, stop: Arc<AtomicBool>) -> Vec<Write> {
    let maps = "/api/v1/namespaces/default/configmaps";
    let name = format!("failover-{number}");
    let object = |value: u64| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "default"},
            "data": {"value": value.to_string()},
        })
    };
    // It is there from the second round on; a failure shows at the first write.
    let made = client.call::<Value>(Method::POST, maps, Payload::json(&object(0)), TRY_DEADLINE);
    drop(made.await);
    let path = format!("{maps}/{name}");
    let mut writes = Vec::new();
    for value in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let sent = Instant::now();
        let mut acknowledged = None;
        while acknowledged.is_none() && sent.elapsed() < WRITE_DEADLINE {
            let payload = Payload::json(&object(value));
            let put = client.call::<Value>(Method::PUT, &path, payload, TRY_DEADLINE);
            if put.await.is_ok() {
                acknowledged = Some(Instant::now());
            } else {
                tokio::time::sleep(PAUSE).await;
            }
        }
        writes.push(Write { sent, acknowledged });
        tokio::time::sleep(PAUSE).await;
    }
    writes
}
