//! `chaos`: breaks real clusters and judges what clients saw. The library does it; this reads the command line and prints.

mod cli;
mod show;

use anyhow::{Context, Result};
use chaos::cluster::Binaries;
use chaos::results::{Results, RunConfig};
use chaos::{bench, clock, doctor, run, selftest};
use clap::{CommandFactory, Parser};
use cli::{Bench, Cli, Command, Output, Plant};
use std::path::Path;
use std::process::ExitCode;

/// Unknown, or a fault of the harness.
const HARNESS_FAULT: u8 = 2;

fn main() -> ExitCode {
    let code = match Cli::parse().command {
        Command::Run(args) => until_interrupted(run_command(args)),
        Command::Check { dir } => run::check(&dir).map(|results| conclude(&results, &dir)),
        Command::Selftest { seed, histories } => self_test(seed, histories),
        Command::Doctor { output } => examine(output),
        Command::Bench(Bench::Failover { rounds, output }) => {
            until_interrupted(failover(rounds, output))
        }
        Command::Launch { socket, command } => {
            chaos::injector::launch::run(&socket, &command).map(|()| 0)
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "chaos", &mut std::io::stdout());
            Ok(0)
        }
    };
    match code {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(HARNESS_FAULT)
        }
    }
}

/// Runs a command to its end or to Ctrl-C; either way what it started is cleaned up, since dropping a cluster does that.
fn until_interrupted(command: impl Future<Output = Result<u8>>) -> Result<u8> {
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no threads can be started")?;
    tokio.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            code = command => code,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted; the cluster was removed"),
            _ = terminate.recv() => anyhow::bail!("told to stop; the cluster was removed"),
        }
    })
}

async fn run_command(args: cli::Run) -> Result<u8> {
    let seed = args
        .seed
        .unwrap_or_else(|| rand::random_range(0..1_000_000));
    let binaries = Binaries::find()?;
    let kinds: Vec<&str> = args.nemesis.0.iter().map(|kind| kind.name()).collect();
    let seconds = args.time.as_secs();
    let plant = args.plant.map(|Plant::StaleReads| "stale-reads".to_owned());
    let planted = plant
        .as_ref()
        .map_or(String::new(), |plant| format!(" --plant {plant}"));
    let config = RunConfig {
        command: format!(
            "chaos run --nemesis {} --time {seconds}s --seed {seed} --masters {} --rate {} --lanes {}{planted}",
            kinds.join(","),
            args.masters,
            args.rate,
            args.lanes
        ),
        nemesis: args.nemesis.0,
        seconds,
        seed,
        masters: args.masters,
        rate: args.rate,
        lanes: args.lanes,
        plant,
        started: clock::now(),
        version: binaries.version(),
        machine: machine(),
    };
    let shown = show::Shown::new(args.time);
    let results = run::run(&config, binaries, &args.out, &shown).await?;
    shown.finish();
    Ok(conclude(&results, &args.out))
}

fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("Linux {}, {cores} cores", kernel.trim())
}

fn conclude(results: &Results, out: &Path) -> u8 {
    show::results(results);
    println!("report: {}", out.join("report.html").display());
    results.verdict.code()
}

fn self_test(seed: u64, histories: u32) -> Result<u8> {
    let lines = selftest::run(seed, histories)?;
    println!(
        "{:<28}{:<20}{:>10}{:>12}{:>8}",
        "PLANTED", "FOUND AS", "HISTORIES", "OPERATIONS", "MS"
    );
    for line in lines {
        println!(
            "{:<28}{:<20}{:>10}{:>12}{:>8}",
            line.planted,
            line.expected.as_deref().unwrap_or("nothing, rightly"),
            line.histories,
            line.ops,
            line.millis
        );
    }
    println!("every planted fault was found and named rightly, and every right history passed");
    Ok(0)
}

fn examine(output: Output) -> Result<u8> {
    let found = doctor::examine();
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&found)?),
        Output::Table => show::examination(&found),
    }
    Ok(if found.is_whole() { 0 } else { HARNESS_FAULT })
}

async fn failover(rounds: u32, output: Output) -> Result<u8> {
    let told = |round: &bench::failover::Round| {
        if output == Output::Table {
            println!(
                "{:<8}{:>14.0}{:>14.0}{:>16.0}{:>8}",
                round.killed,
                round.first_write_ms,
                round.all_clients_ms,
                round.slowest_write_ms,
                round.errors
            );
        }
    };
    if output == Output::Table {
        println!(
            "{:<8}{:>14}{:>14}{:>16}{:>8}",
            "KILLED", "WRITES FLOW", "ALL CLIENTS", "SLOWEST WRITE", "ERRORS"
        );
    }
    let failover = bench::failover::run(Binaries::find()?, rounds, &told).await?;
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&failover)?),
        Output::Table => println!(
            "milliseconds; writes flow after {:.0} at the median, {:.0} to {:.0}; clients that try again saw {} errors; \
             three masters voted {:.0} after the first was started",
            failover.median_ms,
            failover.min_ms,
            failover.max_ms,
            failover.errors,
            failover.start_ms
        ),
    }
    Ok(0)
}
