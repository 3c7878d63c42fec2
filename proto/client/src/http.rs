//! Requests and answers: one pooled client, all masters.

use crate::tls::{self, Shown};
use crate::{Config, Error, Identity};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use objects::Status;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 256 << 20;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// How long a call may take until its answer has come whole; a stream's clock stops at its first byte.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Duration);

impl Default for Deadline {
    fn default() -> Self {
        Deadline(Duration::from_secs(15))
    }
}

/// The kinds of patch, by their media types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' strategic merge patch.
    Strategic,
}

impl PatchKind {
    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            PatchKind::Json => "application/json-patch+json",
            PatchKind::Merge => "application/merge-patch+json",
            PatchKind::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

/// What a request carries.
pub enum Payload {
    /// Nothing.
    Empty,
    /// Bytes of a media type.
    Bytes(&'static str, Bytes),
    /// A stream of a media type; it is sent once, to one master.
    Stream(&'static str, Body),
}

impl Payload {
    /// A JSON value.
    pub fn json(value: &impl serde::Serialize) -> Self {
        let bytes = serde_json::to_vec(value).expect("what is sent as JSON is plain data");
        Payload::Bytes("application/json", bytes.into())
    }

    /// A stream of chunks.
    pub fn stream<S>(content_type: &'static str, chunks: S) -> Self
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    {
        Payload::Stream(
            content_type,
            StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync(),
        )
    }
}

/// A client; clones share connections and what is known of the masters.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    http: legacy::Client<HttpsConnector<HttpConnector>, Body>,
    tls: rustls::ClientConfig,
    shown: Option<Shown>,
    authorization: Option<String>,
    servers: RwLock<Vec<String>>,
    current: AtomicUsize,
    namespace: String,
}

impl Client {
    /// A client as `config` says. It starts with a random master, so that many clients spread over them.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let shown = config.identity.as_ref().map(Shown::new).transpose()?;
        let tls = tls::trusting_ca(&config.ca_pem, shown.clone())?;
        let client = Self::build(config, tls, shown);
        client.shared.current.store(
            rand::random_range(0..config.servers.len().max(1)),
            Ordering::Relaxed,
        );
        Ok(client)
    }

    /// Shows another certificate from the next connection on; without a certificate at the start there is nothing to replace.
    pub fn replace_identity(&self, identity: &Identity) -> Result<(), Error> {
        if let Some(shown) = &self.shared.shown {
            shown.replace(identity)?;
        }
        Ok(())
    }

    pub(crate) fn with_tls(config: &Config, tls: rustls::ClientConfig) -> Self {
        Self::build(config, tls, None)
    }

    fn build(config: &Config, tls: rustls::ClientConfig, shown: Option<Shown>) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_DEADLINE));
        connector.set_keepalive(Some(KEEP_ALIVE));
        connector.set_nodelay(true);
        connector.set_tcp_user_timeout(Some(2 * KEEP_ALIVE));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.clone())
            .https_only()
            .enable_all_versions()
            .wrap_connector(connector);
        let http = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_keep_alive_timeout(KEEP_ALIVE)
            .http2_keep_alive_while_idle(true)
            .build(connector);
        let shared = Shared {
            http,
            tls,
            shown,
            authorization: config
                .token
                .as_ref()
                .map(|token| format!("Bearer {}", token.0)),
            servers: RwLock::new(config.servers.clone()),
            current: AtomicUsize::new(0),
            namespace: if config.namespace.is_empty() {
                "default".to_owned()
            } else {
                config.namespace.clone()
            },
        };
        Client {
            shared: Arc::new(shared),
        }
    }

    /// The namespace of calls that name none.
    pub fn namespace(&self) -> &str {
        &self.shared.namespace
    }

    /// The masters known.
    pub fn servers(&self) -> Vec<String> {
        self.shared
            .servers
            .read()
            .expect("no holder of this lock panics")
            .clone()
    }

    /// Learns the masters anew; an empty list is not believed.
    pub fn set_servers(&self, servers: Vec<String>) {
        if !servers.is_empty() {
            *self
                .shared
                .servers
                .write()
                .expect("no holder of this lock panics") = servers;
        }
    }

    /// `GET`, as a JSON value of a type.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(Method::GET, path, Payload::Empty, Deadline::default())
            .await
    }

    /// `GET` of another representation: a Table, aggregated discovery.
    pub async fn get_accepting<T: DeserializeOwned>(
        &self,
        path: &str,
        accept: &'static str,
    ) -> Result<T, Error> {
        self.exchange(
            Method::GET,
            path,
            Payload::Empty,
            accept,
            Deadline::default(),
        )
        .await
    }

    /// `POST` of a JSON value.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, Error> {
        self.call(Method::POST, path, Payload::json(body), Deadline::default())
            .await
    }

    /// `PUT` of a JSON value.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, Error> {
        self.call(Method::PUT, path, Payload::json(body), Deadline::default())
            .await
    }

    /// `PATCH`.
    pub async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        kind: PatchKind,
        patch: &Value,
    ) -> Result<T, Error> {
        let bytes = serde_json::to_vec(patch).expect("a patch is plain data");
        self.call(
            Method::PATCH,
            path,
            Payload::Bytes(kind.content_type(), bytes.into()),
            Deadline::default(),
        )
        .await
    }

    /// `DELETE` with DeleteOptions; the answer is the object or a Status.
    pub async fn delete(&self, path: &str, options: &Value) -> Result<Value, Error> {
        self.call(
            Method::DELETE,
            path,
            Payload::json(options),
            Deadline::default(),
        )
        .await
    }

    /// Any call whose answer is JSON.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
        deadline: Deadline,
    ) -> Result<T, Error> {
        self.exchange(method, path, payload, "application/json", deadline)
            .await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
        accept: &'static str,
        deadline: Deadline,
    ) -> Result<T, Error> {
        let what = format!("{method} {path}");
        let write = method != Method::GET;
        let started = tokio::time::Instant::now();
        let (server, response) = self.send(method, path, payload, accept, deadline).await?;
        let left = deadline.0.saturating_sub(started.elapsed());
        let body = tokio::time::timeout(
            left,
            http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect(),
        );
        let interrupted = |reason: String| Error::Interrupted {
            server: server.clone(),
            what: what.clone(),
            reason,
            write,
        };
        let bytes = match body.await {
            Err(_) => {
                return Err(interrupted(format!(
                    "no whole answer within {:?}",
                    deadline.0
                )));
            }
            Ok(Err(error)) => return Err(interrupted(error.to_string())),
            Ok(Ok(collected)) => collected.to_bytes(),
        };
        serde_json::from_slice(&bytes).map_err(|error| Error::Unreadable {
            server,
            what,
            reason: error.to_string(),
        })
    }

    /// A call whose answer is read as it comes: logs, watches, archives. The deadline holds until its first byte.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
        deadline: Deadline,
    ) -> Result<Incoming, Error> {
        self.open_accepting(method, path, payload, "*/*", deadline)
            .await
    }

    /// [`Client::open`] with headers of the caller's.
    pub async fn open_with(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
        headers: &[(&'static str, String)],
        deadline: Deadline,
    ) -> Result<Incoming, Error> {
        let (_, response) = self
            .send_with(method, path, payload, "*/*", headers, deadline)
            .await?;
        Ok(response.into_body())
    }

    pub(crate) async fn open_accepting(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
        accept: &'static str,
        deadline: Deadline,
    ) -> Result<Incoming, Error> {
        let (_, response) = self.send(method, path, payload, accept, deadline).await?;
        Ok(response.into_body())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
        accept: &'static str,
        deadline: Deadline,
    ) -> Result<(String, Response<Incoming>), Error> {
        self.send_with(method, path, payload, accept, &[], deadline)
            .await
    }

    /// Sends to the current master, and on to the next while it is certain that nothing was done.
    async fn send_with(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
        accept: &'static str,
        headers: &[(&'static str, String)],
        deadline: Deadline,
    ) -> Result<(String, Response<Incoming>), Error> {
        let what = format!("{method} {path}");
        let read = method == Method::GET;
        let until = tokio::time::Instant::now() + deadline.0;
        let (servers, first) = self.order();
        let mut payload = Some(payload);
        let mut failure = Error::Unreachable {
            servers: "(none configured)".to_owned(),
            reason: String::new(),
        };
        for turn in 0..servers.len() {
            let index = (first + turn) % servers.len();
            let server = servers[index].clone();
            let Some(now) = take_payload(&mut payload) else {
                break;
            };
            let mut request = self.request(&method, &server, path, now, accept)?;
            for (name, value) in headers {
                let value = http::HeaderValue::from_str(value).map_err(|error| {
                    crate::ConfigError::Unusable {
                        what: format!("the header {name}"),
                        reason: error.to_string(),
                    }
                })?;
                request.headers_mut().insert(*name, value);
            }
            let sent = tokio::time::timeout_at(until, self.shared.http.request(request)).await;
            match sent {
                Ok(Ok(response))
                    if response.status() == StatusCode::SERVICE_UNAVAILABLE && read =>
                {
                    failure = failure_of(&server, &what, response).await;
                }
                Ok(Ok(response)) if response.status().is_success() => {
                    self.shared.current.store(index, Ordering::Relaxed);
                    return Ok((server, response));
                }
                Ok(Ok(response)) => return Err(failure_of(&server, &what, response).await),
                Ok(Err(error)) if error.is_connect() => {
                    failure = match distrust(&error) {
                        Some(reason) => Error::Untrusted { server, reason },
                        None => Error::Unreachable {
                            servers: servers.join(", "),
                            reason: chain(&error),
                        },
                    };
                }
                Ok(Err(error)) => {
                    failure = Error::Interrupted {
                        server,
                        what: what.clone(),
                        reason: chain(&error),
                        write: !read,
                    };
                    if !read {
                        break;
                    }
                }
                Err(_) => {
                    self.shared.current.store(index + 1, Ordering::Relaxed);
                    let reason = format!("no answer within {:?}", deadline.0);
                    return Err(Error::Interrupted {
                        server,
                        what,
                        reason,
                        write: !read,
                    });
                }
            }
            self.shared.current.store(index + 1, Ordering::Relaxed);
        }
        Err(failure)
    }

    fn order(&self) -> (Vec<String>, usize) {
        let servers = self.servers();
        let first = self.shared.current.load(Ordering::Relaxed) % servers.len().max(1);
        (servers, first)
    }

    fn request(
        &self,
        method: &Method,
        server: &str,
        path: &str,
        payload: Payload,
        accept: &'static str,
    ) -> Result<Request<Body>, Error> {
        let builder = Request::builder()
            .method(method)
            .uri(format!("{server}{path}"));
        let builder = builder
            .header(ACCEPT, accept)
            .header(USER_AGENT, concat!("trireme/", env!("CARGO_PKG_VERSION")));
        let builder = match &self.shared.authorization {
            Some(authorization) => builder.header(AUTHORIZATION, authorization),
            None => builder,
        };
        let (builder, body) = match payload {
            Payload::Empty => (builder, full(Bytes::new())),
            Payload::Bytes(content_type, bytes) => {
                (builder.header(CONTENT_TYPE, content_type), full(bytes))
            }
            Payload::Stream(content_type, body) => {
                (builder.header(CONTENT_TYPE, content_type), body)
            }
        };
        builder.body(body).map_err(|error| {
            let what = format!("the URL {server}{path}");
            Error::Config(crate::ConfigError::Unusable {
                what,
                reason: error.to_string(),
            })
        })
    }

    pub(crate) fn tls(&self) -> rustls::ClientConfig {
        self.shared.tls.clone()
    }

    pub(crate) fn authorization(&self) -> Option<&str> {
        self.shared.authorization.as_deref()
    }

    /// Asks this master first from now on.
    pub(crate) fn prefer(&self, server: &str) {
        if let Some(index) = self.servers().iter().position(|known| known == server) {
            self.shared.current.store(index, Ordering::Relaxed);
        }
    }

    /// The masters, the one to ask first at the front.
    pub(crate) fn servers_in_order(&self) -> Vec<String> {
        let (mut servers, first) = self.order();
        servers.rotate_left(first);
        servers
    }
}

/// A segment of a path, or a value of a query, with everything escaped that must be.
pub fn encode_segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A payload for the next attempt: bytes can be sent again, a stream only once.
fn take_payload(payload: &mut Option<Payload>) -> Option<Payload> {
    match payload {
        Some(Payload::Empty) => Some(Payload::Empty),
        Some(Payload::Bytes(content_type, bytes)) => {
            Some(Payload::Bytes(content_type, bytes.clone()))
        }
        Some(Payload::Stream(..)) | None => payload.take(),
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

async fn failure_of(server: &str, what: &str, response: Response<Incoming>) -> Error {
    let code = response.status();
    let body = http_body_util::Limited::new(response.into_body(), 1 << 20).collect();
    let bytes = match tokio::time::timeout(Duration::from_secs(5), body).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        _ => Bytes::new(),
    };
    match serde_json::from_slice::<Status>(&bytes) {
        Ok(status) => status.into(),
        Err(_) => {
            let text: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
            Error::Unreadable {
                server: server.to_owned(),
                what: what.to_owned(),
                reason: format!("{code} {text}"),
            }
        }
    }
}

/// Why the server's certificate was not accepted, if that is what failed.
fn distrust(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(tls @ rustls::Error::InvalidCertificate(_)) = cause.downcast_ref() {
            return Some(tls.to_string());
        }
        // An I/O error passes the error within over: its source is already that one's source.
        let within = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = match within {
            Some(within) => Some(within),
            None => cause.source(),
        };
    }
    None
}

/// An error with its causes, since the outermost of a connection's errors says next to nothing.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
