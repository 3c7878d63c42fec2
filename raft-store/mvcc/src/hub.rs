//! The watch hub: tells each watcher what changed in its range, in order, with no gap and no duplicate.
//!
//! Each event is made once and shared by all watchers. A watcher reads in one of two ways:
//!
//! ```text
//!            the ring, or history before it, is read up to the newest revision
//!  catching ------------------------------------------------------------------> live: a bounded queue
//!     ^                                                                           |
//!     +---------------------------------------------------------------------------+
//!            the queue overflowed, or the state was replaced by a snapshot
//! ```
//!
//! So a slow watcher is never fed from memory that grows, and holds nobody up: it falls back to reading history at its own
//! pace. It is ended only when compaction overtakes it (`Compacted`), or with the member (`ShuttingDown`).
//! Runs on any executor; knows no clock. Its rules are those of etcd's watch: all changes of a revision come together, and
//! progress never overtakes a change.

mod probe;
mod queue;
mod ring;
mod watchers;

use crate::planted::{self, Bug};
use crate::read::HistoryPage;
use crate::store::{Event, KeyRange, StoreError, WatchBatch, WatchRequest, WatchStream};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use objects::Revision;
pub use probe::Probe;
use queue::{Next, Queue};
use ring::Ring;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use watchers::{WatcherId, Watchers};

/// What a hub may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubLimits {
    /// The bytes of recent events kept for watchers that join or fall back; the oldest go first.
    pub ring_bytes_max: usize,
    /// The events that may wait for one watcher, as long as they take no more bytes than the ring; more, and it falls back to
    /// reading history.
    pub queue_events_max: usize,
    /// The changes that are looked at for one batch while a watcher catches up.
    pub page_changes_max: usize,
}

impl Default for HubLimits {
    fn default() -> Self {
        HubLimits {
            ring_bytes_max: 64 << 20,
            queue_events_max: 4096,
            page_changes_max: 1000,
        }
    }
}

/// Where a watcher reads what the ring no longer has: `read::history` over the member's tables.
pub trait HistorySource: Send + Sync + 'static {
    /// One page of the history of `range` from `from` on.
    fn history(
        &self,
        range: KeyRange,
        from: Revision,
        changes_max: usize,
    ) -> BoxFuture<'_, Result<HistoryPage, StoreError>>;
}

/// A member's watchers. Clones are handles of the same hub.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    limits: HubLimits,
    /// Watches that somebody holds, live or behind.
    watches: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    /// The last revision published.
    revision: Revision,
    compacted: Revision,
    ring: Ring,
    watchers: Watchers,
    is_closed: bool,
}

impl Hub {
    /// A hub without watchers over a store that is at `revision` and compacted at `compacted`.
    pub fn new(limits: HubLimits, revision: Revision, compacted: Revision) -> Self {
        let state = State {
            revision,
            compacted,
            ring: Ring::new(limits.ring_bytes_max, revision.next()),
            watchers: Watchers::default(),
            is_closed: false,
        };
        Hub {
            shared: Arc::new(Shared {
                limits,
                watches: AtomicUsize::new(0),
                state: Mutex::new(state),
            }),
        }
    }

