//! What every part of the agent works with.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use client::Client;
use lifecycle::eviction::Pressure;
use network::Network;
use node_runtime::Pods;
use tokio::sync::watch;

use crate::events::Recorder;
use crate::net::host_ports::HostPorts;
use crate::net::policies::Policies;
use crate::pods::known::{Known, ProbeCounts};
use crate::pods::spec::Surroundings;
use crate::pods::tokens::Tokens;
use crate::stats;

/// Shared by the workers and the kubelet API.
pub struct Context {
    /// The node's name.
    pub node: String,
    /// The node's address.
    pub address: std::net::Ipv4Addr,
    /// The API.
    pub client: Client,
    /// Containers.
    pub pods: Pods,
    /// Links, rules and names.
    pub network: Arc<Network>,
    /// Events.
    pub events: Recorder,
    /// Tokens of the pods' service accounts.
    pub tokens: Tokens,
    /// The pods as their workers were told of them.
    pub known: Known,
    /// Answers of the pods' probes.
    pub probe_counts: ProbeCounts,
    /// What the pods use.
    pub stats: stats::Store,
    /// Host ports of all pods.
    pub host_ports: HostPorts,
    /// Network policies.
    pub policies: Policies,
    /// Where containers log: `POD/CONTAINER/ATTEMPT.log` below it.
    pub logs: PathBuf,
    /// Where containers leave their last words.
    pub messages: PathBuf,
    /// Cluster and node, as sandboxes see them.
    pub around: Surroundings,
    /// Processors, in thousandths.
    pub cpu_milli: i64,
    /// What the node is short of.
    pub pressures: watch::Receiver<BTreeSet<Pressure>>,
    /// Whether the machine goes down.
    pub shuts_down: watch::Receiver<bool>,
    /// What the node has for pods.
    pub allocatable: lifecycle::Amount,
    /// The machine's boot.
    pub boot_id: String,
    /// The address of the service `kubernetes`.
    pub api_service: Option<std::net::Ipv4Addr>,
}

impl Context {
    /// The folder of a pod's logs.
    pub fn pod_logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.logs.join(format!("{namespace}_{name}_{uid}"))
    }
}
