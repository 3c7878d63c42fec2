//! The command line.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::node_object::Amounts;

/// Runs the pods of one machine of a Trireme cluster.
#[derive(Debug, Parser)]
#[command(name = "node", disable_version_flag = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join the cluster, if that was not done yet, and run its pods; ends on SIGTERM and leaves the pods running
    Run(Box<Run>),
    /// End all pods of a data directory and remove their mounts, links, cgroups and rules; the agent must not run
    Cleanup(Cleanup),
    /// List what is left of pods that are no more: mounts, namespaces, links, addresses, cgroups, shims; ends with 1 when there is something
    Leaks(Leaks),
    /// Print the version
    Version,
}

/// Settings of `node run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// Folder for identity, images, pods and logs
    #[arg(long, default_value = "/var/lib/trireme/node")]
    pub data_dir: PathBuf,
    /// The node's name; the machine's host name without it
    #[arg(long)]
    pub name: Option<String>,
    /// The address at which masters and other nodes reach this one
    #[arg(long)]
    pub address: Ipv4Addr,
    /// API URLs of the masters; needed to join, later the saved list is used too
    #[arg(long, value_delimiter = ',')]
    pub server: Vec<String>,
    /// File with the join token; needed to join
    #[arg(long)]
    pub token_file: Option<PathBuf>,
    /// The shim's binary; the one beside this program without it
    #[arg(long)]
    pub shim: Option<PathBuf>,
    /// Name of this agent's branch of the cgroup tree; made of the node's name without it
    #[arg(long)]
    pub cgroup_root: Option<String>,
    /// Port of the kubelet API
    #[arg(long, default_value_t = 10250)]
    pub kubelet_port: u16,
    /// Pods that the scheduler may place here
    #[arg(long, default_value_t = 110)]
    pub max_pods: u32,
    /// A label for the node, KEY=VALUE; may be repeated
    #[arg(long = "node-label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// A registry that is reached by plain HTTP; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure_registry: Vec<String>,
    /// What must be left of memory, disk and processes; below it pods are evicted at once
    #[arg(
        long,
        value_name = "SIGNAL<AMOUNT,...>",
        default_value = "memory.available<100Mi,nodefs.available<5%,nodefs.inodesFree<5%"
    )]
    pub eviction_hard: String,
    /// The same for pods that are evicted when it has been so for a grace period
    #[arg(long, value_name = "SIGNAL<AMOUNT,...>", default_value = "")]
    pub eviction_soft: String,
    /// The grace periods, as in memory.available=90s
    #[arg(long, value_name = "SIGNAL=TIME,...", value_delimiter = ',', value_parser = parse_grace)]
    pub eviction_soft_grace_period: Vec<(String, Duration)>,
    /// The longest that a pod gets to end which is evicted for a soft threshold, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub eviction_max_pod_grace_period: u32,
    /// How long the node tells a pressure after its last sign
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    pub eviction_pressure_transition_period: Duration,
    /// What the system needs: cpu=500m,memory=1Gi,ephemeral-storage=1Gi
    #[arg(long, value_name = "RESOURCE=AMOUNT,...", default_value = "", value_parser = Amounts::parse)]
    pub system_reserved: Amounts,
    /// What this agent and its like need
    #[arg(long, value_name = "RESOURCE=AMOUNT,...", default_value = "", value_parser = Amounts::parse)]
    pub kube_reserved: Amounts,
    /// Hundredths of the disk from which on images go that nobody uses
    #[arg(long, value_name = "PERCENT", default_value_t = 85, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub image_gc_high_threshold: u8,
    /// Hundredths of the disk at which enough of them are gone
    #[arg(long, value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub image_gc_low_threshold: u8,
    /// Images that are known for less stay
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = parse_duration)]
    pub minimum_image_ttl_duration: Duration,
    /// How long pods get when the machine goes down: on SIGPWR, or on SIGTERM while systemd stops the system; 0 leaves them to the machine
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub shutdown_grace_period: Duration,
    /// How much of it is for the pods that the cluster needs, which end last
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub shutdown_grace_period_critical_pods: Duration,
    /// Renew the node's certificates at once, whatever is left of them; otherwise they are renewed when four fifths of their time are over
    #[arg(long)]
    pub renew_certificate: bool,
}

/// Settings of `node leaks`.
#[derive(Clone, Debug, Args)]
pub struct Leaks {
    /// The folder that `node run` was given
    #[arg(long, default_value = "/var/lib/trireme/node")]
    pub data_dir: PathBuf,
}

/// Settings of `node cleanup`.
#[derive(Clone, Debug, Args)]
pub struct Cleanup {
    /// The folder that `node run` was given
    #[arg(long, default_value = "/var/lib/trireme/node")]
    pub data_dir: PathBuf,
    /// The shim's binary; the one beside this program without it
    #[arg(long)]
    pub shim: Option<PathBuf>,
}

/// Reads a time like 90s or 1m30s.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = |_| format!("{text:?} is no time like 90s, 5m or 1m30s");
    let signed: jiff::SignedDuration = text.parse().map_err(wrong)?;
    Duration::try_from(signed).map_err(wrong)
}

fn parse_grace(text: &str) -> Result<(String, Duration), String> {
    let (signal, time) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not SIGNAL=TIME, as in memory.available=90s"))?;
    Ok((signal.to_owned(), parse_duration(time)?))
}
