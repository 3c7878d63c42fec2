//! Ends leases whose holder fell silent. Only the leader does, and by a clock that counts on from the leases' own, so that
//! no wall clock matters; a new leader first renews all of them, since it cannot know who was heard before it led.

use super::Inner;
use mvcc::planted::{self, Bug};
use mvcc::{Command, LeaseId, Meta};
use objects::Term;
use tokio::time::Instant;

/// Leases that one command ends at most.
const ENDED_AT_ONCE: usize = 256;

/// The leases' clock of a leader's term.
pub(crate) struct LeaseClock {
    term: Term,
    began_ms: u64,
    began: Instant,
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
            Some(clock) => {
                clock.began_ms + u64::try_from(clock.began.elapsed().as_millis()).unwrap_or(0)
            }
            None => Meta::load(&self.db.live()).map_or(0, |meta| meta.lease_clock_ms),
        }
    }

    /// Starts the clock of a new term; returns whether it was started just now.
    fn start_lease_clock(&self, term: Term, began_ms: u64) -> bool {
        let mut clock = self
            .lease_clock
            .lock()
            .expect("no holder of the lock panics");
        let is_new = clock.as_ref().is_none_or(|clock| clock.term != term);
        if is_new {
            *clock = Some(LeaseClock {
                term,
                began_ms,
                began: Instant::now(),
            });
        }
        is_new
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
    let is_new_term = inner.start_lease_clock(state.term, meta.lease_clock_ms);
    let now_ms = inner.lease_now_ms();
    let over: Vec<LeaseId> = leases
        .iter()
        .filter(|lease| lease.ends_ms <= now_ms)
        .map(|lease| lease.id)
        .take(ENDED_AT_ONCE)
        .collect();
    let command = match (is_new_term, leases.is_empty(), over.is_empty()) {
        (true, false, _) => Command::LeaseRenewAll { now_ms },
        (false, _, false) => Command::LeaseExpire { ids: over, now_ms },
        _ => return,
    };
    if let Err(err) = inner.propose(command).await {
        tracing::debug!(error = %err, "leases were not ended; trying again");
    }
}
