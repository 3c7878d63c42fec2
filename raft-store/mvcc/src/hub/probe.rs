//! Asks one watch how far it is, without waiting for the hub's own progress and without disturbing other watches.

use super::Shared;
use super::queue::Queue;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Waker;

/// A handle of one watch. It keeps neither the watch nor the hub alive.
#[derive(Clone)]
pub struct Probe {
    shared: Weak<Shared>,
    /// The queue that feeds the watch while it is live.
    queue: Arc<Mutex<Weak<Queue>>>,
}

impl Probe {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Probe {
            shared: Arc::downgrade(shared),
            queue: Arc::default(),
        }
    }

    /// The watch is fed by this queue from now on.
    pub(super) fn is_live(&self, queue: &Arc<Queue>) {
        *self.lock() = Arc::downgrade(queue);
    }

    /// Has the watch tell, after what already waits for it, that it has seen all up to the newest revision published. One
    /// that is catching up tells so by itself when it is done; one that told so already says nothing more.
    pub fn ask(&self) {
        let queue = self.lock().upgrade();
        let (Some(queue), Some(shared)) = (queue, self.shared.upgrade()) else {
            return;
        };
        let mut wakers = vec![];
        // Under the hub's lock, so that no change of an earlier revision can come after it.
        let state = shared.lock();
        queue.push_progress(state.revision, &mut wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Weak<Queue>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
