//! The cluster as the scheduler sees it, kept up to date event by event: each costs what it changes, not the cluster.
//!
//! Pods and nodes may come in any order: a pod on a node that is not known yet counts as soon as the node is.

use crate::interpod::{Identity, Namespaces, Term, anti_terms};
use crate::needs::{HostPort, host_ports, owner_of};
use crate::resources::Resources;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use objects::{NodeName, Uid};
use std::collections::{BTreeMap, HashMap};

/// Kubernetes' default when a node does not say how many pods it takes.
const PODS_MAX: i64 = 110;
/// What a container without requests counts for in scores, so that such pods spread too.
const UNSAID_MILLI_CPU: i64 = 100;
const UNSAID_MEMORY: i64 = 200 * 1024 * 1024;

/// All nodes, and the pods that are bound to them or assumed to be.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: Vec<NodeState>,
    index: HashMap<String, usize>,
    /// On which node each counted pod is.
    places: HashMap<Uid, String>,
    namespaces: Namespaces,
}

/// One node.
#[derive(Clone, Debug, Default)]
pub struct NodeState {
    /// The name.
    pub name: NodeName,
    /// Whether the node exists; else it is only a name that pods are bound to.
    pub exists: bool,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// What it has for pods.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub pods_max: i64,
    /// What its pods request.
    pub requested: Resources,
    /// What its pods count for in scores: requests, and an assumption where there are none.
    pub weighed_milli_cpu: i64,
    /// The same of memory, in bytes.
    pub weighed_memory: i64,
    /// How many of its pods each controller has, by the controller's uid.
    pub owners: HashMap<String, u32>,
    /// How many of its pods keep others away by a required anti-affinity.
    pub repelling: u32,
    /// Its pods.
    pub pods: HashMap<Uid, Placed>,
}

/// A pod on a node, as far as later decisions ask.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether deletion was asked; it still needs its resources.
    pub is_deleting: bool,
    pub(crate) requests: Resources,
    pub(crate) ports: Vec<HostPort>,
    pub(crate) anti_terms: Vec<Term>,
    owner: Option<String>,
    /// Whether the binding was decided but not yet seen.
    assumed: bool,
}

impl Snapshot {
    /// Nothing yet.
    pub fn new() -> Self {
        Snapshot::default()
    }

    /// The nodes that exist, in no particular order.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeState> {
        self.nodes.iter().filter(|node| node.exists)
    }

    /// A node, if it exists.
    pub fn node(&self, name: &str) -> Option<&NodeState> {
        let node = &self.nodes[*self.index.get(name)?];
        node.exists.then_some(node)
    }

    /// Takes in a new or changed node.
    pub fn set_node(&mut self, node: &Node) {
        let state = self.state(node.metadata.name.as_deref().unwrap_or(""));
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let allocatable =
            status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        state.exists = true;
        state.unschedulable = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
        state.taints = spec
            .and_then(|spec| spec.taints.clone())
            .unwrap_or_default();
        state.labels = node.metadata.labels.clone().unwrap_or_default();
        state.allocatable = Resources::from_amounts(allocatable);
        let pods_max = allocatable
            .and_then(|amounts| amounts.get("pods"))
            .and_then(|pods| objects::Quantity::parse(&pods.0).ok());
        state.pods_max = pods_max.map_or(PODS_MAX, objects::Quantity::units);
    }

    /// Forgets a node. Pods bound to it stay known until they are removed themselves.
    pub fn remove_node(&mut self, name: &str) {
        let Some(&at) = self.index.get(name) else {
            return;
        };
        let NodeState { name, pods, .. } = std::mem::take(&mut self.nodes[at]);
        let state = &mut self.nodes[at];
        state.name = name;
        for (uid, pod) in pods {
            state.place(uid, pod);
        }
        self.drop_if_empty(at);
    }

    /// Takes in a new or changed namespace: affinity terms may select namespaces by label.
    pub fn set_namespace(&mut self, name: &str, labels: &BTreeMap<String, String>) {
        self.namespaces.insert(name.to_owned(), labels.clone());
    }

    /// Forgets a namespace.
    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    pub(crate) fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// Takes in a new or changed pod. It counts where it is bound, unless it has ended. A pod that is assumed somewhere and
    /// not yet seen bound stays assumed.
    pub fn set_pod(&mut self, pod: &Pod) {
        let uid = uid_of(pod);
        let finished = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"));
        match bound_to(pod) {
            Some(node) if !finished => self.put(pod, node, false),
            None if !finished && self.is_assumed(&uid) => {}
            _ => self.remove_pod(&uid),
        }
    }

    /// Counts a pod on a node as though it were bound there already.
    pub fn assume(&mut self, pod: &Pod, node: &NodeName) {
        self.put(pod, &node.0, true);
    }

    /// Takes back an assumption that did not come true; a pod seen bound stays.
    pub fn forget(&mut self, uid: &Uid) {
        if self.is_assumed(uid) {
            self.remove_pod(uid);
        }
    }

    /// Takes out a pod that is gone.
    pub fn remove_pod(&mut self, uid: &Uid) {
        let Some(node) = self.places.remove(uid) else {
            return;
        };
        let Some(&at) = self.index.get(&node) else {
            return;
        };
        self.nodes[at].take(uid);
        self.drop_if_empty(at);
    }

    /// Whether the pod counts on some node, bound or assumed.
    pub fn is_placed(&self, uid: &Uid) -> bool {
        self.places.contains_key(uid)
    }

    fn is_assumed(&self, uid: &Uid) -> bool {
        let node = self.places.get(uid).and_then(|node| self.index.get(node));
        node.and_then(|at| self.nodes[*at].pods.get(uid))
            .is_some_and(|pod| pod.assumed)
    }

    fn put(&mut self, pod: &Pod, node: &str, assumed: bool) {
        let uid = uid_of(pod);
        self.remove_pod(&uid);
        self.places.insert(uid.clone(), node.to_owned());
        self.state(node).place(uid, Placed::of(pod, assumed));
    }

    fn state(&mut self, name: &str) -> &mut NodeState {
        let at = *self.index.entry(name.to_owned()).or_insert_with(|| {
            self.nodes.push(NodeState {
                name: NodeName::from(name),
                ..NodeState::default()
            });
            self.nodes.len() - 1
        });
        &mut self.nodes[at]
    }

    fn drop_if_empty(&mut self, at: usize) {
        if self.nodes[at].exists || !self.nodes[at].pods.is_empty() {
            return;
        }
        let gone = self.nodes.swap_remove(at);
        self.index.remove(&gone.name.0);
        if let Some(moved) = self.nodes.get(at) {
            self.index.insert(moved.name.0.clone(), at);
        }
    }
}

