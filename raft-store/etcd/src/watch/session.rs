//! One stream of watches: takes the client's requests, and tells what its watches see.
//!
//! ```text
//!  create ──> created ──> events, progress ... ──> canceled (by the client, or because history was compacted)
//! ```
//!
//! Progress of all watches together is told when every one of them has told, in events or progress of its own, all up to
//! the revision at which it was asked: so it never overtakes an event.

use super::answer::{NO_WATCH, WatchId, Wishes, messages};
use crate::error::{COMPACTED, STOPPED, status_of};
use crate::from_proto::key_range;
use crate::header::{Headers, signed};
use crate::metrics::WatchStream;
use bytes::Bytes;
use futures::stream::{self, AbortHandle, BoxStream, SelectAll, Stream, StreamExt};
use mvcc::{KeyRange, KeyRangeEnd, Probe, Store, StoreError, WatchBatch, WatchRequest};
use objects::Revision;
use raft_store::RaftStore;
use rpc::etcd::etcdserverpb as pb;
use rpc::etcd::etcdserverpb::watch_request::RequestUnion;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// The watches of one stream; more are refused.
const WATCHES_MAX: usize = 16_384;
/// A watch that wants progress is told it no more often than this.
const PROGRESS_EVERY: Duration = Duration::from_secs(4);
/// How long a watch waits that began while the state was being replaced.
const RESTART_AFTER: Duration = Duration::from_millis(100);

/// What a watch's stream brings.
enum Seen {
    Started(Probe),
    Batch(WatchBatch),
    Failed(StoreError),
}

/// One watch.
struct Watch {
    range: KeyRange,
    /// The first revision that was not told.
    next: Revision,
    wishes: Wishes,
    probe: Option<Probe>,
    told_at: Instant,
    abort: AbortHandle,
}

/// One stream.
pub struct Session {
    store: RaftStore,
    headers: Headers,
    told: WatchStream,
    /// None when the client has said all it will.
    requests: Option<Streaming<pb::WatchRequest>>,
    watches: BTreeMap<WatchId, Watch>,
    seen: SelectAll<BoxStream<'static, (WatchId, Seen)>>,
    answers: VecDeque<pb::WatchResponse>,
    next_id: i64,
    /// Up to where all watches must have told before progress is.
    progress_asked: Option<Revision>,
}

impl Session {
    /// A stream without watches.
    pub fn new(
        store: RaftStore,
        headers: Headers,
        told: WatchStream,
        requests: Streaming<pb::WatchRequest>,
    ) -> Self {
        Session {
            store,
            headers,
            told,
            requests: Some(requests),
            watches: BTreeMap::new(),
            seen: SelectAll::new(),
            answers: VecDeque::new(),
            next_id: 0,
            progress_asked: None,
        }
    }

    /// The answers, until the client goes, nothing is left to watch, or `stop`.
    pub fn answers(
        self,
        stop: CancellationToken,
    ) -> impl Stream<Item = Result<pb::WatchResponse, Status>> {
        stream::unfold(Some((self, stop)), |running| async move {
            let (mut session, stop) = running?;
            // An answer that is there goes without a look at what else might come: events of many watches come together.
            let answer = tokio::select! {
                biased;
                answer = session.next(), if !stop.is_cancelled() => answer?,
                () = stop.cancelled() => Err(STOPPED.into()),
            };
            let after = answer.is_ok().then_some((session, stop));
            Some((answer, after))
        })
    }

