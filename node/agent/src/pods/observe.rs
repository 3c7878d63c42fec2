//! How a pod stands on this node, as `lifecycle` wants to see it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifecycle::{
    Container, ContainerState, Desired, Exit, Observed, ProbeKind, Pull, ResizeFailure, Sandbox,
    StartFailure, Tally, Volumes,
};
use node_runtime::{ContainerStatus, PodStatus};
use objects::Timestamp;

use super::spec::{IMAGE_LABEL, LEVEL_LABEL, RESOURCES_LABEL};
use crate::context::Context;

/// Kubernetes' limit on a container's last words.
const MESSAGE_BYTES_MAX: usize = 4096;

/// What only the worker knows: it is forgotten with the agent, and then found again by looking.
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// Making the sandbox failed.
    pub sandbox_failure: Option<(String, Timestamp)>,
    /// The sandbox's shim is gone.
    pub lost: bool,
    /// The volumes.
    pub volumes: Volumes,
    /// Pulls by container.
    pub pulls: BTreeMap<String, Pull>,
    /// How often in a row the pull for a container has failed.
    pub pull_failures: BTreeMap<String, u32>,
    /// Starts that failed for what the pod refers to.
    pub start_failures: BTreeMap<String, StartFailure>,
    /// Starts that failed in the container.
    pub failed_starts: Vec<Container>,
    /// Changes of resources that failed.
    pub resize_failures: BTreeMap<String, ResizeFailure>,
    /// Probes.
    pub probes: BTreeMap<(String, ProbeKind), Tally>,
    /// Containers that are being stopped, and when SIGKILL is due.
    pub stopping: BTreeMap<String, Timestamp>,
}

impl Local {
    /// Whether a container is being stopped.
    pub fn has_stopping(&self) -> bool {
        !self.stopping.is_empty()
    }
}

/// Looks.
pub async fn observe(context: &Context, desired: &Desired, local: &Local) -> Observed {
    let status = context.pods.get(&desired.uid);
    let mut containers: Vec<Container> = status
        .iter()
        .flat_map(|pod| &pod.containers)
        .map(|container| seen(context, desired, container, local))
        .collect();
    containers.extend(local.failed_starts.iter().cloned());
    let pod_ip = match network::PodUid::parse(desired.uid.clone()) {
        _ if desired.host_network() => Some(context.address),
        Ok(uid) => context.network.pod_ip(&uid).await,
        Err(_) => None,
    };
    Observed {
        sandbox: sandbox(status.as_ref(), local),
        host_ip: context.address.to_string(),
        pod_ip: pod_ip.map(|ip| ip.to_string()),
        volumes: local.volumes.clone(),
        containers,
        pulls: local.pulls.clone(),
        images_present: images_present(context, desired),
        start_failures: local.start_failures.clone(),
        resize_failures: local.resize_failures.clone(),
        ended: context.known.ended(&desired.uid),
        room: Some(context.known.room(&desired.uid, context.allocatable)),
        probes: local.probes.clone(),
    }
}

fn sandbox(status: Option<&PodStatus>, local: &Local) -> Sandbox {
    match (status, &local.sandbox_failure) {
        (Some(_), _) if local.lost => Sandbox::Lost,
        (Some(pod), _) => Sandbox::Ready {
            since: Timestamp(pod.created_at),
        },
        (None, Some((message, retry_at))) => Sandbox::Failed {
            message: message.clone(),
            retry_at: *retry_at,
        },
        (None, None) => Sandbox::Absent,
    }
}

fn images_present(context: &Context, desired: &Desired) -> Vec<String> {
    let mut images: Vec<&str> = desired
        .containers()
        .iter()
        .map(|view| view.image())
        .collect();
    images.sort_unstable();
    images.dedup();
    let present = |image: &&str| matches!(context.pods.images().resolve(image), Ok(Some(_)));
    images
        .into_iter()
        .filter(present)
        .map(str::to_owned)
        .collect()
}

fn seen(
    context: &Context,
    desired: &Desired,
    container: &ContainerStatus,
    local: &Local,
) -> Container {
    let spec = &container.spec;
    let label = |name: &str| spec.labels.get(name).map(String::as_str);
    let state = match &container.state {
        node_runtime::ContainerState::Created => ContainerState::Created,
        node_runtime::ContainerState::Running { started_at, .. } => ContainerState::Running {
            started_at: Timestamp(*started_at),
        },
        node_runtime::ContainerState::Exited(exit) => ContainerState::Exited(Exit {
            code: exit.code,
            signal: exit.signal,
            reason: exit.reason.to_owned(),
            message: last_words(&message_path(context, desired, &spec.name, spec.attempt))
                .unwrap_or_else(|| exit.message.clone()),
            started_at: Some(Timestamp(exit.started_at)),
            finished_at: Timestamp(exit.finished_at),
        }),
    };
    Container {
        name: spec.name.clone(),
        id: container.id.clone(),
        attempt: spec.attempt,
        level: label(LEVEL_LABEL)
            .and_then(|level| level.parse().ok())
            .unwrap_or(0),
        image: label(IMAGE_LABEL).unwrap_or(&spec.image).to_owned(),
        image_id: container.image_digest.clone(),
        state,
        stopping_until: local.stopping.get(&container.id).copied(),
        resources: label(RESOURCES_LABEL).and_then(|text| serde_json::from_str(text).ok()),
    }
}

/// The file that a container's `terminationMessagePath` is.
pub fn message_path(
    context: &Context,
    desired: &Desired,
    container: &str,
    attempt: u32,
) -> PathBuf {
    context
        .messages
        .join(&desired.uid)
        .join(format!("{container}.{attempt}"))
}

fn last_words(path: &Path) -> Option<String> {
    let words = std::fs::read(path).ok()?;
    let words = String::from_utf8_lossy(&words[..words.len().min(MESSAGE_BYTES_MAX)]).into_owned();
    Some(words).filter(|words| !words.is_empty())
}
