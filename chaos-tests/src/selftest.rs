//! Shows that the checkers work: right histories pass, and every planted fault is caught and called by its name.

use crate::check::anomaly::Class;
use crate::check::wgl::Limits;
use crate::check::{self, Findings};
use crate::history;
use crate::synth::{self, Plant, Shape};
use anyhow::{Result, bail, ensure};

/// One line of the result.
#[derive(Clone, Debug)]
pub struct Line {
    /// What was planted.
    pub plant: Plant,
    /// Histories made.
    pub histories: u32,
    /// Histories in which the search decided rightly.
    pub search: u32,
    /// Histories in which the revision checker decided rightly.
    pub witness: u32,
    /// Operations in all.
    pub ops: usize,
    /// Milliseconds of checking.
    pub millis: u64,
}

/// Checks `histories` histories of each kind; an error where one is judged wrongly.
pub fn run(first_seed: u64, histories: u32) -> Result<Vec<Line>> {
    let kinds = std::iter::once(Plant::Nothing).chain(Plant::FAULTS);
    kinds
        .map(|plant| one_kind(plant, first_seed, histories))
        .collect()
}

fn one_kind(plant: Plant, first_seed: u64, histories: u32) -> Result<Line> {
    let mut line = Line {
        plant,
        histories: 0,
        search: 0,
        witness: 0,
        ops: 0,
        millis: 0,
    };
    let mut seed = first_seed;
    while line.histories < histories {
        ensure!(
            seed < first_seed + 10 * u64::from(histories),
            "seeds give no place for {plant:?}"
        );
        seed += 1;
        let Some(records) = synth::history(seed, Shape::default(), plant) else {
            continue;
        };
        let findings = check::check(&history::timeline(&records)?.keys, Limits::default());
        judge(plant, &findings, &mut line)
            .map_err(|error| error.context(format!("seed {seed}, planted: {plant:?}")))?;
        line.histories += 1;
        line.ops += findings.ops;
        line.millis += findings.search_ms + findings.witness_ms;
    }
    Ok(line)
}

fn judge(plant: Plant, findings: &Findings, line: &mut Line) -> Result<()> {
    if let Some((key, why)) = findings.unknown.first() {
        bail!("the search gave up on {key}: {why}");
    }
    let expected = match plant {
        Plant::Nothing => None,
        Plant::StaleRead => Some(Class::StaleRead),
        Plant::LostWrite => Some(Class::LostWrite),
        Plant::Duplicate => Some(Class::Duplicate),
        Plant::DropOp | Plant::SwapAnswers => Some(Class::Phantom),
    };
    let found = |anomalies: &[check::anomaly::Anomaly]| -> bool {
        match expected {
            None => anomalies.is_empty(),
            Some(class) => anomalies.iter().any(|anomaly| anomaly.class == class),
        }
    };
    // A forgotten write shows first in whatever depended on it, which need not be a read.
    let search_found = match plant {
        Plant::DropOp => !findings.search.is_empty(),
        _ => found(&findings.search),
    };
    ensure!(search_found, "the search found: {}", told(&findings.search));
    ensure!(
        found(&findings.witness),
        "the revision checker found: {}",
        told(&findings.witness)
    );
    line.search += 1;
    line.witness += 1;
    Ok(())
}

fn told(anomalies: &[check::anomaly::Anomaly]) -> String {
    let told: Vec<String> = anomalies.iter().map(ToString::to_string).collect();
    if told.is_empty() {
        return "nothing".to_owned();
    }
    told.join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_planted_fault_is_caught_and_right_histories_pass() {
        let lines = super::run(1, 30).expect("the checkers work");
        assert_eq!(lines.len(), 6);
    }
}
