//! What waits for one live watcher: filled by the hub, emptied by the watcher's stream, bounded in events.

use crate::planted::{self, Bug};
use crate::store::{Event, WatchBatch};
use objects::Revision;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

pub(super) struct Queue {
    state: Mutex<State>,
}

struct State {
    batches: VecDeque<WatchBatch>,
    /// The events in `batches`.
    events: usize,
    /// The first revision that was not pushed yet; earlier ones were read while catching up.
    next: Revision,
    /// The revision of the last batch that was pushed.
    told: Revision,
    /// The hub feeds this queue no more; the watcher reads on by itself from `next`.
    has_fallen_back: bool,
    waker: Option<Waker>,
}

/// What a watcher finds.
pub(super) enum Next {
    Batch(WatchBatch),
    FallBack(Revision),
}

impl Queue {
    /// Empty; takes changes from `next` on, and was told up to `told`.
    pub(super) fn new(next: Revision, told: Revision) -> Self {
        let state = State {
            batches: VecDeque::new(),
            events: 0,
            next,
            told,
            has_fallen_back: false,
            waker: None,
        };
        Queue {
            state: Mutex::new(state),
        }
    }

    /// Adds the changes up to `revision`. False when they do not fit: the watcher falls back and is fed no more.
    pub(super) fn push(
        &self,
        revision: Revision,
        mut events: Vec<Arc<Event>>,
        events_max: usize,
        wakers: &mut Vec<Waker>,
    ) -> bool {
        let mut state = self.lock();
        let next = state.next;
        events.retain(|event| event.revision() >= next);
        if events.is_empty() {
            return true;
        }
        // A batch that alone is larger is taken when nothing waits before it, or its watcher would never go on.
        if state.events > 0 && state.events + events.len() > events_max {
            state.has_fallen_back = true;
        } else {
            if planted::is(Bug::TxnSplit) && is_one_revision(&events) {
                let rest = events.split_off(1);
                state.push(WatchBatch { revision, events });
                events = rest;
            }
            state.push(WatchBatch { revision, events });
        }
        wakers.extend(state.waker.take());
        !state.has_fallen_back
    }

    /// Tells that all changes up to `revision` were pushed.
    pub(super) fn push_progress(&self, revision: Revision, wakers: &mut Vec<Waker>) {
        let mut state = self.lock();
        if revision > state.told {
            state.push(WatchBatch {
                revision,
                events: vec![],
            });
            wakers.extend(state.waker.take());
        }
    }

    /// The hub feeds this queue no more.
    pub(super) fn fall_back(&self, wakers: &mut Vec<Waker>) {
        let mut state = self.lock();
        state.has_fallen_back = true;
        wakers.extend(state.waker.take());
    }

    /// Waits for what comes next.
    pub(super) async fn next(&self) -> Next {
        poll_fn(|context| {
            let mut state = self.lock();
            if let Some(batch) = state.batches.pop_front() {
                state.events -= batch.events.len();
                return Poll::Ready(Next::Batch(batch));
            }
            if state.has_fallen_back {
                return Poll::Ready(Next::FallBack(state.next));
            }
            state.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Adds a batch; it takes the place of progress that nobody has read.
    fn push(&mut self, batch: WatchBatch) {
        // Progress that was told too early must not hide the changes that it was told before.
        if !planted::is(Bug::ProgressEarly) || !batch.events.is_empty() {
            self.next = self.next.max(batch.revision.next());
        }
        self.told = self.told.max(batch.revision);
        self.events += batch.events.len();
        self.batches.pop_back_if(|last| last.events.is_empty());
        self.batches.push_back(batch);
    }
}

/// Whether these are several changes of one revision.
fn is_one_revision(events: &[Arc<Event>]) -> bool {
    let revision = events.first().map(|event| event.revision());
    events.len() > 1
        && events
            .iter()
            .all(|event| Some(event.revision()) == revision)
}
