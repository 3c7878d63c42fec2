//! Says in a PodDisruptionBudget's status how many of its pods may be evicted now. Never evicts.
//!
//! A pod that was evicted counts as away until it is deleted, or for two minutes when nobody deletes it.
//! Semantics: Kubernetes' disruption controller.

use crate::conditions::{self, Condition};
use crate::controller::{Asked, Change, Controller, World};
use crate::plan::Plan;
use crate::pods;
use crate::scaled::{Round, scaled_field};
use crate::status::StatusEdit;
use crate::view::{self, Viewed, resources};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use objects::{LabelSelector, Object, ObjectError, ObjectKey, Timestamp, Uid};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// For how long an eviction counts that nobody carries out.
const EVICTION: Duration = Duration::from_secs(120);

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The budget.
    pub budget: Viewed<PodDisruptionBudget>,
    /// The pods of its namespace.
    pub pods: Vec<Arc<Pod>>,
    /// How many pods each workload shall have that stands above such pods, by the uid of the pod's own controller.
    pub scales: BTreeMap<Uid, Scale>,
}

/// What stands above pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// The workload: that of the pods' controller, if it has one.
    pub workload: Uid,
    /// The pods that it shall have.
    pub replicas: usize,
}

/// Returns the budget's status where it is not right.
pub fn reconcile(input: &Input, now: Timestamp) -> Plan {
    let budget = &input.budget;
    if budget.is_deleting() {
        return Plan::nothing();
    }
    let selector = budget
        .spec("selector")
        .and_then(|selector| LabelSelector::from_value(selector).ok());
    let selected = |pod: &&Arc<Pod>| {
        let selector = selector.as_ref();
        selector.is_some_and(|selector| view::matches(selector, &pod.metadata))
    };
    let all: Vec<&Pod> = input
        .pods
        .iter()
        .filter(selected)
        .map(Arc::as_ref)
        .collect();
    let all: Vec<&Pod> = all
        .into_iter()
        .filter(|pod| !pods::is_finished(pod))
        .collect();
    let (disrupted, wake_at) = still_disrupted(budget, &all, now);
    let expected = expected(input, &all);
    let mut edit = StatusEdit::of(budget);
    let mut conditions_now = edit.conditions();
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let (reason, message, allowed) = match &expected {
        Err(why) => {
            edit.set_count("disruptionsAllowed", 0);
            ("SyncFailed", why.as_str(), 0)
        }
        Ok((expected, wanted)) => {
            let (expected, wanted) = (*expected, *wanted);
            let is_healthy = |pod: &&&Pod| {
                let away = disrupted.contains_key(view::name(&pod.metadata));
                pods::is_ready(pod) && !pods::is_deleting(pod) && !away
            };
            let healthy = all.iter().filter(is_healthy).count();
            let allowed = if expected == 0 {
                0
            } else {
                healthy.saturating_sub(wanted)
            };
            edit.set_count("currentHealthy", number(healthy));
            edit.set_count("desiredHealthy", number(wanted));
            edit.set_count("expectedPods", number(expected));
            edit.set_count("disruptionsAllowed", number(allowed));
            let reason = match allowed {
                0 => "InsufficientPods",
                _ => "SufficientPods",
            };
            (reason, "", allowed)
        }
    };
    let condition = Condition {
        condition_type: "DisruptionAllowed",
        status: if allowed > 0 { "True" } else { "False" },
        reason,
        message,
    };
    conditions::set(&mut conditions_now, &condition, now);
    edit.set_conditions(conditions_now);
    edit.set_count("observedGeneration", budget.object.metadata.generation);
    if disrupted.is_empty() {
        edit.remove("disruptedPods");
    } else {
        edit.set("disruptedPods", Value::Object(disrupted));
    }
    Plan {
        status: edit.into_update(budget, resources::poddisruptionbudgets()),
        wake_at,
        ..Plan::nothing()
    }
}

