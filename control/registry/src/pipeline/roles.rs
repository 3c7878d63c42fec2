//! Brings the roles and bindings that every cluster has up to date; see [`crate::rbac::default_objects`].

use super::Pipeline;
use super::store;
use crate::rbac::{DefaultObject, Mend, default_objects};
use crate::{Caller, DeleteOptions, Target, WriteOptions};
use futures::{StreamExt, TryStreamExt, stream};
use mvcc::Consistency;
use objects::{Object, Reason, Status};

/// Objects that are written side by side.
const AT_ONCE: usize = 8;

/// Creates what is missing and mends what lost something. Roles come before the bindings that name them.
pub async fn ensure(pipeline: &Pipeline) -> Result<(), Status> {
    let (bindings, roles): (Vec<_>, Vec<_>) = default_objects()
        .into_iter()
        .partition(|object| object.object().types.kind.ends_with("Binding"));
    for objects in [roles, bindings] {
        stream::iter(
            objects
                .into_iter()
                .map(|default| ensure_one(pipeline, default)),
        )
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    }
    Ok(())
}

async fn ensure_one(pipeline: &Pipeline, default: DefaultObject) -> Result<(), Status> {
    let target = target(pipeline, default.object())?;
    let key = target.key()?;
    let stored = store::read(pipeline, &key, Consistency::Linearizable).await?;
    let options = WriteOptions::default();
    let caller = Caller::master();
    let written = match stored.map(|stored| default.mend(&stored.object)) {
        Some(Mend::Nothing) => return Ok(()),
        Some(Mend::Update(mended)) => {
            let value = mended.to_value();
            pipeline
                .update(&caller, &target, value, &options)
                .await
                .map(drop)
        }
        Some(Mend::Recreate) => {
            let delete = DeleteOptions::default();
            pipeline.delete(&caller, &target, &delete).await?;
            create(pipeline, &target, &default).await
        }
        None => create(pipeline, &target, &default).await,
    };
    match written {
        // Another leader was there at the same time.
        Err(status) if status.is(Reason::AlreadyExists) || status.is(Reason::Conflict) => Ok(()),
        written => written,
    }
}

async fn create(
    pipeline: &Pipeline,
    target: &Target,
    default: &DefaultObject,
) -> Result<(), Status> {
    let target = Target {
        name: None,
        ..target.clone()
    };
    let value = default.object().to_value();
    pipeline
        .create(&Caller::master(), &target, value, &WriteOptions::default())
        .await
        .map(drop)
}

fn target(pipeline: &Pipeline, object: &Object) -> Result<Target, Status> {
    let registry = pipeline.registry();
    let row = registry
        .by_kind(&object.types)
        .ok_or_else(|| Status::internal(format_args!("there is no kind {:?}", object.types)))?;
    let metadata = &object.metadata;
    Ok(Target::object(
        row,
        metadata.namespace.as_deref(),
        &metadata.name,
    ))
}
