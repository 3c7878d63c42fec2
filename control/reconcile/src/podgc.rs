//! Removes pods that no agent will ever remove: those of nodes that are gone, those that were deleted before they were
//! bound, and the oldest of too many that have ended.
//!
//! Runs over all pods at once. Never touches a pod whose node exists. Semantics: Kubernetes' pod garbage collector.

use crate::controller::{self, Asked, Change, Controller, World};
use crate::plan::{Action, Plan, Precondition};
use crate::pods;
use crate::view::{self, resources};
use k8s_openapi::api::core::v1::Pod;
use objects::{ObjectError, ObjectKey, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How many pods may have ended before the oldest are removed.
pub const TERMINATED_MAX: usize = 12_500;
/// How long a node must be missing before its pods are given up.
pub const QUARANTINE: Duration = Duration::from_secs(40);
/// The most pods that one plan deletes; the rest follows.
pub const BURST_MAX: usize = 500;

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// All pods.
    pub pods: Vec<Arc<Pod>>,
    /// The nodes that pods are bound to and that do not exist, each with the moment at which this leader first saw that;
    /// never before its term began.
    pub missing_nodes: BTreeMap<String, Timestamp>,
    /// How many pods may have ended: [`TERMINATED_MAX`].
    pub terminated_max: usize,
}

/// Returns the pods to delete for good, and when the next node's quarantine ends.
pub fn reconcile(input: &Input, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    for pod in &input.pods {
        match pods::node_name(pod) {
            None if pods::is_deleting(pod) => plan.actions.push(delete(pod)),
            None => {}
            Some(node) => {
                let given_up_at = input
                    .missing_nodes
                    .get(node)
                    .map(|since| since.plus(QUARANTINE));
                match given_up_at {
                    Some(at) if at <= now => plan.actions.push(delete(pod)),
                    Some(at) => plan.wake_by(at),
                    None => {}
                }
            }
        }
    }
    plan.actions.extend(surplus(input));
    if plan.actions.len() > BURST_MAX {
        plan.actions.truncate(BURST_MAX);
        plan.wake_by(now.plus(Duration::from_secs(1)));
    }
    plan
}

/// The oldest of too many pods that have ended on nodes that exist.
fn surplus(input: &Input) -> impl Iterator<Item = Action> {
    let here = |pod: &&Arc<Pod>| {
        let missing =
            pods::node_name(pod).is_some_and(|node| input.missing_nodes.contains_key(node));
        pods::is_finished(pod) && !pods::is_deleting(pod) && !missing
    };
    let mut ended: Vec<&Arc<Pod>> = input.pods.iter().filter(here).collect();
    let count = ended.len().saturating_sub(input.terminated_max);
    ended.sort_by_key(|pod| {
        (
            view::created(&pod.metadata),
            view::name(&pod.metadata).to_owned(),
        )
    });
    ended.into_iter().take(count).map(|pod| delete(pod))
}

fn delete(pod: &Pod) -> Action {
    Action::Delete {
        key: view::key(resources::pods(), &pod.metadata),
        precondition: Precondition::uid(view::uid(&pod.metadata)),
        grace_seconds: Some(0),
        propagation: None,
    }
}

/// Runs [`reconcile`] for all pods at once, when one of them may have to go.
pub struct PodGcController;

impl Controller for PodGcController {
    fn name(&self) -> &'static str {
        "podgc"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        let all_pods = ObjectKey::new(controller::pods(), None, "");
        let node_is_gone = change.is_of("", "nodes") && change.after.is_none();
        let is_lost = |pod: &controller::Record| match &pod.node_name {
            None => pod.deleting,
            Some(node) => world
                .record(&ObjectKey::new(controller::nodes(), None, node))
                .is_none(),
        };
        let pod_is_lost = change.is_of("", "pods") && change.after.is_some_and(is_lost);
        if node_is_gone || pod_is_lost {
            vec![all_pods]
        } else {
            Vec::new()
        }
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let pods: Vec<Arc<Pod>> = asked.neighbours(&controller::pods(), &|_| true)?;
        let bound = pods.iter().filter_map(|pod| pods::node_name(pod));
        let keys = bound.map(|node| ObjectKey::new(controller::nodes(), None, node));
        let missing = keys.filter(|key| asked.world.record(key).is_none());
        let missing_nodes = missing
            .map(|key| (key.name.clone(), asked.world.missing_since(&key)))
            .collect();
        Ok(reconcile(
            &Input {
                pods,
                missing_nodes,
                terminated_max: TERMINATED_MAX,
            },
            asked.now,
        ))
    }
}
