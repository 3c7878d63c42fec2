//! Options of requests, from the query and from a delete's body, into the pipeline's own types.
//!
//! Names and defaults: meta/v1 `ListOptions`, `CreateOptions`, `PatchOptions`, `DeleteOptions`.

use crate::query::Query;
use http::HeaderMap;
use http::header::USER_AGENT;
use objects::{FieldSelector, LabelSelector, Status, Uid};
use registry::{
    DeleteOptions, FieldValidation, ListOptions, Propagation, VersionMatch, WriteOptions,
    parse_resource_version,
};
use serde::Deserialize;
use serde_json::Value;

/// The longest name of a field manager that apiserver takes.
const FIELD_MANAGER_BYTES_MAX: usize = 128;

/// Options of a list or watch; a `name` narrows it to one object.
pub fn list(query: &Query, name: Option<&str>) -> Result<ListOptions, Status> {
    let label_selector = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())
        .map_err(|error| Status::bad_request(format!("unable to parse labelSelector: {error}")))?;
    let field_selector = match name {
        Some(name) => FieldSelector::by_name(name),
        None => FieldSelector::parse(query.get("fieldSelector").unwrap_or_default()).map_err(
            |error| Status::bad_request(format!("unable to parse fieldSelector: {error}")),
        )?,
    };
    let limit = match query.number("limit")? {
        None | Some(0) => None,
        Some(limit) => Some(usize::try_from(limit).map_err(|_| {
            Status::bad_request(format!("invalid limit {limit}: must not be negative"))
        })?),
    };
    let version_match = match query.text("resourceVersionMatch") {
        None => None,
        Some("Exact") => Some(VersionMatch::Exact),
        Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
        Some(other) => {
            return Err(Status::bad_request(format!(
                "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
            )));
        }
    };
    Ok(ListOptions {
        label_selector,
        field_selector,
        limit,
        continue_token: query.text("continue").map(str::to_owned),
        resource_version: parse_resource_version(query.get("resourceVersion").unwrap_or_default())?,
        version_match,
        allow_bookmarks: query.flag("allowWatchBookmarks"),
        send_initial_events: query.optional_flag("sendInitialEvents"),
        is_uncounted: false,
    })
}

/// Options of a create, update or patch. Without `fieldManager` the manager is the program that asks, but for an apply.
pub fn write(query: &Query, headers: &HeaderMap, is_apply: bool) -> Result<WriteOptions, Status> {
    let named = query.text("fieldManager").map(str::to_owned);
    if named
        .as_ref()
        .is_some_and(|name| name.len() > FIELD_MANAGER_BYTES_MAX)
    {
        return Err(Status::bad_request(format!(
            "fieldManager: Too long: may not be more than {FIELD_MANAGER_BYTES_MAX} bytes"
        )));
    }
    let field_validation = match query.text("fieldValidation") {
        None | Some("Warn") => FieldValidation::Warn,
        Some("Ignore") => FieldValidation::Ignore,
        Some("Strict") => FieldValidation::Strict,
        Some(other) => {
            return Err(Status::bad_request(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Warn\", \"Strict\""
            )));
        }
    };
    Ok(WriteOptions {
        dry_run: dry_run(query.all("dryRun"))?,
        field_manager: if is_apply {
            named
        } else {
            named.or_else(|| program(headers))
        },
        field_validation,
        force: query.flag("force"),
        ..WriteOptions::default()
    })
}

