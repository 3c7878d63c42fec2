//! `conformance`: asks a cluster, given by a kubeconfig or started here, and prints what it does as Kubernetes does it.

use anyhow::{Context, Result};
use chaos::cluster::{Cluster, Options};
use clap::{Parser, ValueEnum};
use client::{Client, Config};
use conformance::{Check, Expected, Outcome, Report, Selection, table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use regex::Regex;
use std::path::PathBuf;
use std::process::ExitCode;

/// Everything passed, or is as expected.
const AS_WANTED: u8 = 0;
/// A behaviour is not as wanted.
const OTHERWISE: u8 = 1;
/// The checks could not be run.
const NOT_RUN: u8 = 2;

/// Checks of a cluster's behaviour, one a conformance behaviour of Kubernetes.
///
/// Without --kubeconfig three masters of the own programs are started, which needs root.
/// Exit code 0: all passed, or all is as --expected says; 1: something is otherwise; 2: the checks could not be run.
#[derive(Parser)]
#[command(name = "conformance", version)]
struct Cli {
    /// The cluster to ask, with an administrator's credentials
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Only the checks whose names match
    #[arg(long, value_name = "REGEX")]
    focus: Option<Regex>,
    /// Not the checks whose names match
    #[arg(long, value_name = "REGEX")]
    skip: Option<Regex>,
    /// How many checks run side by side
    #[arg(long, default_value_t = 8)]
    jobs: usize,
    /// A file that names the checks that are known not to pass, a line each; one that passes must be taken off
    #[arg(long, value_name = "FILE")]
    expected: Option<PathBuf>,
    /// How the report is printed
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// Print the checks' names and run none
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(NOT_RUN)
        }
    }
}

async fn run(cli: &Cli) -> Result<u8> {
    let checks = selected(cli);
    if cli.list {
        checks.iter().for_each(|check| println!("{}", check.name));
        return Ok(AS_WANTED);
    }
    let expected = match &cli.expected {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.with_context(|| format!("cannot read {}", path.display()))?;
            Some(Expected::parse(&text))
        }
        None => None,
    };
    let selection = Selection {
        checks,
        jobs: cli.jobs,
    };
    let report = match &cli.kubeconfig {
        Some(path) => ask(&Client::new(&Config::load(Some(path), None)?)?, &selection).await?,
        None => {
            eprintln!("starting three masters");
            let cluster = Cluster::start(Options::masters(3)?).await?;
            ask(&cluster.client()?, &selection).await?
        }
    };
    match cli.output {
        Output::Table => print!("{}", table(&report)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(verdict(&report, expected.as_ref()))
}

fn selected(cli: &Cli) -> Vec<Check> {
    let matches =
        |regex: &Option<Regex>, check: &Check| regex.as_ref().map(|it| it.is_match(check.name));
    let mut checks = conformance::all();
    checks.retain(|check| {
        matches(&cli.focus, check) != Some(false) && matches(&cli.skip, check) != Some(true)
    });
    checks
}

async fn ask(client: &Client, selection: &Selection) -> Result<Report> {
    let bar = ProgressBar::with_draw_target(
        Some(selection.checks.len() as u64),
        ProgressDrawTarget::stderr(),
    );
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} {elapsed} {msg}",
    )?);
    let report = conformance::run(client, selection, |result| {
        bar.inc(1);
        bar.set_message(result.name.chars().take(90).collect::<String>());
        if result.outcome == Outcome::Failed {
            bar.suspend(|| eprintln!("failed: {}", result.name));
        }
    })
    .await;
    bar.finish_and_clear();
    report.context("the cluster does not answer")
}

fn verdict(report: &Report, expected: Option<&Expected>) -> u8 {
    let Some(expected) = expected else {
        let all_passed = report
            .results
            .iter()
            .all(|it| it.outcome == Outcome::Passed);
        return if all_passed { AS_WANTED } else { OTHERWISE };
    };
    let names: Vec<&str> = conformance::all().iter().map(|check| check.name).collect();
    let differences = expected.differences(report, &names);
    differences
        .lines()
        .iter()
        .for_each(|line| eprintln!("{line}"));
    if differences.is_empty() {
        AS_WANTED
    } else {
        OTHERWISE
    }
}
