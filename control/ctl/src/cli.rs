//! What can be typed.

mod snapshot;

pub use snapshot::{Recover, Schedule, Seal, Set, Snapshot};

use crate::past::{At, parse_at};
use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use objects::Quantity;
use std::path::PathBuf;
use std::time::Duration;

/// Controls a Trireme cluster.
///
/// It reads the same kubeconfig as kubectl and speaks the same API; either may be used.
#[derive(Parser)]
#[command(
    name = "ctl",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// The kubeconfig; default: $KUBECONFIG, else ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The namespace; default: the context's
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// Tell what is asked of the server, and the causes of a failure
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table
    #[default]
    Table,
    /// A table with more columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// resource/name
    Name,
}

/// The subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Show objects
    Get(Get),
    /// Show everything about objects, with their events
    Describe(Describe),
    /// Tell who changed which fields of an object when; without one, what of the past is kept
    History(History),
    /// Tell what was created, deleted and changed since a point in the past
    Diff(Diff),
    /// Write objects back as they were
    Restore(Restore),
    /// Make the cluster as files say: create what is absent, change what differs
    Apply(Apply),
    /// Delete objects
    Delete(Delete),
    /// Print a container's log
    Logs(Logs),
    /// Run a command in a container
    Exec(Exec),
    /// Make ports of a pod ports of this machine
    PortForward(PortForward),
    /// Set the number of replicas
    Scale(Scale),
    /// Follow or steer a rollout
    #[command(subcommand)]
    Rollout(Rollout),
    /// Wait until objects have a condition, or are gone
    Wait(Wait),
    /// Tell what holds an object back and what the controllers would do next
    Explain(Explain),
    /// Show what nodes or pods use now
    #[command(subcommand)]
    Top(Top),
    /// Tell who leads, how each master is and what to do about it
    Status(Status),
    /// Show the cluster in a browser, through a proxy that only this machine reaches
    Dashboard(Dashboard),
    /// The masters
    #[command(subcommand)]
    Member(Member),
    /// The keys that seal secrets in the store and sign service accounts' tokens
    #[command(subcommand)]
    Keys(Keys),
    /// Save the cluster's state, look at a saved one, restore it
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Make a cluster of one surviving master, after the majority is gone for good; on that master, stopped
    Recover(Recover),
    /// Images on the nodes
    #[command(subcommand)]
    Image(Image),
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// `ctl keys`.
#[derive(Subcommand)]
pub enum Keys {
    /// Put new keys in the place of the present ones, while the cluster works: every secret is sealed again; tokens of the old key go
    /// on to count until they end
    Rotate {
        /// Only those that seal secrets
        #[arg(long, conflicts_with = "tokens")]
        secrets: bool,
        /// Only those that sign tokens
        #[arg(long)]
        tokens: bool,
    },
}

/// `-o`.
#[derive(Args)]
pub struct OutputArg {
    /// How to print
    #[arg(short, long, default_value = "table")]
    pub output: Output,
}

/// `ctl dashboard`.
#[derive(Args)]
pub struct Dashboard {
    /// The port on 127.0.0.1; default: any that is free
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub port: u16,
}

/// `ctl status`.
#[derive(Args)]
pub struct Status {
    #[command(flatten)]
    pub output: OutputArg,
    /// Go on showing it, also while no master answers
    #[arg(short, long)]
    pub watch: bool,
    /// How often then
    #[arg(long, value_name = "SECONDS", default_value_t = 2, requires = "watch", value_parser = clap::value_parser!(u64).range(1..))]
    pub every: u64,
}

