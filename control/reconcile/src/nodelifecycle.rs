//! Notices nodes that fell silent, taints them, and after their pods' patience removes these.
//!
//! A new leader trusts no timer older than its own term: silence counts from the moment at which this leader first saw the
//! present lease, and patience from the beginning of its term at the earliest. So a change of the leader never evicts. While
//! every node is silent nothing is evicted, since then it is more likely that nobody can be heard. Semantics: Kubernetes'
//! node lifecycle controller and taint manager.

use crate::conditions::{self, Condition};
use crate::controller::{self, Asked, Change, Controller, World};
use crate::plan::{Action, EventType, ObjectReference, Plan, Precondition, StatusUpdate};
use crate::pods;
use crate::status::StatusEdit;
use crate::view::{self, Viewed, resources};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use objects::{GroupResource, ObjectError, ObjectKey, Timestamp, Uid};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long a node may be silent: its lease not renewed.
pub const GRACE: Duration = Duration::from_secs(40);
/// For how long a pod stays on a lost node when it does not say.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// How soon to look again while every node is silent.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// The taint of a node that says that it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The taint of a node that says nothing.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// The taint of a cordoned node.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";
/// Conditions of which nothing is known while a node is silent.
const HEARTBEAT_CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Conditions that, when true, keep new pods away.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "node.kubernetes.io/network-unavailable",
    ),
];

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The node.
    pub node: Viewed<Node>,
    /// When this leader first saw the lease's present `renewTime`, or first saw the node without a lease. Never before its
    /// term began.
    pub observed_since: Timestamp,
    /// When this leader's term began.
    pub term_since: Timestamp,
    /// Whether every node of the cluster is silent.
    pub all_silent: bool,
    /// The pods that are bound to the node.
    pub pods: Vec<Arc<Pod>>,
}

/// Whether a node whose lease was first seen as it is at `observed_since` is silent now.
pub fn is_silent(observed_since: Timestamp, now: Timestamp) -> bool {
    now >= observed_since.plus(GRACE)
}

/// Whether the decision depends on the node's pods: those of a node in good order need not be read at every heartbeat.
pub fn asks_for_pods(node: &Viewed<Node>, observed_since: Timestamp, now: Timestamp) -> bool {
    let spec = node.view.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or(&[]);
    is_silent(observed_since, now) || taints.iter().any(|taint| taint.effect == NO_EXECUTE)
}

/// Returns the node's conditions and taints, and the pods whose patience has ended. One write to the node a plan.
pub fn reconcile(input: &Input, now: Timestamp) -> Plan {
    let node = &input.node;
    if node.is_deleting() {
        return Plan::nothing();
    }
    let silent = is_silent(input.observed_since, now);
    let mut plan = Plan::nothing();
    if !silent {
        plan.wake_by(input.observed_since.plus(GRACE));
    }
    let status = if silent {
        unknown_status(node, now)
    } else {
        None
    };
    if let Some(status) = status {
        plan.actions.push(event(
            node.reference(),
            EventType::Normal,
            "NodeNotReady",
            format!("Node {} status is now: NodeNotReady", node.name()),
        ));
        plan.status = Some(status);
        return plan; // The taints follow from the status when it is seen.
    }
    plan.actions.extend(set_taints(node, now));
    if silent {
        plan.actions
            .extend(input.pods.iter().filter_map(|pod| mark_lost(pod, now)));
    }
    if input.all_silent {
        plan.wake_by(now.plus(AGAIN_AFTER)); // Another node's lease does not wake this node's worker.
    } else {
        evict(input, silent, now, &mut plan);
    }
    plan
}

/// The status that says that nothing is known; None when it says so already.
fn unknown_status(node: &Viewed<Node>, now: Timestamp) -> Option<StatusUpdate> {
    let mut edit = StatusEdit::of(node);
    let mut all = edit.conditions();
    for condition_type in HEARTBEAT_CONDITIONS {
        let (reason, message) = match conditions::find(&all, condition_type) {
            Some(present) if conditions::text(present, "status") == "Unknown" => continue,
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => (
                "NodeStatusNeverUpdated",
                "Kubelet never posted node status.",
            ),
        };
        let condition = Condition {
            condition_type,
            status: "Unknown",
            reason,
            message,
        };
        conditions::set(&mut all, &condition, now);
    }
    edit.set_conditions(all);
    edit.into_update(node, resources::nodes())
}

