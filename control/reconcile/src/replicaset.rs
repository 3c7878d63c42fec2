//! Keeps a ReplicaSet at its replica count.
//!
//! Never touches pods that it does not own, and never counts pods that ended or are being deleted. Pods have names that
//! follow from the set's uid and a number, so that a create done twice conflicts. Semantics: apps/v1; surplus pods are ranked
//! as Kubernetes' `ActivePodsWithRanks` does.

use crate::conditions::{self, Condition};
use crate::controller::{self, Asked, Change, Controller, World};
use crate::plan::{Action, EventType, Plan, Precondition, StatusUpdate};
use crate::status::StatusEdit;
use crate::view::{self, Viewed, resources};
use crate::{children, names, pods};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use objects::{
    GroupResource, GroupVersionKind, LabelSelector, Object, ObjectError, ObjectKey, Timestamp,
};
use serde_json::{Value, json};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The most pods that one plan creates or deletes; the rest follows when these are seen.
pub const BURST_MAX: usize = 500;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The set; a replication controller is seen as one, see [`as_set`].
    pub set: Viewed<ReplicaSet>,
    /// Its resource.
    pub resource: GroupResource,
    /// The pods of its namespace. Those may be left out that neither name the set as an owner, nor match its selector, nor
    /// have a name that starts with the set's.
    pub pods: Vec<Arc<Pod>>,
    /// Why the last plan of this set could not be executed, if it could not.
    pub failure: Option<String>,
}

/// Returns what must change for the set to have its replicas.
pub fn reconcile(input: &Input, now: Timestamp) -> Plan {
    let set = &input.set;
    let Some(selector) = set.selector() else {
        return Plan::nothing(); // Would own every pod of the namespace; validation refuses it.
    };
    let (mut actions, owned) = children::claim(set, &selector, &input.pods, pods::is_active);
    let active: Vec<&Pod> = owned
        .into_iter()
        .filter(|pod| pods::is_active(pod))
        .collect();
    if !set.is_deleting() {
        let wanted = replicas(set);
        match active.len().cmp(&wanted) {
            Ordering::Less => actions.extend(create_missing(input, wanted - active.len())),
            Ordering::Equal => {}
            Ordering::Greater => {
                actions.extend(delete_surplus(set, &active, active.len() - wanted))
            }
        }
    }
    let status = status(input, &active, now);
    if input.failure.is_some() && status.is_some() {
        actions.clear(); // They would fail again, and the status that tells of it would never be written.
    }
    Plan {
        actions,
        status,
        wake_at: next_available_at(set, &active, now),
    }
}

fn replicas(set: &Viewed<ReplicaSet>) -> usize {
    let replicas = set.view.spec.as_ref().and_then(|spec| spec.replicas);
    usize::try_from(replicas.unwrap_or(1)).unwrap_or(0)
}

fn min_ready(set: &Viewed<ReplicaSet>) -> Duration {
    let seconds = set
        .view
        .spec
        .as_ref()
        .and_then(|spec| spec.min_ready_seconds);
    Duration::from_secs(u64::try_from(seconds.unwrap_or(0)).unwrap_or(0))
}

fn create_missing(input: &Input, count: usize) -> Vec<Action> {
    let set = &input.set;
    let taken: BTreeSet<&str> = input
        .pods
        .iter()
        .map(|pod| view::name(&pod.metadata))
        .collect();
    let free = (0..)
        .map(|index| names::pod(set.name(), &set.uid().0, index))
        .filter(|name| !taken.contains(name.as_str()));
    let mut actions = Vec::new();
    for name in free.take(count.min(BURST_MAX)) {
        let message = format!("Created pod: {name}");
        actions.push(Action::Create(children::pod(
            &set.reference(),
            set.spec("template"),
            name,
        )));
        actions.push(event(set, "SuccessfulCreate", message));
    }
    actions
}

fn delete_surplus(set: &Viewed<ReplicaSet>, active: &[&Pod], count: usize) -> Vec<Action> {
    let mut crowd: BTreeMap<&str, usize> = BTreeMap::new();
    for node in active.iter().filter_map(|pod| pods::node_name(pod)) {
        *crowd.entry(node).or_default() += 1;
    }
    let mut ranked = active.to_vec();
    ranked.sort_by_cached_key(|pod| surplus_rank(pod, &crowd));
    let mut actions = Vec::new();
    for pod in ranked.into_iter().take(count.min(BURST_MAX)) {
        actions.push(Action::Delete {
            key: view::key(resources::pods(), &pod.metadata),
            precondition: Precondition::uid(view::uid(&pod.metadata)),
            grace_seconds: None,
            propagation: None,
        });
        let message = format!("Deleted pod: {}", view::name(&pod.metadata));
        actions.push(event(set, "SuccessfulDelete", message));
    }
    actions
}