/// Which objects.
#[derive(Args)]
pub struct Objects {
    /// TYPE [NAME...], TYPE/NAME..., or TYPE,TYPE
    #[arg(required = true, value_name = "TYPE[/NAME]")]
    pub what: Vec<String>,
    /// Only those with these labels: app=web,tier!=db
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// Only those with these fields: status.phase=Running
    #[arg(long, value_name = "FIELDS")]
    pub field_selector: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

/// `ctl get`.
#[derive(Args)]
pub struct Get {
    #[command(flatten)]
    pub objects: Objects,
    #[command(flatten)]
    pub output: OutputArg,
    /// As they were: 10m (ago), 2026-01-31T12:00:00Z, or a revision
    #[arg(long, value_name = "WHEN", value_parser = parse_at, conflicts_with = "watch")]
    pub at: Option<At>,
    /// Go on showing changes
    #[arg(short, long)]
    pub watch: bool,
    /// Show the labels too
    #[arg(long)]
    pub show_labels: bool,
    /// No header line
    #[arg(long)]
    pub no_headers: bool,
    /// With who owns which fields, in YAML and JSON
    #[arg(long)]
    pub show_managed_fields: bool,
}

/// `ctl describe`.
#[derive(Args)]
pub struct Describe {
    #[command(flatten)]
    pub objects: Objects,
}

/// `ctl history`.
#[derive(Args)]
pub struct History {
    /// TYPE/NAME or TYPE NAME
    #[arg(value_name = "TYPE/NAME")]
    pub what: Vec<String>,
    /// At most so many changes, the newest first
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..).map(usize::from))]
    pub limit: usize,
    /// From now on, keep the cluster's past for so long: 24h, 7d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub keep: Option<Duration>,
    /// From now on, keep at most so many bytes of changes: 2Gi
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub keep_bytes: Option<u64>,
    #[command(flatten)]
    pub output: OutputArg,
}

/// `ctl diff`.
#[derive(Args)]
pub struct Diff {
    /// TYPE [NAME...], TYPE/NAME..., or TYPE,TYPE; default: everything but events and leases
    #[arg(value_name = "TYPE[/NAME]")]
    pub what: Vec<String>,
    /// Since when: 1h (ago), 2026-01-31T12:00:00Z, or a revision
    #[arg(long, value_name = "WHEN", value_parser = parse_at)]
    pub since: At,
    /// Until when; default: now
    #[arg(long, value_name = "WHEN", value_parser = parse_at)]
    pub until: Option<At>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    #[command(flatten)]
    pub output: OutputArg,
}

/// `ctl restore`.
#[derive(Args)]
pub struct Restore {
    /// TYPE/NAME... or TYPE NAME...; a namespace is restored with what lay in it
    #[arg(required = true, value_name = "TYPE/NAME")]
    pub what: Vec<String>,
    /// As they were when: 10m (ago), 2026-01-31T12:00:00Z, or a revision
    #[arg(long, value_name = "WHEN", value_parser = parse_at)]
    pub at: At,
    /// Only tell what would happen; the server checks everything
    #[arg(long)]
    pub dry_run: bool,
}

