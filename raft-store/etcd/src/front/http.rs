//! `/health`, `/livez`, `/readyz`, `/version` and `/metrics`, as etcd answers them on its clients' port.
//!
//! `/health` knows one verdict with its reason as JSON; `/livez` and `/readyz` name each check. All tell trouble by 503.

use super::probe::{self, Check};
use crate::API_VERSION;
use crate::metrics::Numbers;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use objects::cluster::Alarm;
use std::fmt::Write as _;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What `/livez` looks at, and what `/readyz` does.
const ALIVE: &[Check] = &[Check::SerializableRead];
const READY: &[Check] = &[
    Check::DataCorruption,
    Check::SerializableRead,
    Check::LinearizableRead,
    Check::NonLearner,
];

/// Answers a request that is no call.
pub async fn answer(numbers: &Numbers, head: &Parts) -> Response<Full<Bytes>> {
    let query = Query(head.uri.query().unwrap_or_default());
    let path = head.uri.path();
    let is_known = matches!(path, "/health" | "/version" | "/metrics") || checks_of(path).is_some();
    if !is_known {
        return text(
            StatusCode::NOT_FOUND,
            TEXT,
            "404 page not found\n".to_owned(),
        );
    }
    if head.method != Method::GET {
        let mut refused = text(
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT,
            "Method Not Allowed\n".to_owned(),
        );
        let allowed = HeaderValue::from_static("GET");
        refused.headers_mut().insert(ALLOW, allowed);
        return refused;
    }
    match path {
        "/health" => health(numbers, query).await,
        "/version" => text(StatusCode::OK, JSON, version()),
        "/metrics" => match numbers.render().await {
            Ok(metrics) => text(StatusCode::OK, PROMETHEUS, metrics),
            Err(error) => {
                tracing::warn!(%error, "the metrics cannot be told");
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    TEXT,
                    format!("{error}\n"),
                )
            }
        },
        _ => probes(numbers, path, query).await,
    }
}

/// The query of a request: names with or without a value; a value may be given several times.
#[derive(Clone, Copy)]
struct Query<'q>(&'q str);

impl<'q> Query<'q> {
    fn values(self, name: &str) -> impl Iterator<Item = &'q str> {
        let pairs = self
            .0
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs
            .filter(move |(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    fn has(self, name: &str) -> bool {
        self.values(name).next().is_some()
    }
}

fn version() -> String {
    let (minor, _) = API_VERSION.rsplit_once('.').unwrap_or((API_VERSION, ""));
    format!(r#"{{"etcdserver":"{API_VERSION}","etcdcluster":"{minor}.0"}}"#)
}

async fn health(numbers: &Numbers, query: Query<'_>) -> Response<Full<Bytes>> {
    let is_serializable = query.values("serializable").any(|value| value == "true");
    let reason = trouble(numbers, query, is_serializable).await;
    numbers.telemetry.health_told(reason.is_none());
    let verdict = reason.is_none().to_string();
    let reason = reason.unwrap_or_default();
    // The names and their order are etcd's.
    let body = format!(
        r#"{{"health":"{verdict}","reason":{}}}"#,
        serde_json::Value::from(reason.as_str())
    );
    match reason.is_empty() {
        true => text(StatusCode::OK, JSON, body),
        false => text(StatusCode::SERVICE_UNAVAILABLE, TEXT, body + "\n"),
    }
}

/// Why the member is not healthy, in etcd's words.
async fn trouble(numbers: &Numbers, query: Query<'_>, is_serializable: bool) -> Option<String> {
    let store = &numbers.store;
    // A serializable check asks nobody else.
    let alarms = match is_serializable {
        true => probe::own_alarms(store),
        false => store
            .alarms()
            .await
            .into_iter()
            .map(|(_, alarm)| alarm)
            .collect(),
    };
    for (alarm, name) in [(Alarm::NoSpace, "NOSPACE"), (Alarm::Corrupt, "CORRUPT")] {
        let is_excluded = query.values("exclude").any(|excluded| excluded == name);
        if alarms.contains(&alarm) && !is_excluded {
            return Some(format!("ALARM {name}"));
        }
    }
    if !is_serializable && store.local_status().leader.is_none() {
        return Some("RAFT NO LEADER".to_owned());
    }
    let check = match is_serializable {
        true => Check::SerializableRead,
        false => Check::LinearizableRead,
    };
    let outcome = probe::run(store, check).await;
    outcome.err().map(|error| format!("QGET ERROR:{error}"))
}

/// The checks behind `/livez`, `/readyz` and their single checks below.
fn checks_of(path: &str) -> Option<&'static [Check]> {
    let (root, one) = match path.strip_prefix('/')?.split_once('/') {
        None => (path.strip_prefix('/')?, None),
        Some((root, one)) => (root, Some(one)),
    };
    let checks = match root {
        "livez" => ALIVE,
        "readyz" => READY,
        _ => return None,
    };
    match one {
        None => Some(checks),
        Some(name) => {
            let place = checks.iter().position(|check| check.name() == name)?;
            checks.get(place..=place)
        }
    }
}

async fn probes(numbers: &Numbers, path: &str, query: Query<'_>) -> Response<Full<Bytes>> {
    let kind = if path.starts_with("/livez") {
        "livez"
    } else {
        "readyz"
    };
    let (mut told, mut is_well) = (String::new(), true);
    for check in checks_of(path).unwrap_or_default() {
        let name = check.name();
        if query.values("exclude").any(|excluded| excluded == name) {
            continue;
        }
        let outcome = probe::run(&numbers.store, *check).await;
        numbers.telemetry.checked(kind, *check, &outcome);
        let line = match outcome {
            Ok(()) => writeln!(told, "[+]{name} ok"),
            Err(error) => {
                is_well = false;
                writeln!(told, "[-]{name} failed: {error}")
            }
        };
        line.expect("a string takes all that is written to it");
    }
    match (is_well, query.has("verbose")) {
        (false, _) => text(StatusCode::SERVICE_UNAVAILABLE, TEXT, told + "\n"),
        (true, true) => text(StatusCode::OK, TEXT, told + "ok\n"),
        (true, false) => text(StatusCode::OK, TEXT, "ok\n".to_owned()),
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if !status.is_success() {
        let nosniff = HeaderValue::from_static("nosniff");
        headers.insert(HeaderName::from_static("x-content-type-options"), nosniff);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_checks_have_paths_of_their_own() {
        let names = |path| {
            let checks = checks_of(path)?;
            Some(checks.iter().map(|check| check.name()).collect::<Vec<_>>())
        };
        assert_eq!(names("/livez"), Some(vec!["serializable_read"]));
        assert_eq!(
            names("/readyz/linearizable_read"),
            Some(vec!["linearizable_read"])
        );
        for unknown in [
            "/",
            "/livez/",
            "/livez/linearizable_read",
            "/readyz/a/b",
            "/x",
        ] {
            assert_eq!(names(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn the_version_of_the_cluster_has_no_patch() {
        assert_eq!(
            version(),
            format!(r#"{{"etcdserver":"{API_VERSION}","etcdcluster":"3.5.0"}}"#)
        );
    }
}
