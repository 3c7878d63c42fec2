//! Requests that the API server passes on: logs, exec, attach and port-forward to a node; `…/proxy/…` to a node, a pod or a service.
//!
//! Never speaks WebSocket or SPDY itself: an upgrade's bytes are tunnelled, the node speaks. Authorisation came before.

mod backend;
mod dial;
mod pass;
mod place;
mod pod;
pub(crate) mod tunnel;

pub use backend::{Backend, Io};
pub use dial::NodeAddress;
pub use place::NoBackend;
pub(crate) use pod::bounded;

use crate::ApiServer;
use crate::answer::Answer;
use crate::body::Upload;
use crate::flow::Place;
use crate::path::ResourcePath;
use crate::query::Query;
use bytes::Bytes;
use http::{HeaderMap, Request};
use objects::{Reason, Status};
use serde_json::{Map, Value};

/// Subresources that others answer.
pub fn is_proxied(path: &ResourcePath) -> bool {
    let core = path.group.is_empty() && path.name.is_some();
    match (path.resource.as_str(), path.subresource.as_deref()) {
        ("pods", Some("log" | "exec" | "attach" | "portforward")) => core,
        ("nodes" | "pods" | "services", Some("proxy")) => core,
        _ => false,
    }
}

/// What admission is shown of a connection: the options of the subresource's kind; None for what only reads.
pub fn connect_options(path: &ResourcePath, query: &Query) -> Option<Map<String, Value>> {
    let mut options = Map::new();
    match path.subresource.as_deref()? {
        "exec" | "attach" => {
            for name in ["stdin", "stdout", "stderr", "tty"] {
                if query.flag(name) {
                    options.insert(name.to_owned(), Value::Bool(true));
                }
            }
            if let Some(container) = query.text("container") {
                options.insert("container".to_owned(), container.into());
            }
            let command: Vec<Value> = query.all("command").map(Value::from).collect();
            if !command.is_empty() {
                options.insert("command".to_owned(), command.into());
            }
        }
        "portforward" => {
            let ports = query
                .all("ports")
                .filter_map(|port| port.parse::<u16>().ok());
            let ports: Vec<Value> = ports.map(Value::from).collect();
            if !ports.is_empty() {
                options.insert("ports".to_owned(), ports.into());
            }
        }
        "proxy" => {}
        _ => return None,
    }
    Some(options)
}

/// Connects to a port of a service, without a word yet.
pub async fn dial_service(
    server: &ApiServer,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<Box<dyn Io>, Status> {
    let backend = place::service(server, namespace, &format!("{name}:{port}")).await?;
    backend.reach.dial(server.node_tls()).await
}

/// One of the ready endpoints of a service's port.
pub async fn service_backend(
    server: &ApiServer,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<Backend, NoBackend> {
    place::service_backend(server, namespace, &format!("{name}:{port}")).await
}

/// Passes a request on; `place` is held until its stream ends.
pub async fn answer(
    server: &ApiServer,
    path: &ResourcePath,
    query: &Query,
    request: Request<Upload>,
    place: Place,
) -> Result<Answer, Status> {
    let name = path.name.as_deref().unwrap_or_default();
    let namespace = path.namespace.as_deref().unwrap_or_default();
    match path.subresource.as_deref() {
        Some("log") => pod::log(server, namespace, name, query, place).await,
        Some("proxy") => pass::proxy(server, path, request, place).await,
        Some(verb) => pod::stream(server, namespace, name, verb, query, request, place).await,
        None => Err(crate::cluster::not_found()),
    }
}

/// A node's refusal as a `Status`: its own when it sent one, else its text under its code.
fn refusal(code: http::StatusCode, body: &Bytes) -> Status {
    if let Ok(status) = serde_json::from_slice::<Status>(body) {
        return status;
    }
    let text = String::from_utf8_lossy(body).trim().to_owned();
    let message = if text.is_empty() {
        format!("the node answered {code}")
    } else {
        text
    };
    let (code, reason) = match code.as_u16() {
        400 => (400, Reason::BadRequest),
        403 => (403, Reason::Forbidden),
        404 => (404, Reason::NotFound),
        405 => (405, Reason::MethodNotAllowed),
        429 => (429, Reason::TooManyRequests),
        503 => (503, Reason::ServiceUnavailable),
        code @ 400..=499 => (code, Reason::BadRequest),
        code @ 500.. => (code, Reason::InternalError),
        _ => (500, Reason::InternalError),
    };
    Status::failure(code, reason, message)
}

/// Headers that belong to one connection and are never passed on (RFC 9110, 7.6.1).
pub(crate) fn remove_hop_headers(headers: &mut HeaderMap) {
    for name in [
        "connection",
        "proxy-connection",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ] {
        headers.remove(name);
    }
}
