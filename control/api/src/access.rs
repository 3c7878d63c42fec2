//! Keeps the index of who may do what ([`registry::Access`]) as the local replica is, by one watch of the store, and asks it. The
//! same watch keeps the levels and schemas of [`crate::flow`].

use crate::ApiServer;
use crate::path::ResourcePath;
use crate::query::Query;
use futures::StreamExt;
use mvcc::{KeyRange, StoreError, WatchRequest};
use objects::{FieldSelector, REGISTRY_ROOT, Revision, Status};
use registry::rbac::{Decision, Request, refusal};
use registry::{Caller, Target, Verb};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

const RETRY: Duration = Duration::from_millis(200);
/// How long a refusal waits until the index shows all that this member has applied: what a client was told a moment ago counts.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

/// How far the index has come.
pub struct Progress(watch::Sender<Revision>);

impl Default for Progress {
    fn default() -> Self {
        Progress(watch::Sender::new(Revision(0)))
    }
}

/// Keeps the index until `stop`.
pub async fn follow(server: ApiServer, stop: CancellationToken) {
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = follow_once(&server) => ended,
        };
        match ended {
            Ok(()) | Err(StoreError::ShuttingDown) => {}
            Err(error) => warn!(%error, "the roles are read anew"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow_once(server: &ApiServer) -> Result<(), StoreError> {
    let (pipeline, seen) = (server.pipeline(), &server.progress().0);
    let store = &**pipeline.store();
    let revision = pipeline.access().read_all(store).await?;
    server.flow().read_all(store, revision).await?;
    seen.send_replace(revision);
    // All keys, so that each revision brings a batch and tells how far the index has come.
    let request = WatchRequest {
        range: KeyRange::prefix(Vec::new()),
        start: revision.next(),
    };
    let mut batches = pipeline.store().watch(request).await?;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        for event in &batch.events {
            if event.key().starts_with(REGISTRY_ROOT.as_bytes()) {
                pipeline.access().apply(event);
                server.flow().apply(event);
                server.aggregator().see(event);
            }
        }
        seen.send_replace(batch.revision);
    }
    Ok(())
}

impl ApiServer {
    /// Says yes to a request, or answers 403. Before it refuses, the index is as new as the local replica.
    pub(crate) async fn allow(&self, caller: &Caller, request: &Request<'_>) -> Result<(), Status> {
        let access = self.pipeline().access();
        if access.decide(caller, request).is_allowed() {
            return Ok(());
        }
        self.caught_up().await;
        match access.decide(caller, request) {
            Decision::Allowed(_) => Ok(()),
            Decision::NotAllowed(why) => Err(refusal(caller, request, &why)),
            Decision::Unknown => Err(Status::unavailable(
                "the roles have not been read yet; try again",
            )),
        }
    }

    /// The same for a request on a resource.
    pub(crate) async fn allow_on(
        &self,
        caller: &Caller,
        path: &ResourcePath,
        target: &Target,
        query: &Query,
    ) -> Result<(), Status> {
        let mut request = Request::on(path.verb, target);
        let selector = match path.verb {
            Verb::List | Verb::Watch | Verb::DeleteCollection => query.get("fieldSelector"),
            _ => None,
        };
        // As apiserver reads it, a list of one name is about that object.
        let selector = selector.and_then(|text| FieldSelector::parse(text).ok());
        if let Some(selector) = &selector {
            request.node_selected = selector.required("spec.nodeName").unwrap_or_default();
            if request.name.is_empty() {
                request.name = selector.required("metadata.name").unwrap_or_default();
            }
        }
        self.allow(caller, &request).await
    }

    /// Waits until the index shows all that this member has applied by now.
    pub(crate) async fn caught_up(&self) {
        let target = self.pipeline().store().applied_revision();
        let mut seen = self.progress().0.subscribe();
        let reached = seen.wait_for(|revision| *revision >= target);
        if tokio::time::timeout(CATCH_UP_MAX, reached).await.is_err() {
            warn!(%target, "the index of roles lags behind the store");
        }
    }
}
