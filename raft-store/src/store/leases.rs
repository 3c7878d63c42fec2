//! Ends leases whose holder fell silent. Only the leader does, and by a clock that counts on from the leases' own, so that
//! no wall clock matters; a new leader first renews all of them, since it cannot know who was heard before it led. A leader that
//! was stopped for a while heard nobody either: that time does not count, and what waits in its sockets is heard first.

use super::Inner;
use crate::types::Payload;
use mvcc::planted::{self, Bug};
use mvcc::{Batch, Command, LeaseId, Meta};
use objects::Term;
use std::time::Duration;
use tokio::time::Instant;

/// Leases that one command ends at most.
const ENDED_AT_ONCE: usize = 256;

/// The clock is looked at far more often than this; what is longer, the whole process was stopped for.
const STEP_MAX: Duration = Duration::from_secs(1);
/// After a stop nothing ends for so long.
const HOLD: Duration = Duration::from_millis(1500);

/// The leases' clock of a leader's term.
pub(crate) struct LeaseClock {
    term: Term,
    counted_ms: u64,
    counted_at: Instant,
    hold_until: Option<Instant>,
    /// Whether this leader has renewed all leases yet; until then it ends none.
    has_renewed: bool,
}

impl LeaseClock {
    fn new(term: Term, began_ms: u64, now: Instant) -> Self {
        LeaseClock {
            term,
            counted_ms: began_ms,
            counted_at: now,
            hold_until: None,
            has_renewed: false,
        }
    }

    fn now_ms(&self, now: Instant) -> u64 {
        let step = now.duration_since(self.counted_at).min(STEP_MAX);
        self.counted_ms + u64::try_from(step.as_millis()).unwrap_or(0)
    }

    /// Counts on.
    fn tick(&mut self, now: Instant) {
        if now.duration_since(self.counted_at) > STEP_MAX {
            self.hold_until = Some(now + HOLD);
        }
        self.counted_ms = self.now_ms(now);
        self.counted_at = now;
    }

    fn is_held(&self, now: Instant) -> bool {
        self.hold_until.is_some_and(|until| now < until)
    }
}

impl Inner {
    /// The time for a lease command, by the clock of this leader's term or by that of the last command.
    pub fn lease_now_ms(&self) -> u64 {
        let clock = self
            .lease_clock
            .lock()
            .expect("no holder of the lock panics");
        if planted::is(Bug::LeaseWallClock) {
            return crate::clock::now_ms();
        }
        match &*clock {
            Some(clock) => clock.now_ms(self.steady.now()),
            None => Meta::load(&self.db.live()).map_or(0, |meta| meta.lease_clock_ms),
        }
    }

    /// Counts the clock on; to be called far more often than once a second. Returns whether nothing may end now.
    pub fn tick_lease_clock(&self) -> bool {
        let mut clock = self
            .lease_clock
            .lock()
            .expect("no holder of the lock panics");
        let now = self.steady.now();
        clock.as_mut().is_some_and(|clock| {
            clock.tick(now);
            clock.is_held(now)
        })
    }

    /// Starts the clock of a new term; returns whether the leases must still be renewed in it.
    fn start_lease_clock(&self, term: Term, began_ms: u64) -> bool {
        let mut clock = self
            .lease_clock
            .lock()
            .expect("no holder of the lock panics");
        if clock.as_ref().is_none_or(|clock| clock.term != term) {
            *clock = Some(LeaseClock::new(term, began_ms, self.steady.now()));
        }
        clock.as_ref().is_some_and(|clock| !clock.has_renewed)
    }

    /// All leases were renewed in this term.
    fn leases_renewed(&self, term: Term) {
        let mut clock = self
            .lease_clock
            .lock()
            .expect("no holder of the lock panics");
        if let Some(clock) = clock.as_mut().filter(|clock| clock.term == term) {
            clock.has_renewed = true;
        }
    }
}

/// Ends what is over. Does nothing on a member that does not lead.
pub(crate) async fn expire(inner: &Inner) {
    let state = *inner.leader.borrow();
    if !state.is_leader {
        return;
    }
    let (meta, leases) = {
        let view = inner.db.view();
        match (Meta::load(&view), mvcc::leases(&view)) {
            (Ok(meta), Ok(leases)) => (meta, leases),
            (Err(err), _) | (_, Err(err)) => {
                tracing::error!(error = %err, "the leases cannot be read");
                return;
            }
        }
    };
    let must_renew = inner.start_lease_clock(state.term, meta.lease_clock_ms);
    if inner.tick_lease_clock() && !must_renew {
        return;
    }
    let now_ms = inner.lease_now_ms();
    let over: Vec<LeaseId> = leases
        .iter()
        .filter(|lease| lease.ends_ms <= now_ms)
        .map(|lease| lease.id)
        .take(ENDED_AT_ONCE)
        .collect();
    let command = match (must_renew, leases.is_empty(), over.is_empty()) {
        (true, true, _) => return inner.leases_renewed(state.term),
        (true, false, _) => Command::LeaseRenewAll { now_ms },
        (false, _, false) => Command::LeaseExpire { ids: over, now_ms },
        (false, _, true) => return,
    };
    match propose_in_term(inner, command).await {
        Ok(()) if must_renew => inner.leases_renewed(state.term),
        Ok(()) => {}
        Err(reason) => tracing::debug!(reason, "leases were not renewed or ended; trying again"),
    }
}

/// Proposes what this leader's clock says, in its own term or not at all. Handed to the next leader, which renewed all leases since, it
/// would end them by a clock that has nothing to say any more.
async fn propose_in_term(inner: &Inner, command: Command) -> Result<(), String> {
    let frame = Batch(vec![command]).encode();
    let frame = frame.map_err(|err| err.to_string())?;
    let proposed = inner.raft.client_write(Payload(frame));
    match tokio::time::timeout(inner.config.timings.request, proposed).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(err)) => Err(err.to_string()),
        Err(_) => Err("no quorum answered in time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_for_which_a_leader_was_stopped_does_not_count() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut clock = LeaseClock::new(Term(3), 1_000, began);
        for tick in 1..=10 {
            clock.tick(at(tick * 200));
        }
        assert_eq!(clock.now_ms(at(2_100)), 3_100);
        assert!(!clock.is_held(at(2_100)));
        // Stopped for ten seconds: one of them counts, and nothing ends before those who waited were heard.
        assert_eq!(clock.now_ms(at(12_000)), 4_000);
        clock.tick(at(12_000));
        assert!(clock.is_held(at(12_000)) && clock.is_held(at(13_400)));
        for tick in 1..=8 {
            clock.tick(at(12_000 + tick * 200));
        }
        assert!(!clock.is_held(at(13_600)));
        assert_eq!(clock.now_ms(at(13_600)), 5_600);
    }
}
