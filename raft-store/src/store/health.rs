//! What the leader knows of the others' disks and data, and what it does about it: it takes no more puts when too few voters
//! have room for them, leaves the lead when only its own disk is full, and has a member whose data are damaged fed anew.

use super::Inner;
use crate::membership::{self, OwnStatus};
use crate::types::MemberId;
use objects::cluster::{Alarm, Member};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A leader with a full disk does not try again within this to hand over.
const QUIET: Duration = Duration::from_secs(15);

/// Who is known to have damaged data, and why; only the leader's is kept up.
#[derive(Default)]
pub(crate) struct Health {
    corrupt: Mutex<BTreeMap<MemberId, String>>,
}

impl Health {
    /// What is wrong with a member's data, as far as the leader knows.
    pub fn corrupt(&self, id: MemberId) -> Option<String> {
        let corrupt = self.corrupt.lock().expect("no holder of the lock panics");
        corrupt.get(&id).cloned()
    }

    /// Notes that a member's data are damaged.
    pub fn note_corrupt(&self, id: MemberId, reason: &str) {
        let mut corrupt = self.corrupt.lock().expect("no holder of the lock panics");
        corrupt.insert(id, reason.to_owned());
    }

    /// Forgets whoever is no member any more.
    fn keep(&self, members: &[Member]) {
        let mut corrupt = self.corrupt.lock().expect("no holder of the lock panics");
        corrupt.retain(|id, _| members.iter().any(|member| member.id == *id));
    }
}

/// Looks at the others as long as the member runs.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left: Option<Instant> = None;
    loop {
        ticks.tick().await;
        if !inner.leader.borrow().is_leader {
            inner.space.others_have_room(true);
            continue;
        }
        let statuses = membership::ask_all(&inner).await;
        let members: Vec<Member> = statuses.iter().map(|(member, _)| member.clone()).collect();
        inner.health.keep(&members);
        let may_leave = left.is_none_or(|left| left.elapsed() >= QUIET);
        if look_at_room(&inner, &statuses, may_leave).await {
            left = Some(Instant::now());
        }
        look_at_damage(&inner, &statuses).await;
    }
}

/// Returns whether leadership was handed over.
async fn look_at_room(
    inner: &Inner,
    statuses: &[(Member, Result<OwnStatus, String>)],
    may_leave: bool,
) -> bool {
    let Room {
        quorum,
        full,
        roomy,
        voters,
    } = Room::of(statuses);
    inner.space.others_have_room(voters - full >= quorum);
    let other = roomy.iter().find(|id| **id != inner.identity.member_id);
    match other {
        Some(to) if may_leave && inner.space.is_full() && roomy.len() >= quorum => {
            tracing::warn!(
                to,
                "the disk is full and others have room; handing leadership over"
            );
            if let Err(err) = membership::transfer_here(inner, Some(*to)).await {
                tracing::warn!(error = %err, "leadership stays on a member with a full disk");
            }
            true
        }
        _ => false,
    }
}

/// What the voters say of the room on their disks. One that is silent has said nothing: it may be dead or busy, and a quorum
/// without it can be had or not, which Raft finds out by itself.
struct Room {
    voters: usize,
    quorum: usize,
    full: usize,
    roomy: Vec<MemberId>,
}

impl Room {
    fn of(statuses: &[(Member, Result<OwnStatus, String>)]) -> Self {
        let mut room = Room {
            voters: 0,
            quorum: 0,
            full: 0,
            roomy: vec![],
        };
        for (member, status) in statuses.iter().filter(|(member, _)| member.voter) {
            room.voters += 1;
            match status {
                Ok(status) if status.alarms.contains(&Alarm::NoSpace) => room.full += 1,
                Ok(_) => room.roomy.push(member.id),
                Err(_) => {}
            }
        }
        room.quorum = room.voters / 2 + 1;
        room
    }
}

async fn look_at_damage(inner: &Inner, statuses: &[(Member, Result<OwnStatus, String>)]) {
    for (member, status) in statuses {
        let reports = status
            .as_ref()
            .is_ok_and(|status| status.alarms.contains(&Alarm::Corrupt));
        let found = inner.health.corrupt(member.id);
        let reason = match (found, reports) {
            (Some(reason), _) => reason,
            (None, true) => "it found damage in its own files".to_owned(),
            (None, false) => continue,
        };
        // One at a time: the next one waits until this one is back.
        membership::condemn(inner, member, &reason).await;
        return;
    }
}
