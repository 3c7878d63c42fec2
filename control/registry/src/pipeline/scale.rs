//! The `scale` subresource: an object's replica count as `autoscaling/v1` Scale. Never looks at pods.

use crate::custom::{JsonPath, ScalePaths};
use crate::{Target, Written};
use objects::{Cause, LabelSelector, Object, Status};
use serde_json::{Value, json};

/// The Scale of an object.
pub fn of_object(target: &Target, object: &Object) -> Value {
    let custom = target.resource.custom.as_ref();
    match custom.and_then(|custom| custom.scale.as_ref()) {
        Some(paths) => of_custom(paths, object),
        None => of_builtin(object),
    }
}

/// The Scale of a custom object, whose definition says where the numbers are.
fn of_custom(paths: &ScalePaths, object: &Object) -> Value {
    let value = object.to_value();
    let number = |path: &JsonPath| {
        path.find(&value)
            .first()
            .and_then(|found| found.as_i64())
            .unwrap_or(0)
    };
    let mut scale = scale(
        object,
        number(&paths.spec_replicas),
        number(&paths.status_replicas),
    );
    let selector = paths
        .label_selector
        .as_ref()
        .and_then(|path| path.find(&value).first()?.as_str());
    if let Some(selector) = selector {
        scale["status"]["selector"] = json!(selector);
    }
    scale
}

fn scale(object: &Object, wanted: impl Into<Value>, found: impl Into<Value>) -> Value {
    let metadata = &object.metadata;
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
            "creationTimestamp": metadata.creation_timestamp,
        },
        "spec": {"replicas": wanted.into()},
        "status": {"replicas": found.into()},
    })
}

fn of_builtin(object: &Object) -> Value {
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
    let replicas = |part| at(part, "replicas").unwrap_or(json!(0));
    let mut scale = scale(object, replicas("spec"), replicas("status"));
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
    let custom = target.resource.custom.as_ref();
    if let Some(paths) = custom.and_then(|custom| custom.scale.as_ref()) {
        let mut body = Value::Object(std::mem::take(&mut object.body));
        paths.spec_replicas.put(&mut body, json!(replicas));
        object.body = body.as_object().cloned().unwrap_or_default();
    } else if let Some(Value::Object(spec)) = object.body.get_mut("spec") {
        spec.insert("replicas".to_owned(), json!(replicas));
    }
    Ok(object)
}

/// The answer to a write of the Scale.
pub fn answer(target: &Target, written: Written) -> Result<Written, Status> {
    let object = Object::from_json(&written.json).map_err(Status::internal)?;
    Ok(Written {
        json: of_object(target, &object).to_string().into(),
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
