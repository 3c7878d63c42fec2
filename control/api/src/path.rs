//! The one path parser: method, path and query become a [`Route`], once.
//!
//! Never looks at the registry: whether a resource exists is the caller's question. Rule: apiserver's `RequestInfo`.

use crate::query::{Query, decode_segment};
use http::{Method, Uri};
use registry::Verb;
use registry::rbac::Request;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// An object, a collection, or a subresource.
    Resource(ResourcePath),
    /// What the server serves.
    Discovery(DiscoveryPath),
    /// Schemas.
    OpenApi(OpenApiPath),
    /// Whether the server is well.
    Health(HealthPath),
    /// `GET /version`
    Version,
    /// `GET /metrics`
    Metrics,
    /// `GET /.well-known/openid-configuration`: how to verify the cluster's tokens.
    Issuer,
    /// `GET /openid/v1/jwks`: with which keys.
    KeySet,
    /// `/cluster/v1/…`, the segments after it.
    Cluster(Vec<String>),
    /// A file of the dashboard: its path below `/dashboard/`.
    Dashboard(String),
    /// Nothing is there.
    NotFound,
    /// Something is there, but not for this method.
    MethodNotAllowed,
}

/// What a resource request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourcePath {
    /// The group, empty for core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The namespace, when the path names one.
    pub namespace: Option<String>,
    /// The plural.
    pub resource: String,
    /// The name, when the path names an object.
    pub name: Option<String>,
    /// The subresource.
    pub subresource: Option<String>,
    /// What follows the subresource, as it came and without its first slash: the path to proxy.
    pub tail: Option<String>,
    /// What is to be done.
    pub verb: Verb,
}

impl ResourcePath {
    /// What is asked, for whoever decides about it.
    pub fn as_request(&self) -> Request<'_> {
        fn text(part: &Option<String>) -> &str {
            part.as_deref().unwrap_or_default()
        }
        // As apiserver reads it, an object of the namespaces themselves lies in the namespace of its name.
        let namespace = match (self.group.as_str(), self.resource.as_str()) {
            ("", "namespaces") => text(&self.name),
            _ => text(&self.namespace),
        };
        Request {
            verb: self.verb.as_str(),
            group: &self.group,
            resource: &self.resource,
            subresource: text(&self.subresource),
            namespace,
            name: text(&self.name),
            ..Request::default()
        }
    }
}

/// A discovery document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoveryPath {
    /// `/`
    Root,
    /// `/api`
    Core,
    /// `/apis`
    Groups,
    /// `/apis/G`
    Group(String),
    /// `/api/v1`, `/apis/G/V`
    Version {
        /// The group, empty for core.
        group: String,
        /// The version.
        version: String,
    },
}

/// A schema document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenApiPath {
    /// `/openapi/v2`
    V2,
    /// `/openapi/v3`
    V3Index,
    /// `/openapi/v3/api/v1`, `/openapi/v3/apis/G/V`, `/openapi/v3/version`: what follows `/openapi/v3/`.
    V3(String),
}

/// A health endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthPath {
    /// `healthz`, `livez` or `readyz`.
    pub endpoint: &'static str,
    /// The one check asked for: `/readyz/etcd`.
    pub check: Option<String>,
}

impl Route {
    /// Reads a request's line.
    pub fn parse(method: &Method, uri: &Uri, query: &Query) -> Route {
        let path = uri.path();
        let raw: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let Some(parts) = raw
            .iter()
            .map(|part| decode_segment(part))
            .collect::<Option<Vec<String>>>()
        else {
            return Route::NotFound;
        };
        let reads = method == Method::GET || method == Method::HEAD;
        let words: Vec<&str> = parts.iter().map(String::as_str).collect();
        let document = match words[..] {
            ["cluster", "v1", ..] => return Route::Cluster(parts[2..].to_vec()),
            ["api", version, _, ..] => {
                return resource(method, path, "", version, &words[2..], &raw[2..], query);
            }
            ["apis", group, version, _, ..] => {
                return resource(method, path, group, version, &words[3..], &raw[3..], query);
            }
            _ => document(&words),
        };
        match document {
            Route::NotFound => Route::NotFound,
            document if reads => document,
            _ => Route::MethodNotAllowed,
        }
    }
}

/// Everything that is only read.
fn document(words: &[&str]) -> Route {
    let version = |group: &str, version: &str| {
        Route::Discovery(DiscoveryPath::Version {
            group: group.to_owned(),
            version: version.to_owned(),
        })
    };
    match words {
        [] => Route::Discovery(DiscoveryPath::Root),
        ["api"] => Route::Discovery(DiscoveryPath::Core),
        ["apis"] => Route::Discovery(DiscoveryPath::Groups),
        ["api", core] => version("", core),
        ["apis", group] => Route::Discovery(DiscoveryPath::Group((*group).to_owned())),
        ["apis", group, of] => version(group, of),
        ["dashboard", rest @ ..] => Route::Dashboard(rest.join("/")),
        ["metrics"] => Route::Metrics,
        [".well-known", "openid-configuration"] => Route::Issuer,
        ["openid", "v1", "jwks"] => Route::KeySet,
        ["openapi", "v2"] => Route::OpenApi(OpenApiPath::V2),
        ["openapi", "v3"] => Route::OpenApi(OpenApiPath::V3Index),
        ["openapi", "v3", rest @ ..] => Route::OpenApi(OpenApiPath::V3(rest.join("/"))),
        ["version"] => Route::Version,
        ["healthz", rest @ ..] => health("healthz", rest),
        ["livez", rest @ ..] => health("livez", rest),
        ["readyz", rest @ ..] => health("readyz", rest),
        _ => Route::NotFound,
    }
}

