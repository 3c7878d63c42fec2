//! The past as the commands ask it: points in time as they are typed, and objects as they were then.
//!
//! Objects are read as Kubernetes' clients would: lists at an exact revision.

use crate::context::{Context, Named};
use crate::resources::Resource;
use anyhow::Result;
use client::encode_segment;
use objects::past::{HistoryStatus, Moment};
use objects::{GroupResource, Status, Timestamp};
use serde_json::Value;
use std::time::Duration;

/// A point in the past, as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// `1234`
    Revision(u64),
    /// `2026-01-31T12:00:00Z`
    Time(Timestamp),
    /// `10m`
    Ago(Duration),
}

/// Reads `10m`, a time, or a revision. A time without a zone is UTC.
pub fn parse_at(text: &str) -> Result<At, String> {
    if let Ok(revision) = text.parse() {
        return Ok(At::Revision(revision));
    }
    if let Ok(ago) = crate::cli::parse_duration(text) {
        return Ok(At::Ago(ago));
    }
    let local = text.parse::<jiff::civil::DateTime>().ok();
    let in_utc = local.and_then(|local| jiff::tz::Offset::UTC.to_timestamp(local).ok());
    match Timestamp::parse(text).or(in_utc.map(Timestamp)) {
        Some(time) => Ok(At::Time(time)),
        None => Err(format!(
            "{text:?} is no point in the past: write it as 10m (ago), 2026-01-31T12:00:00Z, or a revision"
        )),
    }
}

/// The revision of a point in the past; a failure tells what is the oldest that is kept.
pub async fn moment(context: &Context, at: &At) -> Result<Moment> {
    let query = match at {
        At::Revision(revision) => format!("at={revision}"),
        At::Time(time) => format!("at={}", encode_segment(&time.to_milli_time())),
        At::Ago(ago) => format!("ago={}", ago.as_secs()),
    };
    let status: HistoryStatus = context
        .client
        .get(&format!("/cluster/v1/history?{query}"))
        .await?;
    let moment = status.at.unwrap_or(status.newest);
    Ok(moment)
}

/// `revision 1234 of 2026-01-31T12:00:00.000Z`
pub fn describe(moment: &Moment) -> String {
    match &moment.time {
        Some(time) => format!("revision {} of {time}", moment.revision),
        None => format!("revision {}", moment.revision),
    }
}

/// The query that reads a list as it was.
pub fn exact(revision: u64) -> String {
    format!("resourceVersion={revision}&resourceVersionMatch=Exact")
}

/// The path of a list of one object.
pub fn list_of_one(named: &Named) -> String {
    let field = encode_segment(&format!("metadata.name={}", named.name));
    let collection = named.resource.collection(Some(&named.namespace));
    format!("{collection}?fieldSelector={field}")
}

/// An object as it was; None when there was none.
pub async fn object_at(context: &Context, named: &Named, revision: u64) -> Result<Option<Value>> {
    let path = format!("{}&{}", list_of_one(named), exact(revision));
    let mut list: Value = context.client.get(&path).await?;
    let item = list["items"]
        .as_array_mut()
        .filter(|items| !items.is_empty())
        .map(|items| items.swap_remove(0));
    Ok(item.map(|item| with_types(item, &list["apiVersion"], &named.resource.kind)))
}

/// The failure for an object that was not there.
pub fn absent(named: &Named, moment: &Moment) -> client::Error {
    let resource = GroupResource::new(&named.resource.group, &named.resource.plural);
    let mut status = Status::not_found(&resource, &named.name);
    status.message = format!("{} at {}", status.message, describe(moment));
    status.into()
}

/// Items of a list do not say what they are; alone they must.
pub fn with_types(item: Value, api_version: &Value, kind: &str) -> Value {
    let mut whole = serde_json::json!({"apiVersion": api_version, "kind": kind});
    if let (Value::Object(item), Some(whole)) = (item, whole.as_object_mut()) {
        whole.extend(item);
    }
    whole
}

/// All objects of a collection, page by page: `first` asks the first page, `base` the next ones, which know their revision.
pub async fn pages(
    context: &Context,
    base: &str,
    version: &str,
    accept: &'static str,
) -> Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut next = format!("{base}&{version}");
    loop {
        let mut page: Value = context.client.get_accepting(&next, accept).await?;
        if let Some(found) = page["items"].as_array_mut() {
            items.append(found);
        }
        match page["metadata"]["continue"].as_str() {
            Some(token) if !token.is_empty() => {
                next = format!("{base}&continue={}", encode_segment(token));
            }
            _ => return Ok(items),
        }
    }
}

/// An object of a list, by its own metadata.
pub fn named(resource: &Resource, item: &Value) -> Named {
    let text = |name: &str| item["metadata"][name].as_str().unwrap_or("").to_owned();
    Named {
        resource: resource.clone(),
        namespace: text("namespace"),
        name: text("name"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_the_past_are_typed_in_three_ways() {
        let time = |text: &str| At::Time(Timestamp::parse(text).expect("a time"));
        assert_eq!(parse_at("1234"), Ok(At::Revision(1234)));
        assert_eq!(parse_at("10m"), Ok(At::Ago(Duration::from_secs(600))));
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31T13:00:00+01:00",
            "2026-01-31T12:00:00",
            "2026-01-31 12:00",
        ] {
            assert_eq!(parse_at(text), Ok(time("2026-01-31T12:00:00Z")), "{text}");
        }
        for text in ["", "yesterday", "-5m", "2026"] {
            assert!(
                !matches!(parse_at(text), Ok(At::Time(_) | At::Ago(_))),
                "{text}"
            );
        }
    }
}