/// Smallest goes first: unbound, then not running, not ready, cheap to delete, on a crowded node, ready for a short time,
/// often restarted, young.
fn surplus_rank(pod: &Pod, crowd: &BTreeMap<&str, usize>) -> impl Ord + use<> {
    let node = pods::node_name(pod);
    let phase = match pods::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost: i32 = view::annotation(&pod.metadata, DELETION_COST)
        .and_then(|cost| cost.parse().ok())
        .unwrap_or(0);
    (
        (node.is_some(), phase, pods::is_ready(pod), cost),
        Reverse(node.and_then(|node| crowd.get(node)).copied()),
        Reverse(pods::ready_since(pod)),
        Reverse(pods::restarts(pod)),
        Reverse(view::created(&pod.metadata)),
        view::name(&pod.metadata).to_owned(),
    )
}

fn event(set: &Viewed<ReplicaSet>, reason: &'static str, message: String) -> Action {
    Action::Event {
        regarding: set.reference(),
        event_type: EventType::Normal,
        reason,
        message,
    }
}

fn status(input: &Input, active: &[&Pod], now: Timestamp) -> Option<StatusUpdate> {
    let set = &input.set;
    let count = |is: &dyn Fn(&Pod) -> bool| {
        i64::try_from(active.iter().filter(|pod| is(pod)).count()).unwrap_or(i64::MAX)
    };
    let template = set
        .view
        .spec
        .as_ref()
        .and_then(|spec| spec.template.as_ref());
    let labels = template
        .and_then(|template| template.metadata.as_ref())
        .and_then(|metadata| metadata.labels.as_ref());
    let labels = LabelSelector::from_labels(labels.into_iter().flatten());
    let min_ready = min_ready(set);
    let mut edit = StatusEdit::of(set);
    edit.set_count("replicas", count(&|_| true));
    edit.set_nonzero(
        "fullyLabeledReplicas",
        count(&|pod| view::matches(&labels, &pod.metadata)),
    );
    edit.set_nonzero("readyReplicas", count(&pods::is_ready));
    edit.set_nonzero(
        "availableReplicas",
        count(&|pod| pods::is_available(pod, min_ready, now)),
    );
    edit.set_nonzero("observedGeneration", set.object.metadata.generation);
    let mut all = edit.conditions();
    match &input.failure {
        Some(message) => conditions::set(
            &mut all,
            &Condition {
                condition_type: "ReplicaFailure",
                status: "True",
                reason: "FailedCreate",
                message,
            },
            now,
        ),
        None => conditions::remove(&mut all, "ReplicaFailure"),
    }
    edit.set_conditions(all);
    edit.into_update(set, input.resource.clone())
}

/// When the next ready pod will have been ready for `minReadySeconds`.
fn next_available_at(
    set: &Viewed<ReplicaSet>,
    active: &[&Pod],
    now: Timestamp,
) -> Option<Timestamp> {
    let due = active
        .iter()
        .filter_map(|pod| pods::available_at(pod, min_ready(set)));
    due.filter(|at| *at > now).min()
}

/// A replication controller as a replica set: its selector is a plain map.
pub fn as_set(mut object: Object) -> Result<Viewed<ReplicaSet>, ObjectError> {
    if let Some(Value::Object(spec)) = object.body.get_mut("spec") {
        let labels = spec.get("selector").cloned().unwrap_or_default();
        spec.insert("selector".to_owned(), json!({ "matchLabels": labels }));
    }
    let mut set = object.clone();
    set.types = GroupVersionKind::new("apps", "v1", "ReplicaSet");
    let view = set.view()?;
    Ok(Viewed { object, view })
}

/// Runs [`reconcile`] for every ReplicaSet, or for every ReplicationController.
pub struct ReplicaSetController {
    name: &'static str,
    resource: GroupResource,
}

impl ReplicaSetController {
    /// For replica sets.
    pub fn of_sets() -> Self {
        ReplicaSetController {
            name: "replicaset",
            resource: resources::replicasets(),
        }
    }

    /// For replication controllers.
    pub fn of_replication_controllers() -> Self {
        ReplicaSetController {
            name: "replicationcontroller",
            resource: resources::replicationcontrollers(),
        }
    }
}

impl Controller for ReplicaSetController {
    fn name(&self) -> &'static str {
        self.name
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        if change.key.resource == self.resource {
            return vec![change.key.clone()];
        }
        if change.is_of("", "pods") {
            return controller::controllers_or_adopters(change, world, &self.resource);
        }
        Vec::new()
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let set = if self.resource == resources::replicasets() {
            asked.object::<ReplicaSet>()?
        } else {
            let object = asked.world.get(asked.key);
            object
                .map(|object| as_set(Object::clone(&object)))
                .transpose()?
        };
        let Some(set) = set else {
            return Ok(Plan::nothing());
        };
        let pods = children::pods_near(asked, set.uid())?;
        let (failure, resource) = (asked.failure.map(str::to_owned), self.resource.clone());
        let input = Input {
            set,
            resource,
            pods,
            failure,
        };
        Ok(reconcile(&input, asked.now))
    }
}