    /// Tells what was applied and written: the events, in order, and the store's revision after them.
    pub fn publish(&self, revision: Revision, events: Vec<Arc<Event>>) {
        let mut state = self.shared.lock();
        assert!(
            revision >= state.revision,
            "the store's revision went back; reset the hub first"
        );
        state.revision = revision;
        let mut due: BTreeMap<WatcherId, Vec<Arc<Event>>> = BTreeMap::new();
        for event in &events {
            if planted::strikes(Bug::WatchSkips) {
                continue;
            }
            state.watchers.matching(event.key(), |id| {
                due.entry(id).or_default().push(event.clone())
            });
        }
        let mut wakers = vec![];
        for (id, events) in due {
            let is_live =
                state
                    .watchers
                    .queue(id)
                    .push(revision, events, &self.shared.limits, &mut wakers);
            if !is_live {
                state.watchers.remove(id);
            }
        }
        state.ring.push(events);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Tells every watcher up to which revision it has seen all. Cheap: progress that waits to be read is only renewed.
    pub fn progress(&self) {
        let mut wakers = vec![];
        let state = self.shared.lock();
        let revision = match planted::is(Bug::ProgressEarly) {
            true => state.revision.next(),
            false => state.revision,
        };
        for queue in state.watchers.queues() {
            queue.push_progress(revision, &mut wakers);
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// History before `revision` is forgotten: who still needs it is told `Compacted`.
    pub fn compacted(&self, revision: Revision) {
        let mut state = self.shared.lock();
        state.compacted = state.compacted.max(revision);
    }

    /// The state was replaced, by a snapshot or a restore: each watcher goes on from the new state's history, or is told
    /// `Compacted` when that does not reach back to where it is. Call it when the new state can be read.
    pub fn reset(&self, revision: Revision, compacted: Revision) {
        let mut wakers = vec![];
        let mut state = self.shared.lock();
        state.revision = revision;
        state.compacted = compacted;
        state.ring = Ring::new(self.shared.limits.ring_bytes_max, revision.next());
        for queue in state.watchers.drain() {
            queue.fall_back(&mut wakers);
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The member shuts down: each watcher gets what waits for it and then `ShuttingDown`; new ones are refused.
    pub fn close(&self) {
        let mut wakers = vec![];
        let mut state = self.shared.lock();
        state.is_closed = true;
        for queue in state.watchers.drain() {
            queue.fall_back(&mut wakers);
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How many watchers are live.
    pub fn watchers(&self) -> usize {
        self.shared.lock().watchers.len()
    }

    /// How many watches there are: those that are live, and those that read what they missed.
    pub fn watches(&self) -> usize {
        self.shared.watches.load(Ordering::Relaxed)
    }

    /// How many changes wait for their live watchers.
    pub fn pending_events(&self) -> usize {
        let state = self.shared.lock();
        state.watchers.queues().map(Queue::events).sum()
    }

    /// The last revision published.
    pub fn revision(&self) -> Revision {
        self.shared.lock().revision
    }

    /// Starts a watch. Its first batch, maybe empty, comes at once and tells how far the watcher has seen.
    pub async fn watch(
        &self,
        request: WatchRequest,
        source: Arc<dyn HistorySource>,
    ) -> Result<WatchStream, StoreError> {
        self.watch_probed(request, source)
            .await
            .map(|(stream, _)| stream)
    }

    /// As [`watch`](Self::watch), with a probe that asks the watch for its progress.
    pub async fn watch_probed(
        &self,
        request: WatchRequest,
        source: Arc<dyn HistorySource>,
    ) -> Result<(WatchStream, Probe), StoreError> {
        let probe = Probe::new(&self.shared);
        let next = match planted::is(Bug::WatchRepeats) {
            true => Revision(request.start.0.saturating_sub(1).max(1)),
            false => request.start,
        };
        let phase = Phase::Catching { next };
        let watcher = Watcher {
            shared: self.shared.clone(),
            source,
            range: request.range,
            told: Revision(0),
            probe: probe.clone(),
            phase,
        };
        self.shared.watches.fetch_add(1, Ordering::Relaxed);
        let (first, watcher) = watcher.next().await;
        let first = first?;
        let rest = stream::unfold(Some(watcher), |watcher| async move {
            let (batch, watcher) = watcher?.next().await;
            let after = batch.is_ok().then_some(watcher);
            Some((batch, after))
        });
        Ok((Box::pin(stream::iter([Ok(first)]).chain(rest)), probe))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One watch's stream.
struct Watcher {
    shared: Arc<Shared>,
    source: Arc<dyn HistorySource>,
    range: KeyRange,
    /// The revision of the last batch that was given.
    told: Revision,
    probe: Probe,
    phase: Phase,
}

enum Phase {
    /// Reads the past; `next` is the first revision not told yet.
    Catching { next: Revision },
    /// Is fed by the hub.
    Live(Subscription),
}

/// What a watcher that catches up does next.
enum Step {
    /// It gives this batch and stays behind.
    Page(WatchBatch),
    /// It gives this batch and is live.
    Join(WatchBatch, Subscription),
    /// The ring does not reach back to it.
    ReadHistory,
}

impl Watcher {
    async fn next(mut self) -> (Result<WatchBatch, StoreError>, Self) {
        loop {
            let batch = match &self.phase {
                Phase::Live(subscription) => match subscription.queue.next().await {
                    Next::Batch(batch) => Ok(batch),
                    Next::FallBack(next) => {
                        self.phase = Phase::Catching { next };
                        continue;
                    }
                },
                Phase::Catching { next } => {
                    let next = *next;
                    let batch = self.catch_up(next).await;
                    let is_behind = matches!(self.phase, Phase::Catching { .. });
                    match batch {
                        // A page of history in which nothing matches is no news, nor is what was told before.
                        Ok(batch)
                            if batch.events.is_empty()
                                && (is_behind || batch.revision <= self.told) =>
                        {
                            continue;
                        }
                        other => other,
                    }
                }
            };
            if let Ok(batch) = &batch {
                self.told = self.told.max(batch.revision);
            }
            return (batch, self);
        }
    }

    /// Reads one page of the past and moves on.
    async fn catch_up(&mut self, next: Revision) -> Result<WatchBatch, StoreError> {
        let batch = match self.step(next)? {
            Step::Page(batch) => batch,
            Step::Join(batch, subscription) => {
                self.phase = Phase::Live(subscription);
                return Ok(batch);
            }
            Step::ReadHistory => {
                let changes_max = self.shared.limits.page_changes_max;
                let HistoryPage { events, revision } = self
                    .source
                    .history(self.range.clone(), next, changes_max)
                    .await?;
                if revision < next {
                    // The tables are older than what was published: a snapshot is being installed.
                    return Err(StoreError::SlowWatcher);
                }
                WatchBatch { revision, events }
            }
        };
        self.phase = Phase::Catching {
            next: next.max(batch.revision.next()),
        };
        Ok(batch)
    }

    fn step(&self, next: Revision) -> Result<Step, StoreError> {
        let mut state = self.shared.lock();
        if state.is_closed {
            return Err(StoreError::ShuttingDown);
        }
        if next < state.compacted {
            return Err(StoreError::Compacted {
                requested: next,
                oldest: state.compacted,
            });
        }
        if next < state.ring.oldest() {
            return Ok(Step::ReadHistory);
        }
        let (events, read_to) =
            state
                .ring
                .read(&self.range, next, self.shared.limits.page_changes_max);
        if let Some(revision) = read_to {
            return Ok(Step::Page(WatchBatch { revision, events }));
        }
        // The tables may have been read further than what is published yet.
        let revision = state.revision.max(self.told);
        let queue = Arc::new(Queue::new(next.max(state.revision.next()), revision));
        let id = state.watchers.add(self.range.clone(), queue.clone());
        self.probe.is_live(&queue);
        drop(state);
        let subscription = Subscription {
            shared: self.shared.clone(),
            id,
            queue,
        };
        Ok(Step::Join(WatchBatch { revision, events }, subscription))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A live watcher's place in the hub; left when dropped.
struct Subscription {
    shared: Arc<Shared>,
    id: WatcherId,
    queue: Arc<Queue>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.lock().watchers.remove(self.id);
    }
}