/// The evictions that still count, and when the first of them ends.
fn still_disrupted(
    budget: &Viewed<PodDisruptionBudget>,
    all: &[&Pod],
    now: Timestamp,
) -> (Map<String, Value>, Option<Timestamp>) {
    let status = budget.object.body.get("status");
    let told = status.and_then(|status| status.get("disruptedPods")?.as_object());
    let mut kept = Map::new();
    let mut wake_at: Option<Timestamp> = None;
    for (name, since) in told.into_iter().flatten() {
        let pod = all.iter().find(|pod| view::name(&pod.metadata) == name);
        let is_waiting = pod.is_some_and(|pod| !pods::is_deleting(pod));
        let ends = since
            .as_str()
            .and_then(Timestamp::parse)
            .map(|since| since.plus(EVICTION));
        let Some(ends) = ends.filter(|ends| is_waiting && *ends > now) else {
            continue;
        };
        kept.insert(name.clone(), since.clone());
        wake_at = Some(wake_at.map_or(ends, |at| at.min(ends)));
    }
    (kept, wake_at)
}

/// How many pods there shall be and how many must be healthy; or why that cannot be said.
fn expected(input: &Input, all: &[&Pod]) -> Result<(usize, usize), String> {
    let budget = &input.budget;
    if let Some(unavailable) = budget.spec("maxUnavailable") {
        let expected = scale_of(input, all)?;
        let away = scaled_field(unavailable, expected, Round::Up);
        return Ok((expected, expected.saturating_sub(away)));
    }
    match budget.spec("minAvailable") {
        Some(Value::Number(count)) => {
            let count = count.as_u64().and_then(|count| usize::try_from(count).ok());
            Ok((all.len(), count.unwrap_or(0)))
        }
        Some(percent) => {
            let expected = scale_of(input, all)?;
            let healthy = scaled_field(percent, expected, Round::Up);
            Ok((expected, healthy))
        }
        None => Ok((all.len(), 1)),
    }
}

/// The sum of what the workloads above the pods shall have.
fn scale_of(input: &Input, all: &[&Pod]) -> Result<usize, String> {
    let mut workloads: BTreeMap<&Uid, usize> = BTreeMap::new();
    for pod in all {
        let controller = crate::owners::controller(&pod.metadata);
        let scale = controller.and_then(|owner| input.scales.get(&Uid::from(owner.uid.as_str())));
        let Some(scale) = scale else {
            return Err(format!(
                "found no controller with a scale for pod {:?}",
                view::name(&pod.metadata)
            ));
        };
        workloads.insert(&scale.workload, scale.replicas);
    }
    Ok(workloads.values().sum())
}

/// Runs [`reconcile`] for every PodDisruptionBudget.
pub struct DisruptionController;

impl Controller for DisruptionController {
    fn name(&self) -> &'static str {
        "disruption"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        let budgets = resources::poddisruptionbudgets();
        if change.key.resource == budgets {
            return vec![change.key.clone()];
        }
        let scales = ["deployments", "replicasets", "statefulsets"];
        let counts = change.is_of("", "pods")
            || change.is_of("", "replicationcontrollers")
            || scales.iter().any(|scale| change.is_of("apps", scale));
        if counts {
            return world.keys(&budgets, change.key.namespace.as_deref(), &|_| true);
        }
        Vec::new()
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(budget) = asked.object::<PodDisruptionBudget>()? else {
            return Ok(Plan::nothing());
        };
        let pods: Vec<Arc<Pod>> = asked.neighbours(&resources::pods(), &|_| true)?;
        let mut scales = BTreeMap::new();
        for pod in &pods {
            let owner = crate::owners::controller(&pod.metadata);
            let Some(uid) = owner.map(|owner| Uid::from(owner.uid.as_str())) else {
                continue;
            };
            if !scales.contains_key(&uid)
                && let Some(scale) = scale_above(asked.world, &uid)
            {
                scales.insert(uid, scale);
            }
        }
        let input = Input {
            budget,
            pods,
            scales,
        };
        Ok(reconcile(&input, asked.now))
    }
}

/// The scale of a pods' controller, or of the deployment above it.
fn scale_above(world: &dyn World, uid: &Uid) -> Option<Scale> {
    let object = world.get(&world.key_of(uid)?)?;
    let mut owners = object.metadata.owner_references.iter();
    let above = owners.find(|owner| owner.controller == Some(true));
    let above = above.and_then(|owner| world.get(&world.key_of(&owner.uid)?));
    let of = |object: &Object| {
        let replicas = object.body.get("spec")?.get("replicas")?.as_u64()?;
        Some(Scale {
            workload: object.metadata.uid.clone(),
            replicas: usize::try_from(replicas).unwrap_or(usize::MAX),
        })
    };
    above.and_then(|above| of(&above)).or_else(|| of(&object))
}
