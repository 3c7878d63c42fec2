//! What a pod's status says. Semantics: Kubernetes' `podutil`.

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use objects::Timestamp;
use std::time::Duration;

/// The phase, `Pending` when the pod has none yet.
pub fn phase(pod: &Pod) -> &str {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    phase.unwrap_or("Pending")
}

/// Whether it ended for good.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether deletion was asked.
pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether it counts as a replica: neither ended nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_deleting(pod)
}

/// The node that it is bound to.
pub fn node_name(pod: &Pod) -> Option<&str> {
    let name = pod.spec.as_ref()?.node_name.as_deref()?;
    (!name.is_empty()).then_some(name)
}

/// A condition of the pod.
pub fn condition<'a>(pod: &'a Pod, condition_type: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == condition_type)
}

/// Whether its condition `Ready` is true.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Since when it is ready; None when it is not or nobody said since when.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    ready
        .last_transition_time
        .as_ref()
        .map(|time| Timestamp(time.0))
}

/// When a ready pod becomes available: ready for `min_ready` without a break. None when it is not ready.
pub fn available_at(pod: &Pod, min_ready: Duration) -> Option<Timestamp> {
    if !is_ready(pod) {
        return None;
    }
    match ready_since(pod) {
        Some(since) => Some(since.plus(min_ready)),
        None => min_ready.is_zero().then_some(Timestamp::from_unix(0)),
    }
}

/// Whether it is available now.
pub fn is_available(pod: &Pod, min_ready: Duration, now: Timestamp) -> bool {
    available_at(pod, min_ready).is_some_and(|at| at <= now)
}

/// How often its containers were restarted: the most restarted counts.
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    statuses
        .map(|status| status.restart_count)
        .max()
        .unwrap_or(0)
}
