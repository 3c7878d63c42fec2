//! How long the checkers of registers take over a history of a given length.

use crate::check::{self, wgl::Limits};
use crate::history;
use crate::synth::register::{Plant, Shape, history as synthetic};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::time::Instant;

/// Operations a key, as the workload makes them.
const OPS_PER_KEY: u32 = 250;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// Operations in the history.
    pub ops: usize,
    /// Registers.
    pub keys: usize,
    /// Milliseconds that each checker took.
    pub millis: Vec<(String, u64)>,
}

/// Checks a right history of about so many operations, by five processes a register, one of a hundred of unknown outcome.
pub fn run(ops: u32, seed: u64) -> Result<Checked> {
    let shape = Shape {
        keys: ops.div_ceil(OPS_PER_KEY),
        ops: OPS_PER_KEY,
        unknown_per_mille: 10,
        ..Shape::default()
    };
    let records =
        synthetic(seed, shape, Plant::Nothing).context("a right history has no place to find")?;
    let timeline = history::timeline(&records)?;
    let began = Instant::now();
    let findings = check::check(&timeline, Limits::default());
    let all = began.elapsed().as_millis() as u64;
    ensure!(
        findings.anomalies().next().is_none() && findings.unknown().next().is_none(),
        "a right history was not found right"
    );
    let search = &findings.checks[0];
    let mut millis: Vec<(String, u64)> = findings
        .checks
        .iter()
        .map(|check| (check.checker.clone(), check.millis))
        .collect();
    millis.push(("all".to_owned(), all));
    Ok(Checked {
        ops: search.ops,
        keys: search.subjects,
        millis,
    })
}

#[cfg(test)]
mod tests {
    /// A second is what an optimised build is allowed (`chaos bench check`); this one is not, and shares its cores.
    #[test]
    fn a_hundred_thousand_operations_take_seconds_at_most() {
        let checked = super::run(100_000, 1).expect("a right history");
        assert!(checked.ops >= 95_000, "{checked:?}");
        let all = checked
            .millis
            .last()
            .map_or(u64::MAX, |(_, millis)| *millis);
        assert!(all < 30_000, "{checked:?}");
    }
}
