//! Judges histories. Each checker reads the joined history alone, no file and no network, so that a saved one can be judged
//! again; registers have two that do not trust each other. Pure but for threads and deadlines.

pub mod anomaly;
mod bank;
pub use bank::OPENED_WITH;
mod classify;
mod divergence;
mod lease;
mod lock;
mod prefix;
pub mod register;
mod restore;
mod revisions;
mod set;
mod terms;
mod txn;
mod watch;
pub mod wgl;
pub mod witness;

use crate::history::Timeline;
use anomaly::Anomaly;
use register::Op;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;
use wgl::{GivenUp, Limits, Outcome};

/// Anomalies told of one checker.
const ANOMALIES_MAX: usize = 50;

/// What one checker found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// Which checker.
    pub checker: String,
    /// What it judges one by one: keys, sets, watches, …
    pub subjects: usize,
    /// Operations or events in them.
    pub ops: usize,
    /// The contradictions.
    pub anomalies: Vec<Anomaly>,
    /// Subjects that it gave up, and why.
    pub unknown: Vec<(String, String)>,
    /// Milliseconds that it took.
    pub millis: u64,
}

/// What all checkers found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    /// The checkers that had something to judge.
    pub checks: Vec<Checked>,
    /// Requests with an answer or of unknown outcome, and events of watches.
    pub ops: usize,
    /// Milliseconds in all.
    pub millis: u64,
}

impl Findings {
    /// All anomalies, and who found them.
    pub fn anomalies(&self) -> impl Iterator<Item = (&str, &Anomaly)> {
        self.checks.iter().flat_map(|check| {
            check
                .anomalies
                .iter()
                .map(|anomaly| (check.checker.as_str(), anomaly))
        })
    }

    /// All that was given up, and by whom.
    pub fn unknown(&self) -> impl Iterator<Item = (&str, &(String, String))> {
        self.checks.iter().flat_map(|check| {
            check
                .unknown
                .iter()
                .map(|unknown| (check.checker.as_str(), unknown))
        })
    }

    /// What one checker found; nothing where it had nothing to judge.
    pub fn of(&self, checker: &str) -> &[Anomaly] {
        self.checks
            .iter()
            .find(|check| check.checker == checker)
            .map_or(&[], |check| &check.anomalies)
    }
}

/// Runs all checkers over a history.
pub fn check(timeline: &Timeline, limits: Limits) -> Findings {
    let began = Instant::now();
    let registers = register::by_key(timeline);
    let mut findings = Findings {
        ops: judged(timeline),
        ..Findings::default()
    };
    findings.add("register search", || search(&registers, limits));
    findings.add("register revisions", || Checked {
        subjects: registers.len(),
        ops: registers.values().map(Vec::len).sum(),
        anomalies: witness::check(&registers, ANOMALIES_MAX),
        ..Checked::default()
    });
    findings.add("stale reads", || prefix::check(timeline));
    findings.add("set", || set::check(timeline));
    findings.add("transactions", || txn::check(timeline));
    findings.add("bank", || bank::check(timeline));
    findings.add("watch", || watch::check(timeline));
    findings.add("lease", || lease::check(timeline));
    findings.add("lock", || lock::check(timeline));
    findings.add("hashes", || divergence::check(timeline));
    findings.add("revisions", || revisions::check(timeline));
    findings.add("terms", || terms::check(timeline));
    findings.add("restore", || restore::check(timeline));
    findings.millis = began.elapsed().as_millis() as u64;
    findings
}

fn judged(timeline: &Timeline) -> usize {
    let failed = |attempt: &&crate::history::Attempt| {
        !matches!(attempt.outcome, crate::history::Outcome::Fail(_))
    };
    let requests = timeline.attempts.iter().filter(failed).count();
    requests
        + timeline
            .watches
            .iter()
            .map(|watch| watch.parts.len())
            .sum::<usize>()
}

impl Findings {
    fn add(&mut self, checker: &str, run: impl FnOnce() -> Checked) {
        let began = Instant::now();
        let mut checked = run();
        if checked.subjects == 0 {
            return;
        }
        checked.checker = checker.to_owned();
        checked.anomalies.truncate(ANOMALIES_MAX);
        checked.millis = began.elapsed().as_millis() as u64;
        self.checks.push(checked);
    }
}

/// Searches all keys on all cores, and stops at the first illegal one.
fn search(keys: &BTreeMap<String, Vec<Op>>, limits: Limits) -> Checked {
    let work: Vec<(&String, &Vec<Op>)> = keys.iter().collect();
    let next = AtomicUsize::new(0);
    let cancel = AtomicBool::new(false);
    let found = Mutex::new(Checked {
        subjects: keys.len(),
        ops: keys.values().map(Vec::len).sum(),
        ..Checked::default()
    });
    let worker = || {
        while let Some((key, ops)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = wgl::check(ops, limits, &cancel);
            let is_first = outcome == Outcome::Illegal && !cancel.swap(true, Ordering::Relaxed);
            let fault = is_first.then(|| {
                wgl::first_fault(ops, limits).expect("an illegal history has a first fault")
            });
            let mut found = found.lock().expect("no holder of this lock panics");
            match outcome {
                Outcome::Legal(_) | Outcome::Unknown(GivenUp::Cancelled) => {}
                Outcome::Illegal => {
                    let told = fault.map(|fault| classify::of_fault(key, ops, &fault));
                    found.anomalies.extend(told);
                }
                Outcome::Unknown(reason) => {
                    found.unknown.push(((*key).clone(), format!("{reason:?}")));
                }
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(worker);
        }
    });
    found.into_inner().expect("no holder of this lock panics")
}
