//! Where the time of a put goes, as our members' own counters tell it.

use super::{Pair, Plan};
use crate::load::{self, Load, Work};
use crate::member::Ask;
use crate::report::{Goal, Row};
use crate::requests::Content;
use crate::sides::MEMBERS;
use anyhow::Result;
use std::collections::BTreeMap;

/// A member's counters, as far as they are looked at here.
#[derive(serde::Deserialize)]
struct Counters {
    stages: BTreeMap<String, Stage>,
}

#[derive(Clone, Copy, Default, serde::Deserialize)]
struct Stage {
    count: u64,
    total_us: u64,
}

/// The mean time that a put spends in each stage, over all members, with 64 clients.
pub async fn stages(pair: &mut Pair, plan: &Plan) -> Result<Vec<Row>> {
    let load = Load {
        work: Work::Put,
        first: 0,
        clients: 64,
        content: Content::Objects,
        value_bytes: plan.value_bytes,
        time: plan.time,
    };
    let side = &mut pair.ours;
    eprintln!("stages of a put, 64 clients");
    let mut all: BTreeMap<String, Stage> = BTreeMap::new();
    let before = counters(side).await?;
    load::over_grpc(&side.endpoints, &load).await?;
    for (member, counters) in counters(side).await?.into_iter().enumerate() {
        for (name, stage) in counters.stages {
            let earlier = before[member]
                .stages
                .get(&name)
                .copied()
                .unwrap_or_default();
            let sum = all.entry(name).or_default();
            sum.count += stage.count - earlier.count;
            sum.total_us += stage.total_us - earlier.total_us;
        }
    }
    let row = |(name, Stage { count, total_us }): (String, Stage)| {
        let mean = total_us as f64 / count.max(1) as f64 / 1e3;
        let detail = format!("{count} times");
        Row::alone(
            "stages",
            format!("stage {name}, mean"),
            (mean, None, "ms"),
            Goal::None,
        )
        .with(detail)
    };
    Ok(all.into_iter().map(row).collect())
}

async fn counters(side: &mut crate::sides::Side) -> Result<Vec<Counters>> {
    let mut counters = Vec::new();
    for place in 0..MEMBERS {
        counters.push(side.ask(place, &Ask::Metrics).await?);
    }
    Ok(counters)
}
