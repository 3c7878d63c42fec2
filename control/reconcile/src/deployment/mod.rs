//! Moves a Deployment's pods from old templates to the present one through ReplicaSets.
//!
//! One step a plan: it adopts, or creates the new set, or scales, and is asked again when that is seen. Never touches pods:
//! the ReplicaSets do. Semantics: apps/v1, as Kubernetes' deployment controller; `kubectl rollout` reads the annotations,
//! conditions and reasons that are written here.

mod bounds;
mod proportional;
mod rolling;
mod sets;
mod status;

use crate::controller::{self, Asked, Change, Controller, World};
use crate::owners::{self, Claim};
use crate::plan::{Action, EventType, Plan};
use crate::pods;
use crate::view::{self, Viewed, resources};
use bounds::Bounds;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use objects::{GroupResource, LabelSelector, Object, ObjectError, ObjectKey, Timestamp};
use std::sync::Arc;

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The deployment.
    pub deployment: Viewed<Deployment>,
    /// The ReplicaSets of its namespace. Those may be left out that neither name the deployment as an owner, nor match its
    /// selector, nor have a name that starts with the deployment's.
    pub sets: Vec<Arc<Viewed<ReplicaSet>>>,
    /// The pods that its ReplicaSets own; only the strategy `Recreate` asks for them. Others may be among them.
    pub pods: Vec<Arc<Pod>>,
}

/// Returns the next step of the rollout.
pub fn reconcile(input: &Input, now: Timestamp) -> Plan {
    let deployment = &input.deployment;
    let Some(spec) = &deployment.view.spec else {
        return Plan::nothing(); // Validation refuses it.
    };
    let Some(selector) = deployment.selector() else {
        return selects_everything(input);
    };
    let (claims, owned) = claim(input, &selector);
    if !claims.is_empty() {
        return Plan::of(claims); // The sets' revisions change by that, so everything else follows when it is seen.
    }
    let rollout = Rollout::new(input, spec, owned);
    let step = if deployment.is_deleting() {
        Step::default()
    } else {
        rollout.step()
    };
    rollout.plan(step, now)
}

/// One deployment, its sets told apart.
struct Rollout<'a> {
    input: &'a Input,
    spec: &'a DeploymentSpec,
    bounds: Bounds,
    /// The set with the present template.
    new: Option<&'a Viewed<ReplicaSet>>,
    /// All other sets, oldest first.
    old: Vec<&'a Viewed<ReplicaSet>>,
}

/// What to do now.
#[derive(Default)]
struct Step {
    actions: Vec<Action>,
    /// Set when this step creates the new set, or finds its name taken.
    note: Option<Note>,
}

/// What the status must say of a step.
enum Note {
    /// The new set is created under this name.
    Created(String),
    /// The new set's name belongs to another template.
    Collision,
}

impl From<Vec<Action>> for Step {
    fn from(actions: Vec<Action>) -> Self {
        Step {
            actions,
            note: None,
        }
    }
}

impl<'a> Rollout<'a> {
    fn new(
        input: &'a Input,
        spec: &'a DeploymentSpec,
        mut owned: Vec<&'a Viewed<ReplicaSet>>,
    ) -> Self {
        owned.sort_by_key(|set| (set.object.metadata.creation_timestamp, set.name()));
        let at = sets::position_of_new(&input.deployment, &owned);
        let new = at.map(|at| owned.remove(at));
        Rollout {
            input,
            spec,
            bounds: Bounds::of(spec),
            new,
            old: owned,
        }
    }

