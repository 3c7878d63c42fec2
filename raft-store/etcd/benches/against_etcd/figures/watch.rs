//! How long after a put's answer its event is with each of many watchers.
//!
//! Ten streams with a hundred watches each, as etcd's own benchmark has it, all of one key, spread over the members. An event
//! that comes before the answer counts as no delay.

use super::{Pair, Plan};
use crate::http2::{Connection, Event, Messages};
use crate::load::ANSWER_MAX;
use crate::report::{Goal, Row, quantile};
use crate::requests::Content;
use crate::sides::{MEMBERS, Side};
use crate::wire::{self, PUT, WATCH, WatchResponse};
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const STREAMS: usize = 10;
const WATCHES_A_STREAM: usize = 100;
const KEY: &str = "/registry/watched";
const PUT_EVERY: Duration = Duration::from_millis(50);
/// How long the last events are waited for.
const GRACE: Duration = Duration::from_secs(2);

pub async fn watch(pair: &mut Pair, plan: &Plan) -> Result<Vec<Row>> {
    let mut each = [vec![], vec![]];
    for round in 0..plan.rounds {
        eprintln!("watch: round {} of {}", round + 1, plan.rounds);
        for (side, members) in pair.in_turns(round) {
            each[side].extend(one_round(members, plan).await?);
        }
    }
    let row = |part, name: &str, goal| {
        let [ours, etcd] = [quantile(&each[0], part), quantile(&each[1], part)];
        let watchers = STREAMS * WATCHES_A_STREAM;
        let what = format!("event after its put's answer, {watchers} watchers, {name}");
        Row::ratio("watch", what, (ours, etcd, "ms"), ours / etcd, goal)
    };
    Ok(vec![
        row(0.99, "p99", Goal::AtMost(0.5)),
        row(0.5, "p50", Goal::None),
    ])
}

/// When each event of a revision came.
type Arrivals = Vec<(i64, Instant)>;

async fn one_round(side: &Side, plan: &Plan) -> Result<Vec<f64>> {
    let stop = Arc::new(AtomicBool::new(false));
    let created = Arc::new(AtomicUsize::new(0));
    let mut watching = Vec::new();
    for place in 0..MEMBERS {
        let streams = (0..STREAMS)
            .filter(|stream| stream % MEMBERS == place)
            .count();
        let (endpoint, stop, created) = (side.endpoints[place], stop.clone(), created.clone());
        watching.push(tokio::task::spawn_blocking(move || {
            watch_member(endpoint, streams, &created, &stop)
        }));
    }
    let wanted = STREAMS * WATCHES_A_STREAM;
    let began = Instant::now();
    while created.load(Ordering::SeqCst) < wanted {
        ensure!(
            began.elapsed() < Duration::from_secs(20),
            "only {} of {wanted} watches were created",
            created.load(Ordering::SeqCst)
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (endpoint, time, bytes) = (side.endpoints[0], plan.time, plan.value_bytes);
    let answers = tokio::task::spawn_blocking(move || put(endpoint, time, bytes)).await??;
    tokio::time::sleep(GRACE).await;
    stop.store(true, Ordering::SeqCst);
    let mut delays = Vec::new();
    for member in watching {
        for (revision, arrived) in member.await?? {
            if let Some(answered) = answers.get(&revision) {
                let delay = arrived.saturating_duration_since(*answered);
                delays.push(delay.as_secs_f64() * 1e3);
            }
        }
    }
    ensure!(
        delays.len() == answers.len() * wanted,
        "{} events came, {} puts were answered to {wanted} watchers",
        delays.len(),
        answers.len()
    );
    Ok(delays)
}

/// The watches at one member.
fn watch_member(
    endpoint: SocketAddr,
    streams: usize,
    created: &AtomicUsize,
    stop: &AtomicBool,
) -> Result<Arrivals> {
    let mut connection = Connection::open(endpoint, WATCH, Duration::from_millis(50))?;
    let mut messages: HashMap<u32, Messages> = HashMap::new();
    for _ in 0..streams {
        let stream = connection.call(&wire::watch(KEY), false);
        for _ in 1..WATCHES_A_STREAM {
            connection.send(stream, &wire::watch(KEY), false);
        }
        messages.insert(stream, Messages::default());
    }
    let mut arrivals = Arrivals::new();
    let mut failed = None;
    while !stop.load(Ordering::SeqCst) {
        connection.flush()?;
        connection.receive(|_, event| {
            let now = Instant::now();
            let Event::Data(stream, bytes) = event else {
                failed = Some("a watch stream ended");
                return;
            };
            let Some(messages) = messages.get_mut(&stream) else {
                return;
            };
            messages.add(bytes, |message| {
                match wire::read::<WatchResponse>(message) {
                    Ok(response) => {
                        created.fetch_add(usize::from(response.created), Ordering::SeqCst);
                        let revisions =
                            response.events.iter().filter_map(|event| event.kv.as_ref());
                        arrivals.extend(revisions.map(|kv| (kv.mod_revision, now)));
                    }
                    Err(_) => failed = Some("a watch response cannot be read"),
                }
            });
        })?;
        if let Some(failed) = failed {
            anyhow::bail!("{endpoint}: {failed}");
        }
    }
    Ok(arrivals)
}

/// Puts the key at a steady pace; when each revision was answered.
fn put(endpoint: SocketAddr, time: Duration, value_bytes: usize) -> Result<BTreeMap<i64, Instant>> {
    let mut connection = Connection::open(endpoint, PUT, ANSWER_MAX)?;
    let value = Content::Objects.bytes().slice(..value_bytes);
    let mut answers = BTreeMap::new();
    let until = Instant::now() + time;
    while Instant::now() < until {
        let next = Instant::now() + PUT_EVERY;
        let call = connection.call(&wire::put(KEY.into(), value.clone()), true);
        let (mut messages, mut answer, mut is_over) = (Messages::default(), None, false);
        while !is_over {
            connection.flush()?;
            let came = connection.receive(|_, event| match event {
                Event::Data(stream, bytes) if stream == call => messages.add(bytes, |message| {
                    answer = Some((wire::read::<wire::PutResponse>(message), Instant::now()));
                }),
                Event::End(stream) if stream == call => is_over = true,
                _ => {}
            })?;
            ensure!(came, "{endpoint} did not answer a put");
        }
        let (response, answered) = answer.context("a put was refused")?;
        let header = response?.header.context("an answer has a header")?;
        answers.insert(header.revision, answered);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(answers)
}