/// Options of a delete: the body's, or, when it is empty, the query's.
pub fn delete(
    query: &Query,
    headers: &HeaderMap,
    body: Option<Value>,
) -> Result<DeleteOptions, Status> {
    let given: DeleteBody = match body {
        None => DeleteBody {
            grace_period_seconds: query.number("gracePeriodSeconds")?,
            propagation_policy: query.text("propagationPolicy").map(str::to_owned),
            orphan_dependents: query.optional_flag("orphanDependents"),
            ..DeleteBody::default()
        },
        Some(body) => serde_json::from_value(body).map_err(|error| {
            Status::bad_request(format!("DeleteOptions cannot be read: {error}"))
        })?,
    };
    let propagation = match (given.propagation_policy.as_deref(), given.orphan_dependents) {
        (Some("Orphan"), None) | (None, Some(true)) => Some(Propagation::Orphan),
        (Some("Background"), None) | (None, Some(false)) => Some(Propagation::Background),
        (Some("Foreground"), None) => Some(Propagation::Foreground),
        (None, None) => None,
        (Some(_), Some(_)) => {
            return Err(Status::bad_request(
                "orphanDependents and propagationPolicy cannot both be set",
            ));
        }
        (Some(other), None) => {
            return Err(Status::bad_request(format!(
                "propagationPolicy: Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\""
            )));
        }
    };
    let values = given.dry_run.iter().map(String::as_str);
    let preconditions = given.preconditions.unwrap_or_default();
    Ok(DeleteOptions {
        grace_seconds: given.grace_period_seconds,
        propagation,
        uid: preconditions.uid.map(Uid),
        resource_version: match preconditions.resource_version {
            Some(text) => parse_resource_version(&text)?,
            None => None,
        },
        dry_run: dry_run(values.chain(query.all("dryRun")))?,
        manager: program(headers),
        ..DeleteOptions::default()
    })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeleteBody {
    grace_period_seconds: Option<i64>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    preconditions: Option<Preconditions>,
    dry_run: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool, Status> {
    let mut dry = false;
    for value in values {
        match value {
            "All" => dry = true,
            "" => (),
            other => {
                return Err(Status::bad_request(format!(
                    "dryRun: Unsupported value: {other:?}: supported values: \"All\""
                )));
            }
        }
    }
    Ok(dry)
}

/// `kubectl/v1.33.1 (linux/amd64) …` is `kubectl`.
fn program(headers: &HeaderMap) -> Option<String> {
    let agent = headers.get(USER_AGENT)?.to_str().ok()?;
    let name = agent.split('/').next()?;
    let name: String = name.chars().take(FIELD_MANAGER_BYTES_MAX).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletes_take_body_or_query() {
        let query = Query::parse("propagationPolicy=Foreground&gracePeriodSeconds=5&dryRun=All");
        let none = HeaderMap::new();
        let options = delete(&query, &none, None).expect("valid");
        assert_eq!(options.propagation, Some(Propagation::Foreground));
        assert_eq!(options.grace_seconds, Some(5));
        assert!(options.dry_run);
        let body = serde_json::json!({"propagationPolicy": "Orphan", "preconditions": {"uid": "u", "resourceVersion": "7"}});
        let options = delete(&Query::default(), &none, Some(body)).expect("valid");
        assert_eq!(options.propagation, Some(Propagation::Orphan));
        assert_eq!(options.uid, Some(Uid("u".to_owned())));
        assert_eq!(options.resource_version.map(|it| it.0), Some(7));
        let both = serde_json::json!({"propagationPolicy": "Orphan", "orphanDependents": true});
        assert_eq!(
            delete(&Query::default(), &none, Some(both))
                .expect_err("both")
                .code,
            400
        );
    }

    #[test]
    fn writes_name_their_manager() {
        let mut headers = HeaderMap::new();
        headers.insert(
            USER_AGENT,
            "kubectl/v1.33.1 (linux)".parse().expect("a header"),
        );
        let manager = |query: &str, apply| {
            write(&Query::parse(query), &headers, apply)
                .expect("valid")
                .field_manager
        };
        assert_eq!(manager("", false).as_deref(), Some("kubectl"));
        assert_eq!(manager("", true), None);
        assert_eq!(manager("fieldManager=x", true).as_deref(), Some("x"));
        assert_eq!(
            write(&Query::parse("dryRun=x"), &headers, false)
                .expect_err("bad")
                .code,
            400
        );
    }
}
