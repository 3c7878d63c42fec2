//! The way of one request: who asks, where it goes, what comes back, and the line in the log.
//!
//! Health and version are answered to everybody, a join to whoever has a token, everything else to callers with a
//! certificate. Answers that take their time hold a place of [`crate::flow`]; those that are no streams have a deadline.

use crate::answer::{Answer, Body};
use crate::auth::{Peer, is_master};
use crate::body::{self, Upload};
use crate::cluster::{self, Cluster};
use crate::flow::Flow;
use crate::path::Route;
use crate::proxy::NodeAddress;
use crate::query::Query;
use crate::tls::NodeClientTls;
use crate::{documents, history, verbs};
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderName, Method, Request, Response};
use hyper::body::Incoming;
use objects::{Reason, Status};
use registry::openapi::OpenApi;
use registry::{Caller, Pipeline, Target};
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// The server's bounds and what it says of itself.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Requests in flight, streams and those of nodes apart.
    pub requests_max: usize,
    /// Requests of nodes in flight: nobody's load shall silence their heartbeats.
    pub node_requests_max: usize,
    /// Watches, followed logs and tunnels at once.
    pub streams_max: usize,
    /// Connections at once.
    pub connections_max: usize,
    /// How long a request that is no stream may take.
    pub request_deadline: Duration,
    /// How long requests in flight have to finish at shutdown.
    pub drain_deadline: Duration,
    /// What `/version` says.
    pub version: ServedVersion,
}

/// Which Kubernetes the API is that of.
#[derive(Clone, Debug)]
pub struct ServedVersion {
    /// `1`
    pub major: String,
    /// `34`
    pub minor: String,
    /// `v1.34.0+trireme-0.1.0`
    pub git_version: String,
}

impl Default for ApiConfig {
    fn default() -> Self {
        ApiConfig {
            requests_max: 400,
            node_requests_max: 200,
            streams_max: 10_000,
            connections_max: 10_000,
            request_deadline: Duration::from_secs(60),
            drain_deadline: Duration::from_secs(10),
            version: ServedVersion {
                major: "1".to_owned(),
                minor: "34".to_owned(),
                git_version: concat!("v1.34.0+trireme-", env!("CARGO_PKG_VERSION")).to_owned(),
            },
        }
    }
}

/// The API server; cheap to clone.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

struct Inner {
    pipeline: Arc<Pipeline>,
    cluster: Arc<dyn Cluster>,
    node_tls: NodeClientTls,
    config: ApiConfig,
    flow: Flow,
    open_api: OnceLock<OpenApi>,
    draining: CancellationToken,
}

impl ApiServer {
    /// A server over a pipeline; give it to [`crate::serve`].
    pub fn new(
        pipeline: Arc<Pipeline>,
        cluster: Arc<dyn Cluster>,
        node_tls: NodeClientTls,
        config: ApiConfig,
    ) -> Self {
        ApiServer(Arc::new(Inner {
            flow: Flow::new(&config),
            open_api: OnceLock::new(),
            draining: CancellationToken::new(),
            pipeline,
            cluster,
            node_tls,
            config,
        }))
    }

    /// The bounds.
    pub fn config(&self) -> &ApiConfig {
        &self.0.config
    }

