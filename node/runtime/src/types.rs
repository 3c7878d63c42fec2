//! What the agent asks for: pods and containers as plain data, without the API's objects.
//! Serialised beside each pod, so that a new agent finds what an old one had started.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A pod's UID, which is also the name of its folder.
pub type PodUid = String;

/// 64 hexadecimal digits, random.
pub type ContainerId = String;

/// A pod's sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodSpec {
    /// UID of the API's pod, or of a static one: letters, digits, `-`, `_`, `.`.
    pub uid: PodUid,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Host name inside. None shares the node's UTS namespace (`hostNetwork`).
    pub hostname: Option<String>,
    /// Path of the network namespace, which the caller makes and removes. None is the node's own.
    pub netns: Option<PathBuf>,
    /// Shares the node's IPC namespace.
    pub host_ipc: bool,
    /// One PID namespace for all containers (`shareProcessNamespace`).
    pub share_pid: bool,
    /// Which branch of the cgroup tree.
    pub qos: Qos,
    /// Limits of the pod as a whole.
    pub limits: Limits,
    /// Content of `/etc/resolv.conf`; None leaves the image's.
    pub resolv_conf: Option<String>,
    /// Content of `/etc/hosts`; None leaves the image's.
    pub hosts: Option<String>,
    /// Kernel parameters of the pod's namespaces, by dotted name.
    pub sysctls: BTreeMap<String, String>,
    /// For the caller; kept, never read.
    pub labels: BTreeMap<String, String>,
}

/// Kubernetes' quality of service class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Qos {
    /// Limits equal requests.
    Guaranteed,
    /// Some requests.
    Burstable,
    /// None.
    #[default]
    BestEffort,
}

/// Limits of a cgroup; None leaves the kernel's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Weight of cgroup v1, 2 to 262144: 1024 a CPU of request.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU a period.
    pub cpu_quota_us: Option<i64>,
    /// Microseconds; 100000 where None.
    pub cpu_period_us: Option<u64>,
    /// Bytes.
    pub memory_bytes_max: Option<i64>,
    /// Processes and threads.
    pub pids_max: Option<i64>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Name in the pod.
    pub name: String,
    /// How many of this name went before.
    pub attempt: u32,
    /// Reference of an image that is on this node.
    pub image: String,
    /// Replaces the image's entrypoint and, where `args` is empty, its command too. Empty for the image's.
    pub command: Vec<String>,
    /// Replaces the image's command. Empty for the image's.
    pub args: Vec<String>,
    /// Added to, and where the name is the same put in place of, the image's.
    pub env: Vec<(String, String)>,
    /// None for the image's, or `/`.
    pub working_dir: Option<String>,
    /// With a terminal.
    pub tty: bool,
    /// With a standard input that can be attached to.
    pub stdin: bool,
    /// Standard input ends with the first attached client.
    pub stdin_once: bool,
    /// Users and privileges.
    pub security: Security,
    /// What is mounted beside the usual.
    pub mounts: Vec<Mount>,
    /// Limits of its cgroup.
    pub limits: Limits,
    /// -1000 to 1000.
    pub oom_score_adj: i32,
    /// Resource limits; NOFILE is 1048576 where not given.
    pub rlimits: Vec<Rlimit>,
    /// Which PID namespace.
    pub pid_namespace: PidNamespace,
    /// Log file in the CRI's format; None for none.
    pub log_path: Option<PathBuf>,
    /// When the log is rotated and how many files are kept.
    pub log_limits: LogLimits,
    /// For the caller; kept, never read.
    pub labels: BTreeMap<String, String>,
}

/// How a container's log is rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Bytes of one file.
    pub bytes_max: u64,
    /// Files, the current one among them.
    pub files_max: u32,
}

impl Default for LogLimits {
    /// As a kubelet: 10 MiB, 5 files.
    fn default() -> Self {
        Self {
            bytes_max: 10 << 20,
            files_max: 5,
        }
    }
}

/// A PID namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidNamespace {
    /// Its own, or the pod's where `share_pid` is set.
    #[default]
    Own,
    /// The node's.
    Host,
    /// Another container's of the pod (ephemeral containers).
    Container(ContainerId),
}

