//! Pods get the number of their priority class. Rule: Kubernetes' Priority admission: the classes of every cluster, else those
//! that are stored; a pod without one has the default class, if there is one.

use super::Pipeline;
use super::store;
use crate::strategy::{SYSTEM_CLASSES, edit};
use mvcc::{Consistency, KeyRange, RangeRequest};
use objects::{GroupResource, Object, Status, resource_prefix};
use serde_json::{Value, json};

/// What a class gives its pods.
struct Class {
    name: String,
    value: i64,
    preemption: Value,
}

/// Sets `spec.priority` and what goes with it in a new pod; 403 for a class that does not exist, or another number.
pub async fn resolve(pipeline: &Pipeline, pod: &mut Object) -> Result<(), Status> {
    let spec = pod.body.get("spec").and_then(Value::as_object);
    let Some(spec) = spec else {
        return Ok(()); // Refused for that anyway.
    };
    let name = edit::read_text(spec, "priorityClassName").to_owned();
    let forbidden = |why: String| {
        let pods = GroupResource::new("", "pods");
        Err(Status::forbidden(&pods, &pod.metadata.name, &why))
    };
    let class = match find(pipeline, &name).await? {
        Some(class) => class,
        None if name.is_empty() => Class {
            name: String::new(),
            value: 0,
            preemption: json!("PreemptLowerPriority"),
        },
        None => return forbidden(format!("no PriorityClass with name {name} was found")),
    };
    let given = edit::read_number(spec, "priority");
    if let Some(given) = given.filter(|given| *given != class.value) {
        return forbidden(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
            class.value
        ));
    }
    let Some(spec) = edit::map_at(&mut pod.body, "spec") else {
        return Ok(());
    };
    spec.insert("priority".to_owned(), json!(class.value));
    edit::default(spec, "preemptionPolicy", class.preemption);
    if !class.name.is_empty() {
        spec.insert("priorityClassName".to_owned(), json!(class.name));
    }
    Ok(())
}

/// The class of a name, or the default one of an empty name.
async fn find(pipeline: &Pipeline, name: &str) -> Result<Option<Class>, Status> {
    let system = SYSTEM_CLASSES.iter().find(|(system, _)| *system == name);
    if let Some((name, value)) = system {
        return Ok(Some(Class {
            name: (*name).to_owned(),
            value: *value,
            preemption: json!("PreemptLowerPriority"),
        }));
    }
    let prefix = resource_prefix(&GroupResource::new("scheduling.k8s.io", "priorityclasses"));
    let range = match name {
        "" => KeyRange::prefix(prefix),
        name => KeyRange::key(format!("{prefix}{name}")),
    };
    for consistency in [Consistency::Stale, Consistency::Linearizable] {
        let mut request = RangeRequest::new(range.clone());
        request.consistency = consistency;
        let response = pipeline.store.range(request).await;
        let mut found = Vec::new();
        for kv in response.map_err(store::status_of)?.kvs {
            found.push(class_of(&store::parse(kv)?.object));
        }
        let default =
            |(class, is_default): (Class, bool)| (!name.is_empty() || is_default).then_some(class);
        let class = found
            .into_iter()
            .filter_map(default)
            .min_by_key(|class| class.value);
        if class.is_some() || name.is_empty() {
            return Ok(class);
        }
    }
    Ok(None)
}

fn class_of(object: &Object) -> (Class, bool) {
    let class = Class {
        name: object.metadata.name.clone(),
        value: edit::read_number(&object.body, "value").unwrap_or(0),
        preemption: object
            .body
            .get("preemptionPolicy")
            .cloned()
            .unwrap_or_else(|| json!("PreemptLowerPriority")),
    };
    (class, edit::read_flag(&object.body, "globalDefault"))
}
