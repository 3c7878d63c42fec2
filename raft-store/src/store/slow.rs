//! A slow disk: one write that hangs, or several within a while that each took too long. A leader with such a disk slows
//! everybody down, so it leaves the lead to a member with a faster one, does not ask for it while others may, and never merely exits.

use super::Inner;
use crate::membership;
use crate::types::MemberId;
use objects::cluster::Alarm;
use openraft::Instant as _;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// So many slow writes within the window are a slow disk.
const SLOW_WRITES: usize = 3;
const WINDOW: Duration = Duration::from_secs(10);
/// A write that takes so many parts of the time after which one hangs is slow.
const SLOW_PART: u32 = 4;
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// So long a member with a slow disk leaves an election to the others: several of theirs.
const HOLDS_BACK: Duration = Duration::from_secs(4);
/// Leadership is not handed over again, nor is it told again that it cannot be, within this.
const QUIET: Duration = Duration::from_secs(15);

/// When the last slow writes ended.
#[derive(Debug, Default)]
pub struct SlowWrites {
    ended: Mutex<VecDeque<(Instant, Duration)>>,
}

impl SlowWrites {
    /// A write of the log ended just now. Costs nothing where it was fast.
    pub fn note(&self, took: Duration, now: Instant) {
        if took < Duration::from_millis(50) {
            return;
        }
        let mut ended = self.ended.lock().expect("no holder of the lock panics");
        ended.push_back((now, took));
        if ended.len() > 64 {
            ended.pop_front();
        }
    }

    /// How many writes took at least `slow` and ended within the window before `now`.
    fn count(&self, slow: Duration, now: Instant) -> usize {
        let ended = self.ended.lock().expect("no holder of the lock panics");
        let is_slow =
            |(at, took): &&(Instant, Duration)| *took >= slow && now.duration_since(*at) < WINDOW;
        ended.iter().filter(is_slow).count()
    }
}

/// Whether this member's disk is slow now.
pub(crate) fn is_slow(inner: &Inner) -> bool {
    let hangs = inner.config.timings.slow_disk;
    inner.metrics.writing_for() >= hangs
        || inner
            .metrics
            .slow_writes
            .count(hangs / SLOW_PART, Instant::now())
            >= SLOW_WRITES
}

/// Lets a member with a slow disk ask to lead only when nobody else did for a while, as long as the member runs: a slow leader is
/// better than none, and a member with a longer log than all others must be able to lead in the end.
pub(crate) async fn hold_back(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let may_lead = !is_slow(&inner) || silence(&inner).await >= HOLDS_BACK;
        inner.raft.runtime_config().elect(may_lead);
    }
}

/// For how long no leader was heard, nor a vote given.
async fn silence(inner: &Inner) -> Duration {
    let heard = inner
        .raft
        .with_raft_state(|state| state.vote_last_modified());
    match heard.await {
        Ok(Some(heard)) => heard.elapsed(),
        _ => Duration::MAX,
    }
}

/// Leaves the lead of this member when its disk is slow and another's is not.
#[derive(Default)]
pub(crate) struct Leave {
    last: Option<Instant>,
}

impl Leave {
    pub(crate) async fn look(&mut self, inner: &Inner) {
        let is_quiet = self.last.is_some_and(|last| last.elapsed() < QUIET);
        if is_quiet || !inner.leader.borrow().is_leader || !is_slow(inner) {
            return;
        }
        self.last = Some(Instant::now());
        let Some(to) = faster(inner).await else {
            tracing::warn!(
                writing_for = ?inner.metrics.writing_for(),
                "the disk is slow, and no other voter has a faster one: this member leads on"
            );
            return;
        };
        tracing::warn!(
            writing_for = ?inner.metrics.writing_for(),
            to,
            "the disk is slow; handing leadership over"
        );
        if let Err(err) = membership::transfer_here(inner, Some(to)).await {
            tracing::warn!(error = %err, "leadership stays on a member with a slow disk");
        }
    }
}

/// The other voter with the longest log among those whose disk is not slow.
async fn faster(inner: &Inner) -> Option<MemberId> {
    let statuses = membership::ask_all(inner).await;
    let fast = statuses.into_iter().filter_map(|(member, status)| {
        let status = status.ok()?;
        let is_fit = member.voter
            && member.id != inner.identity.member_id
            && !status.alarms.contains(&Alarm::SlowDisk)
            && !status.alarms.contains(&Alarm::NoSpace);
        is_fit.then_some((status.last_log_index, member.id))
    });
    fast.max().map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_slow_writes_within_a_while_count_and_fast_ones_do_not() {
        let writes = SlowWrites::default();
        let (slow, began) = (Duration::from_millis(300), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        for _ in 0..100 {
            writes.note(Duration::from_millis(2), began);
            writes.note(Duration::from_millis(60), began);
        }
        assert_eq!(writes.count(slow, began), 0);
        for second in [0, 2, 4] {
            writes.note(slow, at(second));
        }
        assert_eq!(writes.count(slow, at(5)), 3);
        assert_eq!(writes.count(slow, at(11)), 2, "the first one is long ago");
        assert_eq!(writes.count(slow, at(60)), 0);
    }
}
