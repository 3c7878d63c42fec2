//! Gives every node a network for its pods out of the cluster's.
//!
//! Runs over all nodes at once, so that no network is given twice; one that a node has is never changed or taken back.
//! Semantics: Kubernetes' range allocator.

use crate::controller::{self, Asked, Change, Controller, World};
use crate::plan::{Action, EventType, Plan};
use crate::view::{Viewed, resources};
use k8s_openapi::api::core::v1::Node;
use objects::{Object, ObjectError, ObjectKey, Timestamp};
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The prefix of a node's network.
pub const NODE_PREFIX: u8 = 24;

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    network: u32,
    prefix: u8,
}

impl Cidr {
    /// Reads `10.244.0.0/16`; bits beyond the prefix are dropped.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let address: Ipv4Addr = address.parse().ok()?;
        let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
        Some(Cidr {
            network: u32::from(address) & mask(prefix),
            prefix,
        })
    }

    fn overlaps(self, other: Cidr) -> bool {
        let shorter = mask(self.prefix.min(other.prefix));
        self.network & shorter == other.network & shorter
    }

    /// The networks of a longer prefix inside of this one.
    fn parts(self, prefix: u8) -> impl Iterator<Item = Cidr> {
        let count = 1u64 << prefix.saturating_sub(self.prefix);
        let step = 1u64 << (32 - prefix);
        (0..count).filter_map(move |at| {
            let network = u32::try_from(u64::from(self.network) + at * step).ok()?;
            Some(Cidr { network, prefix })
        })
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The network of all pods.
    pub cluster_cidr: Cidr,
    /// All nodes.
    pub nodes: Vec<Arc<Viewed<Node>>>,
}

/// Returns a network for each node that has none.
pub fn reconcile(input: &Input, _now: Timestamp) -> Plan {
    let mut needy: Vec<&Viewed<Node>> = Vec::new();
    let mut taken: BTreeSet<Cidr> = BTreeSet::new();
    for node in &input.nodes {
        let own: Vec<Cidr> = cidrs(node).filter_map(Cidr::parse).collect();
        if own.is_empty() && !node.is_deleting() {
            needy.push(node);
        }
        taken.extend(own);
    }
    needy.sort_by_key(|node| (node.object.metadata.creation_timestamp, node.name()));
    let mut free = input
        .cluster_cidr
        .parts(NODE_PREFIX.max(input.cluster_cidr.prefix))
        .filter(|part| !taken.iter().any(|other| other.overlaps(*part)));
    let actions = needy
        .into_iter()
        .map(|node| match free.next() {
            Some(cidr) => assign(node, cidr),
            None => exhausted(node, input.cluster_cidr),
        })
        .collect();
    Plan::of(actions)
}

fn cidrs(node: &Viewed<Node>) -> impl Iterator<Item = &str> {
    let spec = node.view.spec.as_ref();
    let all = spec
        .and_then(|spec| spec.pod_cidrs.as_ref())
        .into_iter()
        .flatten();
    let first = spec.and_then(|spec| spec.pod_cidr.as_ref());
    all.chain(first).map(String::as_str)
}

fn assign(node: &Viewed<Node>, cidr: Cidr) -> Action {
    let cidr = cidr.to_string();
    Action::Patch {
        key: node.key(resources::nodes()),
        precondition: node.unchanged(),
        merge: json!({ "spec": { "podCIDR": cidr, "podCIDRs": [cidr] } }),
        subresource: None,
    }
}

fn exhausted(node: &Viewed<Node>, cluster: Cidr) -> Action {
    Action::Event {
        regarding: node.reference(),
        event_type: EventType::Warning,
        reason: "CIDRNotAvailable",
        message: format!(
            "No /{NODE_PREFIX} network is left in {cluster} for node {}",
            node.name()
        ),
    }
}

/// Runs [`reconcile`] for all nodes at once, when there is a new one.
pub struct NodeIpamController {
    cluster_cidr: Option<Cidr>,
}

impl NodeIpamController {
    /// Gives out parts of `cluster_cidr`; nothing when that is no network.
    pub fn new(cluster_cidr: &str) -> Self {
        NodeIpamController {
            cluster_cidr: Cidr::parse(cluster_cidr),
        }
    }
}

impl Controller for NodeIpamController {
    fn name(&self) -> &'static str {
        "nodeipam"
    }

    fn keys_for(&self, change: &Change<'_>, _world: &dyn World) -> Vec<ObjectKey> {
        let is_new = change.is_of("", "nodes") && change.before.is_none();
        if is_new {
            vec![ObjectKey::new(controller::nodes(), None, "")]
        } else {
            Vec::new()
        }
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(cluster_cidr) = self.cluster_cidr else {
            return Ok(Plan::nothing());
        };
        let nodes = asked.world.list(&controller::nodes(), None, &|_| true);
        let nodes = nodes
            .iter()
            .map(|node| Viewed::new(Object::clone(node)).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(reconcile(
            &Input {
                cluster_cidr,
                nodes,
            },
            asked.now,
        ))
    }
}
