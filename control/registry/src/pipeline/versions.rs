//! Answers in the version that was asked for, where another is stored. What is stored in its own version passes untouched.

use super::watch::Events;
use crate::{List, ResourceDef, Target, WatchEvent, WatchEventKind, Written};
use bytes::Bytes;
use futures::StreamExt;
use objects::Status;
use serde_json::Value;

/// Brings a stored object into the row's version.
pub fn load(row: &ResourceDef, object: &mut Value) {
    if let Some(stored) = row.stored_as {
        stored.load(object, &row.api_version());
    }
}

/// The JSON of an object as the target's version has it.
pub fn shown(target: &Target, json: Bytes) -> Result<Bytes, Status> {
    if target.resource.stored_as.is_none() {
        return Ok(json);
    }
    let mut object: Value = serde_json::from_slice(&json).map_err(Status::internal)?;
    load(&target.resource, &mut object);
    Ok(object.to_string().into())
}

/// A page of objects as the target's version has them.
pub fn shown_list(target: &Target, mut list: List) -> Result<List, Status> {
    if target.resource.stored_as.is_some() {
        let items = std::mem::take(&mut list.items);
        let items = items.into_iter().map(|item| shown(target, item));
        list.items = items.collect::<Result<_, _>>()?;
    }
    Ok(list)
}

/// The answer of a write as the target's version has it.
pub fn shown_write(target: &Target, written: Written) -> Result<Written, Status> {
    let json = shown(target, written.json)?;
    Ok(Written { json, ..written })
}

/// The events of a watch as the target's version has them.
pub fn shown_events(target: &Target, events: Events) -> Events {
    if target.resource.stored_as.is_none() {
        return events;
    }
    let target = target.clone();
    let shown_event = move |event: Result<WatchEvent, Status>| {
        let event = event?;
        if event.kind == WatchEventKind::Bookmark {
            return Ok(event); // Made for the target's version already.
        }
        let object = shown(&target, event.object)?;
        Ok(WatchEvent { object, ..event })
    };
    events.map(shown_event).boxed()
}
