//! Thousands of nodes that renew their leases, and writes beside them.

use super::load::{self, MAPS, config_map, many, post};
use super::{Goal, Row, Size, millis, percentile};
use crate::clock::micro_time;
use crate::cluster::Cluster;
use anyhow::Result;
use client::{Client, Deadline, PatchKind, Payload};
use http::Method;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const RENEW_EVERY: Duration = Duration::from_secs(10);
const WRITES_PER_SECOND: u32 = 50;
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// The time of any request while 5,000 nodes renew their leases every 10 s and 50 writes a second come beside.
pub async fn leases(cluster: &Cluster, size: Size) -> Result<Vec<Row>> {
    let count = size.nodes;
    let clients = load::clients(cluster)?;
    many(&clients, LEASES, move |number| {
        (number < count).then(|| lease(number))
    })
    .await?;
    let lasts = size.load.max(RENEW_EVERY);
    let renewing = every(RENEW_EVERY / count as u32, lasts, {
        let clients = clients.clone();
        move |number| renew(clients[number % clients.len()].clone(), number % count)
    });
    let writing = every(
        Duration::from_secs(1) / WRITES_PER_SECOND,
        lasts,
        move |number| write(clients[number % clients.len()].clone(), number),
    );
    let (renewed, written) = tokio::join!(renewing, writing);
    let (mut renewed, mut written) = (renewed?, written?);
    let (renewals, writes) = (renewed.len(), written.len());
    let p99_of = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        percentile(times, 99.0)
    };
    let (renewal_p99, write_p99) = (p99_of(&mut renewed), p99_of(&mut written));
    let mut all = [renewed, written].concat();
    let p99 = p99_of(&mut all);
    let rate = |count: usize| count as f64 / lasts.as_secs_f64();
    Ok(vec![Row {
        name: "nodes".to_owned(),
        what: format!(
            "any request, p99, while {count} nodes renew leases every 10 s and {WRITES_PER_SECOND} writes a second come"
        ),
        measured: p99,
        unit: "ms",
        goal: Goal::AtMost(50.0),
        detail: format!(
            "p50 {:.1} ms; {:.0} renewals a second, p99 {renewal_p99:.1} ms; {:.0} writes, p99 {write_p99:.1} ms",
            percentile(&all, 50.0),
            rate(renewals),
            rate(writes)
        ),
        peer: "none: the goal is our own",
    }])
}

/// Starts work at its time, whether or not what was started before has ended, so that a slow server is not spared.
async fn every<F>(period: Duration, lasts: Duration, work: impl Fn(usize) -> F) -> Result<Vec<f64>>
where
    F: Future<Output = Result<(), client::Error>> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut times = Vec::new();
    let until = Instant::now() + lasts;
    let mut ticks = tokio::time::interval(period);
    for number in 0.. {
        let due = ticks.tick().await;
        if Instant::now() >= until {
            break;
        }
        let work = work(number);
        running.spawn(async move {
            work.await?;
            Ok::<_, client::Error>(millis(due.elapsed()))
        });
        while let Some(done) = running.try_join_next() {
            times.push(done??);
        }
    }
    while let Some(done) = running.join_next().await {
        times.push(done??);
    }
    Ok(times)
}

async fn renew(client: Client, node: usize) -> Result<(), client::Error> {
    let path = format!("{LEASES}/bench-{node}");
    let patch = json!({"spec": {"renewTime": micro_time()}});
    let bytes = serde_json::to_vec(&patch).expect("a patch is plain data");
    let payload = Payload::Bytes(PatchKind::Merge.content_type(), bytes.into());
    client
        .call::<IgnoredAny>(
            Method::PATCH,
            &path,
            payload,
            Deadline(Duration::from_secs(30)),
        )
        .await
        .map(drop)
}

async fn write(client: Client, number: usize) -> Result<(), client::Error> {
    post(
        &client,
        MAPS,
        &config_map(&format!("beside-{number}"), 1024),
    )
    .await
}

fn lease(number: usize) -> Value {
    let name = format!("bench-{number}");
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micro_time()}})
}
