//! A request for another server's group, passed on: who asks is decided here, and told in headers. What the client itself says in
//! such headers, and what it proved itself by, goes no further.

use super::connect::{Unconnected, connect};
use crate::ApiServer;
use crate::answer::{Answer, Content};
use crate::body::Upload;
use crate::handler::method_not_allowed;
use crate::path::Route;
use crate::proxy::{bounded, remove_hop_headers, tunnel};
use crate::query::Query;
use http::header::{AUTHORIZATION, COOKIE, EXPECT, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use objects::Status;
use registry::Caller;
use registry::aggregation::ApiService;
use registry::flow::Class;
use registry::rbac::Request as Asked;
use std::fmt::Write;
use std::time::Duration;
use tracing::warn;

/// As whom this server itself asks.
pub const SELF_USER: &str = "system:kube-aggregator";
pub const SELF_GROUP: &str = "system:masters";

const REMOTE_USER: HeaderName = HeaderName::from_static("x-remote-user");
const REMOTE_UID: HeaderName = HeaderName::from_static("x-remote-uid");
const REMOTE_GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const REMOTE_EXTRA: &str = "x-remote-extra-";
/// How long the server may take to begin its answer.
const DEADLINE: Duration = Duration::from_secs(60);

/// The route of a request for a server of another group: what it serves below its resources is its own affair.
pub fn route_below(method: &Method, uri: &Uri, query: &Query) -> Route {
    let parts: Vec<&str> = uri
        .path()
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    let skip = match parts.get(3) {
        Some(&"namespaces") if parts.len() > 6 => 8,
        _ => 6,
    };
    let path = format!("/{}", parts[..skip.min(parts.len())].join("/"));
    match path.parse() {
        Ok(uri) => Route::parse(method, &uri, query),
        Err(_) => Route::NotFound,
    }
}

/// Passes a request on and the answer back, whatever it is.
pub async fn answer(
    server: &ApiServer,
    service: &ApiService,
    caller: &Caller,
    class: &Class,
    route: &Route,
    mut request: Request<Upload>,
) -> Result<Answer, Status> {
    match route {
        Route::Resource(path) => server.allow(caller, &path.as_request()).await?,
        Route::MethodNotAllowed => return Err(method_not_allowed()),
        _ => {
            let method = request.method().as_str().to_ascii_lowercase();
            let asked = Asked::path(&method, request.uri().path());
            server.allow(caller, &asked).await?;
        }
    }
    if !service.is_available {
        return Ok(unavailable());
    }
    let place = server.flow().stream(class)?;
    prepare(&mut request, service, caller)?;
    if request.headers().contains_key(UPGRADE) {
        return match connect(server, service).await {
            Ok((sender, backend)) => {
                tunnel::pass(sender, &backend, request, place, server.draining()).await
            }
            Err(why) => Ok(unconnected(service, why)),
        };
    }
    remove_hop_headers(request.headers_mut());
    let (mut sender, backend) = match connect(server, service).await {
        Ok(connected) => connected,
        Err(why) => return Ok(unconnected(service, why)),
    };
    let sent = match tokio::time::timeout(DEADLINE, sender.send_request(request)).await {
        Ok(sent) => sent.map_err(|error| backend.unreachable(error))?,
        Err(_) => return Err(backend.unreachable("no answer within 60 s")),
    };
    let (mut parts, body) = sent.into_parts();
    remove_hop_headers(&mut parts.headers);
    Ok(Answer {
        code: parts.status,
        headers: parts.headers,
        content: Content::Stream(bounded(body, None, server, place)),
        turn: None,
    })
}

/// 503 in the words of kube-aggregator.
fn unavailable() -> Answer {
    Answer::text(StatusCode::SERVICE_UNAVAILABLE, "service unavailable\n")
}

fn unconnected(service: &ApiService, why: Unconnected) -> Answer {
    let (why, answer) = match why {
        Unconnected::Unplaced(none) => (none.told, unavailable()),
        Unconnected::Silent(why) => {
            let text = format!("error trying to reach service: {why}\n");
            (why, Answer::text(StatusCode::SERVICE_UNAVAILABLE, text))
        }
    };
    warn!(
        service = service.name,
        why, "a server of another group cannot be asked"
    );
    answer
}

/// Makes the request one of this server in the caller's name.
fn prepare(
    request: &mut Request<Upload>,
    service: &ApiService,
    caller: &Caller,
) -> Result<(), Status> {
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(Status::internal)?;
    *request.version_mut() = http::Version::HTTP_11;
    let host = service.remote.clone().unwrap_or_default().host();
    let headers = request.headers_mut();
    for name in [AUTHORIZATION, COOKIE, EXPECT] {
        headers.remove(name);
    }
    headers.insert(
        HOST,
        HeaderValue::from_str(&host).map_err(Status::internal)?,
    );
    identify(headers, caller)
}

/// Says who asks, and drops what the client says of it.
pub fn identify(headers: &mut HeaderMap, caller: &Caller) -> Result<(), Status> {
    let claimed = |name: &&HeaderName| {
        let name = name.as_str();
        name.starts_with("x-remote-") || name.starts_with("impersonate-")
    };
    let claims: Vec<HeaderName> = headers.keys().filter(claimed).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
    // Names may hold any letters; they go as they are.
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).map_err(Status::internal);
    headers.insert(REMOTE_USER, value(&caller.user)?);
    if !caller.uid.is_empty() {
        headers.insert(REMOTE_UID, value(&caller.uid)?);
    }
    for group in &caller.groups {
        headers.append(REMOTE_GROUP, value(group)?);
    }
    for (key, values) in &caller.extra {
        let name = format!("{REMOTE_EXTRA}{}", escaped(key));
        let name = HeaderName::try_from(name).map_err(Status::internal)?;
        for text in values {
            headers.append(name.clone(), value(text)?);
        }
    }
    Ok(())
}

