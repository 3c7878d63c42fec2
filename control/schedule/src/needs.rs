//! What one pod asks of a node, read once for a decision so that no node costs an allocation.

use crate::affinity::NodeTerms;
use crate::interpod::InterPod;
use crate::resources::Resources;
use crate::snapshot::Snapshot;
use crate::spread::Spread;
use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};
use std::collections::BTreeMap;

/// A pod's demands.
pub struct Needs<'a> {
    /// The node that it names itself; `spec.nodeName` of a pod that is being explained.
    pub node_name: Option<&'a str>,
    /// What it requests.
    pub requests: Resources,
    /// The host ports that it wants.
    pub ports: Vec<HostPort>,
    /// What it tolerates.
    pub tolerations: &'a [Toleration],
    /// Labels that the node must have.
    pub node_selector: Option<&'a BTreeMap<String, String>>,
    /// Terms of which the node must match one; None when any node will do.
    pub required: Option<NodeTerms<'a>>,
    /// Weighted terms that the node had better match.
    pub preferred: Vec<(i64, NodeTerms<'a>)>,
    /// Its controller's uid.
    pub owner: Option<&'a str>,
    /// Its topology spread constraints, counted over the snapshot.
    pub spreads: Vec<Spread<'a>>,
    /// What the other pods mean for it.
    pub inter_pod: InterPod<'a>,
}

/// A port on the node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    address: String,
    protocol: String,
    port: i32,
}

impl<'a> Needs<'a> {
    /// Reads the pod's demands.
    pub fn of(pod: &'a Pod, snapshot: &'a Snapshot) -> Self {
        let spec = pod.spec.as_ref();
        let affinity = spec
            .and_then(|spec| spec.affinity.as_ref())
            .and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|affinity| {
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let preferred = affinity.and_then(|affinity| {
            affinity
                .preferred_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let mut needs = Needs {
            node_name: crate::snapshot::bound_to(pod),
            requests: Resources::requested_by(pod),
            ports: host_ports(pod),
            tolerations: spec
                .and_then(|spec| spec.tolerations.as_deref())
                .unwrap_or(&[]),
            node_selector: spec.and_then(|spec| spec.node_selector.as_ref()),
            required: required.map(|required| NodeTerms::of(&required.node_selector_terms)),
            preferred: preferred
                .into_iter()
                .flatten()
                .map(|term| {
                    let terms = NodeTerms::of(std::slice::from_ref(&term.preference));
                    (i64::from(term.weight), terms)
                })
                .collect(),
            owner: owner_of(pod),
            spreads: Vec::new(),
            inter_pod: InterPod::of(pod, snapshot),
        };
        needs.spreads = Spread::all_of(pod, &needs, snapshot);
        needs
    }

    /// Whether the pod tolerates the taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations
            .iter()
            .any(|toleration| tolerates(toleration, taint))
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or("");
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let key = toleration.key.as_deref().unwrap_or("");
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("") {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        _ => false,
    }
}

impl HostPort {
    /// Whether both cannot be open at once: same port and protocol, and one address or any.
    pub fn conflicts_with(&self, other: &HostPort) -> bool {
        let any = |address: &str| matches!(address, "" | "0.0.0.0");
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.address) || any(&other.address) || self.address == other.address)
    }
}

/// The host ports of a pod's containers.
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(HostPort {
                address: port.host_ip.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: port.host_port.filter(|port| *port > 0)?,
            })
        })
        .collect()
}

/// The uid of the pod's controller.
pub fn owner_of(pod: &Pod) -> Option<&str> {
    let owners = pod.metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    controllers.next().map(|owner| owner.uid.as_str())
}
