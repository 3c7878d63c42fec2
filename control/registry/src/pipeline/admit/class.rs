//! Classes: the default one where an object names none, and what the class that it names gives it or forbids.
//! Rules and words: Kubernetes' DefaultStorageClass, DefaultIngressClass, RuntimeClass, Priority, PersistentVolumeClaimResize and
//! StorageObjectInUseProtection plugins.

use super::{Attributes, Operation};
use crate::pipeline::store::Stored;
use crate::pipeline::{Pipeline, store};
use crate::strategy::edit::{self, Members};
use crate::strategy::field_value;
use mvcc::Consistency;
use objects::{GroupResource, Object, ObjectKey, Quantity, Status, Timestamp};
use serde_json::{Value, json};

const STORAGE: &str = "storage.k8s.io";
const DEFAULT_STORAGE: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];
const OLD_STORAGE: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_INGRESS: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];
const OLD_INGRESS: &str = "kubernetes.io/ingress.class";
const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// Gives a new claim the default storage class, if it names none.
pub async fn default_storage(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &mut Object,
) -> Result<(), Status> {
    if !asked.creates("", "persistentvolumeclaims") || names_class(object) {
        return Ok(());
    }
    let classes = GroupResource::new(STORAGE, "storageclasses");
    let class = default_class(pipeline, &classes, &DEFAULT_STORAGE).await?;
    if let Some((class, spec)) = class.zip(edit::map_at(&mut object.body, "spec")) {
        spec.insert("storageClassName".to_owned(), json!(class));
    }
    Ok(())
}

/// Whether the claim names a class; the empty name asks for none.
fn names_class(claim: &Object) -> bool {
    let class = field_value(&claim.body, "spec.storageClassName");
    claim.metadata.annotations.contains_key(OLD_STORAGE)
        || class.is_some_and(|class| !class.is_null())
}

/// Gives a new ingress the default class, if it names none.
pub async fn default_ingress(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &mut Object,
) -> Result<(), Status> {
    let named = field_value(&object.body, "spec.ingressClassName").is_some_and(Value::is_string)
        || object.metadata.annotations.contains_key(OLD_INGRESS);
    if named || !asked.creates("networking.k8s.io", "ingresses") {
        return Ok(());
    }
    let classes = GroupResource::new("networking.k8s.io", "ingressclasses");
    let class = default_class(pipeline, &classes, &DEFAULT_INGRESS).await?;
    if let Some((class, spec)) = class.zip(edit::map_at(&mut object.body, "spec")) {
        spec.insert("ingressClassName".to_owned(), json!(class));
    }
    Ok(())
}

/// The class that one of these annotations makes the default; of several the newest.
async fn default_class(
    pipeline: &Pipeline,
    classes: &GroupResource,
    annotations: &[&str],
) -> Result<Option<String>, Status> {
    let is_default = |class: &Stored| {
        let given = &class.object.metadata.annotations;
        annotations
            .iter()
            .any(|name| given.get(*name).is_some_and(|value| value == "true"))
    };
    let classes = store::all(pipeline, classes, None).await?;
    let newest = classes
        .iter()
        .filter(|class| is_default(class))
        .max_by(|one, other| {
            let age =
                |class: &Stored| -> Option<Timestamp> { class.object.metadata.creation_timestamp };
            let name = |class: &Stored| class.object.metadata.name.clone();
            age(one)
                .cmp(&age(other))
                .then_with(|| name(other).cmp(&name(one)))
        });
    Ok(newest.map(|class| class.object.metadata.name.clone()))
}

/// Claims and volumes stay until nobody uses them.
pub fn protect(asked: &Attributes<'_>, object: &mut Object) {
    let finalizer = match asked.operation {
        Operation::Create if asked.is_of("", "persistentvolumeclaims") => CLAIM_FINALIZER,
        Operation::Create if asked.is_of("", "persistentvolumes") => VOLUME_FINALIZER,
        _ => return,
    };
    let finalizers = &mut object.metadata.finalizers;
    if !finalizers.iter().any(|known| known == finalizer) {
        finalizers.push(finalizer.to_owned());
    }
}

/// Whether a claim may grow.
pub async fn may_resize(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &Object,
) -> Result<(), Status> {
    let Some(old) = asked.old.filter(|_| {
        asked.operation == Operation::Update && asked.is_of("", "persistentvolumeclaims")
    }) else {
        return Ok(());
    };
    let size = |claim: &Object| -> Option<Quantity> {
        let size = field_value(&claim.body, "spec.resources.requests.storage")?;
        serde_json::from_value(size.clone()).ok()
    };
    if size(object) <= size(old) {
        return Ok(());
    }
    let refused = |why: &str| Err(asked.forbidden(&object.metadata.name, why));
    if field_value(&old.body, "status.phase") != Some(&json!("Bound")) {
        return refused("Only bound persistent volume claims can be expanded");
    }
    let named = field_value(&old.body, "spec.storageClassName").and_then(Value::as_str);
    let grows = match named.filter(|name| !name.is_empty()) {
        Some(name) => get(pipeline, STORAGE, "storageclasses", name)
            .await?
            .is_some_and(|class| edit::read_flag(&class.body, "allowVolumeExpansion")),
        None => false,
    };
    match grows {
        true => Ok(()),
        false => refused(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ),
    }
}