/// The taints that follow from conditions and cordon; all others stay.
fn set_taints(node: &Viewed<Node>, now: Timestamp) -> Option<Action> {
    let spec = node.view.spec.as_ref();
    let present: Vec<Value> = match node.spec("taints") {
        Some(Value::Array(taints)) => taints.clone(),
        _ => Vec::new(),
    };
    let unschedulable = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
    let wanted = wanted_taints(node, unschedulable);
    let same = |taint: &Value, key: &str, effect: &str| {
        conditions::text(taint, "key") == key && conditions::text(taint, "effect") == effect
    };
    let mut taints: Vec<Value> = present
        .iter()
        .filter(|taint| {
            let key = conditions::text(taint, "key");
            !is_ours(key) || wanted.iter().any(|(key, effect)| same(taint, key, effect))
        })
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| same(taint, key, effect)) {
            taints.push(json!({ "key": key, "effect": effect, "timeAdded": now }));
        }
    }
    (taints != present).then(|| Action::Patch {
        key: node.key(resources::nodes()),
        precondition: node.unchanged(),
        merge: json!({ "spec": { "taints": taints } }),
        subresource: None,
    })
}

fn is_ours(key: &str) -> bool {
    matches!(key, NOT_READY | UNREACHABLE | UNSCHEDULABLE)
        || PRESSURES.iter().any(|(_, ours)| *ours == key)
}

fn wanted_taints(node: &Viewed<Node>, unschedulable: bool) -> Vec<(&'static str, &'static str)> {
    let all = StatusEdit::of(node).conditions();
    let status = |condition_type: &str| {
        conditions::find(&all, condition_type).map(|present| conditions::text(present, "status"))
    };
    let mut wanted = match status("Ready") {
        Some("True") => vec![],
        Some("Unknown") => vec![(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)],
        Some(_) => vec![(NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)],
        None => vec![(NOT_READY, NO_SCHEDULE)], // It has only just joined.
    };
    for (condition_type, key) in PRESSURES {
        if status(condition_type) == Some("True") {
            wanted.push((key, NO_SCHEDULE));
        }
    }
    if unschedulable {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    wanted
}

/// Shows that nothing is known of a pod on a silent node: Services stop sending to it.
fn mark_lost(pod: &Pod, now: Timestamp) -> Option<Action> {
    if !pods::is_ready(pod) {
        return None;
    }
    let status = pod.status.as_ref()?;
    let conditions = serde_json::to_value(&status.conditions).expect("conditions are plain data");
    let mut all = conditions.as_array().cloned().unwrap_or_default();
    let condition = Condition {
        condition_type: "Ready",
        status: "False",
        reason: "NodeLost",
        message: "The node on which the pod runs does not answer.",
    };
    conditions::set(&mut all, &condition, now);
    Some(Action::Patch {
        key: view::key(resources::pods(), &pod.metadata),
        precondition: view::unchanged(&pod.metadata),
        merge: json!({ "status": { "conditions": all } }),
        subresource: Some("status"),
    })
}

/// Deletes the pods that do not tolerate the node's `NoExecute` taints any longer.
fn evict(input: &Input, silent: bool, now: Timestamp, plan: &mut Plan) {
    let spec = input.node.view.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or(&[]);
    // Another leader's word that the node is lost does not count before this one knows it too.
    let believed =
        |taint: &&Taint| taint.effect == NO_EXECUTE && (silent || taint.key != UNREACHABLE);
    let taints: Vec<&Taint> = taints.iter().filter(believed).collect();
    if taints.is_empty() {
        return;
    }
    for pod in &input.pods {
        if pods::is_deleting(pod) || pods::is_finished(pod) {
            continue;
        }
        match eviction_at(pod, &taints, input.term_since) {
            Some(at) if at <= now => {
                plan.actions.push(Action::Delete {
                    key: view::key(resources::pods(), &pod.metadata),
                    precondition: Precondition::uid(view::uid(&pod.metadata)),
                    grace_seconds: None,
                    propagation: None,
                });
                plan.actions.push(event(
                    reference(pod),
                    EventType::Normal,
                    "TaintManagerEviction",
                    format!(
                        "Marking for deletion Pod {}/{}",
                        pod.metadata.namespace.as_deref().unwrap_or(""),
                        view::name(&pod.metadata)
                    ),
                ));
            }
            Some(at) => plan.wake_by(at),
            None => {}
        }
    }
}

/// When the first of the taints is not tolerated any longer; None when all are for ever.
fn eviction_at(pod: &Pod, taints: &[&Taint], term_since: Timestamp) -> Option<Timestamp> {
    let ends = taints.iter().filter_map(|taint| {
        let since = taint.time_added.as_ref().map(|time| Timestamp(time.0));
        let since = since.map_or(term_since, |since| since.max(term_since));
        Some(since.plus(patience(pod, taint)?))
    });
    ends.min()
}

/// For how long the pod tolerates the taint; None for ever.
fn patience(pod: &Pod, taint: &Taint) -> Option<Duration> {
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref());
    let matching = tolerations
        .unwrap_or(&[])
        .iter()
        .filter(|toleration| tolerates(toleration, taint));
    let mut seconds: Vec<Option<i64>> = matching
        .map(|toleration| toleration.toleration_seconds)
        .collect();
    if seconds.is_empty() {
        let lost = matches!(taint.key.as_str(), NOT_READY | UNREACHABLE);
        return Some(if lost { PATIENCE } else { Duration::ZERO });
    }
    seconds.retain(Option::is_some);
    let shortest = seconds.into_iter().flatten().min()?;
    Some(Duration::from_secs(u64::try_from(shortest).unwrap_or(0)))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is = |wanted: &Option<String>, has: &str| {
        wanted
            .as_deref()
            .is_none_or(|wanted| wanted.is_empty() || wanted == has)
    };
    if !is(&toleration.effect, &taint.effect) || !is(&toleration.key, &taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("") {
        "Exists" => true,
        "" | "Equal" => {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            toleration.key.is_some() && text(&toleration.value) == text(&taint.value)
        }
        _ => false,
    }
}

fn event(
    regarding: ObjectReference,
    event_type: EventType,
    reason: &'static str,
    message: String,
) -> Action {
    Action::Event {
        regarding,
        event_type,
        reason,
        message,
    }
}

fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        namespace: pod.metadata.namespace.clone(),
        name: view::name(&pod.metadata).to_owned(),
        uid: Uid::from(view::uid(&pod.metadata)),
    }
}

