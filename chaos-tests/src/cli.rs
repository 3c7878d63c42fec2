//! What can be typed.

use chaos::nemesis::Kind;
use chaos::testbed::Choice;
use chaos::workload;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Breaks real clusters and judges what clients saw
///
/// Exit codes: 0 all is well, 1 a property is violated, 2 unknown or a fault of the harness, 3 a fault that was asked for never
/// happened.
#[derive(Parser)]
#[command(name = "chaos", version, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Start members of a store, load and break them, judge the history and write a report; needs root
    Run(Run),
    /// Judge the history of a run again
    Check {
        /// The folder of the run
        dir: PathBuf,
        /// How to print
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Show that the checkers catch planted faults and pass right histories; with --planted, that runs do on real masters
    Selftest(Selftest),
    /// Simulate the store from seeds: real members on a simulated disk, network and clock, every invariant checked at each step
    Sim(Sim),
    /// Simulate one seed in this process; `chaos sim` starts this
    #[command(name = crate::simulation::SUBCOMMAND, hide = true)]
    SimSeed {
        /// The seed
        seed: u64,
        /// Where to write every step
        #[arg(long)]
        trace: Option<PathBuf>,
    },
    /// Tell what this machine lets the harness do, and which faults can be had; exit code 2 where something is missing
    Doctor {
        /// How to print
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Measure
    #[command(subcommand)]
    Bench(Bench),
    /// Become a member whose system calls the harness answers; the harness starts this
    #[command(name = chaos::injector::launch::SUBCOMMAND, hide = true)]
    Launch {
        /// Where the harness listens
        socket: PathBuf,
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// `chaos sim`.
#[derive(Args)]
pub struct Sim {
    /// From which seed to which, both included: 1..200
    #[arg(long, default_value = "1..20", value_parser = parse_seeds)]
    pub seeds: RangeInclusive<u64>,
    /// One seed alone
    #[arg(long, conflicts_with = "seeds")]
    pub seed: Option<u64>,
    /// Where to write every step of the one seed
    #[arg(long, requires = "seed")]
    pub trace: Option<PathBuf>,
    /// How many to simulate at once; default: one a core
    #[arg(long)]
    pub jobs: Option<usize>,
    /// Break a promise of the store on purpose, as NAME or NAME:N for one time in N; only in builds with the feature planted-bugs
    #[arg(long)]
    pub plant: Option<String>,
    /// How to print
    #[arg(short, long, default_value = "table")]
    pub output: Output,
}

/// `chaos run`.
#[derive(Args)]
pub struct Run {
    /// What to start and break: control (our masters), etcd (Debian's), etcd=PATH
    #[arg(long, default_value = "control", conflicts_with = "endpoints")]
    pub target: Choice,
    /// Ask members that run already, by their URLs, and break nothing; needs --nemesis none, and a store that does not compact
    /// by itself meanwhile
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub endpoints: Vec<String>,
    /// The authorities that the members of --endpoints are signed by
    #[arg(long, value_name = "FILE", requires_all = ["cert", "key"])]
    pub cacert: Option<PathBuf>,
    /// The client's certificate for --endpoints
    #[arg(long, value_name = "FILE", requires = "cacert")]
    pub cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "cacert")]
    pub key: Option<PathBuf>,
    /// What clients do
    #[arg(long, value_delimiter = ',', default_values_t = workload::Kind::USUAL.map(WorkloadName))]
    pub workload: Vec<WorkloadName>,
    /// The faults by name or group, all or none, in rounds of random order; each must happen at least once (see chaos doctor)
    #[arg(long, value_name = "FAULTS", default_value = "kill,pause,partition", value_parser = parse_kinds)]
    pub nemesis: Kinds,
    /// Faults of processes, disks, clocks and members come with bad links (delay, loss, duplication, reorder) beside them, where
    /// these are asked for too
    #[arg(long)]
    pub combos: bool,
    /// How long the load lasts: 60s, 5m, 1h
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub time: Duration,
    /// Fixes requests and faults, though not how they interleave; default: another one each time
    #[arg(long)]
    pub seed: Option<u64>,
    /// How many members
    #[arg(long, alias = "masters", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub members: u8,
    /// Requests a second, over all workloads
    #[arg(long, default_value_t = 500)]
    pub rate: u32,
    /// Registers in use at any time, each by five processes
    #[arg(long, default_value_t = 4)]
    pub lanes: u32,
    /// The folder for history, logs, results and report
    #[arg(long, default_value = "chaos-run")]
    pub out: PathBuf,
    /// Break a promise on purpose, to see that it is caught (exit code 1)
    #[arg(long)]
    pub plant: Option<Plant>,
    /// How to print
    #[arg(short, long, default_value = "table")]
    pub output: Output,
}

/// A workload's name.
#[derive(Clone, Copy)]
pub struct WorkloadName(pub workload::Kind);

impl FromStr for WorkloadName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        workload::Kind::from_str(text, false)
            .map(WorkloadName)
            .map_err(|_| {
                let known: Vec<String> = workload::Kind::value_variants()
                    .iter()
                    .map(|kind| kind.name())
                    .collect();
                format!("say some of {}", known.join(", "))
            })
    }
}

