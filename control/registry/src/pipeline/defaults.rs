//! Brings what every cluster has up to date: roles and bindings ([`crate::rbac::default_objects`]), priority levels and flow
//! schemas ([`crate::flow::default_objects`]).

use super::Pipeline;
use super::store;
use crate::rbac::{DefaultObject, Mend, default_objects};
use crate::{Caller, DeleteOptions, Target, WriteOptions, flow};
use futures::{StreamExt, TryStreamExt, stream};
use mvcc::Consistency;
use objects::{Object, Reason, Status};
use std::future::Future;

/// Objects that are written side by side.
const AT_ONCE: usize = 8;

/// Creates what is missing and mends what lost something. Roles come before the bindings that name them.
pub async fn ensure_roles(pipeline: &Pipeline) -> Result<(), Status> {
    let (bindings, roles): (Vec<_>, Vec<_>) = default_objects()
        .into_iter()
        .partition(|object| object.object().types.kind.ends_with("Binding"));
    for objects in [roles, bindings] {
        side_by_side(
            objects
                .into_iter()
                .map(|default| ensure_role(pipeline, default)),
        )
        .await?;
    }
    Ok(())
}

/// The same of levels and schemas, as the local replica shows them: what it does not show yet is found at the next call.
pub async fn ensure_flows(pipeline: &Pipeline) -> Result<(), Status> {
    let objects = flow::default_objects().to_vec().into_iter();
    side_by_side(objects.map(|wanted| ensure_flow(pipeline, wanted))).await
}

async fn side_by_side(
    work: impl Iterator<Item = impl Future<Output = Result<(), Status>>>,
) -> Result<(), Status> {
    stream::iter(work)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn ensure_role(pipeline: &Pipeline, default: DefaultObject) -> Result<(), Status> {
    let target = target(pipeline, default.object())?;
    let key = target.key()?;
    let stored = store::read(pipeline, &key, Consistency::Linearizable).await?;
    let written = match stored.map(|stored| default.mend(&stored.object)) {
        Some(Mend::Nothing) => return Ok(()),
        Some(Mend::Update(mended)) => update(pipeline, &target, &mended).await,
        Some(Mend::Recreate) => {
            let delete = DeleteOptions::default();
            let caller = Caller::master();
            pipeline.delete(&caller, &target, &delete).await?;
            create(pipeline, &target, default.object()).await
        }
        None => create(pipeline, &target, default.object()).await,
    };
    unless_raced(written)
}

async fn ensure_flow(pipeline: &Pipeline, wanted: Object) -> Result<(), Status> {
    let target = target(pipeline, &wanted)?;
    let key = target.key()?;
    let stored = store::read(pipeline, &key, Consistency::Stale).await?;
    unless_raced(match stored {
        Some(stored) => match flow::mend(&wanted, &stored.object) {
            Some(mended) => update(pipeline, &target, &mended).await,
            None => Ok(()),
        },
        None => create(pipeline, &target, &wanted).await,
    })
}

/// Another leader may have been there at the same time.
fn unless_raced(written: Result<(), Status>) -> Result<(), Status> {
    match written {
        Err(status) if status.is(Reason::AlreadyExists) || status.is(Reason::Conflict) => Ok(()),
        written => written,
    }
}

async fn update(pipeline: &Pipeline, target: &Target, mended: &Object) -> Result<(), Status> {
    let (caller, options) = (Caller::master(), WriteOptions::default());
    let updated = pipeline.update(&caller, target, mended.to_value(), &options);
    updated.await.map(drop)
}

async fn create(pipeline: &Pipeline, target: &Target, wanted: &Object) -> Result<(), Status> {
    let target = Target {
        name: None,
        ..target.clone()
    };
    let (caller, options) = (Caller::master(), WriteOptions::default());
    let created = pipeline.create(&caller, &target, wanted.to_value(), &options);
    created.await.map(drop)
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
