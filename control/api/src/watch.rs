//! A watch as an answer: one JSON line an event, bookmarks between, an `ERROR` line or a plain end at the end.
//!
//! ```text
//! events ──> encoded pieces ──> client        every minute: BOOKMARK, when allowed and there is progress to tell
//!                                             at the timeout, and when the server drains: BOOKMARK, end
//!                                             on a failure: ERROR with its Status, end
//! ```
//!
//! An object's bytes are those of the store's event, shared by all watchers. Nothing is read ahead of the client: a slow
//! one leaves its events in the store's bounded queue and is told 410 when that overflows.

use crate::ApiServer;
use crate::answer::{Answer, BodyError};
use crate::body::Upload;
use crate::flow::Place;
use crate::negotiate::object_view;
use crate::options;
use crate::present::Presenter;
use crate::query::Query;
use crate::socket;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use objects::{Revision, Status};
use rand::RngExt;
use registry::{ListOptions, Target, WatchEvent, WatchEventKind};
use serde_json::json;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Without a timeout of the client's a watch lasts so long, or up to twice as long: they shall not all end at once.
const TIMEOUT_MIN: Duration = Duration::from_mins(30);
const INITIAL_EVENTS_END: &[u8] = b"k8s.io/initial-events-end";

type Events = BoxStream<'static, Result<WatchEvent, Status>>;

/// Answers a watch: its head at once, then its events.
pub async fn answer(
    server: &ApiServer,
    target: Target,
    query: &Query,
    request: Request<Upload>,
    place: Place,
) -> Result<Answer, Status> {
    let watch = open(server, target, query, request.headers()).await?;
    let draining = server.draining();
    if socket::is_asked(request.headers()) {
        let lines = whole_lines(watch, draining);
        return socket::answer(request, lines, place);
    }
    let frames = futures::stream::unfold((watch, place), move |(mut watch, place)| {
        let draining = draining.clone();
        async move {
            let piece = watch.next(&draining).await?;
            Some((Ok::<_, BodyError>(Frame::data(piece)), (watch, place)))
        }
    });
    let body = StreamBody::new(frames).boxed_unsync();
    Ok(Answer::stream("application/json", body))
}

/// The same, whole lines at a time.
fn whole_lines(watch: Watch, draining: CancellationToken) -> BoxStream<'static, Bytes> {
    let lines = futures::stream::unfold(watch, move |mut watch| {
        let draining = draining.clone();
        async move {
            let mut line = BytesMut::from(&watch.next(&draining).await?[..]);
            while let Some(piece) = watch.pieces.pop_front() {
                line.extend_from_slice(&piece);
            }
            Some((line.freeze(), watch))
        }
    });
    lines.boxed()
}

async fn open(
    server: &ApiServer,
    target: Target,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Watch, Status> {
    let view = object_view(headers)?;
    let now = server.pipeline().shell().now();
    let presenter = Presenter::new(&target.resource, view, query, now)?;
    let options = options::list(query, target.name.as_deref())?;
    let ends_at = Instant::now() + timeout(query)?;
    let events = server
        .within_deadline(server.pipeline().watch(&target, &options))
        .await?;
    Ok(Watch::new(
        server, target, presenter, &options, events, ends_at,
    ))
}

fn timeout(query: &Query) -> Result<Duration, Status> {
    match query.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds.unsigned_abs())),
        _ => Ok(TIMEOUT_MIN.mul_f64(rand::rng().random_range(1.0..2.0))),
    }
}

struct Watch {
    server: ApiServer,
    target: Target,
    presenter: Presenter,
    allow_bookmarks: bool,
    events: Events,
    /// What is encoded and not yet sent: at most one event's pieces.
    pieces: VecDeque<Bytes>,
    /// Whether it still tells what is there, whose revisions come in no order.
    tells_state: bool,
    /// Up to where everything was told, and up to where a bookmark told so.
    progress: Revision,
    bookmarked: Revision,
    bookmark_at: Instant,
    ends_at: Instant,
    is_first: bool,
    ended: bool,
}

