//! Creates, as many as go, with so many in flight; what the other figures use to fill the store.

use super::{Goal, Row, Size, millis, percentile};
use crate::cluster::Cluster;
use anyhow::{Result, ensure};
use client::{Client, Deadline, Payload};
use http::Method;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const IN_FLIGHT: usize = 32;
pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEADLINE: Deadline = Deadline(Duration::from_secs(30));
/// Creates a second of kube-apiserver with etcd, 32 in flight: its best run, and its median.
const PEER_BEST: f64 = 1572.0;
const PEER_MEDIAN: f64 = 898.0;

/// Creates of ConfigMaps of 1 KiB, 32 in flight.
pub async fn create(cluster: &Cluster, size: Size) -> Result<Vec<Row>> {
    let until = Instant::now() + size.load;
    let began = Instant::now();
    let mut times = many(&clients(cluster)?, MAPS, move |number| {
        (Instant::now() < until).then(|| config_map(&format!("create-{number}"), 1024))
    })
    .await?;
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    Ok(vec![Row {
        name: "create".to_owned(),
        what: format!(
            "creates of 1 KiB ConfigMaps, {IN_FLIGHT} in flight, against kube-apiserver's best"
        ),
        measured: rate / PEER_BEST,
        unit: "x",
        goal: Goal::AtLeast(3.0),
        detail: format!(
            "{rate:.0}/s, p50 {:.1} and p99 {:.1} ms; against its median {:.1} times",
            percentile(&times, 50.0),
            percentile(&times, 99.0),
            rate / PEER_MEDIAN
        ),
        peer: "kube-apiserver 1.20 with etcd 3.4, one of each: best 1,572/s, median 898/s",
    }])
}

/// A client for each that is in flight: they share the machine's cores, not a connection.
pub fn clients(cluster: &Cluster) -> Result<Vec<Client>> {
    (0..IN_FLIGHT).map(|_| cluster.client()).collect()
}

/// Posts what `object` makes of 0, 1, … until it makes nothing more, each client one at a time; gives the milliseconds of each.
pub async fn many(
    clients: &[Client],
    path: &'static str,
    object: impl Fn(usize) -> Option<Value> + Send + Sync + 'static,
) -> Result<Vec<f64>> {
    let (next, object) = (Arc::new(AtomicUsize::new(0)), Arc::new(object));
    let tasks: Vec<_> = clients
        .iter()
        .cloned()
        .map(|client| {
            let (next, object) = (Arc::clone(&next), Arc::clone(&object));
            tokio::spawn(async move {
                let mut times = Vec::new();
                while let Some(object) = object(next.fetch_add(1, Ordering::Relaxed)) {
                    let sent = Instant::now();
                    post(&client, path, &object).await?;
                    times.push(millis(sent.elapsed()));
                }
                Ok::<_, client::Error>(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    ensure!(!times.is_empty(), "nothing was written");
    Ok(times)
}

/// One create; its answer is read and not looked at.
pub async fn post(client: &Client, path: &str, object: &Value) -> Result<(), client::Error> {
    client
        .call::<IgnoredAny>(Method::POST, path, Payload::json(object), DEADLINE)
        .await
        .map(drop)
}

/// A ConfigMap whose JSON has about so many bytes.
pub fn config_map(name: &str, bytes: usize) -> Value {
    let value = "x".repeat(bytes.saturating_sub(150));
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}})
}
