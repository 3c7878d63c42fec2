//! `PATCH` with `application/apply-patch+yaml`: server-side apply of an object, its `status` or its `scale`. What is not
//! there is created. Semantics: Kubernetes' apply patches.

use super::change::{Change, Draft};
use super::shape::not_served;
use super::store::Stored;
use super::{Pipeline, body, create, fields, scale};
use crate::{Caller, Patch, Target, Verb, WriteOptions, Written};
use objects::{Cause, Reason, Status};
use serde_json::{Value, json};

/// How often the way from "it is not there" to "it is there" is gone again.
const TURNS_MAX: usize = 4;

/// Applies a configuration.
pub async fn apply(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    patch: &Patch,
    options: &WriteOptions,
) -> Result<Written, Status> {
    if options
        .field_manager
        .as_deref()
        .unwrap_or_default()
        .is_empty()
    {
        return Err(invalid_option(
            "fieldManager",
            "FieldValueRequired",
            "Required value: is required for apply patch",
        ));
    }
    let config = configuration(pipeline, target, patch, options)?;
    let change = Change {
        caller,
        target,
        options,
        verb: Verb::Patch,
    };
    let made = |stored: &Stored| draft(pipeline, target, options, stored, &config);
    match target.subresource_name() {
        "" => {}
        "scale" => return scale::answer(target, change.run(pipeline, made).await?),
        "status" => return change.run(pipeline, made).await,
        other => return Err(not_served(Verb::Patch, target, other)),
    }
    let mut answer = change.run(pipeline, made).await;
    for _ in 0..TURNS_MAX {
        answer = match answer {
            Err(status) if status.is(Reason::NotFound) => {
                if let Some(refused) = &options.create_refused {
                    return Err(refused.clone());
                }
                let (value, entries) = fields::apply(pipeline, target, options, None, &config)?;
                create::create_applied(pipeline, caller, target, value, options, entries).await
            }
            Err(status) if status.is(Reason::AlreadyExists) => change.run(pipeline, made).await,
            answer => return answer,
        };
    }
    answer
}

/// The 422 of an option that does not fit.
pub fn invalid_option(field: &str, reason: &str, message: &str) -> Status {
    let cause = Cause {
        reason: reason.to_owned(),
        message: message.to_owned(),
        field: field.to_owned(),
    };
    Status::invalid("meta.k8s.io", "PatchOptions", "", vec![cause])
}

/// The configuration as one of the object itself: a Scale names its replicas.
fn configuration(
    pipeline: &Pipeline,
    target: &Target,
    patch: &Patch,
    options: &WriteOptions,
) -> Result<Value, Status> {
    let mut config = patch.value.clone();
    if target.subresource_name() == "scale" {
        body::conform_subresource(pipeline, target, &mut config, options)?;
        config = of_scale(target, &config);
    }
    body::check_type(pipeline, &mut config, &target.resource.kind())?;
    let entries = config.pointer("/metadata/managedFields");
    if entries.is_some_and(|entries| !entries.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    if !options.duplicate_fields.is_empty()
        && options.field_validation == crate::FieldValidation::Strict
    {
        return Err(Status::bad_request(format!(
            "strict decoding error: {}",
            options.duplicate_fields.join(", ")
        )));
    }
    Ok(config)
}

fn of_scale(target: &Target, scale: &Value) -> Value {
    let row = &target.resource;
    let mut metadata = json!({"name": target.name});
    if let Some(namespace) = &target.namespace {
        metadata["namespace"] = json!(namespace);
    }
    for name in ["resourceVersion", "uid"] {
        if let Some(value) = scale.pointer(&format!("/metadata/{name}")) {
            metadata[name] = value.clone();
        }
    }
    let mut config = json!({
        "apiVersion": row.api_version(),
        "kind": row.kind,
        "metadata": metadata,
    });
    if let Some(replicas) = scale.pointer("/spec/replicas") {
        let custom = row.custom.as_ref().and_then(|custom| custom.scale.as_ref());
        match custom {
            Some(paths) => paths.spec_replicas.put(&mut config, replicas.clone()),
            None => config["spec"] = json!({"replicas": replicas}),
        }
    }
    config
}

fn draft(
    pipeline: &Pipeline,
    target: &Target,
    options: &WriteOptions,
    stored: &Stored,
    config: &Value,
) -> Result<Draft, Status> {
    let (value, entries) = fields::apply(pipeline, target, options, Some(&stored.object), config)?;
    let read = body::read(pipeline, target, value, options)?;
    let mut object = read.object;
    body::check_place(&mut object, target)?;
    Ok(Draft {
        object,
        warnings: read.warnings,
        applied: Some(entries),
    })
}
