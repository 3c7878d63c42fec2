//! `…/proxy/PATH`: any request passed on to a backend and its answer back, streamed both ways without a bound on size.
//!
//! What is rewritten is what Kubernetes rewrites: a path without its last slash is redirected, a redirect to the backend itself
//! leads back through the proxy, and the backend may set no CORS rules for the API server's origin. Links in pages are left alone.

use super::backend::Backend;
use super::pod::bounded;
use super::{place, remove_hop_headers, tunnel};
use crate::ApiServer;
use crate::answer::{Answer, Content};
use crate::body::Upload;
use crate::cluster;
use crate::flow::Place;
use crate::path::ResourcePath;
use bytes::Bytes;
use http::header::{AUTHORIZATION, EXPECT, HOST, LOCATION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use objects::Status;

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const CORS: [&str; 6] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
];

/// Passes the request on and the answer back, whatever it is.
pub async fn proxy(
    server: &ApiServer,
    path: &ResourcePath,
    mut request: Request<Upload>,
    place: Place,
) -> Result<Answer, Status> {
    let through = Through::of(path, request.uri());
    if let Some(answer) = through.redirect(request.method()) {
        return Ok(answer);
    }
    let backend = backend(server, path).await?;
    let host = prepare(&mut request, &through, &backend)?;
    let mut answer = if request.headers().contains_key(UPGRADE) {
        let sender = backend.connect(server.node_tls()).await?;
        tunnel::pass(sender, &backend, request, place, server.draining()).await?
    } else {
        remove_hop_headers(request.headers_mut());
        let mut sender = backend.connect(server.node_tls()).await?;
        // The backend may read the whole body before it answers: no deadline but the connection's own.
        let sent = sender.send_request(request).await;
        let (mut parts, body) = sent
            .map_err(|error| backend.unreachable(error))?
            .into_parts();
        remove_hop_headers(&mut parts.headers);
        Answer {
            code: parts.status,
            headers: parts.headers,
            content: Content::Stream(bounded(body, None, server, place)),
            turn: None,
        }
    };
    for name in CORS {
        answer.headers.remove(name);
    }
    through.rewrite_location(&mut answer.headers, &host);
    Ok(answer)
}

async fn backend(server: &ApiServer, path: &ResourcePath) -> Result<Backend, Status> {
    let name = path.name.as_deref().unwrap_or_default();
    let namespace = path.namespace.as_deref().unwrap_or_default();
    match path.resource.as_str() {
        "nodes" => place::node(server, name).await,
        "pods" => place::pod(server, namespace, name).await,
        "services" => place::service(server, namespace, name).await,
        _ => Err(cluster::not_found()),
    }
}

/// Makes the request that of the backend; gives the host under which the client knows the API server.
fn prepare(
    request: &mut Request<Upload>,
    through: &Through,
    backend: &Backend,
) -> Result<String, Status> {
    let authority = request.uri().authority().map(ToString::to_string);
    let named = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let host = authority
        .or_else(|| named.map(str::to_owned))
        .unwrap_or_default();
    let value = |text: &str| HeaderValue::from_str(text).map_err(Status::internal);
    let seen = value(&host)?;
    let headers = request.headers_mut();
    headers.remove(AUTHORIZATION);
    headers.remove(EXPECT);
    headers.insert(HOST, backend.host()?.unwrap_or_else(|| seen.clone()));
    headers.insert(FORWARDED_HOST, seen);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    headers.insert(FORWARDED_URI, value(&through.original)?);
    *request.uri_mut() = through.uri().parse().map_err(Status::internal)?;
    *request.version_mut() = http::Version::HTTP_11;
    Ok(host)
}

/// The two names of what is asked: the client's and the backend's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Through {
    /// The path that the client asked.
    original: String,
    /// Of it, what leads to the backend's root.
    prefix: String,
    /// What is asked of the backend, with its first slash; empty when the client's path ends before it.
    path: String,
    query: Option<String>,
}

