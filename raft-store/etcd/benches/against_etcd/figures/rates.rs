//! How many requests a second, how long each takes, and what each costs the servers.

use super::{Pair, Plan};
use crate::load::{self, Load, Seen, Work};
use crate::report::{Goal, Row, median};
use crate::requests::Content;
use crate::sides::{Kind, Side};
use anyhow::Result;
use std::time::{Duration, Instant};

/// What a round showed.
struct Sample {
    seen: Seen,
    elapsed: Duration,
    /// CPU time of all members, the clients' not counted when they are outside.
    cpu: Duration,
}

impl Sample {
    fn per_second(&self) -> f64 {
        self.seen.micros.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Where the clients are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clients {
    Outside,
    /// Ours are in the members' processes; etcd's are outside, as they must be.
    Within,
}

/// A side over all its rounds.
struct Figures {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
    failed: u64,
}

pub async fn puts(pair: &mut Pair, plan: &Plan, clients: usize) -> Result<Vec<Row>> {
    let load = load(plan, Work::Put, clients);
    let what = format!("puts/s, {clients} clients, {} B", plan.value_bytes);
    let samples = rounds(pair, plan, &load, Clients::Outside, &what).await?;
    Ok(vec![rate_row("puts", what, &samples, Goal::AtLeast(2.0))])
}

pub async fn gets(pair: &mut Pair, plan: &Plan, clients: usize) -> Result<Vec<Row>> {
    let load = load(plan, Work::Get, clients);
    let what = format!("linearizable gets/s, {clients} clients");
    let samples = rounds(pair, plan, &load, Clients::Outside, &what).await?;
    Ok(vec![rate_row("gets", what, &samples, Goal::AtLeast(3.0))])
}

/// As a master asks: from within.
pub async fn within(pair: &mut Pair, plan: &Plan, clients: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (work, name) in [(Work::Put, "puts/s"), (Work::Get, "linearizable gets/s")] {
        let load = load(plan, work, clients);
        let what = format!("{name} as in a master, {clients} clients");
        let samples = rounds(pair, plan, &load, Clients::Within, &what).await?;
        rows.push(rate_row("within", what, &samples, Goal::None));
    }
    Ok(rows)
}

/// One client at a time, which asks each member in turn.
pub async fn latency(pair: &mut Pair, plan: &Plan) -> Result<Vec<Row>> {
    let load = load(plan, Work::Put, 1);
    let samples = rounds(pair, plan, &load, Clients::Outside, "put latency, 1 client").await?;
    let [ours, etcd] = [figures(&samples[0]), figures(&samples[1])];
    let row = |what, ours: f64, etcd: f64| {
        Row::ratio(
            "latency",
            what,
            (ours, etcd, "ms"),
            ours / etcd,
            Goal::AtMost(0.8),
        )
    };
    Ok(vec![
        row("put latency, 1 client, p50", ours.p50_ms, etcd.p50_ms),
        row("put latency, 1 client, p99", ours.p99_ms, etcd.p99_ms),
    ])
}

/// Bytes that reach the disk for a put, what is written later for it included: so many are put before that as much is owed
/// at the beginning as at the end.
pub async fn bytes(pair: &mut Pair, plan: &Plan) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (content, name, goal) in [
        (Content::Objects, "JSON", Goal::AtMost(0.7)),
        (Content::Noise, "bytes that nothing compresses", Goal::None),
    ] {
        let load = Load {
            time: 3 * plan.time,
            content,
            ..load(plan, Work::Put, 64)
        };
        let mut each = [0.0; 2];
        for (side, members) in pair.in_turns(0) {
            eprintln!("bytes written a put of {name}: side {}", side + 1);
            each[side] = bytes_a_put(members, &load).await?;
        }
        let [ours, etcd] = each;
        let what = format!("bytes to disk a put, {} B of {name}", plan.value_bytes);
        rows.push(Row::ratio(
            "bytes",
            what,
            (ours, etcd, "B"),
            ours / etcd,
            goal,
        ));
    }
    Ok(rows)
}

/// Of all members together.
async fn bytes_a_put(members: &mut Side, load: &Load) -> Result<f64> {
    const SETTLE: Duration = Duration::from_secs(3);
    one(members, load, Clients::Outside).await?;
    tokio::time::sleep(SETTLE).await;
    let before = members.written()?;
    let sample = one(members, load, Clients::Outside).await?;
    tokio::time::sleep(SETTLE).await;
    Ok((members.written()? - before) as f64 / sample.seen.micros.len() as f64)
}

fn load(plan: &Plan, work: Work, clients: usize) -> Load {
    Load {
        work,
        first: 0,
        clients,
        content: Content::Objects,
        value_bytes: plan.value_bytes,
        time: plan.time,
    }
}

async fn rounds(
    pair: &mut Pair,
    plan: &Plan,
    load: &Load,
    clients: Clients,
    what: &str,
) -> Result<[Vec<Sample>; 2]> {
    let warm_up = Load {
        time: Duration::from_secs(1),
        ..*load
    };
    for (_, members) in pair.in_turns(0) {
        one(members, &warm_up, clients).await?;
    }
    let mut samples = [vec![], vec![]];
    for round in 0..plan.rounds {
        eprintln!("{what}: round {} of {}", round + 1, plan.rounds);
        for (side, members) in pair.in_turns(round) {
            // A single client is at another member in each round.
            members
                .endpoints
                .rotate_left(usize::from(load.clients == 1));
            samples[side].push(one(members, load, clients).await?);
        }
    }
    let turned = if load.clients == 1 { plan.rounds } else { 0 };
    for (_, members) in pair.in_turns(0) {
        let members_count = members.endpoints.len();
        members.endpoints.rotate_right(turned % members_count);
    }
    Ok(samples)
}

async fn one(side: &mut Side, load: &Load, clients: Clients) -> Result<Sample> {
    let (cpu, began) = (side.cpu()?, Instant::now());
    let seen = match (clients, side.kind) {
        (Clients::Within, Kind::Trireme) => side.run_within(load).await?,
        _ => load::over_grpc(&side.endpoints, load).await?,
    };
    Ok(Sample {
        seen,
        elapsed: began.elapsed(),
        cpu: side.cpu()?.saturating_sub(cpu),
    })
}

fn rate_row(figure: &'static str, what: String, samples: &[Vec<Sample>; 2], goal: Goal) -> Row {
    let [ours, etcd] = [figures(&samples[0]), figures(&samples[1])];
    let ratios: Vec<f64> = std::iter::zip(&samples[0], &samples[1])
        .map(|(ours, etcd)| ours.per_second() / etcd.per_second())
        .collect();
    let detail = format!(
        "p50 {:.2} against {:.2} ms, p99 {:.2} against {:.2} ms, CPU of the servers {:.1} against {:.1} us each ({:.2} x), failed \
         {} and {}, rounds {}",
        ours.p50_ms,
        etcd.p50_ms,
        ours.p99_ms,
        etcd.p99_ms,
        ours.cpu_us,
        etcd.cpu_us,
        ours.cpu_us / etcd.cpu_us,
        ours.failed,
        etcd.failed,
        ratios
            .iter()
            .map(|ratio| format!("{ratio:.2}"))
            .collect::<Vec<_>>()
            .join(" ")
    );
    let rates = (ours.per_second, etcd.per_second, "/s");
    Row::ratio(figure, what, rates, median(&ratios), goal).with(detail)
}

fn figures(samples: &[Sample]) -> Figures {
    let mut micros: Vec<u32> = samples
        .iter()
        .flat_map(|sample| sample.seen.micros.iter().copied())
        .collect();
    micros.sort_unstable();
    let done = micros.len().max(1);
    let at = |part: f64| {
        let place = ((done - 1) as f64 * part) as usize;
        f64::from(micros.get(place).copied().unwrap_or(0)) / 1000.0
    };
    let cpu: Duration = samples.iter().map(|sample| sample.cpu).sum();
    let rates: Vec<f64> = samples.iter().map(Sample::per_second).collect();
    Figures {
        per_second: median(&rates),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        cpu_us: cpu.as_micros() as f64 / done as f64,
        failed: samples.iter().map(|sample| sample.seen.failed).sum(),
    }
}
