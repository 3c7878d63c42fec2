//! The way of one request: who asks, where it goes, what comes back, and the line in the log.
//!
//! Health and version are answered to everybody, a join to whoever has a token, everything else to whom the roles allow it. Each
//! request takes a seat of [`crate::flow`] until its answer is written; those that are no streams have a deadline.

use crate::access::{self, Progress};
use crate::aggregate::Aggregator;
use crate::answer::Answer;
use crate::audit::{Asked, Audit, Note};
use crate::auth::{Identified, Peer};
use crate::body::{self, Upload};
use crate::cluster::{self, Cluster};
use crate::flow::Flow;
use crate::metrics;
use crate::pace::{InFlight, Limits, Paced};
use crate::path::{DiscoveryPath, Route};
use crate::proxy::NodeAddress;
use crate::query::Query;
use crate::tls::NodeClientTls;
use crate::tokens::{self, Oidc, TokenKeys};
use crate::{aggregate, browser, documents, history, status, verbs};
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderName, Method, Request, Response};
use hyper::body::Incoming;
use objects::{Reason, Status};
use registry::flow::Class;
use registry::openapi::{Describe, Foreign, OpenApi};
use registry::rbac::Request as PathRequest;
use registry::{Caller, Pipeline, Registry, Target};
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Which flow schema and priority level a request was found to belong to.
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// The server's bounds and what it says of itself.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Requests in flight, streams apart: the seats that priority levels share.
    pub requests_max: usize,
    /// Watches, followed logs and tunnels at once.
    pub streams_max: usize,
    /// Connections at once.
    pub connections_max: usize,
    /// How long a request that is no stream may take.
    pub request_deadline: Duration,
    /// How long clients may take to ask, and to take what they are answered.
    pub client_limits: Limits,
    /// How long requests in flight have to finish at shutdown.
    pub drain_deadline: Duration,
    /// What `/version` says.
    pub version: ServedVersion,
    /// The words of `kubectl explain`; by default there are none.
    pub describe: Describe,
}

/// Which Kubernetes the API is that of.
#[derive(Clone, Debug)]
pub struct ServedVersion {
    /// `1`
    pub major: String,
    /// `35`
    pub minor: String,
    /// `v1.35.0+trireme-0.1.0`
    pub git_version: String,
}

impl Default for ApiConfig {
    fn default() -> Self {
        ApiConfig {
            requests_max: 600,
            streams_max: 10_000,
            connections_max: 10_000,
            request_deadline: Duration::from_secs(60),
            client_limits: Limits {
                first_request: Duration::from_secs(30),
                next_request: Duration::from_secs(180),
                piece: Duration::from_secs(30),
                answer: Duration::from_secs(60),
            },
            drain_deadline: Duration::from_secs(10),
            version: ServedVersion {
                major: "1".to_owned(),
                minor: "35".to_owned(),
                git_version: concat!("v1.35.0+trireme-", env!("CARGO_PKG_VERSION")).to_owned(),
            },
            describe: |_, _| None,
        }
    }
}

/// The API server; cheap to clone.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

/// By what the server knows who asks, beside certificates.
pub struct Identities {
    /// The keys of service accounts' tokens.
    pub token_keys: TokenKeys,
    /// The OpenID Connect issuer whose tokens are taken.
    pub oidc: Option<Oidc>,
    /// Where requests are noted.
    pub audit: Option<Audit>,
}

/// The schema documents, and what they were made of.
type Documents = (Arc<Registry>, Arc<Foreign>, Arc<OpenApi>);

struct Inner {
    identities: Identities,
    progress: Progress,
    pipeline: Arc<Pipeline>,
    cluster: Arc<dyn Cluster>,
    node_tls: NodeClientTls,
    config: ApiConfig,
    flow: Flow,
    aggregator: Aggregator,
    open_api: Mutex<Option<Documents>>,
    draining: CancellationToken,
    events_told: AtomicU64,
    metrics: metrics::Cache,
}

