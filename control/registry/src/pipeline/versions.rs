//! Answers in the version that was asked for, where another is stored. What is stored in its own version passes untouched.
//!
//! Built-in kinds are turned where bodies are read and answers are written. Custom kinds are turned where objects leave and enter the
//! store, since their schema is that of the request's version; a webhook may have to be asked.

use super::Pipeline;
use super::store::Stored;
use super::watch::Events;
use crate::custom::{Conversion, Custom};
use crate::{List, ResourceDef, Target, WatchEvent, WatchEventKind, Written};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use objects::{Object, Status};
use serde_json::Value;

/// Calls the webhooks that turn custom objects of one version into another.
pub trait Converter: Send + Sync + 'static {
    /// The objects as `api_version` has them, in order. `webhook` is `spec.conversion.webhook` of the definition. The error says
    /// what went wrong.
    fn convert<'a>(
        &'a self,
        webhook: &'a Value,
        api_version: &'a str,
        objects: Vec<Value>,
    ) -> BoxFuture<'a, Result<Vec<Value>, String>>;
}

/// Brings a stored object of a built-in kind into the row's version.
pub fn load(row: &ResourceDef, object: &mut Value) {
    if let Some(stored) = row.stored_as {
        stored.load(object, &row.api_version());
    }
}

/// A custom object as the request's version has it, with what its schema adds. Others pass.
pub async fn of_request(
    pipeline: &Pipeline,
    target: &Target,
    mut stored: Stored,
) -> Result<Stored, Status> {
    if let Some(custom) = changing(&target.resource) {
        let value = shown_values(
            pipeline,
            &target.resource,
            custom,
            vec![stored.object.to_value()],
        )
        .await?;
        stored.object = single(value)?;
    }
    Ok(stored)
}

/// A custom object as it is stored. Others pass.
pub async fn to_store(
    pipeline: &Pipeline,
    target: &Target,
    object: Object,
) -> Result<Object, Status> {
    match &target.resource.custom {
        Some(custom) if object.types.api_version() != custom.stored_version => {
            let value = object.to_value();
            let values = turned(
                pipeline,
                &target.resource,
                custom,
                &custom.stored_version,
                vec![value],
            )
            .await?;
            single(values)
        }
        _ => Ok(object),
    }
}

fn single(values: Vec<Value>) -> Result<Object, Status> {
    let value = values.into_iter().next().unwrap_or_default();
    Object::from_value(value).map_err(Status::internal)
}

/// The JSON of an object as the target's version has it.
pub async fn shown(pipeline: &Pipeline, target: &Target, json: Bytes) -> Result<Bytes, Status> {
    let mut list = shown_all(pipeline, target, vec![json]).await?;
    list.pop()
        .ok_or_else(|| Status::internal("an object was lost on the way"))
}

/// A page of objects as the target's version has them.
pub async fn shown_list(
    pipeline: &Pipeline,
    target: &Target,
    mut list: List,
) -> Result<List, Status> {
    let items = std::mem::take(&mut list.items);
    list.items = shown_all(pipeline, target, items).await?;
    Ok(list)
}

/// The answer of a write as the target's version has it.
pub async fn shown_write(
    pipeline: &Pipeline,
    target: &Target,
    written: Written,
) -> Result<Written, Status> {
    let json = shown(pipeline, target, written.json).await?;
    Ok(Written { json, ..written })
}

/// The events of a watch as the target's version has them.
pub fn shown_events(pipeline: &Pipeline, target: &Target, events: Events) -> Events {
    if passes(&target.resource) {
        return events;
    }
    let (pipeline, target) = (pipeline.clone(), target.clone());
    let shown_event = move |event: Result<WatchEvent, Status>| {
        let (pipeline, target) = (pipeline.clone(), target.clone());
        async move {
            let event = event?;
            if event.kind == WatchEventKind::Bookmark {
                return Ok(event); // Made for the target's version already.
            }
            let object = shown(&pipeline, &target, event.object).await?;
            Ok(WatchEvent { object, ..event })
        }
    };
    events.then(shown_event).boxed()
}

