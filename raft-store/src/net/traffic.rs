//! What goes over the connections with the other members, counted for each of them.

use crate::histogram::{Distribution, Histogram};
use crate::types::MemberId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// The counts of all members that this one spoke with.
#[derive(Debug, Default)]
pub struct Traffic {
    members: Mutex<BTreeMap<MemberId, Arc<Counts>>>,
}

/// What went to and came from one member.
#[derive(Debug, Default)]
pub struct Counts {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    failed_calls: AtomicU64,
    failed_heartbeats: AtomicU64,
    round_trips: Histogram,
}

/// The counts at one moment.
#[derive(Clone, Debug, Default)]
pub struct PeerFigures {
    /// Bytes sent to the member, TLS not counted.
    pub sent_bytes: u64,
    /// Bytes that came from it.
    pub received_bytes: u64,
    /// Calls that it did not answer, or not in time.
    pub failed_calls: u64,
    /// Those of them that were a leader's heartbeats.
    pub failed_heartbeats: u64,
    /// How long it took to answer heartbeats.
    pub round_trips: Distribution,
}

impl Traffic {
    /// The counts of one member.
    pub fn with(&self, member: MemberId) -> Arc<Counts> {
        let mut members = self.members.lock().expect("no holder of the lock panics");
        members.entry(member).or_default().clone()
    }

    /// All of them.
    pub fn figures(&self) -> BTreeMap<MemberId, PeerFigures> {
        let members = self.members.lock().expect("no holder of the lock panics");
        let figures = members
            .iter()
            .map(|(member, counts)| (*member, counts.figures()));
        figures.collect()
    }
}

impl Counts {
    /// A call was not answered.
    pub fn failed(&self) {
        self.failed_calls.fetch_add(1, Ordering::Relaxed);
    }

    /// A heartbeat was answered after so long.
    pub fn round_trip(&self, took: Duration) {
        self.round_trips.record(took);
    }

    /// A heartbeat was not answered.
    pub fn heartbeat_failed(&self) {
        self.failed_heartbeats.fetch_add(1, Ordering::Relaxed);
    }

    fn figures(&self) -> PeerFigures {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PeerFigures {
            sent_bytes: get(&self.sent_bytes),
            received_bytes: get(&self.received_bytes),
            failed_calls: get(&self.failed_calls),
            failed_heartbeats: get(&self.failed_heartbeats),
            round_trips: self.round_trips.distribution(),
        }
    }
}

/// Counts the bytes of one connection. Whose an accepted one is shows with its first call; what came before counts for it then.
#[derive(Clone, Debug)]
pub struct Meter(Arc<Metered>);

#[derive(Debug)]
struct Metered {
    traffic: Arc<Traffic>,
    whose: OnceLock<Arc<Counts>>,
    before: Counts,
}

impl Meter {
    /// Of a connection of which nothing is known.
    pub fn unknown(traffic: Arc<Traffic>) -> Self {
        Meter(Arc::new(Metered {
            traffic,
            whose: OnceLock::new(),
            before: Counts::default(),
        }))
    }

    /// Of a connection to this member.
    pub fn of(traffic: &Arc<Traffic>, member: MemberId) -> Self {
        let meter = Meter::unknown(traffic.clone());
        meter.belongs_to(member);
        meter
    }

    /// The connection is this member's, from its first call on.
    pub fn belongs_to(&self, member: MemberId) {
        let Metered {
            traffic,
            whose,
            before,
        } = &*self.0;
        if whose.get().is_none() {
            let counts = whose.get_or_init(|| traffic.with(member));
            let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
            Self::add(&counts.sent_bytes, take(&before.sent_bytes));
            Self::add(&counts.received_bytes, take(&before.received_bytes));
        }
    }

    /// So many bytes were sent.
    pub fn sent(&self, bytes: usize) {
        Self::add(&self.counts().sent_bytes, bytes as u64);
    }

    /// So many bytes were received.
    pub fn received(&self, bytes: usize) {
        Self::add(&self.counts().received_bytes, bytes as u64);
    }

    fn counts(&self) -> &Counts {
        self.0.whose.get().map_or(&self.0.before, |counts| counts)
    }

    fn add(counter: &AtomicU64, bytes: u64) {
        counter.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_the_first_call_counts_for_its_caller() {
        let traffic = Arc::new(Traffic::default());
        let (ours, theirs) = (Meter::of(&traffic, 2), Meter::unknown(traffic.clone()));
        theirs.received(5);
        assert_eq!(traffic.figures()[&2].received_bytes, 0);
        theirs.belongs_to(2);
        theirs.belongs_to(3); // Whose it is does not change.
        theirs.received(1);
        ours.sent(7);
        let figures = traffic.figures();
        assert_eq!(figures.len(), 1);
        let with_2 = &figures[&2];
        assert_eq!((with_2.sent_bytes, with_2.received_bytes), (7, 6));
    }
}
