//! Follows a leader whose process is seen to be dead, without waiting for its lease to end.
//!
//! ```text
//!  the leader's stream of appends ends      its port refuses connections        no leader by one's turn
//!  following ------------------> suspicious ------------------------> certain ------------------------> campaigning
//!      ^                             |  its port takes a connection     |  another leads                    |
//!      +-----------------------------+----------------------------------+-----------------------------------+
//! ```
//!
//! The kernel closes a dead process's sockets: streams end and its port refuses. Then the lease, which protects a leader that
//! lives, protects nobody, so the vote is asked for as if the leader had handed over (Raft's dissertation, 4.2.3). Who may lead is
//! decided by Raft's votes alone: a wrong suspicion costs an election, never an entry. A machine that dies closes nothing; its
//! leader is followed after the election timeout.

use super::{Inner, slow};
use crate::types::{MemberId, Vote};
use openraft::raft::TransferLeaderRequest;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::sync::Arc;
use std::time::Duration;

/// When the port is tried: a dying process closes its connections before its port, or after it.
const LOOK_AFTER: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(15),
    Duration::from_millis(40),
    Duration::from_millis(100),
];
const LOOK_MAX: Duration = Duration::from_millis(250);
/// Those who would follow take turns, so that they do not take each other's votes: about what a vote takes on a busy disk.
const TURN: Duration = Duration::from_millis(100);
/// After so many campaigns the election timeout takes over.
const CAMPAIGNS_MAX: u32 = 3;

/// Looks after each suspicion, as long as the member runs.
pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        inner.suspicion.notified().await;
        if let Some(leader) = followed(&inner)
            && is_dead(&inner, leader).await
        {
            succeed(&inner, leader).await;
        }
    }
}

/// The member that this one follows.
fn followed(inner: &Inner) -> Option<MemberId> {
    let server = inner.raft.server_metrics();
    let leader = server.borrow_watched().current_leader;
    leader.filter(|leader| *leader != inner.identity.member_id)
}

/// Whether nobody listens where the leader did.
async fn is_dead(inner: &Inner, leader: MemberId) -> bool {
    let Some(address) = inner.address_of(leader) else {
        return false;
    };
    for pause in LOOK_AFTER {
        tokio::time::sleep(pause).await;
        if followed(inner) != Some(leader) {
            return false;
        }
        if inner.peers.refuses(&address, LOOK_MAX).await {
            return true;
        }
    }
    false
}

/// Campaigns, in this member's turn, until somebody leads. A member with a slow disk comes after all others.
async fn succeed(inner: &Inner, dead: MemberId) {
    let Some((turn, turns)) = turn(inner, dead) else {
        return;
    };
    let last = if slow::is_slow(inner) { turns } else { 0 };
    tokio::time::sleep(TURN * (turn + last)).await;
    for _ in 0..CAMPAIGNS_MAX {
        if is_led(inner, dead) {
            return;
        }
        let vote = inner.raft.server_metrics().borrow_watched().vote;
        tracing::info!(
            leader = dead,
            "the leader's process is gone; asking to follow it"
        );
        campaign(inner, vote).await;
        tokio::time::sleep(TURN * turns).await;
    }
}

/// This member's place among the voters without the dead one, and how many they are; None when it has no vote.
fn turn(inner: &Inner, dead: MemberId) -> Option<(u32, u32)> {
    let mut voters: Vec<MemberId> = inner.raft.voter_ids().filter(|id| *id != dead).collect();
    voters.sort_unstable();
    let place = voters
        .iter()
        .position(|id| *id == inner.identity.member_id)?;
    Some((place as u32, voters.len() as u32))
}

fn is_led(inner: &Inner, dead: MemberId) -> bool {
    let server = inner.raft.server_metrics();
    let leader = server.borrow_watched().current_leader;
    leader.is_some_and(|leader| leader != dead)
}

/// Asks for votes as if the holder of `vote` had handed leadership to this member.
async fn campaign(inner: &Inner, vote: Vote) {
    let request = TransferLeaderRequest::new(vote, inner.identity.member_id, None);
    match inner.raft.handle_transfer_leader(request).await {
        Ok(Ok(())) => {}
        Ok(Err(err)) => tracing::debug!(error = %err, "the vote changed meanwhile"),
        Err(err) => tracing::warn!(error = %err, "the member cannot ask to lead"),
    }
}
