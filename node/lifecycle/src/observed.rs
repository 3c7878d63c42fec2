//! What the agent sees of a pod on its node.

use std::collections::BTreeMap;

use objects::Timestamp;

use crate::probe::{ProbeKind, Tally};
use crate::resources::Applied;

/// A pod as it stands on the node.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The pod's sandbox.
    pub sandbox: Sandbox,
    /// The node's address.
    pub host_ip: String,
    /// The pod's address, once it has one.
    pub pod_ip: Option<String>,
    /// The pod's volumes.
    pub volumes: Volumes,
    /// All containers that are known, those that ended among them.
    pub containers: Vec<Container>,
    /// Pulls by container.
    pub pulls: BTreeMap<String, Pull>,
    /// Images of the pod, as it names them, that are on the node.
    pub images_present: Vec<String>,
    /// Starts that failed before there was a container.
    pub start_failures: BTreeMap<String, StartFailure>,
    /// Changes of resources that could not be made, by container.
    pub resize_failures: BTreeMap<String, ResizeFailure>,
    /// What the node has for this pod; None where nobody counted.
    pub room: Option<Room>,
    /// Set when the node ends the pod.
    pub ended: Option<Ended>,
    /// Probes by container id.
    pub probes: BTreeMap<(String, ProbeKind), Tally>,
}

impl Observed {
    /// Whether there is a sandbox to be taken down.
    pub fn has_sandbox(&self) -> bool {
        matches!(self.sandbox, Sandbox::Ready { .. } | Sandbox::Lost)
    }

    /// Whether a container is in the making or runs.
    pub fn is_any_alive(&self) -> bool {
        self.containers
            .iter()
            .any(|container| !matches!(container.state, ContainerState::Exited(_)))
    }
}

/// How a sandbox stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sandbox {
    /// There is none.
    #[default]
    Absent,
    /// Making it failed.
    Failed {
        /// What the node said.
        message: String,
        /// When to try again.
        retry_at: Timestamp,
    },
    /// It is there.
    Ready {
        /// Since when.
        since: Timestamp,
    },
    /// What held its containers is gone, and them with it.
    Lost,
}

/// How volumes stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Volumes {
    /// Not made yet.
    #[default]
    Unmounted,
    /// Something is missing.
    Failed {
        /// What.
        message: String,
        /// When to try again.
        retry_at: Timestamp,
    },
    /// All are there.
    Ready,
}

/// A container on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its name in the pod.
    pub name: String,
    /// Its id; empty for one that could not be started.
    pub id: String,
    /// How many of this name went before.
    pub attempt: u32,
    /// How far the back-off was when it was started.
    pub level: u32,
    /// The image as the pod named it at the start.
    pub image: String,
    /// `name@sha256:...`.
    pub image_id: String,
    /// How it stands.
    pub state: ContainerState,
    /// When SIGKILL is due, for one that is being stopped.
    pub stopping_until: Option<Timestamp>,
    /// The resources that it was given, at its start or since; none where nobody knows any more.
    pub resources: Option<Applied>,
}

/// How the node ends a pod: evicted, or because it is shut down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// `Evicted`, `Terminated`.
    pub reason: &'static str,
    /// For the user.
    pub message: String,
    /// Seconds that its containers get.
    pub grace_s: u32,
}

/// A change of resources that could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResizeFailure {
    /// What the kernel or the runtime said.
    pub message: String,
    /// When to try again.
    pub retry_at: Timestamp,
}

/// What a node has for one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What it has for pods.
    pub allocatable: Amount,
    /// What its other pods request.
    pub used: Amount,
}

/// Processors and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Thousandths of a processor.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory_bytes: i64,
}

/// How a container stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Being started.
    Created,
    /// It runs.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// It ended.
    Exited(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 128 + signal for one that a signal ended.
    pub code: i32,
    /// The signal, or 0.
    pub signal: i32,
    /// `Completed`, `Error`, `OOMKilled`, ...
    pub reason: String,
    /// For the user.
    pub message: String,
    /// When it began; none if it never did.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// A pull for a container's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// For which start; an older one does not count.
    pub attempt: u32,
    /// The image.
    pub image: String,
    /// How it stands.
    pub state: PullState,
}

/// How a pull stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullState {
    /// It goes on.
    Running,
    /// The image is there.
    Done,
    /// It failed.
    Failed {
        /// `ErrImagePull`, `InvalidImageName`.
        reason: String,
        /// What the registry said.
        message: String,
        /// When.
        at: Timestamp,
        /// How often in a row, from 1.
        failures: u32,
    },
}

/// A start that failed for what the pod refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// `CreateContainerConfigError`, `CreateContainerError`.
    pub reason: String,
    /// What is missing.
    pub message: String,
    /// When to try again.
    pub retry_at: Timestamp,
}