impl Watch {
    fn new(
        server: &ApiServer,
        target: Target,
        presenter: Presenter,
        options: &ListOptions,
        events: Events,
        ends_at: Instant,
    ) -> Self {
        let starts_anew = options
            .resource_version
            .is_none_or(|revision| revision.0 == 0);
        Watch {
            tells_state: options.send_initial_events.unwrap_or(starts_anew),
            server: server.clone(),
            target,
            presenter,
            allow_bookmarks: options.allow_bookmarks,
            events,
            pieces: VecDeque::new(),
            progress: Revision(0),
            bookmarked: Revision(0),
            bookmark_at: Instant::now() + BOOKMARK_INTERVAL,
            ends_at,
            is_first: true,
            ended: false,
        }
    }

    /// The next bytes for the client; None at the end.
    async fn next(&mut self, draining: &CancellationToken) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Some(piece);
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                event = self.events.next() => self.take(event),
                () = sleep_until(self.bookmark_at) => self.bookmark(),
                () = sleep_until(self.ends_at) => self.end(),
                () = draining.cancelled() => self.end(),
            }
        }
    }

    fn take(&mut self, event: Option<Result<WatchEvent, Status>>) {
        let told = match event {
            None => return self.end(),
            Some(Ok(event)) => self.tell(&event),
            Some(Err(status)) => Err(status),
        };
        if let Err(status) = told {
            let status = serde_json::to_vec(&status).unwrap_or_else(|_| b"{}".to_vec());
            self.line("ERROR", status.into());
            self.ended = true;
        }
    }

    fn tell(&mut self, event: &WatchEvent) -> Result<(), Status> {
        if event.kind == WatchEventKind::Bookmark {
            self.progress = self.progress.max(event.revision);
            self.tells_state = false;
            if ends_initial_events(&event.object) {
                self.bookmarked = event.revision;
                let object = self.presenter.bookmark(&event.object)?;
                self.line("BOOKMARK", object);
            }
            return Ok(());
        }
        if !self.tells_state {
            // Several objects may share the event's revision: only what lies before it is surely complete.
            self.progress = self
                .progress
                .max(Revision(event.revision.0.saturating_sub(1)));
        }
        self.presenter.set_now(self.server.pipeline().shell().now());
        let object = self.presenter.object_with(&event.object, self.is_first)?;
        self.is_first = false;
        self.server.count_event();
        self.line(event.kind.as_str(), object);
        Ok(())
    }

    fn bookmark(&mut self) {
        self.bookmark_at = Instant::now() + BOOKMARK_INTERVAL;
        if !self.allow_bookmarks || self.progress <= self.bookmarked {
            return;
        }
        self.bookmarked = self.progress;
        let row = &self.target.resource;
        let object = json!({
            "kind": row.kind,
            "apiVersion": row.api_version(),
            "metadata": {"resourceVersion": self.progress.to_string(), "creationTimestamp": null},
        });
        if let Ok(object) = self.presenter.bookmark(&object.to_string().into()) {
            self.line("BOOKMARK", object);
        }
    }

    fn end(&mut self) {
        self.bookmark();
        self.ended = true;
    }

    fn line(&mut self, kind: &'static str, object: Bytes) {
        let head = match kind {
            "ADDED" => r#"{"type":"ADDED","object":"#,
            "MODIFIED" => r#"{"type":"MODIFIED","object":"#,
            "DELETED" => r#"{"type":"DELETED","object":"#,
            "BOOKMARK" => r#"{"type":"BOOKMARK","object":"#,
            _ => r#"{"type":"ERROR","object":"#,
        };
        self.pieces.push_back(Bytes::from_static(head.as_bytes()));
        self.pieces.push_back(object);
        self.pieces.push_back(Bytes::from_static(b"}\n"));
    }
}

/// Whether a bookmark closes the objects that a streaming list began with.
fn ends_initial_events(object: &[u8]) -> bool {
    object
        .windows(INITIAL_EVENTS_END.len())
        .any(|window| window == INITIAL_EVENTS_END)
}