    fn deployment(&self) -> &'a Viewed<Deployment> {
        &self.input.deployment
    }

    fn is_paused(&self) -> bool {
        self.spec.paused == Some(true)
    }

    fn all(&self) -> impl Iterator<Item = &'a Viewed<ReplicaSet>> + '_ {
        self.old.iter().copied().chain(self.new)
    }

    fn step(&self) -> Step {
        let annotations = sets::sync_new(self);
        if !annotations.is_empty() {
            return annotations.into();
        }
        if self.is_paused() || proportional::is_resize(self) {
            let mut actions = proportional::resize(self);
            if self.is_paused() && actions.is_empty() {
                actions = sets::clean_history(self);
            }
            return actions.into();
        }
        if self.bounds.recreate {
            self.recreate()
        } else {
            self.roll()
        }
    }

    /// Old pods gradually make room for new ones.
    fn roll(&self) -> Step {
        let Some(new) = self.new else {
            return sets::create_new(self);
        };
        let up = rolling::scale_new(self, new);
        if !up.is_empty() {
            return up.into();
        }
        let down = rolling::scale_old(self, new);
        if !down.is_empty() {
            return down.into();
        }
        self.finish()
    }

    /// All old pods are gone before the first new one starts.
    fn recreate(&self) -> Step {
        let running = self.old.iter().filter(|set| size(set) > 0);
        let down: Vec<Action> = running.flat_map(|set| self.scale(set, 0)).collect();
        if !down.is_empty() {
            return down.into();
        }
        if self.has_old_pods() {
            return Step::default();
        }
        let Some(new) = self.new else {
            return sets::create_new(self);
        };
        let up = rolling::scale_new(self, new);
        if !up.is_empty() {
            return up.into();
        }
        self.finish()
    }

    fn finish(&self) -> Step {
        if status::is_complete(self) {
            sets::clean_history(self).into()
        } else {
            Step::default()
        }
    }

    fn has_old_pods(&self) -> bool {
        self.old.iter().any(|set| status_of(set).0 > 0)
            || self.input.pods.iter().any(|pod| {
                let of_old = |set: &&Viewed<ReplicaSet>| {
                    owners::is_controlled_by(&pod.metadata, &set.uid().0)
                };
                !pods::is_finished(pod) && self.old.iter().any(of_old)
            })
    }

    /// Brings a set to a size and notes on it for which total; nothing when both are so already.
    fn scale(&self, set: &Viewed<ReplicaSet>, to: i32) -> Vec<Action> {
        let from = size(set);
        let notes = self.bounds.annotations();
        let noted = notes
            .iter()
            .all(|(key, value)| set.object.metadata.annotations.get(*key) == Some(value));
        if from == to && noted {
            return Vec::new();
        }
        let annotations: serde_json::Map<String, serde_json::Value> = notes
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.into()))
            .collect();
        let mut actions = vec![Action::Patch {
            key: set.key(resources::replicasets()),
            precondition: set.unchanged(),
            merge: serde_json::json!({
                "metadata": { "annotations": annotations },
                "spec": { "replicas": to },
            }),
            subresource: None,
        }];
        if from != to {
            actions.push(self.scaled_event(set.name(), from, to));
        }
        actions
    }

    fn scaled_event(&self, set: &str, from: i32, to: i32) -> Action {
        let direction = if to > from { "up" } else { "down" };
        Action::Event {
            regarding: self.deployment().reference(),
            event_type: EventType::Normal,
            reason: "ScalingReplicaSet",
            message: format!("Scaled {direction} replica set {set} from {from} to {to}"),
        }
    }

    fn plan(&self, step: Step, now: Timestamp) -> Plan {
        let own_key = self.deployment().key(resources::deployments());
        let patches_itself = step
            .actions
            .iter()
            .any(|action| matches!(action, Action::Patch { key, .. } if *key == own_key));
        if patches_itself {
            return Plan::of(step.actions); // Its revision changes by that; the status follows when it is seen.
        }
        let (status, wake_at) = status::status(self, step.note.as_ref(), now);
        Plan {
            actions: step.actions,
            status,
            wake_at,
        }
    }
}

/// The set's wanted size.
fn size(set: &Viewed<ReplicaSet>) -> i32 {
    let spec = set.view.spec.as_ref();
    spec.and_then(|spec| spec.replicas).unwrap_or(1)
}

