//! Filters: may the pod run on the node at all? One function each, in Kubernetes' order and with its words; the first that
//! refuses gives the node's reasons.

use crate::interpod::Refusal;
use crate::needs::Needs;
use crate::snapshot::NodeState;
use crate::spread::Standing;
use k8s_openapi::api::core::v1::Taint;
use std::fmt::Arguments;

/// Receives each reason of a refusal; formatting is left to it, since most refusals are never told.
pub type Refuse<'r> = &'r mut dyn FnMut(Arguments<'_>);

/// A filter refuses by calling its last argument, once a reason.
pub type Filter = fn(&Needs<'_>, &NodeState, Refuse<'_>);

/// All filters, in the order in which they are asked.
pub const FILTERS: [Filter; 8] = [
    node_unschedulable,
    node_name,
    taint_toleration,
    node_affinity,
    node_ports,
    node_resources_fit,
    topology_spread,
    inter_pod_affinity,
];

/// Whether every filter lets the pod onto the node.
pub fn passes(needs: &Needs<'_>, node: &NodeState) -> bool {
    refusal(needs, node, &mut |_| {}) == 0
}

/// How many reasons the first refusing filter gives.
pub fn refusal(needs: &Needs<'_>, node: &NodeState, tell: Refuse<'_>) -> usize {
    for filter in FILTERS {
        let mut reasons = 0;
        filter(needs, node, &mut |reason| {
            reasons += 1;
            tell(reason);
        });
        if reasons > 0 {
            return reasons;
        }
    }
    0
}

fn node_unschedulable(needs: &Needs<'_>, node: &NodeState, refuse: Refuse<'_>) {
    let tolerated = || {
        needs.tolerates(&Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        })
    };
    if node.unschedulable && !tolerated() {
        refuse(format_args!("node(s) were unschedulable"));
    }
}

fn node_name(needs: &Needs<'_>, node: &NodeState, refuse: Refuse<'_>) {
    if needs.node_name.is_some_and(|wanted| wanted != node.name.0) {
        refuse(format_args!("node(s) didn't match the requested node name"));
    }
}

/// The first taint that keeps the pod away. A node that is not ready is tainted, so this is the readiness filter too.
pub fn untolerated<'n>(needs: &Needs<'_>, node: &'n NodeState) -> Option<&'n Taint> {
    let repels = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    let mut taints = node.taints.iter().filter(repels);
    taints.find(|taint| !needs.tolerates(taint))
}

fn taint_toleration(needs: &Needs<'_>, node: &NodeState, refuse: Refuse<'_>) {
    if let Some(taint) = untolerated(needs, node) {
        let value = taint.value.as_deref().unwrap_or("");
        refuse(format_args!(
            "node(s) had untolerated taint {{{}: {value}}}",
            taint.key
        ));
    }
}

/// Whether the node has the labels that the pod's selector and required affinity want.
pub fn matches_affinity(needs: &Needs<'_>, node: &NodeState) -> bool {
    let mut selector = needs.node_selector.into_iter().flatten();
    selector.all(|(key, value)| node.labels.get(key) == Some(value))
        && needs
            .required
            .as_ref()
            .is_none_or(|required| required.matches(node))
}

fn node_affinity(needs: &Needs<'_>, node: &NodeState, refuse: Refuse<'_>) {
    if !matches_affinity(needs, node) {
        refuse(format_args!(
            "node(s) didn't match Pod's node affinity/selector"
        ));
    }
}

fn node_ports(needs: &Needs<'_>, node: &NodeState, refuse: Refuse<'_>) {
    if node.has_conflict(&needs.ports) {
        refuse(format_args!(
            "node(s) didn't have free ports for the requested pod ports"
        ));
    }
}

/// A resource of which nothing is asked is never short, even on a node that is over-committed.
fn node_resources_fit(needs: &Needs<'_>, node: &NodeState, refuse: Refuse<'_>) {
    let (wanted, has, used) = (&needs.requests, &node.allocatable, &node.requested);
    let short = |wanted: i64, has: i64, used: i64| wanted > 0 && wanted > has - used;
    if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) >= node.pods_max {
        refuse(format_args!("Too many pods"));
    }
    if short(wanted.milli_cpu, has.milli_cpu, used.milli_cpu) {
        refuse(format_args!("Insufficient cpu"));
    }
    if short(wanted.memory, has.memory, used.memory) {
        refuse(format_args!("Insufficient memory"));
    }
    if short(
        wanted.ephemeral_storage,
        has.ephemeral_storage,
        used.ephemeral_storage,
    ) {
        refuse(format_args!("Insufficient ephemeral-storage"));
    }
    for (name, amount) in &wanted.extended {
        if short(*amount, has.extended(name), used.extended(name)) {
            refuse(format_args!("Insufficient {name}"));
        }
    }
}

fn topology_spread(needs: &Needs<'_>, node: &NodeState, refuse: Refuse<'_>) {
    for spread in needs.spreads.iter().filter(|spread| spread.is_required) {
        match spread.standing(node) {
            Standing::Fits => continue,
            Standing::NoDomain => refuse(format_args!(
                "node(s) didn't match pod topology spread constraints (missing required label)"
            )),
            Standing::TooMany => refuse(format_args!(
                "node(s) didn't match pod topology spread constraints"
            )),
        }
        return;
    }
}

fn inter_pod_affinity(needs: &Needs<'_>, node: &NodeState, refuse: Refuse<'_>) {
    match needs.inter_pod.refusal(node) {
        None => {}
        Some(Refusal::Affinity) => refuse(format_args!("node(s) didn't match pod affinity rules")),
        Some(Refusal::AntiAffinity) => {
            refuse(format_args!("node(s) didn't match pod anti-affinity rules"));
        }
        Some(Refusal::Existing) => refuse(format_args!(
            "node(s) didn't satisfy existing pods anti-affinity rules"
        )),
    }
}
