//! Progress and results on a terminal.

use chaos::doctor::Examination;
use chaos::results::Results;
use chaos::run::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

/// Between two lines where the output is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A bar on a terminal, else a line now and then.
pub struct Shown {
    bar: Option<ProgressBar>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    fault: String,
    told_at: Duration,
}

impl Shown {
    /// For a run of this length.
    pub fn new(time: Duration) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {msg}")
                .expect("the template is well-formed");
            ProgressBar::new(time.as_millis() as u64).with_style(style)
        });
        Shown {
            bar,
            state: Mutex::default(),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Shown {
    fn part(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => eprintln!("{text}"),
        }
    }

    fn fault(&self, kind: &str) {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        state.fault = kind.to_owned();
        if self.bar.is_none() && !kind.is_empty() {
            eprintln!("fault: {kind}");
        }
    }

    fn at(&self, elapsed: Duration, events: usize) {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        match &self.bar {
            Some(bar) => {
                bar.set_position(elapsed.as_millis() as u64);
                let fault = match state.fault.as_str() {
                    "" => String::new(),
                    kind => format!(", fault: {kind}"),
                };
                bar.set_message(format!("{events} events{fault}"));
            }
            None if elapsed >= state.told_at + LINE_EVERY => {
                state.told_at = elapsed;
                eprintln!("{} s, {events} events", elapsed.as_secs());
            }
            None => {}
        }
    }
}

/// The results in a screen.
pub fn results(results: &Results) {
    let findings = &results.findings;
    let counts = results.counts;
    println!(
        "{} operations and events: {} ok, {} surely not done, {} of unknown outcome; checked in {} ms",
        findings.ops, counts.ok, counts.fail, counts.info, findings.millis
    );
    println!(
        "{:<20}{:>10}{:>12}{:>11}{:>10}{:>8}",
        "CHECKER", "SUBJECTS", "OPERATIONS", "ANOMALIES", "GIVEN UP", "MS"
    );
    for check in &findings.checks {
        println!(
            "{:<20}{:>10}{:>12}{:>11}{:>10}{:>8}",
            check.checker,
            check.subjects,
            check.ops,
            check.anomalies.len(),
            check.unknown.len(),
            check.millis
        );
    }
    let coverage: Vec<String> = results
        .coverage
        .iter()
        .map(|(kind, installed)| format!("{kind} {installed}×"))
        .collect();
    println!("faults: {}", coverage.join(", "));
    for gap in &results.gaps {
        println!(
            "  no write was acknowledged for {:>6.0} ms around fault {} ({})",
            gap.millis, gap.fault, gap.kind
        );
    }
    for (_, anomaly) in findings.anomalies().take(3) {
        println!("{anomaly}");
    }
    for reason in results.reasons.iter().take(10) {
        println!("{reason}");
    }
    let left = results.reasons.len().saturating_sub(10);
    if left > 0 {
        println!("… and {left} more in the report");
    }
    println!("verdict: {}", results.verdict.text());
}

/// Prints what `chaos doctor` found.
pub fn examination(found: &Examination) {
    for capability in &found.capabilities {
        let (name, needed_for) = (capability.name, capability.needed_for);
        match &capability.problem {
            None => println!("ok       {name}"),
            Some(problem) => println!("missing  {name} (for {needed_for}): {problem}"),
        }
    }
    println!(
        "\n{:<22}{:<10}{:<10}WHAT IT DOES",
        "FAULT", "GROUP", "POSSIBLE"
    );
    for fault in &found.faults {
        let possible = if fault.problem.is_none() { "yes" } else { "no" };
        println!(
            "{:<22}{:<10}{:<10}{}",
            fault.fault, fault.group, possible, fault.does
        );
    }
}
