//! The `scale` subresource: an object's replica count as `autoscaling/v1` Scale. Never looks at pods.

use crate::{Target, Written};
use objects::{Cause, LabelSelector, Object, Status};
use serde_json::{Value, json};

/// The Scale of an object.
pub fn of_object(object: &Object) -> Value {
    let metadata = &object.metadata;
    let at = |part: &str, field: &str| {
        object
            .body
            .get(part)
            .and_then(|part| part.get(field))
            .cloned()
    };
    let selector = at("spec", "selector").map(|selector| match object.types.kind.as_str() {
        "ReplicationController" => json!({"matchLabels": selector}),
        _ => selector,
    });
    let selector = selector.and_then(|selector| LabelSelector::from_value(&selector).ok());
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
            "creationTimestamp": metadata.creation_timestamp,
        },
        "spec": {"replicas": at("spec", "replicas").unwrap_or(json!(0))},
        "status": {"replicas": at("status", "replicas").unwrap_or(json!(0))},
    });
    if let Some(selector) = selector {
        scale["status"]["selector"] = json!(selector.to_string());
    }
    scale
}

/// The object with the replica count, and the preconditions, of a Scale.
pub fn put(target: &Target, object: &Object, scale: &Value) -> Result<Object, Status> {
    let name = target.name.as_deref().unwrap_or_default();
    let given = scale
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or(name);
    if given != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let replicas = match scale.pointer("/spec/replicas") {
        None | Some(Value::Null) => Some(0),
        Some(value) => value
            .as_i64()
            .filter(|count| (0..=i64::from(i32::MAX)).contains(count)),
    };
    let Some(replicas) = replicas else {
        let value = scale.pointer("/spec/replicas").cloned().unwrap_or_default();
        return Err(invalid_replicas(name, &value));
    };
    let mut object = object.clone();
    let text = |pointer: &str| {
        scale
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    object.metadata.resource_version = text("/metadata/resourceVersion");
    let uid = text("/metadata/uid");
    if !uid.is_empty() {
        object.metadata.uid = uid.into();
    }
    if let Some(Value::Object(spec)) = object.body.get_mut("spec") {
        spec.insert("replicas".to_owned(), json!(replicas));
    }
    Ok(object)
}

/// The answer to a write of the Scale.
pub fn answer(written: Written) -> Result<Written, Status> {
    let object = Object::from_json(&written.json).map_err(Status::internal)?;
    Ok(Written {
        json: of_object(&object).to_string().into(),
        ..written
    })
}

fn invalid_replicas(name: &str, value: &Value) -> Status {
    let cause = Cause {
        reason: "FieldValueInvalid".to_owned(),
        message: format!("Invalid value: {value}: must be greater than or equal to 0"),
        field: "spec.replicas".to_owned(),
    };
    Status::invalid("autoscaling", "Scale", name, vec![cause])
}
