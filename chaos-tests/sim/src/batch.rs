//! Many seeds, each in a process of its own, as many at once as wanted.

use crate::run::{Options, Outcome, run};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// What many simulations came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// How many there were.
    pub seeds: u64,
    /// Events that were judged.
    pub steps: u64,
    /// Requests of clients that were answered.
    pub answered: u64,
    /// How long they lasted together, by their clocks.
    pub simulated_ms: u64,
    /// The faults that were done.
    pub faults: BTreeMap<String, u64>,
    /// The simulations in which something did not hold.
    pub violations: Vec<Outcome>,
}

impl Summary {
    /// Adds one.
    pub fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.steps += outcome.steps;
        self.answered += outcome.answered;
        self.simulated_ms += outcome.simulated_ms;
        for (fault, count) in &outcome.faults {
            *self.faults.entry(fault.clone()).or_default() += count;
        }
        if outcome.violation.is_some() {
            self.violations.push(outcome);
        }
    }
}

/// Simulates one seed in this process, which should do nothing else: prints what it came to as a line of JSON, and writes the trace
/// where it is wanted.
pub fn run_here(seed: u64, trace: Option<&Path>) -> io::Result<()> {
    let outcome = run(&Options::new(seed));
    if let Some(path) = trace {
        std::fs::write(path, &outcome.trace)?;
    }
    writeln!(io::stdout(), "{}", serde_json::to_string(&outcome)?)
}

/// Has each of the seeds simulated by a process that `program` gives, `processes` at a time, and tells of each that is done, in no
/// order. A process that does not end well is told as an error, with what it said.
pub fn run_all(
    seeds: &[u64],
    processes: usize,
    program: &(dyn Fn(u64) -> Command + Sync),
    mut done: impl FnMut(u64, io::Result<Outcome>),
) {
    let next = AtomicUsize::new(0);
    let (sender, outcomes) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..processes.max(1) {
            let (next, sender) = (&next, sender.clone());
            scope.spawn(move || {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if sender.send((*seed, one(&mut program(*seed)))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (seed, outcome) in outcomes {
            done(seed, outcome);
        }
    });
}

fn one(program: &mut Command) -> io::Result<Outcome> {
    let output = program.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let text = format!(
            "the simulation ended with {}: {}",
            output.status,
            said.trim()
        );
        return Err(io::Error::other(text));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