    async fn next(&mut self) -> Option<Result<pb::WatchResponse, Status>> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Some(Ok(answer));
            }
            if self.requests.is_none() && self.watches.is_empty() {
                return None;
            }
            tokio::select! {
                request = next_request(&mut self.requests) => match request {
                    Ok(Some(request)) => self.take(request),
                    Ok(None) => self.requests = None,
                    Err(status) => return Some(Err(status)),
                },
                Some((id, seen)) = self.seen.next(), if !self.seen.is_empty() => {
                    if let Err(status) = self.tell(id, seen) {
                        return Some(Err(status));
                    }
                    self.tell_progress();
                }
            }
        }
    }

    fn take(&mut self, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request),
            Some(RequestUnion::CancelRequest(request)) => self.cancel(WatchId(request.watch_id)),
            Some(RequestUnion::ProgressRequest(_)) => self.ask_progress(),
            // As in etcd: a request that says nothing is let be.
            None => {}
        }
    }

    fn create(&mut self, request: pb::WatchCreateRequest) {
        let wishes = Wishes::of(&request);
        let pb::WatchCreateRequest {
            key,
            range_end,
            start_revision,
            watch_id,
            ..
        } = request;
        let key = match key.is_empty() {
            // The smallest key; etcd takes an empty one for it.
            true => Bytes::from_static(&[0]),
            false => key,
        };
        let range = key_range(key, range_end);
        let now = self.store.applied_revision();
        let start = match u64::try_from(start_revision) {
            Ok(0) => now.next(),
            Ok(start) => Revision(start),
            Err(_) => return self.refuse(COMPACTED.text()),
        };
        if matches!(&range.end, KeyRangeEnd::Before(end) if *end <= range.start) {
            return self.refuse("mvcc: watcher range is empty");
        }
        if self.watches.len() >= WATCHES_MAX {
            return self.refuse("etcdserver: too many watches on one stream");
        }
        let id = match watch_id {
            0 => self.free_id(),
            chosen => WatchId(chosen),
        };
        if self.watches.contains_key(&id) {
            return self.refuse("mvcc: duplicate watch ID provided on the WatchStream");
        }
        let abort = self.start(id, range.clone(), start, Duration::ZERO);
        let watch = Watch {
            range,
            next: start,
            wishes,
            probe: None,
            told_at: Instant::now(),
            abort,
        };
        self.watches.insert(id, watch);
        self.answers.push_back(pb::WatchResponse {
            header: self.headers.at(now),
            watch_id: id.0,
            created: true,
            ..pb::WatchResponse::default()
        });
    }

    fn free_id(&mut self) -> WatchId {
        while self.watches.contains_key(&WatchId(self.next_id)) {
            self.next_id += 1;
        }
        let id = WatchId(self.next_id);
        self.next_id += 1;
        id
    }

    /// Begins to read a watch, after a while; what it sees comes with the others'.
    fn start(
        &mut self,
        id: WatchId,
        range: KeyRange,
        start: Revision,
        after: Duration,
    ) -> AbortHandle {
        let store = self.store.clone();
        let begin = async move {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            match store.watch_probed(WatchRequest { range, start }).await {
                Ok((batches, probe)) => {
                    let batches = batches.map(|batch| match batch {
                        Ok(batch) => Seen::Batch(batch),
                        Err(error) => Seen::Failed(error),
                    });
                    stream::iter([Seen::Started(probe)]).chain(batches).boxed()
                }
                Err(error) => stream::iter([Seen::Failed(error)]).boxed(),
            }
        };
        let seen = stream::once(begin).flatten().map(move |seen| (id, seen));
        let (seen, abort) = stream::abortable(seen);
        self.seen.push(seen.boxed());
        abort
    }

    /// Answers that a watch was not created.
    fn refuse(&mut self, reason: &str) {
        self.answers.push_back(pb::WatchResponse {
            header: self.headers.now(),
            watch_id: NO_WATCH.0,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..pb::WatchResponse::default()
        });
    }

    fn cancel(&mut self, id: WatchId) {
        let Some(watch) = self.watches.remove(&id) else {
            return;
        };
        watch.abort.abort();
        self.answers.push_back(pb::WatchResponse {
            header: self.headers.now(),
            watch_id: id.0,
            canceled: true,
            ..pb::WatchResponse::default()
        });
        self.tell_progress();
    }

    /// Tells the client what one of its watches saw. Fails when the whole stream is over.
    fn tell(&mut self, id: WatchId, seen: Seen) -> Result<(), Status> {
        let Some(watch) = self.watches.get_mut(&id) else {
            return Ok(());
        };
        match seen {
            Seen::Started(probe) => {
                watch.probe = Some(probe);
                Ok(())
            }
            Seen::Batch(batch) => {
                let answers = tell_batch(&self.headers, id, watch, &batch);
                self.told
                    .told(answers.iter().map(|answer| answer.events.len()).sum());
                self.answers.extend(answers);
                Ok(())
            }
            Seen::Failed(error) => self.fail(id, error),
        }
    }

    fn fail(&mut self, id: WatchId, error: StoreError) -> Result<(), Status> {
        match error {
            StoreError::Compacted { oldest, .. } => {
                self.watches.remove(&id);
                self.answers.push_back(pb::WatchResponse {
                    // As in etcd, which knows no revision to tell here.
                    header: self.headers.at(Revision(0)),
                    watch_id: id.0,
                    canceled: true,
                    compact_revision: signed(oldest),
                    ..pb::WatchResponse::default()
                });
                Ok(())
            }
            // The state is being replaced by a snapshot: it goes on where it was as soon as that can be read.
            StoreError::SlowWatcher => {
                if let Some(watch) = self.watches.get(&id) {
                    let (range, next) = (watch.range.clone(), watch.next);
                    let abort = self.start(id, range, next, RESTART_AFTER);
                    if let Some(watch) = self.watches.get_mut(&id) {
                        (watch.abort, watch.probe) = (abort, None);
                    }
                }
                Ok(())
            }
            other => Err(status_of(other)),
        }
    }

    fn ask_progress(&mut self) {
        self.progress_asked = Some(self.store.applied_revision());
        let probes = self
            .watches
            .values()
            .filter_map(|watch| watch.probe.as_ref());
        probes.for_each(Probe::ask);
        self.tell_progress();
    }

    /// Answers the question for progress, when every watch has told all that was asked.
    fn tell_progress(&mut self) {
        let Some(asked) = self.progress_asked else {
            return;
        };
        let is_due = self.watches.values().all(|watch| watch.next > asked);
        if is_due {
            self.progress_asked = None;
            self.answers.push_back(pb::WatchResponse {
                header: self.headers.at(asked),
                watch_id: NO_WATCH.0,
                ..pb::WatchResponse::default()
            });
        }
    }
}

/// Notes what a watch saw and makes the answers that its client wants of it.
fn tell_batch(
    headers: &Headers,
    id: WatchId,
    watch: &mut Watch,
    batch: &WatchBatch,
) -> Vec<pb::WatchResponse> {
    watch.next = watch.next.max(batch.revision.next());
    let events = watch.wishes.events(batch);
    let is_progress_due = watch.wishes.progress && watch.told_at.elapsed() >= PROGRESS_EVERY;
    if events.is_empty() && !is_progress_due {
        return vec![];
    }
    watch.told_at = Instant::now();
    messages(
        headers.at(batch.revision),
        id,
        events,
        watch.wishes.fragment,
    )
}

/// The client's next request; never, when it has said all.
async fn next_request(
    requests: &mut Option<Streaming<pb::WatchRequest>>,
) -> Result<Option<pb::WatchRequest>, Status> {
    match requests {
        Some(requests) => requests.message().await,
        None => std::future::pending().await,
    }
}
