//! Large answers, and what a store of some size takes of memory.

use super::{Pair, Plan};
use crate::load;
use crate::report::{Goal, Row, median};
use crate::sides::{MEMBERS, Side, unary};
use crate::wire::{self, RANGE, RangeResponse};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

const RANGE_KEYS: u64 = 10_000;
const RANGE_PREFIX: &str = "/registry/range/";
const RANGES_A_ROUND: usize = 10;
const MEMORY_KEYS: u64 = 100_000;
const MEMORY_VALUE_BYTES: usize = 1024;

pub async fn range(pair: &mut Pair, plan: &Plan) -> Result<Vec<Row>> {
    for (_, members) in pair.in_turns(0) {
        fill(members, RANGE_PREFIX, RANGE_KEYS, plan.value_bytes).await?;
    }
    let mut each = [vec![], vec![]];
    for round in 0..plan.rounds {
        eprintln!(
            "range of {RANGE_KEYS} keys: round {} of {}",
            round + 1,
            plan.rounds
        );
        for (side, members) in pair.in_turns(round) {
            for number in 0..RANGES_A_ROUND {
                each[side].push(one_range(members, number).await?);
            }
        }
    }
    let [ours, etcd] = each.map(|times| median(&times));
    let what = format!(
        "range of {RANGE_KEYS} keys of {} B, times as fast",
        plan.value_bytes
    );
    Ok(vec![Row::ratio(
        "range",
        what,
        (ours, etcd, "ms"),
        etcd / ours,
        Goal::AtLeast(2.0),
    )])
}

/// Milliseconds of one linearizable read of all keys, with a check that they came.
async fn one_range(side: &Side, number: usize) -> Result<f64> {
    let endpoint = side.endpoints[number % MEMBERS];
    let began = Instant::now();
    let answer = unary(endpoint, RANGE, wire::get_all(RANGE_PREFIX)).await?;
    let took = began.elapsed();
    let answer: RangeResponse = wire::read(&answer)?;
    ensure!(
        answer.kvs.len() as u64 == RANGE_KEYS && answer.count == answer.kvs.len() as i64,
        "{endpoint} answered {} keys of {RANGE_KEYS}",
        answer.kvs.len()
    );
    Ok(took.as_secs_f64() * 1e3)
}

/// On sides that held nothing before.
pub async fn memory(plan: &Plan) -> Result<Vec<Row>> {
    const SETTLE: Duration = Duration::from_secs(5);
    let mut pair = Pair::start(plan, "memory").await?;
    let mut each = [0.0; 2];
    let mut detail = Vec::new();
    for (side, members) in pair.in_turns(0) {
        eprintln!("memory: {MEMORY_KEYS} keys, side {}", side + 1);
        fill(
            members,
            "/registry/memory/",
            MEMORY_KEYS,
            MEMORY_VALUE_BYTES,
        )
        .await?;
        tokio::time::sleep(SETTLE).await;
        let sizes: Vec<f64> = members
            .resident()?
            .iter()
            .map(|bytes| *bytes as f64 / 1e6)
            .collect();
        each[side] = sizes.iter().sum::<f64>() / sizes.len() as f64;
        detail.push(format!("{sizes:.0?}"));
    }
    let [ours, etcd] = each;
    let what = format!("memory of a member, {MEMORY_KEYS} keys of {MEMORY_VALUE_BYTES} B");
    let row = Row::ratio(
        "memory",
        what,
        (ours, etcd, "MB"),
        ours / etcd,
        Goal::AtMost(0.7),
    );
    Ok(vec![row.with(format!(
        "each: {} against {}",
        detail[0], detail[1]
    ))])
}

/// Writes so many keys through the members.
pub async fn fill(side: &Side, prefix: &'static str, count: u64, value_bytes: usize) -> Result<()> {
    let endpoint = side.endpoints[0];
    tokio::task::spawn_blocking(move || load::fill(endpoint, prefix, count, value_bytes)).await?
}