/// A limit of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE`.
    pub kind: String,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// Users and privileges, as a security context resolves to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// None for the image's.
    pub run_as_user: Option<u32>,
    /// None for the image's, or 0 with `run_as_user`.
    pub run_as_group: Option<u32>,
    /// Refuses to run as root.
    pub run_as_non_root: bool,
    /// Further groups (`supplementalGroups`, `fsGroup`).
    pub supplemental_groups: Vec<u32>,
    /// `NET_ADMIN`, with or without `CAP_`; `ALL`.
    pub capabilities_add: Vec<String>,
    /// As above; dropped before `capabilities_add` is added.
    pub capabilities_drop: Vec<String>,
    /// All capabilities and devices, nothing masked.
    pub privileged: bool,
    /// The root file system is read-only.
    pub read_only_root: bool,
    /// Privileges cannot be gained (`allowPrivilegeEscalation: false`).
    pub no_new_privileges: bool,
    /// System calls.
    pub seccomp: Seccomp,
    /// `/proc` is not masked (`procMount: Unmasked`).
    pub unmasked_proc: bool,
}

/// Which system calls are allowed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Seccomp {
    /// All.
    #[default]
    Unconfined,
    /// The allow-list that runtimes use by default.
    RuntimeDefault,
    /// A profile of the node, in the OCI runtime spec's form.
    Localhost(serde_json::Value),
}

/// A bind mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// On the node; must exist.
    pub host_path: PathBuf,
    /// In the container.
    pub container_path: PathBuf,
    /// Cannot be written.
    pub read_only: bool,
    /// Who sees later mounts.
    pub propagation: Propagation,
}

/// Mount propagation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Nobody.
    #[default]
    None,
    /// The container sees the node's.
    HostToContainer,
    /// Both see each other's.
    Bidirectional,
}

/// How a container stands.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerState {
    /// Being started.
    Created,
    /// Its first process lives.
    Running {
        /// Process id on the node.
        pid: i32,
        /// Since when.
        started_at: jiff::Timestamp,
    },
    /// Its first process ended.
    Exited(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 128 + signal for one that a signal ended.
    pub code: i32,
    /// The signal, or 0.
    pub signal: i32,
    /// The kernel killed it for lack of memory.
    pub oom_killed: bool,
    /// When it began.
    pub started_at: jiff::Timestamp,
    /// When it ended.
    pub finished_at: jiff::Timestamp,
    /// `Completed`, `Error`, `OOMKilled`, `ContainerStatusUnknown`.
    pub reason: &'static str,
    /// For the user, where the reason does not say it all.
    pub message: String,
}

/// A container as the node knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerStatus {
    /// Its id.
    pub id: ContainerId,
    /// What it was started from.
    pub spec: ContainerSpec,
    /// Digest of the image's configuration.
    pub image_id: String,
    /// `name@sha256:…` of the image.
    pub image_digest: String,
    /// When its folder was made.
    pub created_at: jiff::Timestamp,
    /// How it stands.
    pub state: ContainerState,
}

/// A pod as the node knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct PodStatus {
    /// What it was made from.
    pub spec: PodSpec,
    /// When its folder was made.
    pub created_at: jiff::Timestamp,
    /// Its containers, those that ended among them, oldest first.
    pub containers: Vec<ContainerStatus>,
}

/// What `Pods::subscribe` tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A container's first process ended.
    Exited {
        /// The pod.
        pod: PodUid,
        /// The container.
        container: ContainerId,
        /// How.
        exit: Exit,
    },
}

/// A pod and what it uses now.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The pod.
    pub status: PodStatus,
    /// All of it together.
    pub usage: Stats,
    /// Its running containers.
    pub containers: BTreeMap<ContainerId, Stats>,
    /// The interfaces of its network namespace, but the loopback; none where no container runs or the node's network is shared.
    pub interfaces: Vec<Interface>,
}

/// What went through a network interface since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// `eth0`.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets that were not received rightly.
    pub rx_errors: u64,
    /// Packets received and dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets dropped before they were sent.
    pub tx_dropped: u64,
}

/// What a container uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nanoseconds of CPU since its start.
    pub cpu_ns: u64,
    /// Bytes, reclaimable file cache among them.
    pub memory_bytes: u64,
    /// Bytes that cannot be dropped easily: usage without inactive files.
    pub memory_working_set_bytes: u64,
    /// Bytes of anonymous memory.
    pub memory_rss_bytes: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that read a disk.
    pub major_page_faults: u64,
    /// Processes and threads.
    pub pids: u64,
}
