//! Shows that the checkers work: right histories pass, and every planted fault is caught and called by its name.

use crate::check::wgl::Limits;
use crate::check::{self, Findings};
use crate::history;
use crate::synth::{CASES, Case};
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::time::Instant;

/// One line of the result.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// What was planted, or what is right.
    pub planted: String,
    /// As what it has to be found; None for right histories.
    pub expected: Option<String>,
    /// Who has to find it.
    pub checkers: Vec<String>,
    /// Histories made, all of which were judged rightly.
    pub histories: u32,
    /// Operations in all.
    pub ops: usize,
    /// Milliseconds of checking.
    pub millis: u64,
}

/// Checks `histories` histories of each kind; an error where one is judged wrongly.
pub fn run(first_seed: u64, histories: u32) -> Result<Vec<Line>> {
    CASES
        .iter()
        .map(|case| one_case(case, first_seed, histories))
        .collect()
}

fn one_case(case: &Case, first_seed: u64, histories: u32) -> Result<Line> {
    let mut line = Line {
        planted: case.name.to_owned(),
        expected: case.class.map(|class| class.name()),
        checkers: case.checkers.iter().map(ToString::to_string).collect(),
        histories: 0,
        ops: 0,
        millis: 0,
    };
    let mut seed = first_seed;
    while line.histories < histories {
        ensure!(
            seed < first_seed + 20 * u64::from(histories),
            "seeds give no place for: {}",
            case.name
        );
        seed += 1;
        let Some(records) = (case.make)(seed) else {
            continue;
        };
        let timeline = history::timeline(&records)?;
        let began = Instant::now();
        let findings = check::check(&timeline, Limits::default());
        judge(case, &findings).with_context(|| format!("seed {seed}, {}", case.name))?;
        line.histories += 1;
        line.ops += findings.ops;
        line.millis += began.elapsed().as_millis() as u64;
    }
    Ok(line)
}

fn judge(case: &Case, findings: &Findings) -> Result<()> {
    if let Some((checker, (subject, why))) = findings.unknown().next() {
        bail!("{checker} gave up on {subject}: {why}");
    }
    let Some(class) = case.class else {
        ensure!(
            findings.anomalies().next().is_none(),
            "this history is right, but it was said: {}",
            told(findings)
        );
        return Ok(());
    };
    for checker in case.checkers {
        let found = findings.of(checker);
        ensure!(
            found.iter().any(|anomaly| anomaly.class == class),
            "{checker} had to find a {class}; all that was found: {}",
            told(findings)
        );
    }
    Ok(())
}

fn told(findings: &Findings) -> String {
    let told: Vec<String> = findings
        .anomalies()
        .map(|(checker, anomaly)| format!("{checker}: {anomaly}"))
        .collect();
    if told.is_empty() {
        return "nothing".to_owned();
    }
    told.join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_planted_fault_is_caught_and_right_histories_pass() {
        let lines = super::run(1, 8).expect("the checkers work");
        assert_eq!(lines.len(), super::CASES.len());
    }
}