/// Gives a new pod its runtime class's overhead and place.
pub async fn apply_runtime(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &mut Object,
) -> Result<(), Status> {
    if !asked.creates("", "pods") {
        return Ok(());
    }
    let class = runtime_class(pipeline, asked, object).await?;
    let name = object.metadata.name.clone();
    let Some((class, spec)) = class.zip(edit::existing_map(&mut object.body, "spec")) else {
        return Ok(());
    };
    if let Some(overhead) = overhead(&class) {
        let given = edit::read_map(spec, "overhead").filter(|given| !given.is_empty());
        if given.is_some_and(|given| !same_amounts(given, overhead)) {
            return Err(asked.forbidden(&name, OTHER_OVERHEAD));
        }
        spec.insert("overhead".to_owned(), json!(overhead));
    }
    place(spec, &class.body).map_err(|why| asked.forbidden(&name, &why))
}

const OTHER_OVERHEAD: &str =
    "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

/// Whether a new pod's overhead is its class's.
pub async fn check_runtime(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &Object,
) -> Result<(), Status> {
    if !asked.creates("", "pods") {
        return Ok(());
    }
    let given = field_value(&object.body, "spec.overhead").and_then(Value::as_object);
    let Some(given) = given.filter(|given| !given.is_empty()) else {
        return Ok(());
    };
    let class = runtime_class(pipeline, asked, object).await?;
    let why = match class.as_ref().and_then(overhead) {
        Some(overhead) if same_amounts(given, overhead) => return Ok(()),
        Some(_) => OTHER_OVERHEAD,
        None => {
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
        }
    };
    Err(asked.forbidden(&object.metadata.name, why))
}

/// The class that the pod names; 403 when there is none of that name.
async fn runtime_class(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    pod: &Object,
) -> Result<Option<Object>, Status> {
    let named = field_value(&pod.body, "spec.runtimeClassName").and_then(Value::as_str);
    let Some(name) = named.filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    match get(pipeline, "node.k8s.io", "runtimeclasses", name).await? {
        Some(class) => Ok(Some(class)),
        None => {
            let why = format!("pod rejected: RuntimeClass {name:?} not found");
            Err(asked.forbidden(&pod.metadata.name, &why))
        }
    }
}

fn overhead(class: &Object) -> Option<&Members> {
    field_value(&class.body, "overhead.podFixed")?.as_object()
}

fn same_amounts(one: &Members, other: &Members) -> bool {
    let amounts = |members: &Members| objects::quota::amounts(Some(&json!(members)));
    amounts(one) == amounts(other)
}

/// Merges the class's node selector and tolerations into the pod's; an error names what contradicts.
fn place(spec: &mut Members, class: &Members) -> Result<(), String> {
    let Some(scheduling) = edit::read_map(class, "scheduling") else {
        return Ok(());
    };
    if let Some(wanted) =
        edit::read_map(scheduling, "nodeSelector").filter(|wanted| !wanted.is_empty())
        && let Some(given) = edit::map_at(spec, "nodeSelector")
    {
        for (key, value) in wanted {
            let other = given.get(key).filter(|other| *other != value);
            if let Some(other) = other.and_then(Value::as_str) {
                let value = value.as_str().unwrap_or_default();
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {other}"
                ));
            }
            given.insert(key.clone(), value.clone());
        }
    }
    let wanted = edit::read_list(scheduling, "tolerations");
    if !wanted.is_empty() {
        let given = spec
            .entry("tolerations")
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(given) = given {
            for toleration in wanted {
                if !given.contains(toleration) {
                    given.push(toleration.clone());
                }
            }
        }
    }
    Ok(())
}

/// Only one priority class is everybody's.
pub async fn one_default_priority(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &Object,
) -> Result<(), Status> {
    const GROUP: &str = "scheduling.k8s.io";
    let writes = asked.operation != Operation::Delete && asked.is_of(GROUP, "priorityclasses");
    if !writes || !edit::read_flag(&object.body, "globalDefault") {
        return Ok(());
    }
    let classes = GroupResource::new(GROUP, "priorityclasses");
    let name = &object.metadata.name;
    for other in store::all(pipeline, &classes, None).await? {
        let other_name = &other.object.metadata.name;
        if other_name != name && edit::read_flag(&other.object.body, "globalDefault") {
            let why = format!(
                "PriorityClass {other_name} is already marked as default. Only one default can exist"
            );
            return Err(asked.forbidden(name, &why));
        }
    }
    Ok(())
}

/// An object of a cluster-wide kind; that there is none rests on a quorum's word.
async fn get(
    pipeline: &Pipeline,
    group: &str,
    resource: &str,
    name: &str,
) -> Result<Option<Object>, Status> {
    let key = ObjectKey::new(GroupResource::new(group, resource), None, name);
    for consistency in [Consistency::Stale, Consistency::Linearizable] {
        if let Some(stored) = store::read(pipeline, &key, consistency).await? {
            return Ok(Some(stored.object));
        }
    }
    Ok(None)
}
