//! In which order pods are evicted: first those that use more than they request, of these the ones of lower priority, of these
//! those that are farthest above their requests.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Container;
use objects::Quantity;

use super::{Eviction, Reading, Signal, Threshold};
use crate::Desired;
use crate::resources::value;

/// Pods from this priority on keep the cluster alive and are not evicted.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// A pod that could be evicted.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The pod.
    pub pod: Arc<Desired>,
    /// What its running containers use.
    pub containers: Vec<ContainerUsage>,
    /// Bytes that its volumes take of the node's disk, by name.
    pub volumes: Vec<(String, u64)>,
    /// Files that it has on the node's disk.
    pub inodes: u64,
    /// Its processes and threads.
    pub pids: u64,
}

/// What a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Its name.
    pub name: String,
    /// Bytes of its working set.
    pub memory_bytes: u64,
    /// Bytes that it wrote and logged.
    pub disk_bytes: u64,
}

/// Whether a pod is never evicted: the cluster's own, and those of the node's folder.
pub(super) fn is_critical(pod: &Desired) -> bool {
    let annotations = pod.metadata().annotations.as_ref();
    let is_of_node = annotations.is_some_and(|all| {
        all.contains_key("kubernetes.io/config.mirror")
            || all
                .get("kubernetes.io/config.source")
                .is_some_and(|it| it != "api")
    });
    is_of_node
        || pod
            .spec()
            .priority
            .is_some_and(|priority| priority >= CRITICAL_PRIORITY)
}

/// Chooses the pod that goes for a threshold; none where nobody may.
pub(super) fn evict(
    threshold: &Threshold,
    reading: &Reading,
    grace_max: u32,
    pods: &[Candidate],
) -> Option<Eviction> {
    let signal = threshold.signal;
    let mut ranked: Vec<&Candidate> = pods
        .iter()
        .filter(|it| !is_critical(&it.pod) && !it.pod.is_deleting() && !it.pod.has_ended())
        .collect();
    ranked.sort_by_key(|it| {
        let (used, requested) = (used(signal, it), requested(signal, &it.pod));
        let priority = it.pod.spec().priority.unwrap_or(0);
        let above = i128::from(used) - i128::from(requested);
        (
            Reverse(above > 0),
            priority,
            Reverse(above),
            it.pod.uid.clone(),
        )
    });
    let chosen = ranked.first()?;
    let asked = chosen.pod.grace_s();
    Some(Eviction {
        uid: chosen.pod.uid.clone(),
        message: message(threshold, reading, chosen),
        grace_s: asked.min(grace_max),
    })
}

fn used(signal: Signal, candidate: &Candidate) -> u64 {
    let containers = candidate.containers.iter();
    match signal {
        Signal::MemoryAvailable => containers.map(|it| it.memory_bytes).sum(),
        Signal::NodefsAvailable | Signal::ImagefsAvailable => {
            let written: u64 = containers.map(|it| it.disk_bytes).sum();
            written
                + candidate
                    .volumes
                    .iter()
                    .map(|(_, bytes)| bytes)
                    .sum::<u64>()
        }
        Signal::NodefsInodesFree | Signal::ImagefsInodesFree => candidate.inodes,
        Signal::PidAvailable => candidate.pids,
    }
}

fn requested(signal: Signal, pod: &Desired) -> u64 {
    let Some(resource) = requestable(signal) else {
        return 0;
    };
    let containers = pod.spec().containers.iter();
    containers.map(|it| request(it, resource)).sum()
}

/// The resource that pods request of what a signal measures.
fn requestable(signal: Signal) -> Option<&'static str> {
    match signal {
        Signal::MemoryAvailable | Signal::NodefsAvailable | Signal::ImagefsAvailable => {
            Some(signal.resource())
        }
        _ => None,
    }
}

fn request(container: &Container, resource: &str) -> u64 {
    let resources = container.resources.as_ref();
    let amount =
        resources.and_then(|it| value(&it.requests, resource).or(value(&it.limits, resource)));
    u64::try_from(amount.map_or(0, Quantity::units)).unwrap_or(0)
}

/// The kubelet's words.
fn message(threshold: &Threshold, reading: &Reading, candidate: &Candidate) -> String {
    let (signal, resource) = (threshold.signal, threshold.signal.resource());
    let quantity = threshold.value.of(reading.capacity);
    let mut message = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        signal.told(quantity),
        signal.told(reading.available)
    );
    if requestable(signal).is_none() {
        return message;
    }
    for usage in &candidate.containers {
        let used = match signal {
            Signal::MemoryAvailable => usage.memory_bytes,
            _ => usage.disk_bytes,
        };
        let spec = candidate.pod.spec();
        let container = spec.containers.iter().find(|it| it.name == usage.name);
        let request = container.map_or(0, |container| request(container, resource));
        if used > request {
            message.push_str(&format!(
                "Container {} was using {}, request is {}, has larger consumption of {resource}. ",
                usage.name,
                signal.told(used),
                signal.told(request)
            ));
        }
    }
    message
}