/// The replicas and the available replicas that the set last told of.
fn status_of(set: &Viewed<ReplicaSet>) -> (i32, i32) {
    set.view.status.as_ref().map_or((0, 0), |status| {
        (status.replicas, status.available_replicas.unwrap_or(0))
    })
}

fn claim<'a>(
    input: &'a Input,
    selector: &LabelSelector,
) -> (Vec<Action>, Vec<&'a Viewed<ReplicaSet>>) {
    let deployment = &input.deployment;
    let resource = resources::replicasets;
    let mut actions = Vec::new();
    let mut owned = Vec::new();
    for set in &input.sets {
        let metadata = &set.view.metadata;
        let uid = &deployment.uid().0;
        match owners::claim(metadata, uid, deployment.is_deleting(), selector) {
            Claim::Owned => owned.push(set.as_ref()),
            Claim::Adopt => {
                actions.push(owners::adopt(resource(), metadata, &deployment.reference()));
            }
            Claim::Release => actions.push(owners::release(resource(), metadata, uid)),
            Claim::Foreign => {}
        }
    }
    (actions, owned)
}

fn selects_everything(input: &Input) -> Plan {
    let deployment = &input.deployment;
    let mut edit = crate::status::StatusEdit::of(deployment);
    edit.set_nonzero("observedGeneration", deployment.object.metadata.generation);
    let status = edit.into_update(deployment, resources::deployments());
    let actions = if status.is_none() {
        Vec::new()
    } else {
        vec![Action::Event {
            regarding: deployment.reference(),
            event_type: EventType::Warning,
            reason: "SelectingAll",
            message: "This deployment is selecting all pods. A non-empty selector is required."
                .to_owned(),
        }]
    };
    Plan {
        actions,
        status,
        wake_at: None,
    }
}

/// The revision that a set or a deployment carries; zero when it carries none.
fn revision_of(annotation: Option<&str>) -> i64 {
    annotation
        .and_then(|revision| revision.parse().ok())
        .unwrap_or(0)
}

fn set_annotation<'a>(set: &'a Viewed<ReplicaSet>, key: &str) -> Option<&'a str> {
    view::annotation(&set.view.metadata, key)
}

/// Runs [`reconcile`] for every Deployment.
pub struct DeploymentController;

impl Controller for DeploymentController {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        if change.is_of("apps", "deployments") {
            return vec![change.key.clone()];
        }
        if change.is_of("apps", "replicasets") {
            return controller::controllers_or_adopters(change, world, &deployments());
        }
        if !change.is_of("", "pods") {
            return Vec::new();
        }
        // A pod's Deployment is its ReplicaSet's.
        let sets = change.controllers().filter_map(|uid| world.key_of(uid));
        let owners = sets
            .filter_map(|set| world.record(&set).map(|record| record.owners.clone()))
            .flatten();
        owners
            .filter_map(|(uid, _)| world.key_of(&uid))
            .filter(|key| key.resource == deployments())
            .collect()
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(deployment) = asked.object::<Deployment>()? else {
            return Ok(Plan::nothing());
        };
        let resource = GroupResource::new("apps", "replicasets");
        let sets = asked
            .world
            .list(&resource, asked.key.namespace.as_deref(), &|_| true);
        let sets: Vec<Arc<Viewed<ReplicaSet>>> = sets
            .iter()
            .map(|set| Viewed::new(Object::clone(set)).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let recreates = deployment
            .spec("strategy")
            .is_some_and(|strategy| strategy["type"] == "Recreate");
        let pods = if recreates {
            asked.neighbours(&controller::pods(), &|_| true)?
        } else {
            Vec::new()
        };
        Ok(reconcile(
            &Input {
                deployment,
                sets,
                pods,
            },
            asked.now,
        ))
    }
}

fn deployments() -> GroupResource {
    GroupResource::new("apps", "deployments")
}
