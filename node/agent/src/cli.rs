//! The command line.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
    /// Renew the node's certificates at once, whatever is left of them; otherwise they are renewed when four fifths of their time are over
    #[arg(long)]
    pub renew_certificate: bool,
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
