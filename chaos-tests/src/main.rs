//! `chaos`: breaks real clusters and judges what clients saw. The library does it; this reads the command line and prints.

mod cli;
mod show;
mod simulation;

use anyhow::{Context, Result};
use chaos::cluster::Binaries;
use chaos::results::{Results, RunConfig};
use chaos::run::Store;
use chaos::testbed::{Endpoint, TlsMaterial};
use chaos::{bench, clock, doctor, kernel, planted, run, selftest};
use clap::{CommandFactory, Parser};
use cli::{Bench, Cli, Command, Output, Plant};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Unknown, or a fault of the harness.
const HARNESS_FAULT: u8 = 2;

fn main() -> ExitCode {
    let code = match Cli::parse().command {
        Command::Run(args) => until_interrupted(run_command(args)),
        Command::Check { dir, output } => {
            run::check(&dir).and_then(|results| conclude(&results, &dir, output))
        }
        Command::Selftest(args) => match &args.planted {
            Some(folder) => until_interrupted(planted_bugs(folder.clone(), &args)),
            None => self_test(args.seed, args.histories, args.output),
        },
        Command::Sim(args) => simulation::run(&args),
        Command::SimSeed { seed, trace } => simulation::run_here(seed, trace.as_deref()),
        Command::Doctor { output } => examine(output),
        Command::Bench(Bench::Failover { rounds, output }) => {
            until_interrupted(failover(rounds, output))
        }
        Command::Bench(Bench::Api {
            figures,
            short,
            output,
        }) => until_interrupted(async move { api(&figures, short, output).await }),
        Command::Bench(Bench::Check { ops, seed, output }) => checkers(ops, seed, output),
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
    kernel::own_mounts()?;
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
    let store = store(&args)?;
    let plant = args.plant.map(|Plant::StaleReads| "stale-reads".to_owned());
    let (target, version) = match &store {
        Store::Started(choice) => {
            let target = choice.target(Path::new("."))?;
            (choice.to_string(), target.version())
        }
        Store::Running(_) => (args.endpoints.join(","), "not known".to_owned()),
    };
    let config = RunConfig {
        command: command(&args, seed),
        target,
        workloads: args.workload.iter().map(|name| name.0).collect(),
        nemesis: args.nemesis.0.clone(),
        combos: args.combos,
        seconds: args.time.as_secs(),
        seed,
        members: match &store {
            Store::Started(_) => args.members,
            Store::Running(endpoints) => endpoints.len() as u8,
        },
        rate: args.rate,
        lanes: args.lanes,
        plant,
        started: clock::now(),
        version,
        machine: machine(),
    };
    let shown = show::Shown::new(args.time);
    let results = run::run(&config, &store, &args.out, &shown).await?;
    shown.finish();
    conclude(&results, &args.out, args.output)
}

fn store(args: &cli::Run) -> Result<Store> {
    if args.endpoints.is_empty() {
        return Ok(Store::Started(args.target.clone()));
    }
    let read = |path: &Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let tls = match (&args.cacert, &args.cert, &args.key) {
        (Some(ca), Some(certificate), Some(key)) => Some(TlsMaterial {
            ca: read(ca)?,
            certificate: read(certificate)?,
            key: read(key)?,
        }),
        _ => None,
    };
    let endpoints = args.endpoints.iter().map(|url| Endpoint {
        name: url.clone(),
        url: url.clone(),
        tls: tls.clone(),
    });
    Ok(Store::Running(endpoints.collect()))
}

/// What repeats a run.
fn command(args: &cli::Run, seed: u64) -> String {
    let faults: Vec<&str> = args.nemesis.0.iter().map(|kind| kind.name()).collect();
    let workloads: Vec<String> = args.workload.iter().map(ToString::to_string).collect();
    let mut words = vec!["chaos run".to_owned()];
    let mut add = |flag: &str, value: &str| words.push(format!("--{flag} {value}"));
    if args.endpoints.is_empty() {
        add("target", &args.target.to_string());
    } else {
        add("endpoints", &args.endpoints.join(","));
    }
    for (flag, path) in [
        ("cacert", &args.cacert),
        ("cert", &args.cert),
        ("key", &args.key),
    ] {
        if let Some(path) = path {
            add(flag, &path.display().to_string());
        }
    }
    add("workload", &workloads.join(","));
    let faults = faults.join(",");
    add("nemesis", if faults.is_empty() { "none" } else { &faults });
    add("time", &format!("{}s", args.time.as_secs()));
    add("seed", &seed.to_string());
    add("members", &args.members.to_string());
    add("rate", &args.rate.to_string());
    add("lanes", &args.lanes.to_string());
    if let Some(Plant::StaleReads) = args.plant {
        add("plant", "stale-reads");
    }
    if args.combos {
        words.push("--combos".to_owned());
    }
    words.join(" ")
}

fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("Linux {}, {cores} cores", kernel.trim())
}