impl std::fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.name())
    }
}

/// The faults of `--nemesis`.
#[derive(Clone)]
pub struct Kinds(pub Vec<Kind>);

fn parse_kinds(text: &str) -> Result<Kinds, String> {
    if text == "none" {
        return Ok(Kinds(Vec::new()));
    }
    let words = text.split(',').filter(|word| !word.is_empty());
    Kind::parse_list(words).map(Kinds)
}

/// Promises that can be broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Plant {
    /// Clients read whatever the asked member has, yet are judged as if they had asked for the newest
    StaleReads,
}

/// `chaos selftest`.
#[derive(Args)]
pub struct Selftest {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Histories of each kind
    #[arg(long, default_value_t = 100)]
    pub histories: u32,
    /// Run masters of this folder, built with the feature planted-bugs, with each bug that real processes can show; needs root
    #[arg(long, value_name = "DIR")]
    pub planted: Option<PathBuf>,
    /// Where the masters without bugs lie; default: $TRIREME_BIN, or beside this program
    #[arg(long, value_name = "DIR", requires = "planted")]
    pub clean: Option<PathBuf>,
    /// Only these bugs
    #[arg(long, value_delimiter = ',', requires = "planted")]
    pub bugs: Vec<String>,
    /// The folder for the runs of --planted
    #[arg(long, default_value = "chaos-selftest", requires = "planted")]
    pub out: PathBuf,
    /// How to print
    #[arg(short, long, default_value = "table")]
    pub output: Output,
}

/// `chaos bench`.
#[derive(Subcommand)]
pub enum Bench {
    /// Kill the leader again and again; how long until writes flow?
    Failover {
        /// How often
        #[arg(long, default_value_t = 10)]
        rounds: u32,
        /// How to print
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// How does the API of three masters fare under load?
    Api {
        /// Only these figures: create, watch, fanout, list, nodes, memory
        #[arg(value_parser = clap::builder::PossibleValuesParser::new(chaos::bench::api::NAMES))]
        figures: Vec<String>,
        /// Seconds instead of minutes, and small: shows that all works, and measures nothing
        #[arg(long)]
        short: bool,
        /// How to print
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// How long do the checkers take over a history that never was?
    Check {
        /// Operations on registers
        #[arg(long, default_value_t = 100_000)]
        ops: u32,
        /// Makes the history
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How to print
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
}

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For machines
    Json,
}

fn parse_seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let wrong = || "say it as 1..200".to_owned();
    let (first, last) = text.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| {
        text.trim_start_matches('=')
            .parse::<u64>()
            .map_err(|_| wrong())
    };
    let (first, last) = (number(first)?, number(last)?);
    match first <= last {
        true => Ok(first..=last),
        false => Err(wrong()),
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("say it as 60s, 5m or 1h".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "say it as 60s, 5m or 1h".to_owned())?;
    Ok(Duration::from_secs(number * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seeds() {
        assert_eq!(parse_seeds("1..200"), Ok(1..=200));
        assert_eq!(parse_seeds("7..=7"), Ok(7..=7));
        for wrong in ["", "5", "9..1", "a..b"] {
            assert!(parse_seeds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        for wrong in ["", "5", "m", "-5s", "5ß"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
