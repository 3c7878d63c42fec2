//! What the server says of itself: discovery, schemas, version, health. Content comes from the registry; nothing is
//! written out by hand here but the root's list of paths.

use crate::ApiServer;
use crate::answer::Answer;
use crate::cluster::{Check, not_found};
use crate::negotiate::{DiscoveryView, accepts_any, discovery_view};
use crate::path::{DiscoveryPath, HealthPath, OpenApiPath};
use crate::query::Query;
use http::header::{CACHE_CONTROL, HOST};
use http::{HeaderMap, StatusCode};
use objects::Status;
use registry::discovery::{self, AggregatedVersion};
use serde_json::{Value, json};

const JSON: &str = "application/json";
/// What clients ask for, in two spellings, of which Go's parser takes only the second in an answer.
const OPEN_API_V2_ASKED: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    OPEN_API_V2_PROTOBUF,
];
const OPEN_API_V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A discovery document.
pub fn discovery(
    server: &ApiServer,
    path: &DiscoveryPath,
    headers: &HeaderMap,
) -> Result<Answer, Status> {
    let registry = &server.pipeline().registry();
    let services = &server.aggregator().services();
    let view = discovery_view(headers)?;
    let aggregated = match view {
        DiscoveryView::Plain => None,
        DiscoveryView::V2 => Some(AggregatedVersion::V2),
        DiscoveryView::V2Beta1 => Some(AggregatedVersion::V2Beta1),
    };
    let plain = DiscoveryView::Plain.content_type();
    let (content_type, document) = match (path, aggregated) {
        (DiscoveryPath::Core, Some(version)) => (
            view.content_type(),
            discovery::aggregated_core(registry, version),
        ),
        (DiscoveryPath::Groups, Some(version)) => (
            view.content_type(),
            discovery::aggregated_groups(registry, services, version),
        ),
        (DiscoveryPath::Core, None) => {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            (
                plain,
                discovery::core_versions(registry, host.unwrap_or_default()),
            )
        }
        (DiscoveryPath::Groups, None) => (plain, discovery::group_list(registry, services)),
        (DiscoveryPath::Group(group), _) => (
            plain,
            discovery::group(registry, services, group).ok_or_else(not_found)?,
        ),
        (DiscoveryPath::Version { group, version }, _) => {
            let list = discovery::resource_list(registry, group, version);
            (plain, list.ok_or_else(not_found)?)
        }
        (DiscoveryPath::Root, _) => (plain, root(server)),
    };
    Ok(Answer::document(
        headers,
        content_type,
        document.to_string(),
    ))
}

/// A schema document. One whose address holds its hash may be kept for ever. Away from the runtime's own threads, since the first who
/// asks waits until it is written.
pub async fn open_api(
    server: &ApiServer,
    path: OpenApiPath,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Answer, Status> {
    let (server, headers) = (server.clone(), headers.clone());
    let hash = query.get("hash").map(str::to_owned);
    let written = move || schemas(&server, &path, hash.as_deref(), &headers);
    let answer = tokio::task::spawn_blocking(written).await;
    answer.unwrap_or_else(|error| Err(Status::internal(error)))
}

fn schemas(
    server: &ApiServer,
    path: &OpenApiPath,
    hash: Option<&str>,
    headers: &HeaderMap,
) -> Result<Answer, Status> {
    let documents = server.open_api();
    match path {
        OpenApiPath::V2 => {
            let (content_type, document) = match accepts_any(headers, &OPEN_API_V2_ASKED) {
                true => (OPEN_API_V2_PROTOBUF, documents.v2_protobuf()),
                false => (JSON, documents.v2_json()),
            };
            let (hash, bytes) = (&document.hash, document.bytes.clone());
            Ok(Answer::tagged(headers, content_type, hash, bytes))
        }
        OpenApiPath::V3Index => Ok(Answer::document(headers, JSON, documents.index().clone())),
        OpenApiPath::V3(name) => {
            let document = documents.document(name).ok_or_else(not_found)?;
            let mut answer = Answer::tagged(headers, JSON, &document.hash, document.bytes.clone());
            if hash == Some(&document.hash) {
                answer.set(CACHE_CONTROL, "public, immutable, max-age=31536000");
            }
            Ok(answer)
        }
    }
}

/// `GET /version`
pub fn version(server: &ApiServer) -> Answer {
    let version = &server.config().version;
    let document = json!({
        "major": version.major,
        "minor": version.minor,
        "gitVersion": version.git_version,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    });
    Answer::value(StatusCode::OK, &document)
}

/// `/healthz`, `/livez`, `/readyz`: `ok`, or 500 with what is wrong. Alive is who answers; ready is who can be written to.
pub fn health(server: &ApiServer, path: &HealthPath, query: &Query) -> Answer {
    let mut checks = vec![Check {
        name: "ping",
        problem: None,
    }];
    if path.endpoint == "readyz" {
        let draining = server.draining().is_cancelled();
        checks.push(Check {
            name: "shutdown",
            problem: draining.then(|| "the server is shutting down".to_owned()),
        });
        checks.extend(server.cluster().readiness());
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    checks.retain(|check| !excluded.contains(&check.name));
    if let Some(wanted) = &path.check {
        checks.retain(|check| check.name == wanted);
        if checks.is_empty() {
            return Answer::status(&not_found());
        }
    }
    let healthy = checks.iter().all(|check| check.problem.is_none());
    if healthy && query.get("verbose").is_none() {
        return Answer::text(StatusCode::OK, "ok");
    }
    let code = if healthy {
        StatusCode::OK
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    Answer::text(code, health_report(path.endpoint, &checks, healthy))
}

fn health_report(endpoint: &str, checks: &[Check], healthy: bool) -> String {
    let mut report = String::new();
    for Check { name, problem } in checks {
        match problem {
            None => report.push_str(&format!("[+]{name} ok\n")),
            Some(problem) => report.push_str(&format!("[-]{name} failed: {problem}\n")),
        }
    }
    let verdict = if healthy { "passed" } else { "failed" };
    report.push_str(&format!("{endpoint} check {verdict}\n"));
    report
}

fn root(server: &ApiServer) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    let services = server.aggregator().services();
    for (group, versions) in services.groups(&server.pipeline().registry()) {
        if group.is_empty() {
            continue;
        }
        paths.push(format!("/apis/{group}"));
        paths.extend(
            versions
                .iter()
                .map(|version| format!("/apis/{group}/{version}")),
        );
    }
    for path in [
        "/healthz",
        "/livez",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ] {
        paths.push(path.to_owned());
    }
    json!({ "paths": paths })
}
