//! Update and patch: what becomes of a body or a patch on its way to a key that exists.
//! Semantics: Kubernetes' generic registry: status and spec are written apart, the generation counts changes of the spec, a
//! write that changes nothing commits nothing, and a client without a precondition never sees a lost race.

use super::shape::{
    busy, check_preconditions, context, copy_member, is_released, keep_all_but_decision,
    keep_all_but_ephemeral, keep_all_but_finalizers, keep_all_but_resources, keep_all_but_status,
    not_served, refuse_invalid,
};
use super::store::{self, Stored, Try, tries};
use super::{Pipeline, admit, apply as apply_patch, body, commit, fields, scale, versions};
use crate::strategy::Claim;
use crate::{
    Caller, Faults, Patch, PatchKind, Target, Verb, WriteOptions, Written, metadata, schema,
};
use mvcc::Consistency;
use objects::{GroupVersionKind, Object, ObjectKey, Reason, Status, patch};
use serde_json::Value;

/// Replaces an object or a part of it.
pub async fn update(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    mut value: Value,
    options: &WriteOptions,
) -> Result<Written, Status> {
    let change = Change {
        caller,
        target,
        options,
        verb: Verb::Update,
    };
    match target.subresource_name() {
        "" | "status" | "finalize" | "ephemeralcontainers" | "resize" | "approval" => {
            let read = body::read(pipeline, target, value, options)?;
            let mut object = read.object;
            body::check_place(&mut object, target)?;
            let made = |_: &Stored| {
                Ok(Draft {
                    object: object.clone(),
                    warnings: read.warnings.clone(),
                    applied: None,
                })
            };
            change.run(pipeline, made).await
        }
        "scale" => {
            body::conform_subresource(pipeline, target, &mut value, options)?;
            let made = |stored: &Stored| Ok(draft_of(scale::put(target, &stored.object, &value)?));
            scale::answer(target, change.run(pipeline, made).await?)
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
        return apply_patch::apply(pipeline, caller, target, patch, options).await;
    }
    if options.force {
        return Err(apply_patch::invalid_option(
            "force",
            "FieldValueForbidden",
            "Forbidden: may not be specified for non-apply patch",
        ));
    }
    let change = Change {
        caller,
        target,
        options,
        verb: Verb::Patch,
    };
    match target.subresource_name() {
        // Kubernetes finalizes by PUT alone; the namespace controller does it in one step, guarded by the revision.
        "" | "status" | "finalize" | "ephemeralcontainers" | "resize" | "approval" => {
            let made = |stored: &Stored| {
                let mut value = stored.object.to_value();
                versions::load(&target.resource, &mut value);
                apply(target, patch, &mut value)?;
                let read = body::read(pipeline, target, value, options)?;
                let mut object = read.object;
                body::check_place(&mut object, target)?;
                Ok(Draft {
                    object,
                    warnings: read.warnings,
                    applied: None,
                })
            };
            change.run(pipeline, made).await
        }
        "scale" => {
            let made = |stored: &Stored| {
                let mut value = scale::of_object(target, &stored.object);
                apply(target, patch, &mut value)?;
                body::conform_subresource(pipeline, target, &mut value, options)?;
                Ok(draft_of(scale::put(target, &stored.object, &value)?))
            };
            scale::answer(target, change.run(pipeline, made).await?)
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
                "scale" => GroupVersionKind::new("autoscaling", "v1", "Scale"),
                _ => target.resource.kind(),
            };
            merge_by_type(target, &kind, value, &patch.value)
        }
    }
}

