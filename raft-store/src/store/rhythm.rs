//! How long to gather before something goes that costs the same whatever it holds.
//!
//! Clients that were answered together ask again together, a little later. If what waited meanwhile went at once, they would
//! find it on its way and wait for its end: the clients would fall into two halves that take turns, each waiting for the other's
//! round, and twice as many rounds would be needed. So after an answer, as many requests are expected as were answered and waited
//! then, for a part of the time that the round took. Who is alone is expected alone, and never waits; nor does who comes later.

use crate::runtime::{self, Pause};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The part of a round's time for which the answered ones are waited for.
const PART_OF_ROUND: u32 = 2;
/// No longer than this, however slow the disk.
const WAIT_MAX: Duration = Duration::from_millis(2);

/// What is expected next.
#[derive(Debug, Default)]
pub(crate) struct Rhythm(Mutex<Option<Expected>>);

#[derive(Clone, Copy, Debug)]
struct Expected {
    requests: usize,
    until: Instant,
}

impl Rhythm {
    /// A round that began at `began` has just answered; so many `requests` were in it or waited for the next.
    pub fn answered(&self, requests: usize, began: Instant, now: Instant) {
        let took = now.saturating_duration_since(began);
        let expected = Expected {
            requests,
            until: now + (took / PART_OF_ROUND).min(WAIT_MAX),
        };
        *self.0.lock().expect("no holder of the lock panics") = Some(expected);
    }

    /// Begins to gather what goes together.
    pub fn gather(&self) -> Gathering<'_> {
        Gathering {
            rhythm: self,
            pause: None,
        }
    }

    /// How much longer to gather when so many `requests` are there; None to go.
    fn wait(&self, requests: usize, now: Instant) -> Option<Duration> {
        let expected = (*self.0.lock().expect("no holder of the lock panics"))?;
        let left = expected.until.saturating_duration_since(now);
        (requests < expected.requests && !left.is_zero()).then_some(left)
    }
}

/// What is gathered at the moment. It waits once, however many requests come one by one meanwhile.
pub(crate) struct Gathering<'r> {
    rhythm: &'r Rhythm,
    pause: Option<Pause>,
}

impl Gathering<'_> {
    /// The next of `requests`, of which `gathered` were taken: one that is there, or one that is expected and comes in time.
    /// After None the gathering is over.
    pub async fn next<T>(
        &mut self,
        gathered: usize,
        requests: &mut mpsc::Receiver<T>,
    ) -> Option<T> {
        if let Ok(next) = requests.try_recv() {
            return Some(next);
        }
        let left = self.rhythm.wait(gathered, Instant::now())?;
        let pause = self.pause.get_or_insert_with(|| runtime::pause(left));
        let next = tokio::select! {
            biased;
            next = requests.recv() => next,
            () = pause => None,
        };
        runtime::let_others_ask().await;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_those_who_were_answered_and_not_for_long() {
        let began = Instant::now();
        let after = |ms| began + Duration::from_millis(ms);
        let rhythm = Rhythm::default();
        assert_eq!(rhythm.wait(1, began), None, "nothing is expected yet");
        rhythm.answered(3, began, after(4));
        assert_eq!(rhythm.wait(2, after(4)), Some(Duration::from_millis(2)));
        assert_eq!(rhythm.wait(3, after(4)), None, "all are here");
        assert_eq!(rhythm.wait(2, after(6)), None, "it took too long");
        rhythm.answered(1, began, after(4000));
        assert_eq!(rhythm.wait(1, after(4000)), None, "who is alone goes");
        rhythm.answered(2, began, after(4000));
        assert_eq!(rhythm.wait(1, after(4000)), Some(WAIT_MAX));
    }
}