fn conclude(results: &Results, out: &Path, output: Output) -> Result<u8> {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(results)?),
        Output::Table => {
            show::results(results);
            println!("report: {}", out.join("report.html").display());
        }
    }
    Ok(results.verdict.code())
}

fn self_test(seed: u64, histories: u32, output: Output) -> Result<u8> {
    let lines = selftest::run(seed, histories)?;
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&lines)?);
        return Ok(0);
    }
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

async fn planted_bugs(folder: PathBuf, args: &cli::Selftest) -> Result<u8> {
    let plan = planted::Plan {
        planted: folder,
        clean: args.clean.clone(),
        bugs: args.bugs.clone(),
        out: args.out.clone(),
        seed: args.seed,
    };
    let is_table = args.output == Output::Table;
    if is_table {
        println!(
            "{:<20}{:<22}{:>8}{:>6}{:>9}  {:<7}{:<22}FAULTS",
            "PLANTED", "FOUND AS", "AFTER", "RUNS", "TOOK", "CLEAN", "WORKLOADS"
        );
    }
    let shown = planted::run(&plan, &|shown| {
        if !is_table {
            return;
        }
        let found = shown.found.as_deref().unwrap_or("NOT FOUND");
        let after = shown
            .after_s
            .map_or(String::new(), |after| format!("{after:.1} s"));
        println!(
            "{:<20}{found:<22}{after:>8}{:>6}{:>7.0} s  {:<7}{:<22}{}",
            shown.bug,
            shown.runs,
            shown.took_s,
            if shown.clean { "yes" } else { "NO" },
            shown.workloads,
            shown.nemesis
        );
        if let Some(problem) = &shown.problem {
            println!("  {problem}");
        }
    })
    .await?;
    if !is_table {
        println!("{}", serde_json::to_string_pretty(&shown)?);
    }
    let is_shown = |shown: &planted::Shown| shown.found.is_some() && shown.clean;
    Ok(if shown.iter().all(is_shown) {
        0
    } else {
        HARNESS_FAULT
    })
}

fn examine(output: Output) -> Result<u8> {
    let found = doctor::examine();
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&found)?),
        Output::Table => show::examination(&found),
    }
    Ok(if found.is_whole() { 0 } else { HARNESS_FAULT })
}

fn checkers(ops: u32, seed: u64, output: Output) -> Result<u8> {
    let checked = bench::check::run(ops, seed)?;
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&checked)?);
        return Ok(0);
    }
    println!("{} operations on {} registers", checked.ops, checked.keys);
    for (checker, millis) in &checked.millis {
        println!("{checker:<20}{millis:>8} ms");
    }
    Ok(0)
}

async fn api(figures: &[String], short: bool, output: Output) -> Result<u8> {
    let size = if short {
        bench::api::Size::SHORT
    } else {
        bench::api::Size::WHOLE
    };
    let told = |row: &bench::api::Row| {
        if output == Output::Table {
            let reached = if row.reached() { "reached" } else { "missed" };
            println!(
                "{}\n  {:.2} {}, goal {:?}: {reached}; {}\n  compared with: {}",
                row.what, row.measured, row.unit, row.goal, row.detail, row.peer
            );
        }
    };
    let rows = bench::api::run(Binaries::find()?, figures, size, &told).await?;
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    }
    Ok(0)
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
