//! `chaos sim`: has seeds simulated, each by a process of its own, shows how far it is, and says how to repeat what failed.

use crate::cli::{Output, Sim};
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use sim::batch::{self, Summary};
use sim::{Outcome, PLANT_VARIABLE};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// What this program is called with to simulate one seed.
pub const SUBCOMMAND: &str = "sim-seed";

/// A property does not hold.
const VIOLATED: u8 = 1;

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    seconds: f64,
    /// What repeats each seed in which something did not hold.
    replay: Vec<String>,
}

/// Simulates the one seed that this process is for.
pub fn run_here(seed: u64, trace: Option<&Path>) -> Result<u8> {
    batch::run_here(seed, trace).context("the simulation cannot tell what it came to")?;
    Ok(0)
}

/// Simulates seeds; 0 when all held, 1 when something did not.
pub fn run(args: &Sim) -> Result<u8> {
    if args.plant.is_some() && !sim::CAN_PLANT {
        bail!("this program has no bugs to plant; build it with --features planted-bugs");
    }
    let program = std::env::current_exe().context("this program cannot be found")?;
    let seeds: Vec<u64> = match args.seed {
        Some(seed) => vec![seed],
        None => args.seeds.clone().collect(),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let command = |seed: u64| {
        let mut command = Command::new(&program);
        command.arg(SUBCOMMAND).arg(seed.to_string());
        if let Some(trace) = &args.trace {
            command.arg("--trace").arg(trace);
        }
        match &args.plant {
            Some(plant) => command.env(PLANT_VARIABLE, plant),
            None => command.env_remove(PLANT_VARIABLE),
        };
        command
    };
    let began = Instant::now();
    let bar = progress(seeds.len() as u64);
    let mut summary = Summary::default();
    let mut broken = Vec::new();
    batch::run_all(
        &seeds,
        args.jobs.unwrap_or(cores),
        &command,
        |seed, outcome| {
            bar.inc(1);
            match outcome {
                Ok(outcome) => {
                    if outcome.violation.is_some() && args.output == Output::Table {
                        bar.suspend(|| print_violation(args, &outcome));
                    }
                    summary.add(outcome);
                }
                Err(err) => broken.push(format!("seed {seed}: {err}")),
            }
        },
    );
    bar.finish_and_clear();
    if !broken.is_empty() {
        bail!(
            "{} simulations did not end: {}",
            broken.len(),
            broken.join("; ")
        );
    }
    conclude(args, &summary, began.elapsed().as_secs_f64())
}

fn conclude(args: &Sim, summary: &Summary, seconds: f64) -> Result<u8> {
    let replay = summary
        .violations
        .iter()
        .map(|outcome| replay(args, outcome.seed));
    match args.output {
        Output::Json => {
            let report = Report {
                summary,
                seconds,
                replay: replay.collect(),
            };
            println!("{}", serde_json::to_string_pretty(&report)?);
        }
        Output::Table => print_summary(summary, seconds),
    }
    Ok(if summary.violations.is_empty() {
        0
    } else {
        VIOLATED
    })
}

fn progress(seeds: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} seeds, {eta} left");
    ProgressBar::new(seeds).with_style(style.expect("the template is right"))
}

fn replay(args: &Sim, seed: u64) -> String {
    let plant = args
        .plant
        .as_ref()
        .map_or(String::new(), |plant| format!(" --plant {plant}"));
    format!("chaos sim --seed {seed}{plant} --trace seed-{seed}.txt")
}

fn print_violation(args: &Sim, outcome: &Outcome) {
    let Some(violation) = &outcome.violation else {
        return;
    };
    println!(
        "seed {}: {} does not hold after {} ms: {}",
        outcome.seed, violation.invariant, violation.at_ms, violation.what
    );
    for step in &violation.last_steps {
        println!("    {step}");
    }
    println!("  to repeat it: {}\n", replay(args, outcome.seed));
}

fn print_summary(summary: &Summary, seconds: f64) {
    let faults: Vec<String> = summary
        .faults
        .iter()
        .map(|(fault, count)| format!("{fault} {count}"))
        .collect();
    println!("faults: {}", faults.join(", "));
    println!(
        "{} seeds, {} steps, {} answers, {:.0} simulated seconds in {seconds:.1} s: {}",
        summary.seeds,
        summary.steps,
        summary.answered,
        summary.simulated_ms as f64 / 1000.0,
        match summary.violations.len() {
            0 => "every invariant held".to_owned(),
            violated => format!("{violated} seeds in which one did not hold"),
        }
    );
}