/// A server, as long as somebody else serves it.
#[derive(Clone)]
pub(crate) struct WeakServer(Weak<Inner>);

impl WeakServer {
    /// The server; None when nobody serves it any more.
    pub(crate) fn upgrade(&self) -> Option<ApiServer> {
        self.0.upgrade().map(ApiServer)
    }
}

impl ApiServer {
    /// The same server, for what it holds itself.
    pub(crate) fn downgrade(&self) -> WeakServer {
        WeakServer(Arc::downgrade(&self.0))
    }

    /// A server over a pipeline; give it to [`crate::serve`].
    pub fn new(
        pipeline: Arc<Pipeline>,
        cluster: Arc<dyn Cluster>,
        node_tls: NodeClientTls,
        identities: Identities,
        config: ApiConfig,
    ) -> Self {
        ApiServer(Arc::new(Inner {
            identities,
            progress: Progress::default(),
            aggregator: Aggregator::default(),
            flow: Flow::new(&config),
            open_api: Mutex::new(None),
            draining: CancellationToken::new(),
            events_told: AtomicU64::new(0),
            metrics: metrics::Cache::default(),
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

    /// Answers one request of a peer, which is in flight until its answer is taken. Never fails: whatever goes wrong becomes a `Status`.
    pub async fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: &Peer,
        in_flight: InFlight,
    ) -> Result<Response<Paced>, Infallible> {
        let started = Instant::now();
        browser::take_token(request.headers_mut());
        let headers = request.headers().clone();
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let audit_id = audit_id(&headers);
        let note = Note::default();
        let asked = Asked {
            method: &method,
            uri: &uri,
            headers: &headers,
            id: &audit_id,
            peer,
        };
        let class = OnceLock::new();
        let outcome = AssertUnwindSafe(self.route(Upload::of(request), &asked, &note, &class))
            .catch_unwind()
            .await;
        self.note_answer(&note, &outcome);
        let mut answer = match outcome {
            Ok(Ok(answer)) => answer,
            Ok(Err(status)) => Answer::status(&status),
            Err(_) => {
                error!(%method, %uri, "answering a request panicked");
                Answer::status(&Status::internal("the server failed; its log says more"))
            }
        };
        answer.set(AUDIT_ID, &audit_id);
        if let Some(class) = class.get() {
            answer.set(SCHEMA_UID, &class.schema_uid);
            answer.set(LEVEL_UID, &class.level_uid);
        }
        let user = peer.caller.as_ref().map(|caller| caller.user.as_str());
        debug!(%method, %uri, code = answer.code.as_u16(), user, peer = %peer.address, audit_id, elapsed = ?started.elapsed(), "answered");
        let is_head = method == Method::HEAD;
        Ok(answer.finish(&headers, is_head, in_flight).await)
    }

    fn note_answer(&self, note: &Note, outcome: &std::thread::Result<Result<Answer, Status>>) {
        let Some(audit) = self.audit() else {
            return;
        };
        let now = self.pipeline().shell().now();
        match outcome {
            Ok(answer) => audit.answered(note, &answer.as_ref(), now),
            Err(_) => audit.panicked(note, now),
        }
    }

    async fn route(
        &self,
        mut request: Request<Upload>,
        asked: &Asked<'_>,
        note: &Note,
        class: &OnceLock<Class>,
    ) -> Result<Answer, Status> {
        let peer = asked.peer;
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let mut route = Route::parse(request.method(), request.uri(), &query);
        let remote = self.aggregator().behind(request.uri().path());
        if remote.is_some() && route == Route::NotFound {
            route = aggregate::route_below(request.method(), request.uri(), &query);
        }
        match &route {
            Route::Health(path) => return Ok(documents::health(self, path, &query)),
            Route::Version => return Ok(documents::version(self)),
            Route::Dashboard(path) => {
                return browser::dashboard(request.uri(), path, request.headers());
            }
            Route::Discovery(DiscoveryPath::Root) if browser::wants_page(request.headers()) => {
                return Ok(browser::to_dashboard());
            }
            // Its numbers say that it has no leader.
            Route::Metrics => (),
            _ => {
                if let Some(reason) = self.cluster().removed() {
                    return Err(Status::unavailable(reason));
                }
            }
        }
        if peer.caller.is_some() {
            browser::refuse_other_sites(request.method(), request.uri(), request.headers())?;
        }
        if let Route::Cluster(segments) = &route {
            // Who joins proves it by a token of another kind.
            let identified = match cluster::is_join(request.method(), segments) {
                true => match peer.caller.clone() {
                    Some(user) => Ok(Identified { user, acting: None }),
                    None => Err(Status::unauthorized()),
                },
                false => self.identify(peer, request.headers()).await,
            };
            if let (Some(audit), Ok(identified)) = (self.audit(), &identified) {
                let now = self.pipeline().shell().now();
                audit.received(note, asked, &route, identified, now);
            }
            let caller = identified.map(|identified| identified.caller().clone());
            let nobody = Caller::default();
            let class = self.classify(class, caller.as_ref().unwrap_or(&nobody), asked, &route);
            return self
                .answer_cluster(segments, caller, class, request, &query)
                .await;
        }
        let identified = self.identify(peer, request.headers()).await?;
        let caller = identified.caller().clone();
        if let Some(audit) = self.audit() {
            let now = self.pipeline().shell().now();
            audit.received(note, asked, &route, &identified, now);
            request.extensions_mut().insert(note.clone());
        }
        let class = self.classify(class, &caller, asked, &route);
        if let Some(service) = remote {
            return aggregate::answer(self, &service, &caller, class, &route, request).await;
        }
        if let Route::Resource(path) = &route {
            return verbs::answer(self, &caller, class, path, &query, request).await;
        }
        let method = request.method().as_str().to_ascii_lowercase();
        let path = PathRequest::path(&method, request.uri().path());
        self.allow(&caller, &path).await?;
        let turn = self.flow().request(class, asked.method, 1).await?;
        let answer = match route {
            Route::Metrics => self.metrics().await,
            Route::Issuer => Ok(cluster::ok(&tokens::configuration(self))),
            Route::KeySet => {
                let keys = tokens::key_set(self)?.to_string();
                Ok(Answer::whole(
                    http::StatusCode::OK,
                    "application/jwk-set+json",
                    keys,
                ))
            }
            Route::Discovery(path) => documents::discovery(self, &path, request.headers()),
            Route::OpenApi(path) => {
                documents::open_api(self, path, &query, request.headers()).await
            }
            Route::MethodNotAllowed => Err(method_not_allowed()),
            _ => Err(cluster::not_found()),
        };
        Ok(answer?.holding(turn))
    }

    /// Notes to which flow the request belongs.
    fn classify<'a>(
        &self,
        class: &'a OnceLock<Class>,
        caller: &Caller,
        asked: &Asked<'_>,
        route: &Route,
    ) -> &'a Class {
        class.get_or_init(|| match route {
            Route::Resource(path) => self.flow().classify(caller, &path.as_request()),
            _ => {
                let method = asked.method.as_str().to_ascii_lowercase();
                let request = PathRequest::path(&method, asked.uri.path());
                self.flow().classify(caller, &request)
            }
        })
    }

    async fn metrics(&self) -> Result<Answer, Status> {
        let mut text = self.within_deadline(self.cluster().metrics()).await?;
        text.push_str(&self.flow().metrics());
        let told = self.0.events_told.load(Ordering::Relaxed);
        let encoded = self.pipeline().watch_encodings();
        for (name, help, value) in [
            (
                "trireme_watch_events_total",
                "Events that were told to watchers.",
                told,
            ),
            (
                "trireme_watch_encodings_total",
                "Versions of objects that were encoded for watchers, who share them.",
                encoded,
            ),
        ] {
            text.push_str(&format!(
                "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}\n"
            ));
        }
        let content_type = "text/plain; version=0.0.4; charset=utf-8";
        Ok(Answer::whole(http::StatusCode::OK, content_type, text))
    }

    async fn answer_cluster(
        &self,
        segments: &[String],
        caller: Result<Caller, Status>,
        class: &Class,
        request: Request<Upload>,
        query: &Query,
    ) -> Result<Answer, Status> {
        if segments == ["status"] && query.flag("watch") {
            return status::watch(self, &caller?, class, request).await;
        }
        let (parts, body) = request.into_parts();
        let body = body::read(body, cluster::BODY_BYTES_MAX, self.flow());
        let body = self.within_deadline(body).await?;
        // What is done to the cluster may take longer than any request: it has a seat while it is worked on.
        let _turn = self.flow().request(class, &parts.method, 1).await?;
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        if let ["history", words @ ..] = &words[..] {
            return history::answer(self, &caller?, words, &parts, query, &body).await;
        }
        // Each call has its own deadline: feeding a new member may take longer than a request.
        cluster::answer(self, caller, segments, &parts, query, &body).await
    }

    pub(crate) fn pipeline(&self) -> &Pipeline {
        &self.0.pipeline
    }

    pub(crate) fn cluster(&self) -> &dyn Cluster {
        &*self.0.cluster
    }

    pub(crate) fn aggregator(&self) -> &Aggregator {
        &self.0.aggregator
    }

    pub(crate) fn token_keys(&self) -> &TokenKeys {
        &self.0.identities.token_keys
    }

    pub(crate) fn oidc(&self) -> Option<&Oidc> {
        self.0.identities.oidc.as_ref()
    }

    fn audit(&self) -> Option<&Audit> {
        self.0.identities.audit.as_ref()
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.0.progress
    }

    /// Keeps what the server knows of who may do what and who is served first, until `stop`.
    pub(crate) async fn follow(self, stop: CancellationToken) {
        let flow = self.flow().clone();
        tokio::select! {
            () = flow.keep() => {}
            () = aggregate::follow(self.clone(), stop.clone()) => {}
            () = access::follow(self, stop) => {}
        }
    }

    /// The cluster, for a stream that outlives its request.
    pub(crate) fn shared_cluster(&self) -> Arc<dyn Cluster> {
        Arc::clone(&self.0.cluster)
    }

    pub(crate) fn node_tls(&self) -> &NodeClientTls {
        &self.0.node_tls
    }

    /// The schema documents of the table as it is now. What a change of the table leaves as it was is not written again.
    pub(crate) fn open_api(&self) -> Arc<OpenApi> {
        let Inner {
            open_api,
            pipeline,
            config,
            ..
        } = &*self.0;
        let registry = pipeline.registry();
        let foreign = self.aggregator().schemas();
        let mut known = open_api.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, with, documents)) = &*known
            && Arc::ptr_eq(of, &registry)
            && Arc::ptr_eq(with, &foreign)
        {
            return documents.clone();
        }
        let before = known.as_ref().map(|(_, _, documents)| &**documents);
        let documents = Arc::new(OpenApi::after(
            before,
            &registry,
            &config.version.git_version,
            config.describe,
            &foreign,
        ));
        *known = Some((registry, foreign, documents.clone()));
        documents
    }

    pub(crate) fn metrics_cache(&self) -> &metrics::Cache {
        &self.0.metrics
    }

    pub(crate) fn flow(&self) -> &Flow {
        &self.0.flow
    }

    /// Cancelled when the server begins to drain: streams end then.
    pub(crate) fn draining(&self) -> CancellationToken {
        self.0.draining.clone()
    }

    /// Counts an event that goes to a watcher.
    pub(crate) fn count_event(&self) {
        self.0.events_told.fetch_add(1, Ordering::Relaxed);
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
        let registry = self.pipeline().registry();
        let row = registry.find(group, version, resource);
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
