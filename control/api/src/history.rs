//! `/cluster/v1/history…`: the past, as far as Kubernetes' own requests do not reach it.
//!
//! ```text
//! GET history?at=REVISION|TIME or ?ago=SECONDS     which revision that was, and what is kept
//! PUT history                                      how much is kept
//! GET history/object?group=&resource=&namespace=&name=&before=&limit=     the versions of an object
//! ```
//!
//! Who may get an object may read its history; nodes may ask what is kept; the rest is for administrators. A whole list of the past
//! is asked as Kubernetes knows it: `?resourceVersion=N&resourceVersionMatch=Exact`.

use crate::ApiServer;
use crate::answer::Answer;
use crate::auth::is_node;
use crate::cluster::{allow_path, not_found, ok, read_json};
use crate::query::Query;
use bytes::Bytes;
use http::Method;
use http::request::Parts;
use objects::{Revision, Status, Timestamp};
use registry::rbac::Request;
use registry::{At, Caller, Target, Verb};
use std::time::Duration;

/// The versions of a page, unless the client asks for fewer: each may have a megabyte.
const VERSIONS_MAX: usize = 100;

/// Answers a request below `/cluster/v1/history`; `words` follow that.
pub async fn answer(
    server: &ApiServer,
    caller: &Caller,
    words: &[&str],
    parts: &Parts,
    query: &Query,
    body: &Bytes,
) -> Result<Answer, Status> {
    match (&parts.method, words) {
        (&Method::GET, []) => {
            if !is_node(caller) {
                allow_path(server, caller, parts).await?;
            }
            let at = point(server, query)?;
            Ok(ok(&server.pipeline().past(at).await?))
        }
        (&Method::PUT, []) => {
            allow_path(server, caller, parts).await?;
            server.cluster().keep_history(read_json(body)?).await?;
            Ok(ok(&server.pipeline().past(None).await?))
        }
        (&Method::GET, ["object"]) => versions(server, caller, query).await,
        _ => Err(not_found()),
    }
}

/// The point in the past that a query names.
fn point(server: &ApiServer, query: &Query) -> Result<Option<At>, Status> {
    if let Some(seconds) = query.number("ago")? {
        let ago = u64::try_from(seconds).map_err(|_| {
            Status::bad_request("ago must not be negative: it is seconds before now")
        })?;
        let time = server.pipeline().shell().now();
        return Ok(Some(at_time(time.minus(Duration::from_secs(ago)))));
    }
    let Some(text) = query.text("at") else {
        return Ok(None);
    };
    if let Ok(revision) = text.parse() {
        return Ok(Some(At::Revision(Revision(revision))));
    }
    match Timestamp::parse(text) {
        Some(time) => Ok(Some(at_time(time))),
        None => Err(Status::bad_request(format!(
            "at={text:?} is neither a revision nor a time, as 2026-01-31T12:00:00Z is one"
        ))),
    }
}

fn at_time(time: Timestamp) -> At {
    At::TimeMs(u64::try_from(time.unix_ms()).unwrap_or(0))
}

async fn versions(server: &ApiServer, caller: &Caller, query: &Query) -> Result<Answer, Status> {
    let (Some(resource), Some(name)) = (query.text("resource"), query.text("name")) else {
        return Err(Status::bad_request(
            "an object's history needs the query parameters resource and name",
        ));
    };
    let group = query.get("group").unwrap_or_default();
    let registry = server.pipeline().registry();
    let row = registry
        .iter()
        .find(|row| row.group == group && row.resource == resource)
        .ok_or_else(not_found)?;
    let namespace = query.text("namespace").filter(|_| row.namespaced);
    let target = Target::object(row, namespace, name);
    server
        .allow(caller, &Request::on(Verb::Get, &target))
        .await?;
    let before = query.number("before")?.map(|revision| {
        u64::try_from(revision)
            .map(Revision)
            .map_err(|_| Status::bad_request("before must be a revision"))
    });
    let limit = match query.number("limit")? {
        Some(limit) => usize::try_from(limit).unwrap_or(0).clamp(1, VERSIONS_MAX),
        None => VERSIONS_MAX,
    };
    let history = server
        .pipeline()
        .versions(&target, before.transpose()?, limit);
    Ok(ok(&server.within_deadline(history).await?))
}