impl Through {
    fn of(path: &ResourcePath, uri: &Uri) -> Self {
        let original = uri.path().to_owned();
        let tail = path.tail.as_deref().unwrap_or_default();
        let path = match (tail, original.ends_with('/')) {
            ("", false) => String::new(),
            (tail, _) => format!("/{tail}"),
        };
        let prefix = original
            .strip_suffix(&path)
            .unwrap_or(&original)
            .trim_end_matches('/');
        Through {
            prefix: prefix.to_owned(),
            query: uri.query().map(str::to_owned),
            original,
            path,
        }
    }

    /// Relative links of a page need the slash: a reader without it is sent there.
    fn redirect(&self, method: &Method) -> Option<Answer> {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if !self.path.is_empty() || !reads {
            return None;
        }
        let location = with_query(format!("{}/", self.original), self.query.as_deref());
        let mut answer = Answer::text(StatusCode::MOVED_PERMANENTLY, Bytes::new());
        answer.set(LOCATION, &location);
        Some(answer)
    }

    fn uri(&self) -> String {
        let path = if self.path.is_empty() {
            "/"
        } else {
            &self.path
        };
        with_query(path.to_owned(), self.query.as_deref())
    }

    /// A redirect within the backend leads through the proxy; one to elsewhere, or a relative one, stays.
    fn rewrite_location(&self, headers: &mut HeaderMap, host: &str) {
        let told = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let rewritten = told.and_then(|told| self.rewritten(told, host));
        if let Some(value) = rewritten.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(LOCATION, value);
        }
    }

    fn rewritten(&self, told: &str, host: &str) -> Option<String> {
        let uri: Uri = told.parse().ok()?;
        let elsewhere = uri.authority().is_some_and(|it| it.as_str() != host);
        if elsewhere || !uri.path().starts_with('/') || uri.path().starts_with(&self.prefix) {
            return None;
        }
        let path = format!("{}{}", self.prefix, uri.path());
        Some(format!("https://{host}{}", with_query(path, uri.query())))
    }
}

fn with_query(path: String, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Route;
    use crate::query::Query;

    const ROOT: &str = "/api/v1/namespaces/a/services/http:web:80/proxy";

    fn through(uri: &str) -> Through {
        let uri: Uri = uri.parse().expect("a path");
        match Route::parse(&Method::GET, &uri, &Query::default()) {
            Route::Resource(path) => Through::of(&path, &uri),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_backend_sees_the_rest_of_the_path_as_it_was_written() {
        for (tail, seen) in [
            ("/", "/"),
            ("/?a=b%20c&d", "/?a=b%20c&d"),
            ("/x/y", "/x/y"),
            ("/x%2Fy/", "/x%2Fy/"),
        ] {
            let through = through(&format!("{ROOT}{tail}"));
            assert_eq!(through.uri(), seen);
            assert_eq!(through.prefix, ROOT, "{tail}");
            assert!(through.redirect(&Method::GET).is_none(), "{tail}");
        }
    }

    #[test]
    fn readers_of_the_root_are_sent_to_its_slash() {
        let through = through(&format!("{ROOT}?a=b"));
        let answer = through.redirect(&Method::GET).expect("a redirect");
        assert_eq!(answer.code, StatusCode::MOVED_PERMANENTLY);
        assert_eq!(answer.headers[LOCATION], format!("{ROOT}/?a=b"));
        assert!(through.redirect(&Method::POST).is_none());
        assert_eq!(through.uri(), "/?a=b");
    }

    #[test]
    fn redirects_lead_back_through_the_proxy() {
        let through = through(&format!("{ROOT}/x"));
        let rewritten = |told: &str| through.rewritten(told, "m1:6443");
        assert_eq!(
            rewritten("/login?to=x").as_deref(),
            Some(format!("https://m1:6443{ROOT}/login?to=x").as_str())
        );
        assert_eq!(
            rewritten("http://m1:6443/y/").as_deref(),
            Some(format!("https://m1:6443{ROOT}/y/").as_str())
        );
        for told in ["http://elsewhere/y", "y", &format!("{ROOT}/y")] {
            assert_eq!(rewritten(told), None, "{told}");
        }
    }
}