/// Files with objects.
#[derive(Args)]
pub struct Files {
    /// A file, a folder, or - for standard input; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub filename: Vec<PathBuf>,
    /// Take folders with all that lies below them
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// `ctl apply`.
#[derive(Args)]
pub struct Apply {
    #[command(flatten)]
    pub files: Files,
    /// Only tell what would happen; the server checks everything
    #[arg(long)]
    pub dry_run: bool,
    /// How to print
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `ctl delete`.
#[derive(Args)]
pub struct Delete {
    /// TYPE NAME..., or TYPE/NAME...
    #[arg(value_name = "TYPE[/NAME]")]
    pub what: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    /// Those with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// All of the type in the namespace
    #[arg(long)]
    pub all: bool,
    /// Seconds given to end gracefully
    #[arg(long, value_name = "SECONDS")]
    pub grace_period: Option<u32>,
    /// What becomes of what they own
    #[arg(long, default_value = "background", value_parser = ["background", "foreground", "orphan"])]
    pub cascade: String,
    /// Do not wait until they are gone
    #[arg(long)]
    pub no_wait: bool,
    /// It is no failure when there is none
    #[arg(long)]
    pub ignore_not_found: bool,
    /// How long to wait until they are gone
    #[arg(long, default_value = "120s", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// `ctl logs`.
#[derive(Args)]
pub struct Logs {
    /// POD or TYPE/NAME
    pub target: String,
    /// The container; default: the only one, or the first
    #[arg(short, long)]
    pub container: Option<String>,
    /// Go on as the log grows
    #[arg(short, long)]
    pub follow: bool,
    /// The log of the container before its last restart
    #[arg(short, long)]
    pub previous: bool,
    /// Only the last lines
    #[arg(long)]
    pub tail: Option<u64>,
    /// Only what is younger: 10s, 5m, 2h
    #[arg(long, value_parser = parse_duration)]
    pub since: Option<Duration>,
    /// Each line with its time
    #[arg(long)]
    pub timestamps: bool,
}

/// `ctl exec`.
#[derive(Args)]
pub struct Exec {
    /// POD or TYPE/NAME
    pub target: String,
    /// The container; default: the only one, or the first
    #[arg(short, long)]
    pub container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Standard input is a terminal
    #[arg(short = 't', long)]
    pub tty: bool,
    /// The command, after --
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// `ctl port-forward`.
#[derive(Args)]
pub struct PortForward {
    /// POD or TYPE/NAME; a service's ports lead to those of its pods
    pub target: String,
    /// PORT, LOCAL:PORT, or :PORT for a free local one; a name of the pod's or service's will do
    #[arg(required = true, value_name = "[LOCAL:]PORT")]
    pub ports: Vec<String>,
    /// The address of this machine to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub address: std::net::IpAddr,
}

/// `ctl scale`.
#[derive(Args)]
pub struct Scale {
    /// TYPE NAME, or TYPE/NAME...
    #[arg(required = true, value_name = "TYPE/NAME")]
    pub what: Vec<String>,
    /// How many
    #[arg(long)]
    pub replicas: u32,
    /// Only if there are so many now
    #[arg(long)]
    pub current_replicas: Option<i64>,
}

/// `ctl top`.
#[derive(Subcommand)]
pub enum Top {
    /// Processors and memory of nodes
    #[command(visible_aliases = ["node", "no"])]
    Nodes(TopNodes),
    /// Processors and memory of pods
    #[command(visible_aliases = ["pod", "po"])]
    Pods(TopPods),
}

/// `ctl top nodes`.
#[derive(Args)]
pub struct TopNodes {
    /// Only this one
    pub name: Option<String>,
    /// Only those with these labels: app=web,tier!=db
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "name")]
    pub selector: Option<String>,
    /// The largest first
    #[arg(long)]
    pub sort_by: Option<SortBy>,
}

/// `ctl top pods`.
#[derive(Args)]
pub struct TopPods {
    /// Only this one
    pub name: Option<String>,
    /// Only those with these labels: app=web,tier!=db
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "name")]
    pub selector: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long, conflicts_with = "name")]
    pub all_namespaces: bool,
    /// Each container on a line of its own
    #[arg(long)]
    pub containers: bool,
    /// The largest first
    #[arg(long)]
    pub sort_by: Option<SortBy>,
}

/// `--sort-by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SortBy {
    /// Processors
    Cpu,
    /// Memory
    Memory,
}

