//! A body that was refused at its first fault is looked through for the others, so that its writer mends all at once.
//! The first fault stays as Kubernetes words it; the rest follow it in the message and in `details.causes`.

use super::Pipeline;
use crate::schema::{self, Schemas};
use crate::{Caller, Faults, Target, metadata};
use objects::{Cause, Object, Status};
use serde_json::Value;

/// The refusal of a new object's body, with every other fault that can be found.
pub fn complete(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    body: Value,
    refused: Status,
) -> Status {
    let converted = target.resource.stored_as.is_some() || target.resource.custom.is_some();
    if refused.code != 400 || converted || !is_of_kind(target, &body) {
        return refused;
    }
    let others: Vec<Cause> = find(pipeline, caller, target, body)
        .into_iter()
        .filter(|cause| !refused.message.contains(&cause.message))
        .collect();
    if others.is_empty() {
        return refused;
    }
    let told: Vec<String> = others.iter().map(told).collect();
    let mut status = refused;
    let first = Cause {
        message: status.message.clone(),
        ..Cause::default()
    };
    status.message = format!("{}; and: {}", status.message, told.join(", "));
    let details = status.details.get_or_insert_default();
    details.group.clone_from(&target.resource.group);
    details.kind.clone_from(&target.resource.kind);
    details.causes = std::iter::once(first).chain(others).collect();
    status
}

fn is_of_kind(target: &Target, body: &Value) -> bool {
    let kind = body.get("kind").and_then(Value::as_str);
    body.is_object() && kind.is_none_or(|kind| kind == target.resource.kind)
}

fn find(pipeline: &Pipeline, caller: &Caller, target: &Target, mut body: Value) -> Vec<Cause> {
    let row = &target.resource;
    let strategy = &*row.strategy;
    body["apiVersion"] = Value::String(row.api_version());
    body["kind"] = Value::String(row.kind.clone());
    let mut faults = Faults::default();
    strategy.put_in_place(&mut body, &mut faults);
    let mut causes = faults.into_causes();
    let schemas = Schemas::builtin();
    if let Some(r#type) = schemas.kind(&row.kind()) {
        let found = schema::conform(schemas, r#type, &mut body, &[]);
        causes.extend(found.strict.into_iter().chain(found.wrong_type).map(bare));
    }
    let Ok(mut object) = Object::from_value(body) else {
        return causes;
    };
    strategy.default_fields(&mut object);
    let context = super::shape::context(pipeline, caller, &object);
    strategy.prepare_create(&mut object, &context);
    let mut faults = Faults::default();
    if object.metadata.generate_name.is_empty() || !object.metadata.name.is_empty() {
        metadata::validate(row, &object, &mut faults);
    }
    strategy.validate(&object, &mut faults);
    strategy.validate_new(&object, &mut faults);
    causes.extend(faults.into_causes());
    causes
}

fn bare(message: String) -> Cause {
    Cause {
        message,
        ..Cause::default()
    }
}

fn told(cause: &Cause) -> String {
    match cause.field.as_str() {
        "" => cause.message.clone(),
        field => format!("{field}: {}", cause.message),
    }
}
