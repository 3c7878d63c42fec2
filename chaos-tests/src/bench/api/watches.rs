//! How soon many watchers hear of a write, and that they share its bytes.

use super::load::{MAPS, config_map, post};
use super::{Goal, Row, Size, millis, percentile};
use crate::cluster::Cluster;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use client::{Client, Deadline, Payload};
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const WATCHERS: usize = 100;
const MANY_WATCHERS: usize = 1_000;
const WRITES_PER_SECOND: u32 = 20;
/// Milliseconds from a create's answer to its event, p99, of kube-apiserver with 50 watchers: the best and the worst run. With 100
/// it was not measured; with 500 it is 35 to 164.
const PEER_P99_MS: (f64, f64) = (2.2, 6.7);
const QUIET_MAX: Duration = Duration::from_secs(10);

/// The time from a create's answer to its event, at 100 watchers.
pub async fn latency(cluster: &Cluster, size: Size) -> Result<Vec<Row>> {
    let (events, mut heard) = mpsc::unbounded_channel();
    let watching = watch(cluster, WATCHERS, "bench=watch", &events).await?;
    let client = cluster.client()?;
    let writes = (size.load.as_secs() as u32 * WRITES_PER_SECOND) as usize;
    let mut answers = HashMap::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / WRITES_PER_SECOND);
    for number in 0..writes {
        ticks.tick().await;
        let name = format!("watch-{number}");
        post(&client, MAPS, &labelled(&name, "watch")).await?;
        answers.insert(name, Instant::now());
    }
    let mut delays = Vec::new();
    while delays.len() < writes * WATCHERS {
        let event: Heard = next(&mut heard)
            .await
            .with_context(|| format!("{} of {} events came", delays.len(), writes * WATCHERS))?;
        let answered = answers
            .get(&event.name)
            .context("an event of nobody's write")?;
        delays.push(millis(event.at.saturating_duration_since(*answered)));
    }
    watching.iter().for_each(tokio::task::JoinHandle::abort);
    delays.sort_by(f64::total_cmp);
    let p99 = percentile(&delays, 99.0);
    Ok(vec![Row {
        name: "watch".to_owned(),
        what: format!(
            "event after its create's answer, {WATCHERS} watchers, p99, against kube-apiserver's worst with 50"
        ),
        measured: p99 / PEER_P99_MS.1,
        unit: "x",
        goal: Goal::AtMost(0.3),
        detail: format!(
            "p50 {:.2}, p99 {p99:.2} ms of {} events; against its best with 50 watchers {:.2}",
            percentile(&delays, 50.0),
            delays.len(),
            p99 / PEER_P99_MS.0
        ),
        peer: "kube-apiserver 1.20: p99 2.2 to 6.7 ms with 50 watchers, 35 to 164 with 500",
    }])
}

/// How often a change is encoded for 1,000 watchers of one master.
pub async fn fanout(cluster: &Cluster, size: Size) -> Result<Vec<Row>> {
    let master = cluster.masters().first().context("a master")?.clone();
    let client = cluster.client_of(&master)?;
    let (events, mut heard) = mpsc::unbounded_channel();
    let watching = watch_with(
        || cluster.client_of(&master),
        MANY_WATCHERS,
        "bench=fanout",
        &events,
    )
    .await?;
    let before = counters(&client).await?;
    let writes = size.load.as_secs() as usize * 2;
    let began = Instant::now();
    for number in 0..writes {
        post(
            &client,
            MAPS,
            &labelled(&format!("fanout-{number}"), "fanout"),
        )
        .await?;
    }
    for count in 0..writes * MANY_WATCHERS {
        next(&mut heard)
            .await
            .with_context(|| format!("{count} of {} events came", writes * MANY_WATCHERS))?;
    }
    let took = began.elapsed();
    let after = counters(&client).await?;
    watching.iter().for_each(tokio::task::JoinHandle::abort);
    let (told, encoded) = (after.0 - before.0, after.1 - before.1);
    Ok(vec![Row {
        name: "fanout".to_owned(),
        what: format!(
            "encodings of a change for {MANY_WATCHERS} watchers, by the master's own counter"
        ),
        // Others write too, meanwhile: leases of masters, events.
        measured: encoded / writes as f64,
        unit: "a change",
        goal: Goal::AtMost(1.5),
        detail: format!(
            "{writes} changes told {told:.0} times, encoded {encoded:.0} times, in {:.1} s; trireme_watch_encodings_total at /metrics",
            took.as_secs_f64()
        ),
        peer: "none: the goal is our own",
    }])
}

/// An event, and when it came.
struct Heard {
    name: String,
    at: Instant,
}

async fn next(heard: &mut mpsc::UnboundedReceiver<Heard>) -> Result<Heard> {
    let event = tokio::time::timeout(QUIET_MAX, heard.recv()).await;
    event
        .context("nothing came for 10 s")?
        .context("all watchers have ended")
}

fn labelled(name: &str, label: &str) -> serde_json::Value {
    let mut object = config_map(name, 1024);
    object["metadata"]["labels"] = serde_json::json!({"bench": label});
    object
}

async fn watch(
    cluster: &Cluster,
    count: usize,
    selector: &str,
    events: &mpsc::UnboundedSender<Heard>,
) -> Result<Vec<tokio::task::JoinHandle<()>>> {
    watch_with(|| cluster.client(), count, selector, events).await
}

/// Opens watches, up to a hundred over a client's connection, as many as a server allows and still some.
async fn watch_with(
    client: impl Fn() -> Result<Client>,
    count: usize,
    selector: &str,
    events: &mpsc::UnboundedSender<Heard>,
) -> Result<Vec<tokio::task::JoinHandle<()>>> {
    const PER_CLIENT: usize = 100;
    let path = format!(
        "{MAPS}?watch=true&resourceVersion=0&labelSelector={}",
        client::encode_segment(selector)
    );
    let mut tasks = Vec::new();
    while tasks.len() < count {
        let client = client()?;
        for _ in 0..PER_CLIENT.min(count - tasks.len()) {
            let deadline = Deadline(Duration::from_secs(30));
            let body = client
                .open(Method::GET, &path, Payload::Empty, deadline)
                .await?;
            tasks.push(tokio::spawn(listen(body, events.clone())));
        }
    }
    Ok(tasks)
}

/// Hears events line by line; of each only its object's name is read, since the listeners share the machine with the servers.
async fn listen(mut body: Incoming, events: mpsc::UnboundedSender<Heard>) {
    let mut rest: Vec<u8> = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let at = Instant::now();
        let data: Bytes = frame.into_data().unwrap_or_default();
        rest.extend_from_slice(&data);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let Some(name) = name_in(&line) else { continue };
            if events.send(Heard { name, at }).is_err() {
                return;
            }
        }
    }
}

fn name_in(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?;
    let (_, after) = line.split_once(r#""name":""#)?;
    Some(after.split('"').next()?.to_owned())
}

/// Events told, and versions encoded, by the master.
async fn counters(client: &Client) -> Result<(f64, f64)> {
    let deadline = Deadline(Duration::from_secs(10));
    let body = client
        .open(Method::GET, "/metrics", Payload::Empty, deadline)
        .await?;
    let text = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
    let value = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse::<f64>().ok())
            .with_context(|| format!("/metrics has no {name}"))
    };
    let told = (
        value("trireme_watch_events_total")?,
        value("trireme_watch_encodings_total")?,
    );
    ensure!(told.0 >= 0.0, "the counters are wrong");
    Ok(told)
}