/// `ctl rollout`.
#[derive(Subcommand)]
pub enum Rollout {
    /// Wait until the newest revision runs
    Status {
        /// TYPE/NAME or TYPE NAME
        #[arg(required = true, value_name = "TYPE/NAME")]
        what: Vec<String>,
        /// How long to wait
        #[arg(long, default_value = "600s", value_parser = parse_duration)]
        timeout: Duration,
    },
    /// The revisions that can be gone back to
    History {
        /// TYPE/NAME or TYPE NAME
        #[arg(required = true, value_name = "TYPE/NAME")]
        what: Vec<String>,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Go back to an earlier revision
    Undo {
        /// TYPE/NAME or TYPE NAME
        #[arg(required = true, value_name = "TYPE/NAME")]
        what: Vec<String>,
        /// Which; default: the one before
        #[arg(long)]
        to_revision: Option<i64>,
    },
    /// Replace every pod, one after another
    Restart {
        /// TYPE/NAME or TYPE NAME
        #[arg(required = true, value_name = "TYPE/NAME")]
        what: Vec<String>,
    },
    /// Stop rolling out changes
    Pause {
        /// TYPE/NAME or TYPE NAME
        #[arg(required = true, value_name = "TYPE/NAME")]
        what: Vec<String>,
    },
    /// Go on rolling out changes
    Resume {
        /// TYPE/NAME or TYPE NAME
        #[arg(required = true, value_name = "TYPE/NAME")]
        what: Vec<String>,
    },
}

/// `ctl wait`.
#[derive(Args)]
pub struct Wait {
    /// TYPE NAME..., TYPE/NAME..., or TYPE with --all or -l
    #[arg(required = true, value_name = "TYPE[/NAME]")]
    pub what: Vec<String>,
    /// condition=NAME[=VALUE], or delete
    #[arg(long = "for", value_name = "WHAT")]
    pub condition: String,
    /// All of the type in the namespace
    #[arg(long)]
    pub all: bool,
    /// Those with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// How long
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// `ctl explain`.
#[derive(Args)]
pub struct Explain {
    /// TYPE/NAME or TYPE NAME
    #[arg(required = true, value_name = "TYPE/NAME")]
    pub what: Vec<String>,
    #[command(flatten)]
    pub output: OutputArg,
}

/// `ctl member`.
#[derive(Subcommand)]
pub enum Member {
    /// Who is in the Raft group
    List(OutputArg),
    /// Admit a master; start it afterwards with `control run --join`
    Add {
        /// Its name
        name: String,
        /// Where its peers will reach it: address:port
        #[arg(long)]
        peer_address: String,
        /// Where clients will reach its API: https://address:port
        #[arg(long)]
        api_url: String,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Put another master in the place of one, dead or alive, in one step
    ///
    /// NEW is the name under which the new machine will join, or a learner. The old one votes on until the new one has
    /// caught up, and goes in the step in which that one votes. The command to run on the new machine is printed.
    Replace {
        /// The name or id of the master that goes
        dead: String,
        /// The name of the master that takes its place; may be the same name, when its machine was rebuilt
        new: String,
        /// How long to wait until it is done; noted is noted, whether this waits or not
        #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = parse_duration)]
        timeout: Duration,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Compare the data of all masters at one revision; one that differs is fed again by itself
    Check(OutputArg),
    /// Take a master out for good
    Remove {
        /// Its name or id
        member: String,
    },
}

/// `ctl image`.
#[derive(Subcommand)]
pub enum Image {
    /// Put the images of an OCI archive on nodes
    Import {
        /// The archive: an OCI layout or what `docker save` writes, gzipped or not
        archive: PathBuf,
        /// Only on this node; may be given several times; default: all
        #[arg(long)]
        node: Vec<String>,
    },
    /// The images on each node
    List(OutputArg),
}

/// `90`, `90s`, `5m`, `2h`, `1m30s`: as Go writes durations.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write it as 90s, 5m or 1h30m");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total = 0;
    let mut digits = String::new();
    for letter in text.chars() {
        if letter.is_ascii_digit() {
            digits.push(letter);
            continue;
        }
        let unit: u64 = match letter {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => return Err(wrong()),
        };
        let count: u64 = digits.parse().map_err(|_| wrong())?;
        total += count.checked_mul(unit).ok_or_else(wrong)?;
        digits.clear();
    }
    if digits.is_empty() && !text.is_empty() {
        Ok(Duration::from_secs(total))
    } else {
        Err(wrong())
    }
}

/// A quantity as Kubernetes writes it: `512Mi`, `2Gi`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let bytes = Quantity::parse(text)
        .map_err(|error| error.to_string())?
        .units();
    u64::try_from(bytes).map_err(|_| format!("{text:?} must not be negative"))
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
    fn durations_are_go_s() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400)] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in ["", "s", "5x", "5m3", "-1s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
