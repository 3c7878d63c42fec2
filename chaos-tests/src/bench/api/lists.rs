//! Lists of thousands of pods, and the memory that very many take.

use super::load::{self, many};
use super::{Goal, Row, Size, millis, percentile};
use crate::cluster::Cluster;
use anyhow::{Context, Result, ensure};
use client::{Client, Deadline, Payload};
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LISTS: usize = 30;
const PODS: &str = "/api/v1/namespaces/default/pods";
/// A listed pod's JSON: the peer's 5,000 were 13.4 MB.
const LISTED_BYTES: usize = 2680;
const STORED_BYTES: usize = 4096;
/// Milliseconds of kube-apiserver's consistent list of 5,000 pods: its fastest, and its median.
const PEER_BEST_MS: f64 = 177.0;
const PEER_MEDIAN_MS: f64 = 355.0;
/// Before memory is read: what was only needed for a moment is given back.
const SETTLE: Duration = Duration::from_secs(15);

/// Lists of 5,000 pods as JSON, one after the other.
pub async fn list(cluster: &Cluster, size: Size) -> Result<Vec<Row>> {
    let count = size.listed;
    many(&load::clients(cluster)?, PODS, move |number| {
        (number < count).then(|| pod(&format!("listed-{number}"), LISTED_BYTES))
    })
    .await?;
    let client = cluster.client()?;
    let path = format!("{PODS}?labelSelector=bench%3Dlisted");
    let (mut firsts, mut totals, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..LISTS {
        let read = read_list(&client, &path).await?;
        firsts.push(millis(read.first));
        totals.push(millis(read.total));
        bytes = read.bytes;
    }
    ensure!(
        bytes > count * LISTED_BYTES,
        "the list has only {bytes} bytes"
    );
    firsts.sort_by(f64::total_cmp);
    totals.sort_by(f64::total_cmp);
    let (best, median) = (totals[0], percentile(&totals, 50.0));
    let detail = format!(
        "{:.1} MB, fastest {best:.1}, p50 {median:.1}, p99 {:.1} ms",
        bytes as f64 / 1e6,
        percentile(&totals, 99.0)
    );
    // The peer listed as many as the whole run does; of another number nothing can be said beside it.
    let is_comparable = count == Size::WHOLE.listed;
    let total = if is_comparable {
        Row {
            name: "list".to_owned(),
            what: format!(
                "list of {count} pods as JSON, consistent, fastest: as many times as fast as kube-apiserver's fastest"
            ),
            measured: PEER_BEST_MS / best,
            unit: "x",
            goal: Goal::AtLeast(8.0),
            detail: format!(
                "{detail}; of the medians {:.1} times as fast",
                PEER_MEDIAN_MS / median
            ),
            peer: "kube-apiserver 1.20, 5,000 pods of 13.4 MB: fastest 177 ms, median 355 ms",
        }
    } else {
        Row {
            name: "list".to_owned(),
            what: format!("list of {count} pods as JSON, consistent, fastest"),
            measured: best,
            unit: "ms",
            goal: Goal::AtMost(PEER_BEST_MS / 8.0),
            detail,
            peer: "none: kube-apiserver's figures are of 5,000 pods",
        }
    };
    Ok(vec![
        total,
        Row {
            name: "list".to_owned(),
            what: "first byte of that list, p50".to_owned(),
            measured: percentile(&firsts, 50.0),
            unit: "ms",
            goal: Goal::AtMost(5.0),
            detail: format!(
                "fastest {:.1}, p99 {:.1} ms",
                firsts[0],
                percentile(&firsts, 99.0)
            ),
            peer: "none: the goal is our own",
        },
    ])
}

struct ListRead {
    first: Duration,
    total: Duration,
    bytes: usize,
}

/// Reads a list and looks at nothing but its size.
async fn read_list(client: &Client, path: &str) -> Result<ListRead> {
    let sent = Instant::now();
    let deadline = Deadline(Duration::from_secs(60));
    let mut body = client
        .open(Method::GET, path, Payload::Empty, deadline)
        .await?;
    let (mut first, mut bytes) = (None, 0);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            first.get_or_insert_with(|| sent.elapsed());
            bytes += data.len();
        }
    }
    Ok(ListRead {
        first: first.context("the list was empty")?,
        total: sent.elapsed(),
        bytes,
    })
}

/// What 100,000 pods of 4 KiB cost the master that takes most memory.
pub async fn memory(cluster: &Cluster, size: Size) -> Result<Vec<Row>> {
    let before = resident(cluster)?;
    let count = size.stored;
    let began = Instant::now();
    many(&load::clients(cluster)?, PODS, move |number| {
        (number < count).then(|| pod(&format!("stored-{number}"), STORED_BYTES))
    })
    .await?;
    let took = began.elapsed();
    tokio::time::sleep(SETTLE).await;
    let after = resident(cluster)?;
    let json_bytes = (count * STORED_BYTES) as f64;
    let largest = after.iter().copied().fold(0.0, f64::max);
    let shown = |sizes: &[f64]| {
        sizes
            .iter()
            .map(|bytes| format!("{:.0}", bytes / 1e6))
            .collect::<Vec<_>>()
            .join(", ")
    };
    Ok(vec![Row {
        name: "memory".to_owned(),
        what: format!("resident memory of a master with {count} pods of 4 KiB, against their JSON"),
        measured: largest / json_bytes,
        unit: "times",
        goal: Goal::AtMost(3.0),
        detail: format!(
            "the three: {} MB, before {} MB; {:.0} MB of JSON, written in {:.0} s",
            shown(&after),
            shown(&before),
            json_bytes / 1e6,
            took.as_secs_f64()
        ),
        peer: "kube-apiserver 1.20 and etcd with 30,000 ConfigMaps and 5,000 pods: 1,250 and 310 MB",
    }])
}

/// Bytes of resident memory of each master.
fn resident(cluster: &Cluster) -> Result<Vec<f64>> {
    let masters = cluster.masters();
    let sizes = masters.iter().map(|name| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.pid(name)?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line
            .and_then(|line| line.trim().split(' ').next())
            .context("no VmRSS")?;
        Ok(kib.parse::<f64>()? * 1024.0)
    });
    sizes.collect()
}

/// A pod whose stored JSON has about so many bytes; no scheduler of ours takes it, so that nobody writes it again.
fn pod(name: &str, bytes: usize) -> Value {
    // What defaulting and the server's own fields add.
    const ADDED_BYTES: usize = 1350;
    let label = name.split('-').next().unwrap_or_default();
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"bench": label}, "annotations": {"filling": "x".repeat(bytes.saturating_sub(ADDED_BYTES))}},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "main", "image": "registry.invalid/main:1"}]}})
}