/// A key as part of a header's name: what may not stand there is written as in a URL (client-go's `headerKeyEscape`).
fn escaped(key: &str) -> String {
    let mut text = String::new();
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // A text takes what is written to it.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_told_and_what_the_client_claims_is_not() {
        let mut headers = HeaderMap::new();
        for (name, text) in [
            ("x-remote-user", "root"),
            ("x-remote-extra-scopes", "all"),
            ("impersonate-user", "root"),
            ("accept", "application/json"),
        ] {
            headers.insert(name, text.parse().expect("a value"));
        }
        let caller = Caller {
            user: "ann".to_owned(),
            groups: vec!["devs".to_owned(), "ops".to_owned()],
            extra: [(
                "acme.com/pro ject".to_owned(),
                vec!["a".to_owned(), "b".to_owned()],
            )]
            .into(),
            ..Caller::default()
        };
        identify(&mut headers, &caller).expect("texts");
        let mut shown: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        shown.sort();
        assert_eq!(
            shown,
            [
                "accept: application/json",
                "x-remote-extra-acme.com%2fpro%20ject: a",
                "x-remote-extra-acme.com%2fpro%20ject: b",
                "x-remote-group: devs",
                "x-remote-group: ops",
                "x-remote-user: ann",
            ]
        );
    }

    #[test]
    fn what_lies_below_a_resource_is_the_servers_affair() {
        let shown = |path: &str| {
            let uri: Uri = path.parse().expect("a path");
            match route_below(&Method::GET, &uri, &Query::default()) {
                Route::Resource(path) => format!(
                    "{:?}/{}/{:?}",
                    path.namespace, path.resource, path.subresource
                ),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(
            shown("/apis/x.io/v1/things/a/part/deep/er"),
            "None/things/Some(\"part\")"
        );
        assert_eq!(
            shown("/apis/x.io/v1/namespaces/n/things/a/part/deep/er"),
            "Some(\"n\")/things/Some(\"part\")"
        );
    }
}
