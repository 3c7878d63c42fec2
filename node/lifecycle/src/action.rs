//! What a step tells the agent to do. An action prints as the stories of the tests read it.

use std::fmt;

use k8s_openapi::api::core::v1::PodStatus;
use objects::Timestamp;

use crate::probe::ProbeKind;

/// What is to be done now, how the pod stands, and when to look again if nothing happens before.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// In this order; those that concern one container never depend on those of another.
    pub actions: Vec<Action>,
    /// The pod's status; none where what the API has must stay as it is.
    pub status: Option<PodStatus>,
    /// When time alone changes something.
    pub wake_at: Option<Timestamp>,
}

/// One thing to do. Each may be told again until it is seen to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Network, cgroup, shim.
    CreateSandbox,
    /// Folders and files of the pod's volumes.
    MountVolumes,
    /// Fetch an image for a container's next start.
    Pull {
        /// The container.
        container: String,
        /// The image as the pod names it.
        image: String,
        /// For which start.
        attempt: u32,
    },
    /// Start a container.
    Start {
        /// Its name.
        container: String,
        /// How many of this name went before.
        attempt: u32,
        /// How far its back-off is; to be given back as [`crate::Container::level`].
        level: u32,
    },
    /// End a container: its signal, and SIGKILL after the grace.
    Stop {
        /// Its name.
        container: String,
        /// Its id.
        id: String,
        /// Seconds until SIGKILL.
        grace_s: u32,
        /// Why.
        why: StopReason,
    },
    /// Give a running container the resources that the pod asks for.
    Resize {
        /// Its name.
        container: String,
        /// Its id.
        id: String,
    },
    /// Probe a container and record the answer in its tally.
    Probe {
        /// Its name.
        container: String,
        /// Its id.
        id: String,
        /// Which probe.
        kind: ProbeKind,
    },
    /// Forget a container that ended.
    RemoveContainer {
        /// Its id.
        id: String,
    },
    /// Take the sandbox away with all that is in it, after the status was written.
    RemoveSandbox,
    /// Delete the pod's object with grace 0.
    DeleteFromApi,
}

/// Why a container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The pod is deleted.
    Deleted,
    /// The pod has ended: failed, evicted, past its deadline, or all but its sidecars are done.
    PodEnded,
    /// The liveness probe failed.
    Unhealthy,
    /// The startup probe failed.
    NeverStarted,
    /// The pod names another image now.
    Changed,
    /// The pod asks for other resources, which this container takes only at a start.
    Resized,
}

impl StopReason {
    /// The message of the event `Killing`.
    pub fn message(self, container: &str) -> String {
        match self {
            StopReason::Deleted | StopReason::PodEnded => format!("Stopping container {container}"),
            StopReason::Unhealthy => {
                format!("Container {container} failed liveness probe, will be restarted")
            }
            StopReason::NeverStarted => {
                format!("Container {container} failed startup probe, will be restarted")
            }
            StopReason::Resized => {
                format!("Container {container} resize requires restart")
            }
            StopReason::Changed => {
                format!("Container {container} definition changed, will be restarted")
            }
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::CreateSandbox => f.write_str("create sandbox"),
            Action::MountVolumes => f.write_str("mount volumes"),
            Action::Pull {
                container,
                image,
                attempt,
            } => write!(f, "pull {image} for {container} attempt {attempt}"),
            Action::Start {
                container,
                attempt,
                level,
            } => write!(f, "start {container} attempt {attempt} level {level}"),
            Action::Stop {
                container,
                id,
                grace_s,
                why,
            } => write!(f, "stop {container} ({id}) grace {grace_s}s: {why:?}"),
            Action::Resize { container, id } => write!(f, "resize {container} ({id})"),
            Action::Probe {
                container,
                id,
                kind,
            } => write!(f, "probe {container} ({id}) {kind}"),
            Action::RemoveContainer { id } => write!(f, "remove container {id}"),
            Action::RemoveSandbox => f.write_str("remove sandbox"),
            Action::DeleteFromApi => f.write_str("delete from the API"),
        }
    }
}
