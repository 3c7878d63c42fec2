//! What waits for one live watcher: filled by the hub, emptied by the watcher's stream, bounded in events and in bytes.

use super::HubLimits;
use super::ring::event_bytes;
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
    /// The events in `batches`, and what they take.
    events: usize,
    bytes: usize,
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
            bytes: 0,
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
        limits: &HubLimits,
        wakers: &mut Vec<Waker>,
    ) -> bool {
        let mut state = self.lock();
        let next = state.next;
        events.retain(|event| event.revision() >= next);
        if events.is_empty() {
            return true;
        }
        // A batch that alone is larger is taken when nothing waits before it, or its watcher would never go on.
        let bytes: usize = events.iter().map(|event| event_bytes(event)).sum();
        let is_full = state.events + events.len() > limits.queue_events_max
            || state.bytes + bytes > limits.ring_bytes_max;
        if state.events > 0 && is_full {
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

    /// How many changes wait.
    pub(super) fn events(&self) -> usize {
        self.lock().events
    }

    /// Waits for what comes next.
    pub(super) async fn next(&self) -> Next {
        poll_fn(|context| {
            let mut state = self.lock();
            if let Some(batch) = state.batches.pop_front() {
                state.events -= batch.events.len();
                state.bytes -= bytes_of(&batch);
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
        self.bytes += bytes_of(&batch);
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

fn bytes_of(batch: &WatchBatch) -> usize {
    batch.events.iter().map(|event| event_bytes(event)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::KeyValue;

    fn put(revision: u64, value_bytes: usize) -> Vec<Arc<Event>> {
        let kv = KeyValue {
            key: "k".into(),
            value: vec![0; value_bytes].into(),
            create_revision: Revision(revision),
            mod_revision: Revision(revision),
            version: 1,
            lease: crate::store::LeaseId(0),
        };
        vec![Arc::new(Event::Put { kv, prev: None })]
    }

    #[test]
    fn large_values_fill_a_queue_before_many_events_do() {
        let limits = HubLimits {
            ring_bytes_max: 10_000,
            queue_events_max: 100,
            ..HubLimits::default()
        };
        let queue = Queue::new(Revision(1), Revision(0));
        let push = |revision, bytes| {
            queue.push(
                Revision(revision),
                put(revision, bytes),
                &limits,
                &mut vec![],
            )
        };
        assert!(push(1, 50_000), "one that is alone is taken, however large");
        assert!(!push(2, 10), "no more while it waits");
        let queue = Queue::new(Revision(1), Revision(0));
        let taken = (1..100).take_while(|revision| {
            queue.push(
                Revision(*revision),
                put(*revision, 1_000),
                &limits,
                &mut vec![],
            )
        });
        assert_eq!(taken.count(), 7);
    }
}
