//! Follows the definitions of custom kinds in the store: each change of one changes the table of this master.

use super::store::status_of;
use super::{Pipeline, admit};
use crate::custom::{self, GROUP, RESOURCE};
use crate::policy;
use crate::{Registry, ResourceDef};
use bytes::Bytes;
use futures::StreamExt;
use mvcc::{Event, KeyRange, RangeRequest, WatchRequest};
use objects::{GroupResource, Status};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

/// The rows that each definition made.
type Rows = BTreeMap<Bytes, Made>;

struct Made {
    /// What of the definition the rows follow from.
    basis: Value,
    rows: Vec<Arc<ResourceDef>>,
}

/// Reads all definitions and follows them; answers why it ended.
pub async fn follow(pipeline: &Pipeline) -> Status {
    match run(pipeline).await {
        Ok(()) => Status::unavailable("the store's events ended"),
        Err(status) => status,
    }
}

/// Reads all admission policies and follows them; answers why it ended.
pub async fn follow_policies(pipeline: &Pipeline) -> Status {
    match run_policies(pipeline).await {
        Ok(()) => Status::unavailable("the store's events ended"),
        Err(status) => status,
    }
}

async fn run_policies(pipeline: &Pipeline) -> Result<(), Status> {
    let (policies, mut revision) = admit::read_policies(pipeline).await?;
    let set = |policies| {
        *pipeline
            .policies
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(policies);
    };
    set(policies);
    // That of all their collections: what is read is all of them, since a binding speaks of a policy.
    let prefix = objects::resource_prefix(&GroupResource::new(policy::GROUP, ""));
    let range = KeyRange::prefix(prefix.trim_end_matches('/').to_owned());
    let start = revision.next();
    let mut batches = pipeline
        .store
        .watch(WatchRequest { range, start })
        .await
        .map_err(status_of)?;
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(status_of)?;
        if batch.events.is_empty() || batch.revision <= revision {
            continue;
        }
        let policies;
        (policies, revision) = admit::read_policies(pipeline).await?;
        set(policies);
    }
    Ok(())
}

async fn run(pipeline: &Pipeline) -> Result<(), Status> {
    let range = KeyRange::prefix(objects::resource_prefix(&GroupResource::new(
        GROUP, RESOURCE,
    )));
    let found = pipeline
        .store
        .range(RangeRequest::new(range.clone()))
        .await
        .map_err(status_of)?;
    let mut rows = Rows::new();
    for kv in &found.kvs {
        take_in(&mut rows, &kv.key, &kv.value);
    }
    publish(pipeline, &rows);
    let start = found.revision.next();
    let mut batches = pipeline
        .store
        .watch(WatchRequest { range, start })
        .await
        .map_err(status_of)?;
    while let Some(batch) = batches.next().await {
        let mut changed = false;
        for event in &batch.map_err(status_of)?.events {
            changed |= match &**event {
                Event::Put { kv, .. } => take_in(&mut rows, &kv.key, &kv.value),
                Event::Delete { key, .. } => rows.remove(key).is_some(),
            };
        }
        if changed {
            publish(pipeline, &rows);
        }
    }
    Ok(())
}

/// Makes the rows of a definition, unless nothing changed that they follow from.
fn take_in(rows: &mut Rows, key: &Bytes, stored: &[u8]) -> bool {
    let Ok(definition) = serde_json::from_slice::<Value>(stored) else {
        return false; // What the pipeline wrote is JSON; what somebody else wrote defines nothing.
    };
    let basis = serde_json::json!([
        definition["spec"],
        definition["status"]["acceptedNames"],
        definition["status"]["conditions"],
        definition["metadata"]["deletionTimestamp"],
    ]);
    if rows.get(key).is_some_and(|made| made.basis == basis) {
        return false;
    }
    let made = custom::rows(&definition)
        .into_iter()
        .map(Arc::new)
        .collect();
    rows.insert(key.clone(), Made { basis, rows: made });
    true
}

/// Puts the rows beside the built-in ones. No definition takes the place of a built-in kind.
fn publish(pipeline: &Pipeline, rows: &Rows) {
    let mut table = pipeline
        .registry
        .write()
        .unwrap_or_else(PoisonError::into_inner);
    let mut registry = Registry::default();
    for row in table.iter().filter(|row| row.custom.is_none()) {
        registry.insert(row.clone());
    }
    for row in rows.values().flat_map(|made| &made.rows) {
        if registry
            .find(&row.group, &row.version, &row.resource)
            .is_none()
        {
            registry.insert(row.clone());
        }
    }
    *table = Arc::new(registry);
}
