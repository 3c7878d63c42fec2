//! The API of three masters under load: writes, lists, watches, memory, and thousands of nodes that say they live.
//!
//! The peer is a real kube-apiserver with etcd. Its figures are of other runs on this kind of machine and are compared with its best,
//! least disturbed ones: what is printed says so, and is a ratio of two days, not of one run.

mod lists;
mod load;
mod nodes;
mod watches;

use crate::cluster::{Binaries, Cluster, Options};
use anyhow::{Context, Result};
use serde::Serialize;
use std::time::Duration;

const MASTERS: u8 = 3;

/// The figures, in the order in which they are measured: each finds what the ones before left behind, the largest comes last.
pub const NAMES: [&str; 6] = ["create", "watch", "fanout", "list", "nodes", "memory"];

/// One figure.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its name on the command line.
    pub name: String,
    /// What is measured.
    pub what: String,
    /// The value, of which the goal speaks.
    pub measured: f64,
    /// Its unit; `x` is a ratio to the peer.
    pub unit: &'static str,
    /// What it must reach.
    pub goal: Goal,
    /// The figures behind it.
    pub detail: String,
    /// What it is compared with.
    pub peer: &'static str,
}

/// What a figure must reach.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Goal {
    /// No less.
    AtLeast(f64),
    /// No more.
    AtMost(f64),
}

impl Row {
    /// Whether the goal was reached.
    pub fn reached(&self) -> bool {
        match self.goal {
            Goal::AtLeast(least) => self.measured >= least,
            Goal::AtMost(most) => self.measured <= most,
        }
    }
}

/// How long and how large: a short run shows that all works, a whole one gives the figures.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// How long each load lasts.
    pub load: Duration,
    /// Pods in the list.
    pub listed: usize,
    /// Pods in memory.
    pub stored: usize,
    /// Nodes that renew their leases.
    pub nodes: usize,
}

impl Size {
    /// What the goals speak of.
    pub const WHOLE: Size = Size {
        load: Duration::from_secs(20),
        listed: 5_000,
        stored: 100_000,
        nodes: 5_000,
    };
    /// Some seconds.
    pub const SHORT: Size = Size {
        load: Duration::from_secs(2),
        listed: 200,
        stored: 400,
        nodes: 100,
    };
}

/// Measures the named figures on a cluster of its own. `told` is called after each.
pub async fn run(
    binaries: Binaries,
    names: &[String],
    size: Size,
    told: &dyn Fn(&Row),
) -> Result<Vec<Row>> {
    let cluster = Cluster::start(Options {
        binaries,
        masters: MASTERS,
        logs: None,
    })
    .await?;
    let mut rows = Vec::new();
    for name in NAMES {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let made = match name {
            "create" => load::create(&cluster, size).await,
            "watch" => watches::latency(&cluster, size).await,
            "fanout" => watches::fanout(&cluster, size).await,
            "list" => lists::list(&cluster, size).await,
            "nodes" => nodes::leases(&cluster, size).await,
            _ => lists::memory(&cluster, size).await,
        };
        for row in made.with_context(|| format!("the figure {name} could not be measured"))? {
            told(&row);
            rows.push(row);
        }
    }
    Ok(rows)
}

/// The value below which so many of a hundred lie, of sorted values.
fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let index = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted
        .get(index.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_came() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&values, 50.0), 100.0);
        assert_eq!(percentile(&values, 99.0), 198.0);
        assert_eq!(percentile(&values[..1], 99.0), 1.0);
        assert!(percentile(&[], 99.0).is_nan());
    }
}
