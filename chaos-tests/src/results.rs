//! What a run came to: the verdict and the figures, computed from the history alone, so that a saved history can be judged again.
//! Pure but for the checkers' threads.

use crate::check::anomaly::Anomaly;
use crate::check::wgl::Limits;
use crate::check::{self, Findings};
use crate::history::{Attempt, FaultSpan, Outcome, Record, Timeline, timeline};
use crate::nemesis::Kind;
use crate::workload;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunConfig {
    /// What is put to the test: a target, or the members' URLs.
    pub target: String,
    /// What clients do.
    pub workloads: Vec<workload::Kind>,
    /// The faults that must happen.
    pub nemesis: Vec<Kind>,
    /// Whether other faults have bad links beside them.
    #[serde(default)]
    pub combos: bool,
    /// Seconds of load.
    pub seconds: u64,
    /// Fixes requests and faults, not their interleaving.
    pub seed: u64,
    /// Members.
    pub members: u8,
    /// Requests a second.
    pub rate: u32,
    /// Keys in use at any time.
    pub lanes: u32,
    /// The planted fault, if any.
    pub plant: Option<String>,
    /// The command that repeats the run.
    pub command: String,
    /// When it began.
    pub started: String,
    /// Of the programs.
    pub version: String,
    /// The kernel and the cores.
    pub machine: String,
}

/// The verdict, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// A property is violated.
    Violated,
    /// The harness failed, or a checker gave up: nothing is said about the cluster.
    Unknown,
    /// Nothing was found, but a fault that was asked for never happened.
    CoverageMissing,
    /// Every fault happened, and nothing that clients saw contradicts the promises.
    Ok,
}

impl Verdict {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Verdict::Ok => 0,
            Verdict::Violated => 1,
            Verdict::Unknown => 2,
            Verdict::CoverageMissing => 3,
        }
    }

    /// In a few words.
    pub fn text(self) -> &'static str {
        match self {
            Verdict::Ok => "NOTHING FOUND",
            Verdict::Violated => "VIOLATED",
            Verdict::Unknown => "UNKNOWN",
            Verdict::CoverageMissing => "COVERAGE MISSING",
        }
    }
}

/// How long no write was acknowledged around a fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// The fault's number.
    pub fault: u32,
    /// Its kind.
    pub kind: String,
    /// Milliseconds between two acknowledged writes, the longest such time that touches the fault.
    pub millis: f64,
    /// When it began, in milliseconds of the history.
    pub from_ms: f64,
}

/// Requests by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Done.
    pub ok: usize,
    /// Surely not done.
    pub fail: usize,
    /// Unknown.
    pub info: usize,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// The verdict.
    pub verdict: Verdict,
    /// Why, a line a reason.
    pub reasons: Vec<String>,
    /// What the checkers found.
    pub findings: Findings,
    /// The faults.
    pub faults: Vec<FaultSpan>,
    /// How often each kind asked for was installed.
    pub coverage: BTreeMap<String, usize>,
    /// Write gaps.
    pub gaps: Vec<Gap>,
    /// Median of the write gaps in milliseconds.
    pub gap_median_ms: Option<f64>,
    /// The longest write gap in milliseconds.
    pub gap_max_ms: Option<f64>,
    /// Requests.
    pub counts: Counts,
    /// Failures and unknown outcomes by class.
    pub errors: BTreeMap<String, usize>,
    /// Latency of done reads: median, 99th percentile, longest; in milliseconds.
    pub read_latency_ms: [f64; 3],
    /// Latency of done writes alike.
    pub write_latency_ms: [f64; 3],
}

/// Judges a history. `harness_problem` is why the run did not go as planned, if it did not.
pub fn judge(
    config: &RunConfig,
    records: &[Record],
    harness_problem: Option<String>,
    limits: Limits,
) -> anyhow::Result<(Results, Timeline)> {
    let timeline = timeline(records)?;
    let findings = check::check(&timeline, limits);
    let mut coverage: BTreeMap<String, usize> = config
        .nemesis
        .iter()
        .map(|kind| (kind.name().to_owned(), 0))
        .collect();
    for fault in timeline
        .faults
        .iter()
        .filter(|fault| fault.skipped.is_none())
    {
        *coverage.entry(fault.kind.clone()).or_default() += 1;
    }
    let gaps = gaps(&timeline);
    let mut sorted: Vec<f64> = gaps.iter().map(|gap| gap.millis).collect();
    sorted.sort_by(f64::total_cmp);
    let (verdict, reasons) = verdict(&findings, &coverage, harness_problem);
    let results = Results {
        verdict,
        reasons,
        findings,
        faults: timeline.faults.clone(),
        coverage,
        gap_median_ms: sorted.get(sorted.len() / 2).copied(),
        gap_max_ms: sorted.last().copied(),
        gaps,
        counts: counts(&timeline),
        errors: errors(&timeline),
        read_latency_ms: latency(&timeline, false),
        write_latency_ms: latency(&timeline, true),
    };
    Ok((results, timeline))
}

fn verdict(
    findings: &Findings,
    coverage: &BTreeMap<String, usize>,
    harness_problem: Option<String>,
) -> (Verdict, Vec<String>) {
    let mut reasons = violations(findings);
    for (checker, (key, why)) in findings.unknown() {
        reasons.push((
            Verdict::Unknown,
            format!("{checker} gave up on {key}: {why}"),
        ));
    }
    reasons.extend(harness_problem.map(|problem| (Verdict::Unknown, problem)));
    if findings.checks.is_empty() {
        let text = "nothing was done, so nothing is shown".to_owned();
        reasons.push((Verdict::Unknown, text));
    }
    for (kind, installed) in coverage {
        if *installed == 0 {
            let text = format!("the fault {kind} was asked for and never happened");
            reasons.push((Verdict::CoverageMissing, text));
        }
    }
    let worst = reasons.iter().map(|(verdict, _)| *verdict).min();
    let texts = reasons.into_iter().map(|(_, text)| text).collect();
    (worst.unwrap_or(Verdict::Ok), texts)
}

