//! The `binding` subresource of pods: the scheduler's decision, written once. A pod that has a node never gets another.

use super::shape::busy;
use super::store::{self, Stored, Try, tries};
use super::{Pipeline, body, commit};
use crate::{Caller, Target, Verb, WriteOptions, Written};
use mvcc::Consistency;
use objects::{GroupResource, Object, ObjectKey, Status};
use serde_json::{Map, Value, json};

/// Gives the pod its node.
pub async fn bind(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    mut binding: Value,
    options: &WriteOptions,
) -> Result<Written, Status> {
    let key = target.key()?;
    body::conform_subresource(pipeline, target, &mut binding, options)?;
    let node = binding
        .pointer("/target/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let kind = binding
        .pointer("/target/kind")
        .and_then(Value::as_str)
        .unwrap_or("Node");
    if node.is_empty() || !matches!(kind, "" | "Node") {
        return Err(Status::bad_request(
            "a binding needs target.name, the name of a Node",
        ));
    }
    let writer = &commit::Writer {
        caller,
        manager: options.field_manager.as_deref(),
        verb: Verb::Create,
        subresource: "binding",
    };
    for consistency in tries() {
        let stored = store::read(pipeline, &key, consistency).await?;
        let stored = stored.ok_or_else(|| Status::not_found(&key.resource, &key.name));
        let tried = match stored.and_then(|stored| check(&key, &binding, &stored).map(|()| stored))
        {
            Err(refused) => Try::Seen(Err(refused)),
            Ok(_) if options.dry_run => Try::Seen(Ok(success())),
            Ok(stored) => {
                let bytes = commit::encode(&bound(pipeline, &stored.object, &binding, node))?;
                let replacement = commit::Replacement {
                    revision: stored.revision,
                    bytes,
                    held: &[],
                    claims: &[],
                    demands: &commit::Demands::default(),
                };
                let committed = commit::replace(pipeline, writer, &key, replacement).await?;
                committed.map_or(Try::Lost, |_| Try::Done(success()))
            }
        };
        match tried {
            Try::Done(written) => return Ok(written),
            Try::Seen(answer) if consistency == Consistency::Linearizable => return answer,
            Try::Seen(_) | Try::Lost => {}
        }
    }
    Err(busy(&key))
}

/// The pod that a binding names which is sent to the collection of bindings.
pub fn target_of(pipeline: &Pipeline, target: &Target, binding: &Value) -> Result<Target, Status> {
    let pods = GroupResource::new("", "pods");
    let registry = pipeline.registry();
    let row = registry.by_resource(&pods);
    let row = row.ok_or_else(|| Status::internal("pods are not served"))?;
    let name = binding.pointer("/metadata/name").and_then(Value::as_str);
    let target = Target::object(row, target.namespace.as_deref(), name.unwrap_or_default());
    Ok(target.subresource("binding"))
}

fn success() -> Written {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Written {
        json: status.to_string().into(),
        created: true,
        warnings: Vec::new(),
    }
}

/// 409 when the pod is not the one that was meant, is ending, or has a node.
fn check(key: &ObjectKey, binding: &Value, stored: &Stored) -> Result<(), Status> {
    let pod = &stored.object;
    let meant = |field: &str| {
        let text = binding
            .pointer(&format!("/metadata/{field}"))
            .and_then(Value::as_str);
        text.filter(|text| !text.is_empty())
    };
    let name = &key.name;
    let uid = &pod.metadata.uid.0;
    let bound_to = node_name(pod);
    let why = if meant("uid").is_some_and(|meant| meant != uid) {
        "the binding is for another pod of the same name".to_owned()
    } else if meant("resourceVersion").is_some_and(|meant| meant != stored.revision.to_string()) {
        "the object has been modified; please apply your changes to the latest version and try again".to_owned()
    } else if pod.metadata.is_deleting() {
        format!("pod {name} is being deleted, cannot be assigned to a host")
    } else if !bound_to.is_empty() {
        format!("pod {name} is already assigned to node {bound_to:?}")
    } else {
        return Ok(());
    };
    Err(Status::conflict(
        &GroupResource::new("", "pods/binding"),
        name,
        &why,
    ))
}

fn node_name(pod: &Object) -> &str {
    let spec = pod.body.get("spec");
    spec.and_then(|spec| spec.get("nodeName"))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn bound(pipeline: &Pipeline, pod: &Object, binding: &Value, node: &str) -> Object {
    let mut pod = pod.clone();
    let annotations = binding
        .pointer("/metadata/annotations")
        .and_then(Value::as_object);
    for (key, value) in annotations.into_iter().flatten() {
        let value = value.as_str().unwrap_or_default().to_owned();
        pod.metadata.annotations.insert(key.clone(), value);
    }
    member(&mut pod.body, "spec").insert("nodeName".to_owned(), json!(node));
    let condition = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastTransitionTime": pipeline.shell.now(),
    });
    let status = member(&mut pod.body, "status");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if let Value::Array(conditions) = conditions {
        conditions.retain(|condition| condition.get("type") != Some(&json!("PodScheduled")));
        conditions.push(condition);
    }
    pod
}

fn member<'a>(body: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let value = body.entry(name).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("made a map above")
}