/// A strategic merge; a kind without a schema has no merge keys, which Kubernetes answers with 415.
fn merge_by_type(
    target: &Target,
    kind: &GroupVersionKind,
    value: &mut Value,
    patch: &Value,
) -> Result<(), Status> {
    let schemas = schema::Schemas::builtin();
    let known = schemas
        .kind(kind)
        .filter(|_| target.resource.custom.is_none());
    let Some(r#type) = known else {
        return Err(Status::failure(
            415,
            Reason::UnsupportedMediaType,
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
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

/// An object as a write makes it, before it has been checked.
#[derive(Clone)]
pub struct Draft {
    /// The object.
    pub object: Object,
    /// For `Warning` headers.
    pub warnings: Vec<String>,
    /// Who owns what, if it was applied; else it is found out.
    pub applied: Option<Vec<Value>>,
}

fn draft_of(object: Object) -> Draft {
    Draft {
        object,
        warnings: Vec::new(),
        applied: None,
    }
}

/// An update or patch on its way.
pub struct Change<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// For what.
    pub target: &'a Target,
    /// How.
    pub options: &'a WriteOptions,
    /// By which verb.
    pub verb: Verb,
}

impl Change<'_> {
    /// Reads, makes the new object out of the stored one, commits; again when somebody else was faster.
    pub async fn run(
        &self,
        pipeline: &Pipeline,
        made: impl Fn(&Stored) -> Result<Draft, Status>,
    ) -> Result<Written, Status> {
        let key = self.target.key()?;
        for consistency in tries() {
            match self.once(pipeline, &key, &made, consistency).await? {
                Try::Done(written) => return Ok(written),
                Try::Seen(answer) if consistency == Consistency::Linearizable => return answer,
                Try::Seen(_) | Try::Lost => {}
            }
        }
        Err(busy(&key))
    }

    async fn once(
        &self,
        pipeline: &Pipeline,
        key: &ObjectKey,
        made: impl Fn(&Stored) -> Result<Draft, Status>,
        consistency: Consistency,
    ) -> Result<Try<Written>, Status> {
        let stored = store::read(pipeline, key, consistency).await?;
        let stored = match stored {
            Some(stored) => Some(versions::of_request(pipeline, self.target, stored).await?),
            None => None,
        };
        let prepared = match stored {
            None => Err(Status::not_found(&key.resource, &key.name)),
            Some(stored) => self.prepare(pipeline, key, made, stored).await,
        };
        match prepared {
            Err(refused) => Ok(Try::Seen(Err(refused))),
            Ok(prepared) => self.commit(pipeline, key, prepared).await,
        }
    }

    /// Makes the new object and checks it.
    async fn prepare(
        &self,
        pipeline: &Pipeline,
        key: &ObjectKey,
        made: impl Fn(&Stored) -> Result<Draft, Status>,
        stored: Stored,
    ) -> Result<Prepared, Status> {
        admit::caller_may(self.caller, self.verb, self.target, &stored.object)?;
        let Draft {
            mut object,
            mut warnings,
            applied,
        } = made(&stored)?;
        check_preconditions(key, &object, &stored)?;
        let attributes = admit::Attributes {
            caller: self.caller,
            target: self.target,
            operation: admit::Operation::Update,
            old: Some(&stored.object),
            options: admit::Options::Write(self.options),
        };
        self.shape(&mut object, &stored.object, pipeline, applied);
        if admit::mutate(pipeline, &attributes, &mut object).await? {
            let entries = object.metadata.managed_fields.clone();
            self.shape(&mut object, &stored.object, pipeline, Some(entries));
        }
        self.finish(&mut object, &stored.object, pipeline);
        admit::may_grant(
            pipeline,
            self.caller,
            self.target,
            &object,
            Some(&stored.object),
        )?;
        admit::may_sign(pipeline, self.caller, self.target, &stored.object)?;
        admit::node_may_change(self.caller, self.target, &object, &stored.object)?;
        let held = self.target.resource.strategy.claims(&stored.object);
        let claims = self
            .check(pipeline, &mut object, &stored.object, &held)
            .await?;
        warnings.extend(self.target.resource.strategy.warnings(&object));
        admit::validate(pipeline, &attributes, &object).await?;
        let charges =
            admit::charge(pipeline, &attributes, &object, Consistency::Linearizable).await?;
        object.metadata.resource_version = stored.revision.to_string();
        Ok(Prepared {
            object,
            warnings,
            stored,
            held,
            claims,
            demands: commit::Demands {
                namespace: None,
                charges,
            },
        })
    }

    /// Keeps what this request may not change, and fills in what it left out.
    fn shape(
        &self,
        object: &mut Object,
        old: &Object,
        pipeline: &Pipeline,
        applied: Option<Vec<Value>>,
    ) {
        let strategy = &*self.target.resource.strategy;
        body::keep_server_fields(&mut object.metadata, &old.metadata);
        let record = |object: &mut Object| match applied {
            Some(entries) => object.metadata.managed_fields = entries,
            None => fields::track(pipeline, self.target, self.options, Some(old), object),
        };
        match self.target.subresource_name() {
            "status" => {
                keep_all_but_status(object, old);
                record(object);
            }
            "finalize" => {
                keep_all_but_finalizers(object, old);
                record(object);
            }
            part @ ("ephemeralcontainers" | "resize") => {
                strategy.default_fields(object);
                match part {
                    "resize" => keep_all_but_resources(object, old),
                    _ => keep_all_but_ephemeral(object, old),
                }
                record(object);
            }
            "approval" => keep_all_but_decision(object, old, pipeline.shell.now()),
            _ => {
                if self.target.resource.subresource("status").is_some() {
                    copy_member(object, old, "status");
                }
                strategy.default_fields(object);
                record(object);
            }
        }
    }

    /// Sets what follows from what the object has become.
    fn finish(&self, object: &mut Object, old: &Object, pipeline: &Pipeline) {
        let strategy = &*self.target.resource.strategy;
        let counts = match self.target.subresource_name() {
            "status" | "finalize" | "approval" => return,
            "ephemeralcontainers" | "resize" => true,
            _ => {
                strategy.prepare_update(object, old, &context(pipeline, self.caller, old));
                strategy.has_generation()
            }
        };
        if counts && strategy.desire_differs(object, old) {
            object.metadata.generation = old.metadata.generation + 1;
        }
    }

    /// Says what is wrong with the new object; answers with the pool values that it holds.
    async fn check(
        &self,
        pipeline: &Pipeline,
        object: &mut Object,
        old: &Object,
        held: &[Claim],
    ) -> Result<Vec<Claim>, Status> {
        let strategy = &*self.target.resource.strategy;
        let mut faults = Faults::default();
        metadata::validate(&self.target.resource, object, &mut faults);
        metadata::validate_update(object, old, &mut faults);
        let mut claims = held.to_vec();
        let part = self.target.subresource_name();
        if matches!(part, "status" | "approval") {
            strategy.validate_status(object, old, &mut faults);
        } else {
            strategy.validate(object, &mut faults);
            match part {
                "ephemeralcontainers" | "resize" => {
                    strategy.validate_part(part, object, old, &mut faults);
                }
                _ => strategy.validate_update(object, old, &mut faults),
            }
            let context = context(pipeline, self.caller, old);
            claims =
                commit::allocate(pipeline, strategy, object, held, &context, &mut faults).await?;
        }
        refuse_invalid(self.target, object, faults)?;
        Ok(claims)
    }

    /// Stores the new object, unless it is as it was.
    async fn commit(
        &self,
        pipeline: &Pipeline,
        key: &ObjectKey,
        prepared: Prepared,
    ) -> Result<Try<Written>, Status> {
        let Prepared {
            object,
            warnings,
            stored,
            held,
            claims,
            demands,
        } = prepared;
        let written = |json| Written {
            json,
            created: false,
            warnings,
        };
        if object == stored.object || self.options.dry_run {
            let json = object.to_value().to_string().into();
            return Ok(Try::Seen(Ok(written(json))));
        }
        let object = versions::to_store(pipeline, self.target, object).await?;
        let bytes = commit::encode(&object)?;
        let old = stored.revision;
        let writer = &commit::Writer {
            caller: self.caller,
            manager: self.options.field_manager.as_deref(),
            verb: self.verb,
            subresource: self.target.subresource_name(),
        };
        let committed = if is_released(&*self.target.resource.strategy, &object) {
            commit::remove(pipeline, writer, key, old, &held).await?
        } else {
            let replacement = commit::Replacement {
                revision: old,
                bytes: bytes.clone(),
                held: &held,
                claims: &claims,
                demands: &demands,
            };
            commit::replace(pipeline, writer, key, replacement).await?
        };
        Ok(match committed {
            Some(revision) => Try::Done(written(objects::splice_revision(&bytes, revision))),
            None => Try::Lost,
        })
    }
}

/// A change that may be committed.
struct Prepared {
    object: Object,
    warnings: Vec<String>,
    stored: Stored,
    held: Vec<Claim>,
    claims: Vec<Claim>,
    demands: commit::Demands,
}