fn health(endpoint: &'static str, rest: &[&str]) -> Route {
    let check = match rest {
        [] => None,
        [check] => Some((*check).to_owned()),
        _ => return Route::NotFound,
    };
    Route::Health(HealthPath { endpoint, check })
}

/// `words` and `raw` are the segments after the version, decoded and as they came; there is at least one.
fn resource(
    method: &Method,
    path: &str,
    group: &str,
    version: &str,
    words: &[&str],
    raw: &[&str],
    query: &Query,
) -> Route {
    // `namespaces` is itself a resource: /namespaces/x/status is about the namespace, /namespaces/x/pods about its pods.
    let (namespace, skip) = match words {
        ["namespaces", name, sub, ..] if !matches!(*sub, "status" | "finalize") => (Some(*name), 2),
        _ => (None, 0),
    };
    let words = &words[skip..];
    // An escaped slash is no part of a name; what a proxy passes on may hold one.
    if namespace
        .into_iter()
        .chain(words.iter().take(3).copied())
        .any(|word| word.contains('/'))
    {
        return Route::NotFound;
    }
    let name = words.get(1).map(|name| (*name).to_owned());
    let subresource = words.get(2).map(|sub| (*sub).to_owned());
    let tail = match subresource.as_deref() {
        Some("proxy") => {
            let mut tail = raw[skip + 3..].join("/");
            if path.ends_with('/') && !tail.is_empty() {
                tail.push('/');
            }
            Some(tail)
        }
        _ if words.len() > 3 => return Route::NotFound,
        _ => None,
    };
    let watch = query.flag("watch");
    let proxied = subresource.as_deref() == Some("proxy");
    let verb = match *method {
        // What is behind a proxy may answer OPTIONS; it changes nothing.
        Method::OPTIONS if proxied => Some(Verb::Get),
        _ => verb(method, name.is_some(), subresource.is_some(), watch),
    };
    let Some(verb) = verb else {
        return Route::MethodNotAllowed;
    };
    Route::Resource(ResourcePath {
        group: group.to_owned(),
        version: version.to_owned(),
        namespace: namespace.map(str::to_owned),
        resource: words[0].to_owned(),
        name,
        subresource,
        tail,
        verb,
    })
}

fn verb(method: &Method, named: bool, subresource: bool, watch: bool) -> Option<Verb> {
    let verb = match *method {
        Method::GET | Method::HEAD if subresource => Verb::Get,
        Method::GET | Method::HEAD if watch => Verb::Watch,
        Method::GET | Method::HEAD if named => Verb::Get,
        Method::GET | Method::HEAD => Verb::List,
        Method::POST if subresource || !named => Verb::Create,
        Method::PUT if named => Verb::Update,
        Method::PATCH if named => Verb::Patch,
        Method::DELETE if named => Verb::Delete,
        Method::DELETE => Verb::DeleteCollection,
        _ => return None,
    };
    Some(verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(route: &Route) -> String {
        match route {
            Route::Resource(path) => {
                let mut text = format!(
                    "{:?} {}/{} {}",
                    path.verb, path.group, path.version, path.resource
                );
                for (label, part) in [
                    ("ns", &path.namespace),
                    ("name", &path.name),
                    ("sub", &path.subresource),
                    ("tail", &path.tail),
                ] {
                    if let Some(part) = part {
                        text.push_str(&format!(" {label}={part}"));
                    }
                }
                text
            }
            other => format!("{other:?}"),
        }
    }

    /// Each line of the script is `METHOD path => what it means`.
    fn check(script: &expect_test::ExpectFile) {
        let mut out = String::new();
        for line in script.data().lines() {
            let request = line.split(" => ").next().unwrap_or_default();
            let (method, uri) = request.split_once(' ').expect("METHOD path");
            let method: Method = method.parse().expect("a method");
            let uri: Uri = uri.parse().expect("a path");
            let query = Query::parse(uri.query().unwrap_or_default());
            let route = Route::parse(&method, &uri, &query);
            out.push_str(&format!("{request} => {}\n", show(&route)));
        }
        script.assert_eq(&out);
    }

    proptest::proptest! {
        #[test]
        fn any_path_is_answered(path in "(/(api|apis|v1|apps|namespaces|pods|proxy|%2[fF]|%zz|[a-z.:]{0,3})){0,9}/?") {
            let path = if path.is_empty() { "/".to_owned() } else { path };
            let uri: Uri = path.parse().expect("a path");
            for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
                if let Route::Resource(found) = Route::parse(&method, &uri, &Query::default()) {
                    proptest::prop_assert!(!found.resource.contains('/'));
                    proptest::prop_assert!(!found.name.is_some_and(|name| name.contains('/')));
                }
            }
        }
    }

    #[test]
    fn paths() {
        check(&expect_test::expect_file!["../testdata/paths.txt"]);
    }
}
