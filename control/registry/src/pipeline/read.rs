//! Get and list: bytes out of the store, revisions spliced in, selectors applied. Semantics: Kubernetes' API concepts,
//! "resource versions" and "retrieving large results sets in chunks".

use super::Pipeline;
use crate::{List, ListOptions, Target};
use bytes::Bytes;
use objects::{Revision, Status};

/// An object's JSON.
pub async fn get(
    pipeline: &Pipeline,
    target: &Target,
    resource_version: Option<Revision>,
) -> Result<Bytes, Status> {
    let key = target.key()?;
    let consistency = super::store::consistency(resource_version);
    let stored = super::store::read(pipeline, &key, consistency).await?;
    let stored = stored.ok_or_else(|| Status::not_found(&key.resource, &key.name))?;
    Ok(objects::splice_revision(&stored.kv.value, stored.revision))
}

/// A page of objects.
pub async fn list(
    pipeline: &Pipeline,
    _target: &Target,
    _options: &ListOptions,
) -> Result<List, Status> {
    Err(pipeline.unserved())
}
