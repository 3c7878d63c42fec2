//! What an autoscaler scales: any object that has a scale, built in or custom.

use crate::controller::{Asked, World};
use crate::view::resources;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use objects::{GroupResource, LabelSelector, Object, ObjectKey};
use serde_json::Value;
use std::sync::Arc;

/// The scale of an object.
#[derive(Clone, Debug)]
pub struct Target {
    /// The object.
    pub object: Arc<Object>,
    /// Its key.
    pub key: ObjectKey,
    /// The replicas that it shall have.
    pub replicas: i64,
    /// Which pods are its own; else what is wrong with its selector.
    pub selector: Result<LabelSelector, String>,
}

/// Where an object's scale stands in it.
struct Paths {
    resource: GroupResource,
    replicas: String,
    selector: Option<String>,
}

/// Finds the target and reads its scale; else why that is not possible.
pub fn find(asked: &Asked<'_>, reference: &CrossVersionObjectReference) -> Result<Target, String> {
    let api_version = reference.api_version.as_deref().unwrap_or("v1");
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    let paths = built_in(group, &reference.kind)
        .or_else(|| custom(asked.world, api_version, &reference.kind));
    let Some(paths) = paths else {
        return Err(format!(
            "no matches for kind {:?} in group {group:?}",
            reference.kind
        ));
    };
    let namespace = asked.key.namespace.as_deref();
    let key = ObjectKey::new(paths.resource.clone(), namespace, &reference.name);
    let Some(object) = asked.world.get(&key) else {
        return Err(format!("{} {:?} not found", key.resource, reference.name));
    };
    Ok(Target::read(object, key, &paths))
}

impl Target {
    /// The scale of a workload, which is where all built-in kinds have it.
    pub fn of_workload(object: Arc<Object>, key: ObjectKey) -> Target {
        let paths = Paths::of_workload(key.resource.clone());
        Target::read(object, key, &paths)
    }

    fn read(object: Arc<Object>, key: ObjectKey, paths: &Paths) -> Target {
        let value = object.to_value();
        let replicas = value.pointer(&paths.replicas).and_then(Value::as_i64);
        Target {
            replicas: replicas.unwrap_or(0),
            selector: selector(&value, paths),
            key,
            object,
        }
    }
}

impl Paths {
    fn of_workload(resource: GroupResource) -> Paths {
        Paths {
            resource,
            replicas: "/spec/replicas".to_owned(),
            selector: Some("/spec/selector".to_owned()),
        }
    }
}

fn built_in(group: &str, kind: &str) -> Option<Paths> {
    let resource = match (group, kind) {
        ("apps", "Deployment") => resources::deployments(),
        ("apps", "StatefulSet") => resources::statefulsets(),
        ("apps", "ReplicaSet") => resources::replicasets(),
        ("", "ReplicationController") => resources::replicationcontrollers(),
        _ => return None,
    };
    Some(Paths::of_workload(resource))
}

/// A custom kind with a scale, by its definition.
fn custom(world: &dyn World, api_version: &str, kind: &str) -> Option<Paths> {
    let (group, version) = api_version.split_once('/')?;
    let definitions = GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions");
    let text = |value: &Value, path: &str| {
        let text = value.pointer(path).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    for definition in world.list(&definitions, None, &|_| true) {
        let definition = definition.to_value();
        if text(&definition, "/spec/group") != group
            || text(&definition, "/spec/names/kind") != kind
        {
            continue;
        }
        let versions = definition.pointer("/spec/versions")?.as_array()?;
        let served = versions.iter().find(|it| text(it, "/name") == version)?;
        let scale = served.pointer("/subresources/scale")?;
        let path = |member: &str| scale.get(member).and_then(Value::as_str).map(pointer);
        return Some(Paths {
            resource: GroupResource::new(group, &text(&definition, "/spec/names/plural")),
            replicas: path("specReplicasPath")?,
            selector: path("labelSelectorPath"),
        });
    }
    None
}

/// `.spec.replicas` as a JSON pointer.
fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

fn selector(value: &Value, paths: &Paths) -> Result<LabelSelector, String> {
    let found = paths
        .selector
        .as_deref()
        .and_then(|path| value.pointer(path));
    let unusable = |why: String| {
        format!("couldn't convert selector into a corresponding internal selector object: {why}")
    };
    match found {
        Some(Value::String(text)) if !text.is_empty() => {
            LabelSelector::parse(text).map_err(|error| unusable(error.to_string()))
        }
        Some(labels @ Value::Object(map)) if !map.is_empty() => {
            // A replication controller's selector is a plain map of labels.
            let is_plain = map.values().all(Value::is_string);
            let wrapped = serde_json::json!({ "matchLabels": labels });
            let selector = if is_plain { &wrapped } else { labels };
            LabelSelector::from_value(selector).map_err(|error| unusable(error.to_string()))
        }
        _ => Err("selector is required".to_owned()),
    }
}
