//! One decision, and many.

use crate::filter;
use crate::needs::Needs;
use crate::score::{self, Candidate};
use crate::snapshot::{NodeState, Snapshot, bound_to, uid_of};
use k8s_openapi::api::core::v1::Pod;
use objects::NodeName;
use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To this node.
    Bind(NodeName),
    /// To none now.
    Unschedulable {
        /// The reason of the condition `PodScheduled`: `Unschedulable` or `SchedulingGated`.
        reason: &'static str,
        /// The message of the condition, in Kubernetes' words.
        message: String,
    },
}

/// Whether the pod waits for this scheduler: not bound, not ended, not being deleted, and not another scheduler's.
pub fn is_pending(pod: &Pod) -> bool {
    let scheduler = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.scheduler_name.as_deref());
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    bound_to(pod).is_none()
        && pod.metadata.deletion_timestamp.is_none()
        && matches!(scheduler, None | Some("" | "default-scheduler"))
        && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Decides for one pod. The seed only chooses among nodes that are equally good.
pub fn decide(pod: &Pod, snapshot: &Snapshot, seed: u64) -> Decision {
    if is_gated(pod) {
        return Decision::Unschedulable {
            reason: "SchedulingGated",
            message: "Scheduling is blocked due to non-empty scheduling gates".to_owned(),
        };
    }
    let needs = Needs::of(pod, snapshot);
    let candidates: Vec<Candidate<'_>> = snapshot
        .nodes()
        .filter(|node| filter::passes(&needs, node))
        .map(|node| Candidate::new(&needs, node))
        .collect();
    match score::best(&candidates, seed) {
        Some(node) => Decision::Bind(node.name.clone()),
        None => Decision::Unschedulable {
            reason: "Unschedulable",
            message: message(&needs, snapshot),
        },
    }
}

/// Decides for many pods, the most important and then the oldest first, each assumed in the snapshot before the next is
/// looked at. The decisions come in the order of the pods. Whoever cannot bind one calls [`Snapshot::forget`].
pub fn decide_batch<P: Borrow<Pod>>(
    pods: &[P],
    snapshot: &mut Snapshot,
    seed: u64,
) -> Vec<Decision> {
    let mut order: Vec<usize> = (0..pods.len()).collect();
    order.sort_by_key(|at| {
        let pod: &Pod = pods[*at].borrow();
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority);
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (Reverse(priority.unwrap_or(0)), created)
    });
    let mut decisions: Vec<Option<Decision>> = vec![None; pods.len()];
    for at in order {
        let pod = pods[at].borrow();
        let decision = decide(pod, snapshot, seed.wrapping_add(at as u64));
        if let Decision::Bind(node) = &decision {
            snapshot.assume(pod, node);
        }
        decisions[at] = Some(decision);
    }
    decisions.into_iter().flatten().collect()
}

/// Why the pod cannot be on each node; an empty list means that it can. A pod that counts on a node already is judged as
/// though it did not.
pub fn explain(pod: &Pod, snapshot: &Snapshot) -> BTreeMap<NodeName, Vec<String>> {
    let mut without = snapshot.clone();
    without.remove_pod(&uid_of(pod));
    let needs = Needs::of(pod, &without);
    without
        .nodes()
        .map(|node| (node.name.clone(), reasons(&needs, node)))
        .collect()
}

fn is_gated(pod: &Pod) -> bool {
    let gates = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.scheduling_gates.as_ref());
    gates.is_some_and(|gates| !gates.is_empty())
}

fn reasons(needs: &Needs<'_>, node: &NodeState) -> Vec<String> {
    let mut reasons = Vec::new();
    filter::refusal(needs, node, &mut |reason| reasons.push(reason.to_string()));
    reasons
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
fn message(needs: &Needs<'_>, snapshot: &Snapshot) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut total = 0;
    for node in snapshot.nodes() {
        total += 1;
        for reason in reasons(needs, node) {
            *counts.entry(reason).or_default() += 1;
        }
    }
    if total == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut parts: Vec<String> = counts
        .into_iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    parts.sort_unstable();
    format!("0/{total} nodes are available: {}.", parts.join(", "))
}
