//! Changes of a running pod's resources, as its `resize` subresource asks for them.
//!
//! What a container was given stays with it until the whole pod's wish fits on the node: one that never can is `Infeasible`, one
//! that cannot now is `Deferred`. Rule and words: Kubernetes' "Resize CPU and Memory Resources assigned to Containers".

use k8s_openapi::api::core::v1::PodCondition;
use objects::Timestamp;

use crate::conditions::{Verdict, condition};
use crate::desired::{ContainerView, Desired, Role};
use crate::observed::{Container, ContainerState, Observed};
use crate::resources::{self, Applied};

/// The conditions that are there only while something is to be resized.
pub(crate) const CONDITIONS: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// What is to be done with a running container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resize {
    /// It has what it shall have, or cannot get it now.
    Nothing,
    /// It can be changed as it runs.
    InPlace,
    /// It takes the change only at a start.
    Restart,
}

/// What is to be done with `container`, which runs.
pub(crate) fn of_container(
    view: &ContainerView<'_>,
    container: &Container,
    desired: &Desired,
    observed: &Observed,
) -> Resize {
    let wanted = Applied::of(view.spec);
    let Some(applied) = container.resources.as_ref() else {
        return Resize::Nothing;
    };
    if view.role == Role::Init || *applied == wanted || pending(desired, observed).is_some() {
        return Resize::Nothing;
    }
    let restarts = view.spec.resize_policy.iter().flatten().any(|policy| {
        policy.restart_policy == "RestartContainer"
            && applied.differs_in(&wanted, &policy.resource_name)
    });
    match restarts {
        true => Resize::Restart,
        false => Resize::InPlace,
    }
}

/// What the container of a name is to be started with where that is not what the pod asks for: what it had, as long as the pod's
/// wish does not fit.
pub fn allocated(desired: &Desired, observed: &Observed, name: &str) -> Option<Applied> {
    pending(desired, observed)?;
    let of_name = observed
        .containers
        .iter()
        .filter(|container| container.name == name);
    of_name
        .max_by_key(|container| container.attempt)
        .and_then(|container| container.resources.clone())
}

/// The conditions that tell of it.
pub(crate) fn conditions(
    desired: &Desired,
    observed: &Observed,
    now: Timestamp,
) -> Vec<PodCondition> {
    let told = |kind: &str, reason: Option<&'static str>, message: Option<String>| {
        let verdict = Verdict {
            met: true,
            reason,
            message,
        };
        let before = desired.status().and_then(|it| it.conditions.as_deref());
        let generation = desired.metadata().generation;
        condition(kind, verdict, before.unwrap_or(&[]), generation, now)
    };
    let [is_pending, is_in_progress] = CONDITIONS;
    if let Some((reason, message)) = pending(desired, observed) {
        return vec![told(is_pending, Some(reason), Some(message))];
    }
    if !is_wanted(desired, observed) {
        return vec![];
    }
    let failure = observed.resize_failures.values().next();
    let message = failure.map(|failure| failure.message.clone());
    vec![told(is_in_progress, failure.map(|_| "Error"), message)]
}

/// Why the pod's wish is not granted, if it has one that does not fit.
fn pending(desired: &Desired, observed: &Observed) -> Option<(&'static str, String)> {
    let room = observed.room?;
    if !is_wanted(desired, observed) {
        return None;
    }
    let wanted = resources::pod_requests(desired.spec());
    let each = [
        (
            "cpu",
            wanted.cpu_milli,
            room.used.cpu_milli,
            room.allocatable.cpu_milli,
        ),
        (
            "memory",
            wanted.memory_bytes,
            room.used.memory_bytes,
            room.allocatable.memory_bytes,
        ),
    ];
    let never = each.iter().find(|(_, wanted, _, all)| wanted > all);
    if let Some((name, wanted, _, all)) = never {
        let message = format!(
            "Node didn't have enough capacity: {name}, requested: {wanted}, capacity: {all}"
        );
        return Some(("Infeasible", message));
    }
    let later = each
        .iter()
        .find(|(_, wanted, used, all)| wanted + used > *all);
    later.map(|(name, wanted, used, all)| {
        let message = format!(
            "Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {all}"
        );
        ("Deferred", message)
    })
}

/// Whether a container that runs, or will be started again, has other resources than the pod asks for.
fn is_wanted(desired: &Desired, observed: &Observed) -> bool {
    let views = desired.containers().into_iter();
    let mut views = views.filter(|view| matches!(view.role, Role::Main | Role::Sidecar));
    views.any(|view| {
        let of_name = observed
            .containers
            .iter()
            .filter(|it| it.name == view.name());
        let Some(newest) = of_name.max_by_key(|container| container.attempt) else {
            return false;
        };
        let goes_on = match &newest.state {
            ContainerState::Exited(exit) => view.restart.restarts(exit.code),
            ContainerState::Created | ContainerState::Running { .. } => true,
        };
        let applied = newest.resources.as_ref();
        goes_on && applied.is_some_and(|applied| *applied != Applied::of(view.spec))
    })
}