    /// Answers one request of a peer. Never fails: whatever goes wrong becomes a `Status`.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        peer: &Peer,
    ) -> Result<Response<Body>, Infallible> {
        let started = Instant::now();
        let headers = request.headers().clone();
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let outcome = AssertUnwindSafe(self.route(Upload::of(request), peer))
            .catch_unwind()
            .await;
        let mut answer = match outcome {
            Ok(Ok(answer)) => answer,
            Ok(Err(status)) => Answer::status(&status),
            Err(_) => {
                error!(%method, %uri, "answering a request panicked");
                Answer::status(&Status::internal("the server failed; its log says more"))
            }
        };
        let audit_id = audit_id(&headers);
        answer.set(AUDIT_ID, &audit_id);
        let user = peer.caller.as_ref().map(|caller| caller.user.as_str());
        debug!(%method, %uri, code = answer.code.as_u16(), user, peer = %peer.address, audit_id, elapsed = ?started.elapsed(), "answered");
        Ok(answer.finish(&headers, method == Method::HEAD).await)
    }

    async fn route(&self, request: Request<Upload>, peer: &Peer) -> Result<Answer, Status> {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let route = Route::parse(request.method(), request.uri(), &query);
        match &route {
            Route::Health(path) => return Ok(documents::health(self, path, &query)),
            Route::Version => return Ok(documents::version(self)),
            // Its numbers say that it has no leader.
            Route::Metrics => (),
            _ => {
                if let Some(reason) = self.cluster().removed() {
                    return Err(Status::unavailable(reason));
                }
            }
        }
        let caller = peer.caller(request.headers());
        if let Route::Cluster(segments) = &route {
            return self.answer_cluster(segments, caller, request, &query).await;
        }
        let caller = caller?;
        match route {
            Route::Resource(path) => verbs::answer(self, &caller, &path, &query, request).await,
            Route::Metrics => self.metrics(&caller, request).await,
            Route::Discovery(path) => documents::discovery(self, &path, request.headers()),
            Route::OpenApi(path) => documents::open_api(self, &path, &query, request.headers()),
            Route::MethodNotAllowed => Err(method_not_allowed()),
            _ => Err(cluster::not_found()),
        }
    }

    /// As in Kubernetes, metrics are for administrators.
    async fn metrics(&self, caller: &Caller, request: Request<Upload>) -> Result<Answer, Status> {
        if !is_master(caller) {
            return Err(cluster::forbidden(caller, &request.into_parts().0));
        }
        let text = self.within_deadline(self.cluster().metrics()).await?;
        let content_type = "text/plain; version=0.0.4; charset=utf-8";
        Ok(Answer::whole(http::StatusCode::OK, content_type, text))
    }

    async fn answer_cluster(
        &self,
        segments: &[String],
        caller: Result<Caller, Status>,
        request: Request<Upload>,
        query: &Query,
    ) -> Result<Answer, Status> {
        let (parts, body) = request.into_parts();
        let body = body::read(body, cluster::BODY_BYTES_MAX);
        let body = self.within_deadline(body).await?;
        let _place = self.flow().request(caller.as_ref().ok())?;
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        if let ["history", words @ ..] = &words[..] {
            return history::answer(self, &caller?, words, &parts, query, &body).await;
        }
        // Each call has its own deadline: feeding a new member may take longer than a request.
        cluster::answer(self.cluster(), caller, segments, &parts, query, &body).await
    }

    pub(crate) fn pipeline(&self) -> &Pipeline {
        &self.0.pipeline
    }

    pub(crate) fn cluster(&self) -> &dyn Cluster {
        &*self.0.cluster
    }

    pub(crate) fn node_tls(&self) -> &NodeClientTls {
        &self.0.node_tls
    }

    /// The schema documents; written at the first call, which [`crate::serve`] makes before anybody waits for them.
    pub(crate) fn open_api(&self) -> &OpenApi {
        let Inner {
            open_api,
            pipeline,
            config,
            ..
        } = &*self.0;
        open_api.get_or_init(|| OpenApi::new(pipeline.registry(), &config.version.git_version))
    }

    pub(crate) fn flow(&self) -> &Flow {
        &self.0.flow
    }

    /// Cancelled when the server begins to drain: streams end then.
    pub(crate) fn draining(&self) -> CancellationToken {
        self.0.draining.clone()
    }

    pub(crate) fn drain(&self) {
        self.0.draining.cancel();
    }

    /// Runs what is no stream under the configured deadline.
    pub(crate) async fn within_deadline<T>(
        &self,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let deadline = self.config().request_deadline;
        tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| {
            // Without a time to retry: clients would repeat a write whose outcome nobody knows.
            Err(Status::failure(504, Reason::Timeout, format!(
                "Timeout: request did not complete within {deadline:?}; a write may or may not have taken effect"
            )))
        })
    }

    /// An object of a built-in kind, for the server's own use.
    pub(crate) async fn read(
        &self,
        group: &str,
        version: &str,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Bytes, Status> {
        let row = self.pipeline().registry().find(group, version, resource);
        let row = row.ok_or_else(cluster::not_found)?;
        let target = Target::object(row, namespace, name);
        self.within_deadline(self.pipeline().get(&target, None))
            .await
    }

    /// Where the kubelet port of a node is.
    pub(crate) async fn node_address(&self, name: &str) -> Result<NodeAddress, Status> {
        NodeAddress::of(&self.read("", "v1", "nodes", None, name).await?)
    }
}

/// 405 in apiserver's words.
pub fn method_not_allowed() -> Status {
    Status::failure(
        405,
        Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    )
}

/// The client's id for the request, or a new one: it joins the answer with the log.
fn audit_id(headers: &http::HeaderMap) -> String {
    match headers.get(AUDIT_ID).and_then(|id| id.to_str().ok()) {
        Some(id) if id.len() <= 64 && !id.is_empty() => id.to_owned(),
        _ => format!("{:032x}", rand::random::<u128>()),
    }
}