impl NodeState {
    fn place(&mut self, uid: Uid, pod: Placed) {
        self.requested.add(&pod.requests);
        self.weighed_milli_cpu += pod.weighed_milli_cpu();
        self.weighed_memory += pod.weighed_memory();
        if let Some(owner) = &pod.owner {
            *self.owners.entry(owner.clone()).or_default() += 1;
        }
        self.repelling += u32::from(!pod.anti_terms.is_empty());
        self.pods.insert(uid, pod);
    }

    fn take(&mut self, uid: &Uid) {
        let Some(pod) = self.pods.remove(uid) else {
            return;
        };
        self.requested.subtract(&pod.requests);
        self.weighed_milli_cpu -= pod.weighed_milli_cpu();
        self.weighed_memory -= pod.weighed_memory();
        self.repelling -= u32::from(!pod.anti_terms.is_empty());
        if let Some(owner) = &pod.owner
            && let Some(count) = self.owners.get_mut(owner)
        {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(owner);
            }
        }
    }

    /// Whether one of its pods holds a host port that conflicts.
    pub(crate) fn has_conflict(&self, wanted: &[HostPort]) -> bool {
        !wanted.is_empty()
            && self
                .pods
                .values()
                .flat_map(|pod| &pod.ports)
                .any(|held| wanted.iter().any(|port| port.conflicts_with(held)))
    }
}

impl Placed {
    fn of(pod: &Pod, assumed: bool) -> Self {
        Placed {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            is_deleting: pod.metadata.deletion_timestamp.is_some(),
            requests: Resources::requested_by(pod),
            ports: host_ports(pod),
            anti_terms: anti_terms(pod),
            owner: owner_of(pod).map(str::to_owned),
            assumed,
        }
    }

    pub(crate) fn identity(&self) -> Identity<'_> {
        Identity {
            namespace: &self.namespace,
            labels: &self.labels,
        }
    }

    fn weighed_milli_cpu(&self) -> i64 {
        weighed_milli_cpu(&self.requests)
    }

    fn weighed_memory(&self) -> i64 {
        weighed_memory(&self.requests)
    }
}

pub(crate) fn weighed_milli_cpu(requests: &Resources) -> i64 {
    if requests.milli_cpu == 0 {
        UNSAID_MILLI_CPU
    } else {
        requests.milli_cpu
    }
}

pub(crate) fn weighed_memory(requests: &Resources) -> i64 {
    if requests.memory == 0 {
        UNSAID_MEMORY
    } else {
        requests.memory
    }
}

pub(crate) fn uid_of(pod: &Pod) -> Uid {
    Uid(pod.metadata.uid.clone().unwrap_or_default())
}

pub(crate) fn bound_to(pod: &Pod) -> Option<&str> {
    let node = pod.spec.as_ref()?.node_name.as_deref()?;
    (!node.is_empty()).then_some(node)
}
