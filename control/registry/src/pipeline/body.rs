//! A client's body becomes an object: type and field checks, then the metadata that only the server may set is taken out.
//! Never touches the store. Words: Kubernetes' API server.

use super::{Pipeline, fields};
use crate::schema;
use crate::{Target, WriteOptions};
use objects::{GroupVersionKind, Object, ObjectError, ObjectMeta, Status};
use serde_json::Value;

/// A body that was read, and what the client should be warned of.
pub struct Body {
    /// The object.
    pub object: Object,
    /// For `Warning` headers.
    pub warnings: Vec<String>,
}

/// Reads the body of a create or an update of `target`'s own kind.
pub fn read(
    pipeline: &Pipeline,
    target: &Target,
    mut value: Value,
    options: &WriteOptions,
) -> Result<Body, Status> {
    let warnings = conform_own(pipeline, target, &mut value, options)?;
    if let Some(stored) = target.resource.stored_as {
        stored.store(&mut value);
    }
    let reset = fields::is_reset(&value);
    let mut object = Object::from_value(value).map_err(unreadable)?;
    if reset {
        object.metadata.managed_fields = fields::reset_mark();
    }
    Ok(Body { object, warnings })
}

/// Brings a body into the form of the target's own kind; answers with warnings.
pub fn conform_own(
    pipeline: &Pipeline,
    target: &Target,
    value: &mut Value,
    options: &WriteOptions,
) -> Result<Vec<String>, Status> {
    let kind = target.resource.kind();
    let Some(custom) = &target.resource.custom else {
        return conform(pipeline, &kind, value, options);
    };
    check_type(pipeline, value, &kind)?;
    custom.accept(
        &kind,
        value,
        &options.duplicate_fields,
        options.field_validation,
    )
}

/// Brings a body into the form of a built-in kind; answers with warnings.
fn conform(
    pipeline: &Pipeline,
    kind: &GroupVersionKind,
    value: &mut Value,
    options: &WriteOptions,
) -> Result<Vec<String>, Status> {
    check_type(pipeline, value, kind)?;
    schema::accept(
        kind,
        value,
        &options.duplicate_fields,
        options.field_validation,
    )
}

/// Brings the body of a subresource into the form of the subresource's own kind.
pub fn conform_subresource(
    pipeline: &Pipeline,
    target: &Target,
    value: &mut Value,
    options: &WriteOptions,
) -> Result<Vec<String>, Status> {
    match target.resource.subresource(target.subresource_name()) {
        Some(subresource) if subresource.kind == target.resource.kind() => {
            conform_own(pipeline, target, value, options)
        }
        Some(subresource) => conform(pipeline, &subresource.kind, value, options),
        None => Ok(Vec::new()),
    }
}

/// The 400 for an object that cannot be read at all.
fn unreadable(error: ObjectError) -> Status {
    Status::bad_request(format!("the object provided is unrecognized: {error}"))
}

/// Sets `apiVersion` and `kind` where the client left them out, and refuses others than the path's.
pub fn check_type(
    pipeline: &Pipeline,
    value: &mut Value,
    expected: &GroupVersionKind,
) -> Result<(), Status> {
    let Value::Object(map) = value else {
        return Err(Status::bad_request(
            "the object provided is unrecognized: it must be a JSON map",
        ));
    };
    let api_version = expected.api_version();
    let given = |name: &str| {
        map.get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let given_version = given("apiVersion").unwrap_or(&api_version).to_owned();
    let given_kind = given("kind").unwrap_or(&expected.kind).to_owned();
    if given_kind != expected.kind {
        return Err(wrong_kind(pipeline, &given_version, &given_kind, expected));
    }
    if given_version != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    map.insert("apiVersion".to_owned(), Value::String(api_version));
    map.insert("kind".to_owned(), Value::String(given_kind));
    Ok(())
}

/// 400 for another kind; it says where the kind is served, for those who wrote `v1` out of habit.
fn wrong_kind(
    pipeline: &Pipeline,
    version: &str,
    kind: &str,
    expected: &GroupVersionKind,
) -> Status {
    let registry = pipeline.registry();
    let served: Vec<String> = registry
        .iter()
        .filter(|row| row.kind == kind)
        .map(|row| format!("apiVersion {}", row.api_version()))
        .collect();
    let known = registry
        .iter()
        .any(|row| row.kind == kind && row.api_version() == version);
    let why = match (known, &served[..]) {
        (true, _) => format!("this path takes {} only", expected.kind),
        (false, []) => format!("no kind {kind:?} is registered for version {version:?}"),
        (false, served) => {
            format!(
                "no kind {kind:?} is registered for version {version:?}; use {}",
                served.join(" or ")
            )
        }
    };
    Status::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {}: {why}",
        expected.kind
    ))
}

/// Sets the namespace and name that the path says; refuses others.
pub fn check_place(object: &mut Object, target: &Target) -> Result<(), Status> {
    let metadata = &mut object.metadata;
    let namespace = target
        .namespace
        .as_deref()
        .filter(|_| target.resource.namespaced);
    match (
        metadata
            .namespace
            .as_deref()
            .filter(|text| !text.is_empty()),
        namespace,
    ) {
        (Some(given), Some(expected)) if given != expected => {
            return Err(Status::bad_request(format!(
                "the namespace of the provided object does not match the namespace sent on the request ({given} does not match {expected})"
            )));
        }
        (Some(given), None) if !target.resource.namespaced => {
            return Err(Status::bad_request(format!(
                "{} objects live in no namespace; remove metadata.namespace ({given})",
                target.resource.kind
            )));
        }
        _ => {}
    }
    metadata.namespace = namespace.map(str::to_owned);
    match &target.name {
        Some(expected) if metadata.name.is_empty() => metadata.name = expected.clone(),
        Some(expected) if *expected != metadata.name => {
            return Err(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({expected})",
                metadata.name
            )));
        }
        _ => {}
    }
    Ok(())
}

/// Takes out of a new object's metadata what only the server may set.
pub fn clear_server_fields(metadata: &mut ObjectMeta) {
    metadata.uid = objects::Uid::default();
    metadata.generation = 0;
    metadata.creation_timestamp = None;
    metadata.deletion_timestamp = None;
    metadata.deletion_grace_period_seconds = None;
    metadata.rest.remove("selfLink");
}

/// Gives an updated object the metadata that an update never changes.
pub fn keep_server_fields(metadata: &mut ObjectMeta, old: &ObjectMeta) {
    metadata.uid = old.uid.clone();
    metadata.generation = old.generation;
    metadata.creation_timestamp = old.creation_timestamp;
    metadata.deletion_timestamp = old.deletion_timestamp;
    metadata.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    metadata.generate_name = old.generate_name.clone();
    metadata.rest.remove("selfLink");
}
