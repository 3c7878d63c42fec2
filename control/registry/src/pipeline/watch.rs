//! Watch: the store's batches as a client's events, through its selectors. Semantics: Kubernetes' "efficient detection of
//! changes" and "streaming lists".
//!
//! Ends without an error when the store's stream ends (a slow reader, a shutdown): clients go on from the last revision that
//! they saw. Ends with 410 when that revision is gone.

use super::Pipeline;
use super::read::{ReadError, check_version_match, invalid_option, read_not_older};
use super::select::Selection;
use super::store::status_of;
use super::views::{View, Views};
use crate::{ListOptions, ResourceDef, Target, VersionMatch, WatchEvent, WatchEventKind};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use mvcc::{Event, KeyRange, KeyValue, RangeRequest, StoreError, WatchBatch, WatchRequest};
use objects::{Revision, Status, splice_revision};
use serde_json::json;
use std::sync::Arc;

/// A watch's events.
pub type Events = BoxStream<'static, Result<WatchEvent, Status>>;

/// Opens a watch.
pub async fn watch(
    pipeline: &Pipeline,
    target: &Target,
    options: &ListOptions,
) -> Result<Events, Status> {
    check_options(options)?;
    let selection = Selection::new(target, options)?;
    let range = watched_range(target, &selection);
    let (initial, from) = initial_events(pipeline, target, options, &selection, &range).await?;
    let request = WatchRequest {
        range,
        start: from.next(),
    };
    let batches = pipeline.store.watch(request).await.map_err(status_of)?;
    let lens = Lens {
        row: target.resource.clone(),
        views: pipeline.views.clone(),
        selection,
        bookmarks: options.allow_bookmarks,
    };
    let live = batches
        .take_while(|batch| std::future::ready(!ends_quietly(batch)))
        .flat_map(move |batch| stream::iter(lens.events(batch)));
    Ok(stream::iter(initial.into_iter().map(Ok))
        .chain(live)
        .boxed())
}

fn watched_range(target: &Target, selection: &Selection) -> KeyRange {
    let prefix = target.prefix();
    let scoped = target.namespace.is_some() || !target.resource.namespaced;
    match selection
        .only_name()
        .filter(|name| scoped && !name.contains('/'))
    {
        Some(name) => KeyRange::key(format!("{prefix}{name}")),
        None => KeyRange::prefix(prefix),
    }
}

/// What is told before the changes, and the revision up to which it holds.
async fn initial_events(
    pipeline: &Pipeline,
    target: &Target,
    options: &ListOptions,
    selection: &Selection,
    range: &KeyRange,
) -> Result<(Vec<WatchEvent>, Revision), Status> {
    let known = options.resource_version.filter(|revision| revision.0 > 0);
    let wanted = options.send_initial_events.unwrap_or(known.is_none());
    if let (Some(revision), false) = (known, wanted) {
        return Ok((Vec::new(), revision));
    }
    let mut request = RangeRequest::new(range.clone());
    request.count_only = !wanted;
    let response = read_not_older(pipeline, request, options.resource_version).await;
    let response = response.map_err(ReadError::into_status)?;
    let mut events: Vec<WatchEvent> = response
        .kvs
        .iter()
        .filter(|kv| selection.matches(&kv.value))
        .map(|kv| event(WatchEventKind::Added, &kv.value, kv.mod_revision))
        .collect();
    if options.send_initial_events == Some(true) && options.allow_bookmarks {
        events.push(bookmark(&target.resource, response.revision, true));
    }
    Ok((events, response.revision))
}

/// How one client sees the changes.
struct Lens {
    row: Arc<ResourceDef>,
    views: Arc<Views>,
    selection: Selection,
    bookmarks: bool,
}

impl Lens {
    fn events(&self, batch: Result<WatchBatch, StoreError>) -> Vec<Result<WatchEvent, Status>> {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => return vec![Err(status_of(error))],
        };
        let mut events: Vec<_> = batch
            .events
            .iter()
            .filter_map(|change| self.event(change))
            .map(Ok)
            .collect();
        if events.is_empty() && self.bookmarks {
            events.push(Ok(bookmark(&self.row, batch.revision, false)));
        }
        events
    }

    fn event(&self, change: &Event) -> Option<WatchEvent> {
        match change {
            Event::Put { kv, prev } => {
                let is = self.seen(kv);
                let was = prev.as_ref().filter(|prev| self.seen(prev).is_some());
                match (is, was) {
                    (Some(view), None) => Some(shared(WatchEventKind::Added, &view, kv)),
                    (Some(view), Some(_)) => Some(shared(WatchEventKind::Modified, &view, kv)),
                    (None, Some(prev)) => {
                        Some(event(WatchEventKind::Deleted, &prev.value, kv.mod_revision))
                    }
                    (None, None) => None,
                }
            }
            Event::Delete { revision, prev, .. } => {
                let prev = prev.as_ref().filter(|prev| self.seen(prev).is_some())?;
                Some(event(WatchEventKind::Deleted, &prev.value, *revision))
            }
        }
    }

    /// The version, if the client's selectors take it.
    fn seen(&self, kv: &KeyValue) -> Option<Arc<View>> {
        let view = self.views.of(kv);
        if self.row.stored_as.is_some() {
            // The shared fields are those of the stored version's selectors.
            return self.selection.matches(&kv.value).then_some(view);
        }
        let all = self.selection.takes_all();
        (all || self.selection.matches_fields(view.fields(&self.row))).then_some(view)
    }
}

fn shared(kind: WatchEventKind, view: &View, kv: &KeyValue) -> WatchEvent {
    WatchEvent {
        kind,
        object: view.json.clone(),
        revision: kv.mod_revision,
    }
}

fn event(kind: WatchEventKind, stored: &[u8], revision: Revision) -> WatchEvent {
    WatchEvent {
        kind,
        object: splice_revision(stored, revision),
        revision,
    }
}

/// A bookmark of `row`'s kind; the one that ends initial events says so.
fn bookmark(row: &ResourceDef, revision: Revision, ends_initial: bool) -> WatchEvent {
    let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
    if ends_initial {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let object = json!({"kind": row.kind, "apiVersion": row.api_version(), "metadata": metadata});
    WatchEvent {
        kind: WatchEventKind::Bookmark,
        object: Bytes::from(object.to_string()),
        revision,
    }
}

/// Errors after which a client simply watches again from where it is.
fn ends_quietly(batch: &Result<WatchBatch, StoreError>) -> bool {
    matches!(
        batch,
        Err(StoreError::SlowWatcher | StoreError::ShuttingDown | StoreError::Unavailable(_))
    )
}

fn check_options(options: &ListOptions) -> Result<(), Status> {
    let field = "resourceVersionMatch";
    match (options.send_initial_events, options.version_match) {
        (Some(_), Some(VersionMatch::NotOlderThan)) => {}
        (Some(_), _) => {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            return Err(invalid_option(field, why));
        }
        (None, Some(_)) => {
            let why =
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            return Err(invalid_option(field, why));
        }
        (None, None) => {}
    }
    check_version_match(options)
}
