//! Create, update and patch: what becomes of a body on its way to the store.
//! Semantics: Kubernetes' generic registry: status and spec are written apart, the generation counts changes of the spec, a
//! write that changes nothing commits nothing, and a client without a precondition never sees a lost race.

use super::commit;
use super::store::{self, Stored};
use super::{Pipeline, admit, binding, body, scale};
use crate::metadata;
use crate::strategy::{Claim, Context};
use crate::{Caller, Faults, Patch, PatchKind, Target, Verb, WriteOptions, Written, schema};
use mvcc::Consistency;
use objects::{Object, ObjectKey, Reason, Status, Timestamp, patch};
use serde_json::Value;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How often a lost race is run again before the client is told.
const TRIES_MAX: usize = 16;
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
        other => return Err(not_served(Verb::Create, target, other)),
    }
    let read = body::read(pipeline, target, value, options)?;
    let mut object = read.object;
    body::check_place(&mut object, target)?;
    if !object.metadata.resource_version.is_empty() {
        return Err(Status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    body::clear_server_fields(&mut object.metadata);
    let strategy = target.resource.strategy;
    if target.resource.subresource("status").is_some() && !strategy.keeps_status_on_create() {
        object.body.shift_remove("status");
    }
    object.metadata.uid = pipeline.shell.uid();
    object.metadata.creation_timestamp = Some(pipeline.shell.now());
    object.metadata.generation = i64::from(strategy.has_generation());
    let draft = Draft {
        object,
        warnings: read.warnings,
    };
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
}

async fn create_named(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    mut draft: Draft,
    options: &WriteOptions,
) -> Result<Written, Status> {
    let strategy = target.resource.strategy;
    let name = draft.object.metadata.name.clone();
    strategy.default_fields(&mut draft.object);
    let context = context(pipeline, &draft.object);
    strategy.prepare_create(&mut draft.object, &context);
    admit::caller_may(caller, Verb::Create, target, &draft.object)?;
    let namespace = draft.object.metadata.namespace.clone();
    let key = ObjectKey::new(target.group_resource(), namespace.as_deref(), &name);
    let mut faults = Faults::default();
    metadata::validate(&target.resource, &draft.object, &mut faults);
    strategy.validate(&draft.object, &mut faults);
    let mut warnings = draft.warnings;
    warnings.extend(strategy.warnings(&draft.object));
    for _ in 0..TRIES_MAX {
        let mut object = draft.object.clone();
        let mut faults = faults.clone();
        let demands = admit::into_namespace(pipeline, target, &object).await?;
        let claims =
            commit::allocate(pipeline, strategy, &mut object, &[], &context, &mut faults).await?;
        refuse_invalid(target, &object, faults)?;
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
        let committed =
            commit::create(pipeline, caller, &key, bytes.clone(), &claims, &demands).await?;
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

/// 409 when the key exists.
async fn check_free(pipeline: &Pipeline, key: &ObjectKey) -> Result<(), Status> {
    match store::read(pipeline, key, Consistency::Linearizable).await? {
        Some(_) => Err(Status::already_exists(&key.resource, &key.name)),
        None => Ok(()),
    }
}

/// Replaces an object or a part of it.
pub async fn update(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    value: Value,
    options: &WriteOptions,
) -> Result<Written, Status> {
    let change = Change {
        caller,
        target,
        options,
        verb: Verb::Update,
    };
    match target.subresource_name() {
        "" | "status" | "finalize" => {
            let read = body::read(pipeline, target, value, options)?;
            let mut object = read.object;
            body::check_place(&mut object, target)?;
            let made = |_: &Stored| {
                Ok(Draft {
                    object: object.clone(),
                    warnings: read.warnings.clone(),
                })
            };
            change.run(pipeline, made).await
        }
        "scale" => {
            let made = |stored: &Stored| Ok(draft_of(scale::put(target, &stored.object, &value)?));
            scale::answer(change.run(pipeline, made).await?)
        }
        other => Err(not_served(Verb::Update, target, other)),
    }
}

/// Changes an object or a part of it.
pub async fn patch(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    patch: &Patch,
    options: &WriteOptions,
) -> Result<Written, Status> {
    if patch.kind == PatchKind::Apply {
        return Err(Status::failure(
            415,
            Reason::UnsupportedMediaType,
            "this server does not serve server-side apply (application/apply-patch+yaml); use kubectl apply without --server-side, or a strategic merge, merge or JSON patch",
        ));
    }
    let change = Change {
        caller,
        target,
        options,
        verb: Verb::Patch,
    };
    match target.subresource_name() {
        "" | "status" => {
            let made = |stored: &Stored| {
                let mut value = stored.object.to_value();
                apply(target, patch, &mut value)?;
                let read = body::read(pipeline, target, value, options)?;
                let mut object = read.object;
                body::check_place(&mut object, target)?;
                Ok(Draft {
                    object,
                    warnings: read.warnings,
                })
            };
            change.run(pipeline, made).await
        }
        "scale" => {
            let made = |stored: &Stored| {
                let mut value = scale::of_object(&stored.object);
                apply(target, patch, &mut value)?;
                Ok(draft_of(scale::put(target, &stored.object, &value)?))
            };
            scale::answer(change.run(pipeline, made).await?)
        }
        other => Err(not_served(Verb::Patch, target, other)),
    }
}

fn apply(target: &Target, patch: &Patch, value: &mut Value) -> Result<(), Status> {
    match patch.kind {
        PatchKind::Json => Ok(patch::json_patch(value, &patch.value)?),
        PatchKind::Merge => Ok(patch::merge_patch(value, &patch.value)?),
        PatchKind::Strategic | PatchKind::Apply => {
            let kind = match target.subresource_name() {
                "scale" => objects::GroupVersionKind::new("autoscaling", "v1", "Scale"),
                _ => target.resource.kind(),
            };
            merge_by_type(&kind, value, &patch.value)
        }
    }
}

/// A strategic merge; a kind without a schema has no merge keys, which Kubernetes answers with 415.
fn merge_by_type(
    kind: &objects::GroupVersionKind,
    value: &mut Value,
    patch: &Value,
) -> Result<(), Status> {
    let schemas = schema::Schemas::builtin();
    let Some(r#type) = schemas.kind(kind) else {
        return Err(Status::failure(
            415,
            Reason::UnsupportedMediaType,
            format!(
                "{} takes no strategic merge patch; use a merge or JSON patch",
                kind.kind
            ),
        ));
    };
    let merged = schema::strategic_merge(schemas, r#type, value.take(), patch.clone());
    *value = merged.map_err(|error| {
        let reason = match error.code() {
            400 => Reason::BadRequest,
            422 => Reason::Invalid,
            _ => Reason::InternalError,
        };
        Status::failure(error.code(), reason, error.to_string())
    })?;
    Ok(())
}

fn draft_of(object: Object) -> Draft {
    Draft {
        object,
        warnings: Vec::new(),
    }
}

/// An update or patch on its way.
struct Change<'a> {
    caller: &'a Caller,
    target: &'a Target,
    options: &'a WriteOptions,
    verb: Verb,
}

impl Change<'_> {
    /// Reads, makes the new object out of the stored one, commits; again when somebody else was faster.
    async fn run(
        &self,
        pipeline: &Pipeline,
        made: impl Fn(&Stored) -> Result<Draft, Status>,
    ) -> Result<Written, Status> {
        let key = self.target.key()?;
        for _ in 0..TRIES_MAX {
            let stored = store::read(pipeline, &key, Consistency::Linearizable).await?;
            let stored = stored.ok_or_else(|| Status::not_found(&key.resource, &key.name))?;
            admit::caller_may(self.caller, self.verb, self.target, &stored.object)?;
            let mut draft = made(&stored)?;
            check_preconditions(&key, &draft.object, &stored)?;
            self.shape(&mut draft.object, &stored.object, pipeline);
            if let Some(written) = self.commit(pipeline, &key, draft, stored).await? {
                return Ok(written);
            }
        }
        Err(busy(&key))
    }

    /// Keeps what this request may not change, and fills in what it left out.
    fn shape(&self, object: &mut Object, old: &Object, pipeline: &Pipeline) {
        let strategy = self.target.resource.strategy;
        body::keep_server_fields(&mut object.metadata, &old.metadata);
        match self.target.subresource_name() {
            "status" => keep_all_but_status(object, old),
            "finalize" => keep_all_but_finalizers(object, old),
            _ => {
                if self.target.resource.subresource("status").is_some() {
                    copy_member(object, old, "status");
                }
                strategy.default_fields(object);
                strategy.prepare_update(object, old, &context(pipeline, old));
                if strategy.has_generation() && spec_differs(object, old) {
                    object.metadata.generation = old.metadata.generation + 1;
                }
            }
        }
    }

    /// Checks and stores the new object; None when somebody else was faster.
    async fn commit(
        &self,
        pipeline: &Pipeline,
        key: &ObjectKey,
        draft: Draft,
        stored: Stored,
    ) -> Result<Option<Written>, Status> {
        let Draft {
            mut object,
            mut warnings,
        } = draft;
        let strategy = self.target.resource.strategy;
        let mut faults = Faults::default();
        let held = strategy.claims(&stored.object);
        let claims = self
            .check(pipeline, &mut object, &stored.object, &held, &mut faults)
            .await?;
        warnings.extend(strategy.warnings(&object));
        let old = stored.revision;
        object.metadata.resource_version = old.to_string();
        if object == stored.object || self.options.dry_run {
            let json = object.to_value().to_string().into();
            return Ok(Some(Written {
                json,
                created: false,
                warnings,
            }));
        }
        let bytes = commit::encode(&object)?;
        let committed = if is_released(strategy, &object) {
            commit::remove(pipeline, self.caller, key, old, &held).await?
        } else {
            commit::replace(
                pipeline,
                self.caller,
                key,
                old,
                bytes.clone(),
                &held,
                &claims,
            )
            .await?
        };
        Ok(committed.map(|revision| {
            let json = objects::splice_revision(&bytes, revision);
            Written {
                json,
                created: false,
                warnings,
            }
        }))
    }

    async fn check(
        &self,
        pipeline: &Pipeline,
        object: &mut Object,
        old: &Object,
        held: &[Claim],
        faults: &mut Faults,
    ) -> Result<Vec<Claim>, Status> {
        let strategy = self.target.resource.strategy;
        metadata::validate(&self.target.resource, object, faults);
        metadata::validate_update(object, old, faults);
        let mut claims = held.to_vec();
        if self.target.subresource_name() == "status" {
            strategy.validate_status(object, old, faults);
        } else {
            strategy.validate(object, faults);
            strategy.validate_update(object, old, faults);
            let context = context(pipeline, old);
            claims = commit::allocate(pipeline, strategy, object, held, &context, faults).await?;
        }
        refuse_invalid(self.target, object, std::mem::take(faults))?;
        Ok(claims)
    }
}

/// Whether a deletion that was asked has nothing left to wait for.
pub fn is_released(strategy: &dyn crate::Strategy, object: &Object) -> bool {
    let metadata = &object.metadata;
    metadata.is_deleting()
        && metadata.finalizers.is_empty()
        && metadata.deletion_grace_period_seconds.unwrap_or(0) == 0
        && !strategy.is_held(object)
}

/// 409 when the client meant another revision or another incarnation.
fn check_preconditions(key: &ObjectKey, object: &Object, stored: &Stored) -> Result<(), Status> {
    let metadata = &object.metadata;
    let known = &metadata.resource_version;
    if !known.is_empty() && *known != stored.revision.to_string() {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(Status::conflict(&key.resource, &key.name, why));
    }
    let uid = &stored.object.metadata.uid;
    if !metadata.uid.0.is_empty() && metadata.uid != *uid {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {uid}",
            metadata.uid
        );
        return Err(Status::conflict(&key.resource, &key.name, &why));
    }
    Ok(())
}

/// A status update changes the status, labels and annotations; everything else stays.
fn keep_all_but_status(object: &mut Object, old: &Object) {
    let status = object.body.shift_remove("status");
    object.body = old.body.clone();
    object.body.shift_remove("status");
    object
        .body
        .extend(status.map(|status| ("status".to_owned(), status)));
    object.metadata.owner_references = old.metadata.owner_references.clone();
    object.metadata.finalizers = old.metadata.finalizers.clone();
}

/// A namespace's `finalize` changes only its spec's finalizers.
fn keep_all_but_finalizers(object: &mut Object, old: &Object) {
    let finalizers = object
        .body
        .get("spec")
        .and_then(|spec| spec.get("finalizers"))
        .cloned();
    let metadata = std::mem::replace(&mut object.metadata, old.metadata.clone());
    object.metadata.resource_version = metadata.resource_version;
    object.body = old.body.clone();
    let spec = object
        .body
        .entry("spec")
        .or_insert_with(|| Value::Object(Default::default()));
    if let Value::Object(spec) = spec {
        match finalizers {
            Some(finalizers) => drop(spec.insert("finalizers".to_owned(), finalizers)),
            None => drop(spec.shift_remove("finalizers")),
        }
    }
}

fn copy_member(object: &mut Object, old: &Object, name: &str) {
    match old.body.get(name) {
        Some(value) => drop(object.body.insert(name.to_owned(), value.clone())),
        None => drop(object.body.shift_remove(name)),
    }
}

fn spec_differs(object: &Object, old: &Object) -> bool {
    object.body.get("spec") != old.body.get("spec")
}

/// 422 with every fault, if there is one.
pub fn refuse_invalid(target: &Target, object: &Object, faults: Faults) -> Result<(), Status> {
    if faults.is_empty() {
        return Ok(());
    }
    let row = &target.resource;
    let name = &object.metadata.name;
    Err(Status::invalid(
        &row.group,
        &row.kind,
        name,
        faults.into_causes(),
    ))
}

/// What strategies may depend on.
pub fn context<'a>(pipeline: &'a Pipeline, object: &Object) -> Context<'a> {
    let now: Timestamp = pipeline.shell.now();
    let mut hasher = DefaultHasher::new();
    (&object.metadata.uid, now.unix_ms()).hash(&mut hasher);
    Context {
        now,
        service_cidr: &pipeline.settings.service_cidr,
        seed: hasher.finish(),
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

/// 405 for what a resource does not do.
pub fn not_served(verb: Verb, target: &Target, subresource: &str) -> Status {
    let what = match subresource {
        "" => target.resource.resource.clone(),
        subresource => format!("{}/{subresource}", target.resource.resource),
    };
    Status::failure(
        405,
        Reason::MethodNotAllowed,
        format!("{verb} is not supported on resources of kind {what:?}"),
    )
}

/// 409 after too many lost races.
pub fn busy(key: &ObjectKey) -> Status {
    let why =
        format!("others changed it {TRIES_MAX} times while this request was tried; try again");
    Status::conflict(&key.resource, &key.name, &why)
}