/// Runs [`reconcile`] for every node.
pub struct NodeLifecycleController;

const LEASE_NAMESPACE: &str = "kube-node-lease";

impl Controller for NodeLifecycleController {
    fn name(&self) -> &'static str {
        "nodelifecycle"
    }

    fn keys_for(&self, change: &Change<'_>, _world: &dyn World) -> Vec<ObjectKey> {
        let node = |name: &str| vec![ObjectKey::new(controller::nodes(), None, name)];
        if change.is_of("", "nodes") {
            return node(&change.key.name);
        }
        let is_heartbeat = change.is_of("coordination.k8s.io", "leases");
        if is_heartbeat && change.key.namespace.as_deref() == Some(LEASE_NAMESPACE) {
            return node(&change.key.name);
        }
        // A pod that has just come to its node may have to leave a tainted one.
        let bound = change
            .after
            .filter(|_| change.is_of("", "pods"))
            .and_then(|record| record.node_name.as_deref());
        let was_bound = change
            .before
            .is_some_and(|record| record.node_name.is_some());
        bound.filter(|_| !was_bound).map(node).unwrap_or_default()
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(node) = asked.object::<Node>()? else {
            return Ok(Plan::nothing());
        };
        let nodes = asked.world.keys(&controller::nodes(), None, &|_| true);
        let is_bound =
            |record: &controller::Record| record.node_name.as_deref() == Some(&asked.key.name);
        let observed_since = heard_since(asked.world, &asked.key.name);
        let pods = if asks_for_pods(&node, observed_since, asked.now) {
            asked.world.list(&controller::pods(), None, &is_bound)
        } else {
            Vec::new()
        };
        let input = Input {
            node,
            observed_since,
            term_since: asked.world.began(),
            all_silent: nodes
                .iter()
                .all(|key| is_silent(heard_since(asked.world, &key.name), asked.now)),
            pods: pods
                .iter()
                .map(|pod| pod.view().map(Arc::new))
                .collect::<Result<_, _>>()?,
        };
        Ok(reconcile(&input, asked.now))
    }
}

/// When this leader last saw the node's lease change, or, without a lease, first saw the node.
fn heard_since(world: &dyn World, node: &str) -> Timestamp {
    let lease = ObjectKey::new(
        GroupResource::new("coordination.k8s.io", "leases"),
        Some(LEASE_NAMESPACE),
        node,
    );
    let first_seen = || world.first_seen(&ObjectKey::new(controller::nodes(), None, node));
    world
        .observed_since(&lease)
        .or_else(first_seen)
        .unwrap_or(world.began())
}
