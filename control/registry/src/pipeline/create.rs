//! Create: what becomes of a body on its way to a new key.
//! Semantics: Kubernetes' generic registry; a generated name that is taken is made anew.

use super::shape::{busy, context, not_served, refuse_invalid};
use super::store::{self, tries};
use super::{Pipeline, admit, binding, body, commit, eviction, fault_list, fields, versions};
use crate::schema::{Schemas, Shape, Type};
use crate::{Caller, Faults, Target, Verb, WriteOptions, Written, metadata};
use mvcc::Consistency;
use objects::{Object, ObjectKey, Reason, Status};
use serde_json::{Value, json};

/// How often a taken generated name is made anew.
const NAME_TRIES_MAX: usize = 8;
/// The letters of a name that a generated suffix may follow.
const GENERATE_NAME_MAX: usize = 58;

/// Creates an object.
pub async fn create(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    value: Value,
    options: &WriteOptions,
) -> Result<Written, Status> {
    match target.subresource_name() {
        "" => {}
        "binding" => return binding::bind(pipeline, caller, target, value, options).await,
        "eviction" => return eviction::evict(pipeline, caller, target, value, options).await,
        other => return Err(not_served(Verb::Create, target, other)),
    }
    if target.resource.kind == "Binding" {
        let target = binding::target_of(pipeline, target, &value)?;
        return binding::bind(pipeline, caller, &target, value, options).await;
    }
    let read = body::read(pipeline, target, value.clone(), options)
        .map_err(|refused| fault_list::complete(pipeline, caller, target, value, refused))?;
    let mut object = read.object;
    body::check_place(&mut object, target)?;
    if !object.metadata.resource_version.is_empty() {
        return Err(Status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    body::clear_server_fields(&mut object.metadata);
    let draft = Draft {
        object,
        warnings: read.warnings,
        applied: None,
    };
    create_draft(pipeline, caller, target, draft, options).await
}

/// Creates what an apply made of nothing; `entries` say who owns what.
pub async fn create_applied(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    value: Value,
    options: &WriteOptions,
    entries: Vec<Value>,
) -> Result<Written, Status> {
    let read = body::read(pipeline, target, value, options)?;
    let mut object = read.object;
    body::check_place(&mut object, target)?;
    if !object.metadata.resource_version.is_empty() || !object.metadata.uid.0.is_empty() {
        let why = "the configuration names a resourceVersion or uid, but there is no such object";
        let name = &object.metadata.name;
        return Err(Status::conflict(&target.group_resource(), name, why));
    }
    body::clear_server_fields(&mut object.metadata);
    let draft = Draft {
        object,
        warnings: read.warnings,
        applied: Some(entries),
    };
    create_draft(pipeline, caller, target, draft, options).await
}

/// Gives a new object its identity, and its name where that is to be generated.
async fn create_draft(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    mut draft: Draft,
    options: &WriteOptions,
) -> Result<Written, Status> {
    let object = &mut draft.object;
    let strategy = &*target.resource.strategy;
    if target.resource.subresource("status").is_some() && !strategy.keeps_status_on_create() {
        object.body.shift_remove("status");
    }
    object.metadata.uid = pipeline.shell.uid();
    object.metadata.creation_timestamp = Some(pipeline.shell.now());
    object.metadata.generation = i64::from(strategy.has_generation());
    let prefix = draft.object.metadata.generate_name.clone();
    if !draft.object.metadata.name.is_empty() || prefix.is_empty() {
        return create_named(pipeline, caller, target, draft, options).await;
    }
    for _ in 0..NAME_TRIES_MAX {
        let mut draft = draft.clone();
        draft.object.metadata.name = generated_name(&prefix, &pipeline.shell.name_suffix());
        match create_named(pipeline, caller, target, draft, options).await {
            Err(status) if status.is(Reason::AlreadyExists) => {}
            answer => return answer,
        }
    }
    Err(Status::failure(
        409,
        Reason::AlreadyExists,
        format!("no free name was found for generateName {prefix:?}; try again"),
    ))
}

/// A new object before it has been checked.
#[derive(Clone)]
struct Draft {
    object: Object,
    warnings: Vec<String>,
    /// Who owns what, if it was applied; else it is found out.
    applied: Option<Vec<Value>>,
}

async fn create_named(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    mut draft: Draft,
    options: &WriteOptions,
) -> Result<Written, Status> {
    let strategy = &*target.resource.strategy;
    let name = draft.object.metadata.name.clone();
    if target
        .resource
        .custom
        .as_ref()
        .is_some_and(|custom| custom.is_ending)
    {
        return Err(Status::failure(
            405,
            Reason::MethodNotAllowed,
            "create not allowed while custom resource definition is terminating",
        ));
    }
    strategy.default_fields(&mut draft.object);
    match draft.applied {
        Some(entries) => draft.object.metadata.managed_fields = entries,
        None => fields::track(pipeline, target, options, None, &mut draft.object),
    }
    let attributes = admit::Attributes {
        caller,
        target,
        operation: admit::Operation::Create,
        old: None,
        options: admit::Options::Write(options),
    };
    admit::mutate(pipeline, &attributes, &mut draft.object).await?;
    let context = context(pipeline, caller, &draft.object);
    strategy.prepare_create(&mut draft.object, &context);
    begin_status(target, &mut draft.object);
    admit::caller_may(caller, Verb::Create, target, &draft.object)?;
    admit::may_grant(pipeline, caller, target, &draft.object, None)?;
    let namespace = draft.object.metadata.namespace.clone();
    let key = ObjectKey::new(
        target.resource.storage_resource(),
        namespace.as_deref(),
        &name,
    );
    let mut faults = Faults::default();
    metadata::validate(&target.resource, &draft.object, &mut faults);
    strategy.validate(&draft.object, &mut faults);
    strategy.validate_new(&draft.object, &mut faults);
    let mut warnings = draft.warnings;
    warnings.extend(strategy.warnings(&draft.object));
    for consistency in tries() {
        let mut object = draft.object.clone();
        let mut faults = faults.clone();
        let mut demands = admit::into_namespace(pipeline, target, &object, consistency).await?;
        let claims =
            commit::allocate(pipeline, strategy, &mut object, &[], &context, &mut faults).await?;
        refuse_invalid(target, &object, faults)?;
        if consistency == Consistency::Stale {
            // What the rules say depends on the object alone, which is the same at the next try.
            admit::validate(pipeline, &attributes, &object).await?;
        }
        demands.charges = admit::charge(pipeline, &attributes, &object, consistency).await?;
        let object = versions::to_store(pipeline, target, object).await?;
        let bytes = commit::encode(&object)?;
        if options.dry_run {
            check_free(pipeline, &key).await?;
            let json = object.to_value().to_string().into();
            return Ok(Written {
                json,
                created: true,
                warnings,
            });
        }
        let writer = &commit::Writer {
            caller,
            manager: options.field_manager.as_deref(),
            verb: Verb::Create,
            subresource: "",
        };
        let committed =
            commit::create(pipeline, writer, &key, bytes.clone(), &claims, &demands).await?;
        if let Some(revision) = committed {
            let json = objects::splice_revision(&bytes, revision);
            return Ok(Written {
                json,
                created: true,
                warnings,
            });
        }
        check_free(pipeline, &key).await?;
    }
    Err(busy(&key))
}

/// A status that is no pointer in Go is written with a new object, and its counts with it, before anybody has said anything.
fn begin_status(target: &Target, object: &mut Object) {
    let row = &target.resource;
    if row.custom.is_some() || row.strategy.keeps_status_on_create() {
        return;
    }
    let schemas = Schemas::builtin();
    let kind = schemas.kind(&object.types);
    let status = kind.and_then(|kind| kind.fields.iter().find(|field| field.name == "status"));
    let Some(field) = status.filter(|field| !field.pointer) else {
        return;
    };
    if let Shape::Struct(id) = field.shape {
        let status = object.body.entry("status").or_insert_with(|| json!({}));
        write_zeros(schemas.get(id), status);
    }
}

/// Adds what Go writes of a struct with nothing in it; lists and maps are left out.
fn write_zeros(of: &Type, value: &mut Value) {
    let Some(members) = value.as_object_mut() else {
        return;
    };
    for field in of.fields.iter().filter(|field| !field.pointer) {
        let zero = match field.shape {
            Shape::Int32 | Shape::Int64 if field.keep => json!(0),
            Shape::Text if field.keep => json!(""),
            Shape::Bool if field.keep => json!(false),
            Shape::Struct(id) => {
                let below = members.entry(field.name).or_insert_with(|| json!({}));
                write_zeros(Schemas::builtin().get(id), below);
                continue;
            }
            _ => continue,
        };
        members.entry(field.name).or_insert(zero);
    }
}

/// 409 when the key exists.
async fn check_free(pipeline: &Pipeline, key: &ObjectKey) -> Result<(), Status> {
    match store::read(pipeline, key, Consistency::Linearizable).await? {
        Some(_) => Err(Status::already_exists(&key.resource, &key.name)),
        None => Ok(()),
    }
}

fn generated_name(prefix: &str, suffix: &str) -> String {
    let end = prefix
        .char_indices()
        .map(|(at, letter)| at + letter.len_utf8());
    let end = end
        .take_while(|end| *end <= GENERATE_NAME_MAX)
        .last()
        .unwrap_or(0);
    format!("{}{suffix}", &prefix[..end])
}