/// What of a custom kind may have to be changed when it is read.
fn changing(row: &ResourceDef) -> Option<&Custom> {
    row.custom
        .as_deref()
        .filter(|custom| custom.changes_on_read)
}

fn passes(row: &ResourceDef) -> bool {
    row.stored_as.is_none() && changing(row).is_none()
}

async fn shown_all(
    pipeline: &Pipeline,
    target: &Target,
    items: Vec<Bytes>,
) -> Result<Vec<Bytes>, Status> {
    let row = &target.resource;
    if passes(row) || target.subresource_name() == "scale" {
        return Ok(items);
    }
    let values = items.iter().map(|item| serde_json::from_slice(item));
    let mut values: Vec<Value> = values.collect::<Result<_, _>>().map_err(Status::internal)?;
    match changing(row) {
        Some(custom) => values = shown_values(pipeline, row, custom, values).await?,
        None => values.iter_mut().for_each(|value| load(row, value)),
    }
    Ok(values
        .into_iter()
        .map(|value| value.to_string().into())
        .collect())
}

async fn shown_values(
    pipeline: &Pipeline,
    row: &ResourceDef,
    custom: &Custom,
    values: Vec<Value>,
) -> Result<Vec<Value>, Status> {
    let mut values = turned(pipeline, row, custom, &row.api_version(), values).await?;
    values.iter_mut().for_each(|value| custom.default(value));
    Ok(values)
}

/// Objects as a version has them; those that are of it already pass.
async fn turned(
    pipeline: &Pipeline,
    row: &ResourceDef,
    custom: &Custom,
    api_version: &str,
    mut values: Vec<Value>,
) -> Result<Vec<Value>, Status> {
    let others: Vec<usize> = (0..values.len())
        .filter(|at| values[*at]["apiVersion"] != api_version)
        .collect();
    if others.is_empty() {
        return Ok(values);
    }
    let Conversion::Webhook(webhook) = &custom.conversion else {
        for at in others {
            values[at]["apiVersion"] = Value::from(api_version);
        }
        return Ok(values);
    };
    let failed = |why: String| {
        Status::internal(format!(
            "conversion webhook for {}, Kind={} failed: {why}",
            row.api_version(),
            row.kind
        ))
    };
    let converter = pipeline
        .converter
        .as_ref()
        .ok_or_else(|| failed("this server calls no webhooks".into()))?;
    let asked = others.iter().map(|at| values[*at].clone()).collect();
    let answered = converter
        .convert(webhook, api_version, asked)
        .await
        .map_err(failed)?;
    if answered.len() != others.len() {
        return Err(failed(format!(
            "it answered with {} objects instead of {}",
            answered.len(),
            others.len()
        )));
    }
    for (at, answer) in others.into_iter().zip(answered) {
        values[at] = kept(&values[at], answer, api_version).map_err(failed)?;
    }
    Ok(values)
}

/// A webhook's answer, in which only labels and annotations of the metadata may differ.
fn kept(asked: &Value, mut answer: Value, api_version: &str) -> Result<Value, String> {
    if answer["apiVersion"] != api_version || answer["kind"] != asked["kind"] {
        return Err(format!(
            "it answered with {}, Kind={}",
            answer["apiVersion"], answer["kind"]
        ));
    }
    let mut metadata = asked["metadata"].clone();
    for name in ["labels", "annotations"] {
        match answer["metadata"].get(name) {
            Some(value) if !value.is_null() => metadata[name] = value.clone(),
            _ => {
                if let Value::Object(metadata) = &mut metadata {
                    metadata.shift_remove(name);
                }
            }
        }
    }
    answer["metadata"] = metadata;
    Ok(answer)
}
