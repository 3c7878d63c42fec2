//! Lets claims and volumes go that were deleted while somebody used them, once nobody does.
//!
//! Admission gives each a finalizer when it is made; here it is taken away. Semantics: Kubernetes' PVC and PV protection
//! controllers: a claim is used by pods that have a node, a volume while it is bound.

use crate::controller::{self, Asked, Change, Controller, World};
use crate::plan::{Action, Plan, Precondition};
use crate::view::resources;
use objects::{Object, ObjectError, ObjectKey};
use serde_json::{Value, json};
use std::sync::Arc;

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The claim or volume.
    pub key: ObjectKey,
    /// As it is.
    pub object: Arc<Object>,
    /// The pods of the claim's namespace; none for a volume.
    pub pods: Vec<Arc<Object>>,
}

/// Takes the finalizer away when the object is to go and nobody uses it.
pub fn reconcile(input: &Input) -> Plan {
    let metadata = &input.object.metadata;
    let is_claim = input.key.resource == resources::persistentvolumeclaims();
    let finalizer = match is_claim {
        true => CLAIM_FINALIZER,
        false => VOLUME_FINALIZER,
    };
    let is_held = metadata.finalizers.iter().any(|held| held == finalizer);
    if !metadata.is_deleting() || !is_held {
        return Plan::nothing();
    }
    let is_used = match is_claim {
        true => input.pods.iter().any(|pod| uses(pod, &metadata.name)),
        false => at(&input.object, "/status/phase") == Some(json!("Bound")),
    };
    if is_used {
        return Plan::nothing();
    }
    let mut left = metadata.finalizers.clone();
    left.retain(|held| held != finalizer);
    Plan::of(vec![Action::Patch {
        key: input.key.clone(),
        precondition: Precondition::unchanged(&metadata.uid.0, &metadata.resource_version),
        merge: json!({"metadata": {"finalizers": left}}),
        subresource: None,
    }])
}

/// Whether a pod that has a node mounts the claim.
fn uses(pod: &Object, claim: &str) -> bool {
    let spec = pod.body.get("spec");
    let member = |name: &str| spec.and_then(|spec| spec.get(name));
    let is_bound = member("nodeName")
        .and_then(Value::as_str)
        .is_some_and(|node| !node.is_empty());
    let volumes = member("volumes").and_then(Value::as_array);
    let mounts = |volume: &Value| {
        let name = volume.get("name").and_then(Value::as_str);
        // A claim of the pod's own is named after pod and volume.
        let own = volume.get("ephemeral").is_some()
            && name.is_some_and(|name| format!("{}-{name}", pod.metadata.name) == claim);
        let named = volume.pointer("/persistentVolumeClaim/claimName");
        own || named.and_then(Value::as_str) == Some(claim)
    };
    is_bound && volumes.into_iter().flatten().any(mounts)
}

fn at(object: &Object, pointer: &str) -> Option<Value> {
    let (member, rest) = pointer.trim_start_matches('/').split_once('/')?;
    object
        .body
        .get(member)?
        .pointer(&format!("/{rest}"))
        .cloned()
}

/// Runs [`reconcile`] for every claim and volume.
pub struct ProtectionController;

impl Controller for ProtectionController {
    fn name(&self) -> &'static str {
        "volumeprotection"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        let claims = resources::persistentvolumeclaims();
        if change.key.resource == claims || change.key.resource == resources::persistentvolumes() {
            let ends = change.after.is_some_and(|record| record.deleting);
            return ends.then(|| change.key.clone()).into_iter().collect();
        }
        if !change.is_of("", "pods") {
            return Vec::new();
        }
        let namespace = change.key.namespace.as_deref();
        world.keys(&claims, namespace, &|record| record.deleting)
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(object) = asked.world.get(asked.key) else {
            return Ok(Plan::nothing());
        };
        let namespace = asked.key.namespace.as_deref();
        let pods = match namespace {
            Some(_) => asked.world.list(&controller::pods(), namespace, &|record| {
                record.node_name.is_some()
            }),
            None => Vec::new(),
        };
        Ok(reconcile(&Input {
            key: asked.key.clone(),
            object,
            pods,
        }))
    }
}
