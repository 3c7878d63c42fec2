//! What a member's death costs, what load alone may not cause, and how soon all are back.

use super::{Pair, Plan, size};
use crate::http2::{Connection, Event};
use crate::load::{self, Gaps, Load, Work};
use crate::report::{Goal, Row, median, quantile};
use crate::requests::Content;
use crate::sides::{self, Kind, MEMBERS, Side};
use crate::wire::{self, COMPACT, PUT, STATUS, StatusResponse};
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// etcd's gap is told beside ours; it is no goal, so fewer kills do.
const ETCD_KILLS: usize = 5;
/// A put goes out so often, whatever became of those before it.
const PUT_EVERY: Duration = Duration::from_millis(5);
const GAP_MAX: Duration = Duration::from_secs(15);
/// Of the full load so much is judged at once.
const FULL_LOAD_SLICE: Duration = Duration::from_secs(60);
const RESTART_VALUE_BYTES: usize = 8 << 10;

/// From kill -9 of the leader until a put that was sent after it is answered.
pub async fn failover(plan: &Plan) -> Result<Vec<Row>> {
    let mut pair = Pair::start(plan, "failover").await?;
    let mut each = [vec![], vec![]];
    for (side, members) in pair.in_turns(0) {
        let kills = match members.kind {
            Kind::Trireme => plan.kills,
            Kind::Etcd => plan.kills.min(ETCD_KILLS),
        };
        for kill in 0..kills {
            let gap = one_kill(members).await?;
            eprintln!(
                "failover: kill {} of {kills}, side {}: {gap:.0} ms",
                kill + 1,
                side + 1
            );
            each[side].push(gap / 1e3);
        }
    }
    let [ours, etcd] = each;
    let row = |what, part, goal| {
        let (ours, etcd) = (quantile(&ours, part), quantile(&etcd, part));
        Row::alone(
            "failover",
            what,
            (ours, Some(etcd), "s"),
            Goal::AtMost(goal),
        )
    };
    let text = |gaps: &[f64]| {
        gaps.iter()
            .map(|gap| format!("{gap:.2}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    Ok(vec![
        row("write gap after kill -9 of the leader, median", 0.5, 0.6).with(format!(
            "ours {}; etcd's {}",
            text(&ours),
            text(&etcd)
        )),
        row("write gap after kill -9 of the leader, p99", 0.99, 1.5),
    ])
}

async fn one_kill(side: &mut Side) -> Result<f64> {
    side.wait_until_serving().await?;
    let (leader, _) = side.leader().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for (place, endpoint) in side.endpoints.iter().copied().enumerate() {
        if place != leader {
            let stop = stop.clone();
            writers.push(tokio::task::spawn_blocking(move || write(endpoint, &stop)));
        }
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    let killed = Instant::now();
    side.kill(leader).await?;
    // Each writer ends once a put that it sent after now was answered.
    stop.store(true, Ordering::SeqCst);
    let mut gap = GAP_MAX;
    for writer in writers {
        if let Some(answered) = writer.await?? {
            gap = gap.min(answered - killed);
        }
    }
    side.start_again(leader)?;
    side.wait_until_serving().await?;
    tokio::time::sleep(Duration::from_millis(700)).await;
    Ok(gap.as_secs_f64() * 1e3)
}

/// Puts all the time; once told to stop, returns when a put that was sent after that is answered.
fn write(endpoint: SocketAddr, stop: &AtomicBool) -> Result<Option<Instant>> {
    let mut connection = Connection::open(endpoint, PUT, PUT_EVERY)?;
    let mut waiting: HashMap<u32, (bool, bool)> = HashMap::new();
    let mut until = None;
    loop {
        let is_after = stop.load(Ordering::SeqCst);
        if is_after && Instant::now() > *until.get_or_insert_with(|| Instant::now() + GAP_MAX) {
            return Ok(None);
        }
        let key = format!("/registry/failover/{}", endpoint.port());
        let stream = connection.call(&wire::put(key.into(), "value".into()), true);
        waiting.insert(stream, (is_after, false));
        connection.flush()?;
        let mut answered = None;
        let next = Instant::now() + PUT_EVERY;
        while Instant::now() < next {
            connection.receive(|_, event| match event {
                Event::Data(stream, _) => {
                    if let Some((_, has_answer)) = waiting.get_mut(&stream) {
                        *has_answer = true;
                    }
                }
                Event::End(stream) => {
                    if let Some((true, true)) = waiting.remove(&stream) {
                        answered.get_or_insert_with(Instant::now);
                    }
                }
            })?;
        }
        if answered.is_some() {
            return Ok(answered);
        }
    }
}

/// Elections while the cores are full. What was is forgotten after each slice, as a kube-apiserver does every few minutes.
pub async fn election(plan: &Plan) -> Result<Vec<Row>> {
    let dir = plan.dir.join("election");
    std::fs::create_dir(&dir)?;
    let side = Side::start(Kind::Trireme, &dir).await?;
    let load = |time| Load {
        work: Work::Put,
        first: 0,
        clients: plan.full_load_clients,
        content: Content::Objects,
        value_bytes: plan.value_bytes,
        time,
    };
    let (_, before) = side.leader().await?;
    let (began, gaps) = (Instant::now(), Gaps::new());
    let (mut puts, mut failed, mut slowest, mut elections) = (0, 0, Duration::ZERO, 0);
    while let Some(left) = plan.full_load.checked_sub(began.elapsed()) {
        let slice = load(left.min(FULL_LOAD_SLICE));
        let seen = load::over_grpc_with(&side.endpoints, &slice, &gaps).await?;
        puts += seen.micros.len();
        failed += seen.failed;
        let micros = seen.micros.iter().max().copied().unwrap_or(0);
        slowest = slowest.max(Duration::from_micros(micros.into()));
        elections = side.leader().await?.1 - before;
        forget_the_past(side.endpoints[0]).await?;
        eprintln!(
            "full load: {} of {} s, {puts} puts answered, {failed} failed, {elections} elections, longest gap {:?}",
            began.elapsed().as_secs(),
            plan.full_load.as_secs(),
            gaps.longest()
        );
    }
    let what = format!(
        "elections in {} s of {} clients' puts",
        plan.full_load.as_secs(),
        plan.full_load_clients
    );
    let row = Row::alone(
        "election",
        what,
        (elections as f64, None, "elections"),
        Goal::AtMost(0.0),
    );
    Ok(vec![row.with(format!(
        "{puts} puts answered, {failed} failed, the slowest took {} ms, the longest time without an answer {} ms",
        slowest.as_millis(),
        gaps.longest().as_millis()
    ))])
}

async fn forget_the_past(endpoint: SocketAddr) -> Result<()> {
    let answer = sides::unary(endpoint, STATUS, vec![]).await?;
    let status: StatusResponse = wire::read(&answer)?;
    let revision = status.header.context("a status has a header")?.revision;
    sides::unary(endpoint, COMPACT, wire::compact(revision)).await?;
    Ok(())
}

/// All members killed with much state and started again, until each answers a linearizable read.
pub async fn restart(plan: &Plan) -> Result<Vec<Row>> {
    let mut pair = Pair::start(plan, "restart").await?;
    let count = plan.state_bytes / RESTART_VALUE_BYTES as u64;
    let mut each = [0.0; 2];
    for (side, members) in pair.in_turns(0) {
        eprintln!(
            "restart: writing {} MiB, side {}",
            plan.state_bytes >> 20,
            side + 1
        );
        size::fill(members, "/registry/state/", count, RESTART_VALUE_BYTES).await?;
        let mut times = Vec::new();
        for _ in 0..plan.rounds {
            for place in 0..MEMBERS {
                members.kill(place).await?;
            }
            let began = Instant::now();
            for place in 0..MEMBERS {
                members.start_again(place)?;
            }
            members
                .wait_until_serving()
                .await
                .context("after a restart")?;
            times.push(began.elapsed().as_secs_f64());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        each[side] = median(&times);
    }
    let [ours, etcd] = each;
    let what = format!(
        "kill -9 and restart of all with {} MiB, to serving",
        plan.state_bytes >> 20
    );
    Ok(vec![Row::alone(
        "restart",
        what,
        (ours, Some(etcd), "s"),
        Goal::AtMost(3.0),
    )])
}

const _: () = assert!(
    RESTART_VALUE_BYTES < 16 << 10,
    "a message is one HTTP/2 frame"
);
