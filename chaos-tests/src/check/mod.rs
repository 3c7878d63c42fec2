//! Judges histories of registers: two checkers that do not trust each other. Pure but for threads and deadlines.

pub mod anomaly;
pub mod register;
pub mod wgl;
pub mod witness;

use anomaly::Anomaly;
use register::Op;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;
use wgl::{GivenUp, Limits, Outcome};

/// Anomalies told of the revision checker.
const ANOMALIES_MAX: usize = 50;

/// What the checkers found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    /// Keys checked to the end.
    pub keys_decided: usize,
    /// Operations in them.
    pub ops: usize,
    /// What the search found; it stops at the first.
    pub search: Vec<Anomaly>,
    /// What the revisions contradict.
    pub witness: Vec<Anomaly>,
    /// Keys that the search gave up, and why.
    pub unknown: Vec<(String, String)>,
    /// Milliseconds that the search took.
    pub search_ms: u64,
    /// Milliseconds that the revision checker took.
    pub witness_ms: u64,
}

impl Findings {
    /// All anomalies.
    pub fn anomalies(&self) -> impl Iterator<Item = &Anomaly> {
        self.search.iter().chain(&self.witness)
    }
}

/// Runs both checkers over all keys.
pub fn check(keys: &BTreeMap<String, Vec<Op>>, limits: Limits) -> Findings {
    let began = Instant::now();
    let mut findings = search(keys, limits);
    findings.search_ms = began.elapsed().as_millis() as u64;
    let began = Instant::now();
    findings.witness = witness::check(keys, ANOMALIES_MAX);
    findings.witness_ms = began.elapsed().as_millis() as u64;
    findings.ops = keys.values().map(Vec::len).sum();
    findings
}

/// Searches all keys on all cores, and stops at the first illegal one.
fn search(keys: &BTreeMap<String, Vec<Op>>, limits: Limits) -> Findings {
    let work: Vec<(&String, &Vec<Op>)> = keys.iter().collect();
    let next = AtomicUsize::new(0);
    let cancel = AtomicBool::new(false);
    let found = Mutex::new(Findings::default());
    let worker = || {
        while let Some((key, ops)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = wgl::check(ops, limits, &cancel);
            let is_first = outcome == Outcome::Illegal && !cancel.swap(true, Ordering::Relaxed);
            let fault = is_first.then(|| {
                wgl::first_fault(ops, limits).expect("an illegal history has a first fault")
            });
            let mut found = found.lock().expect("no holder of this lock panics");
            match outcome {
                Outcome::Legal(_) => found.keys_decided += 1,
                Outcome::Illegal => {
                    found.keys_decided += 1;
                    let told = fault.map(|fault| Anomaly::of_fault(key, ops, &fault));
                    found.search.extend(told);
                }
                Outcome::Unknown(GivenUp::Cancelled) => {}
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