/// A line a kind of anomaly, with the first of it.
fn violations(findings: &Findings) -> Vec<(Verdict, String)> {
    let mut kinds: Vec<(&Anomaly, usize)> = Vec::new();
    for (_, anomaly) in findings.anomalies() {
        match kinds
            .iter_mut()
            .find(|(first, _)| first.class == anomaly.class)
        {
            Some((_, count)) => *count += 1,
            None => kinds.push((anomaly, 1)),
        }
    }
    let told = kinds.into_iter().map(|(first, count)| {
        let times = if count > 1 {
            format!(" ({count}×; the first)")
        } else {
            String::new()
        };
        let text = format!("{}{times} of {}: {}", first.class, first.key, first.why);
        (Verdict::Violated, text)
    });
    told.collect()
}

/// The longest time without an acknowledged write that touches each installed fault; up to a second after it was healed.
fn gaps(timeline: &Timeline) -> Vec<Gap> {
    let mut acknowledged: Vec<u64> = timeline
        .attempts
        .iter()
        .filter(|attempt| is_done(attempt) && attempt.request.is_write())
        .map(|attempt| attempt.ended_ns)
        .collect();
    acknowledged.sort_unstable();
    // What is lost whole stands still until it is restored; the fault itself tells for how long.
    let is_last = |kind: &str| kind.parse().is_ok_and(Kind::is_last);
    let installed = timeline
        .faults
        .iter()
        .filter(|fault| fault.is_installed() && !is_last(&fault.kind));
    installed
        .map(|fault| {
            let until = fault.until_ns.unwrap_or(timeline.end_ns) + 1_000_000_000;
            let last = *acknowledged.last().unwrap_or(&0);
            let after_last = [last, timeline.end_ns.max(last)];
            let (from, length) = acknowledged
                .windows(2)
                .map(|pair| [pair[0], pair[1]])
                .chain([after_last])
                .filter(|[from, to]| *to > fault.from_ns && *from < until)
                .map(|[from, to]| (from, to - from))
                .max_by_key(|(_, length)| *length)
                .unwrap_or((0, timeline.end_ns));
            Gap {
                fault: fault.number,
                kind: fault.kind.clone(),
                millis: length as f64 / 1e6,
                from_ms: from as f64 / 1e6,
            }
        })
        .collect()
}

fn counts(timeline: &Timeline) -> Counts {
    let mut counts = Counts::default();
    for attempt in &timeline.attempts {
        match attempt.outcome {
            Outcome::Ok(_) => counts.ok += 1,
            Outcome::Fail(_) => counts.fail += 1,
            Outcome::Info(_) => counts.info += 1,
        }
    }
    counts
}

fn errors(timeline: &Timeline) -> BTreeMap<String, usize> {
    let mut errors = BTreeMap::new();
    for attempt in &timeline.attempts {
        let class = match &attempt.outcome {
            Outcome::Ok(_) => continue,
            Outcome::Fail(failure) => format!("fail: {}", failure.class),
            Outcome::Info(failure) => format!("info: {}", failure.class),
        };
        *errors.entry(class).or_default() += 1;
    }
    errors
}

fn is_done(attempt: &Attempt) -> bool {
    matches!(attempt.outcome, Outcome::Ok(_))
}

fn latency(timeline: &Timeline, writes: bool) -> [f64; 3] {
    let mut millis: Vec<f64> = timeline
        .attempts
        .iter()
        .filter(|attempt| is_done(attempt) && attempt.request.is_write() == writes)
        .map(|attempt| (attempt.ended_ns - attempt.invoked_ns) as f64 / 1e6)
        .collect();
    millis.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (millis.len() as f64 * share) as usize;
        millis.get(place).or(millis.last()).copied().unwrap_or(0.0)
    };
    [at(0.5), at(0.99), at(1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::register::{self, Plant, Shape};

    fn verdict_of(nemesis: Vec<Kind>, plant: Plant, problem: Option<String>) -> Verdict {
        let config = RunConfig {
            target: "synthetic".to_owned(),
            workloads: vec![],
            nemesis,
            combos: false,
            seconds: 1,
            seed: 1,
            members: 3,
            rate: 1,
            lanes: 1,
            plant: None,
            command: String::new(),
            started: String::new(),
            version: String::new(),
            machine: String::new(),
        };
        let records = (1..).find_map(|seed| register::history(seed, Shape::default(), plant));
        let records = records.expect("some seed has a place");
        let judged = judge(&config, &records, problem, Limits::default());
        judged.expect("the history can be judged").0.verdict
    }

    #[test]
    fn the_worst_reason_is_the_verdict() {
        let broken = || Some("no leader".to_owned());
        assert_eq!(verdict_of(vec![], Plant::Nothing, None), Verdict::Ok);
        let asked = vec![Kind::Kill];
        assert_eq!(
            verdict_of(asked.clone(), Plant::Nothing, None),
            Verdict::CoverageMissing
        );
        assert_eq!(
            verdict_of(asked.clone(), Plant::Nothing, broken()),
            Verdict::Unknown
        );
        assert_eq!(
            verdict_of(asked, Plant::LostWrite, broken()),
            Verdict::Violated
        );
        let codes = [
            Verdict::Ok,
            Verdict::Violated,
            Verdict::Unknown,
            Verdict::CoverageMissing,
        ];
        assert_eq!(codes.map(Verdict::code), [0, 1, 2, 3]);
    }
}
