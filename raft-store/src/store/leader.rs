//! Who leads, as the parts of this master may rely on it: only after everything before the term is applied here, and no
//! longer than a quorum confirms it.

use super::Inner;
use crate::types::term_of;
use mvcc::LeaderState;
use objects::Term;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use openraft::{Instant, ServerState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A quorum that falls silent changes nothing that could be waited for, so it is looked for this often.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Keeps the state up to date, as long as the member runs.
pub(crate) async fn run(inner: Arc<Inner>, state: watch::Sender<LeaderState>) {
    let mut server = inner.raft.server_metrics();
    let mut applied = inner.applied.clone();
    let mut leader = None;
    loop {
        know_members(&inner);
        inner.tick_lease_clock();
        let now = look(&inner);
        state.send_if_modified(|last| std::mem::replace(last, now) != now);
        let leader_now = server.borrow_watched().current_leader;
        if leader_now.is_some() && leader_now != leader {
            tracing::info!(
                leader = leader_now,
                term = now.term.0,
                "the members have a leader"
            );
            inner.metrics.leader_changed();
            leader = leader_now;
        }
        let can_come_true = !now.is_leader && leader_now == Some(inner.identity.member_id);
        tokio::select! {
            biased;
            changed = server.changed() => if changed.is_err() { return },
            changed = applied.changed(), if can_come_true => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn know_members(inner: &Inner) {
    let membership = {
        let server = inner.raft.server_metrics();
        let server = server.borrow_watched();
        server.membership_config.clone()
    };
    let addresses = membership
        .nodes()
        .map(|(id, node)| (*id, node.peer_address.clone()));
    inner.peers.know(addresses.collect());
}

fn look(inner: &Inner) -> LeaderState {
    let server = inner.raft.server_metrics();
    let server = server.borrow_watched();
    let term = server.vote.leader_id.term;
    let leads = server.state == ServerState::Leader && server.vote.committed;
    let has_applied = inner
        .applied
        .borrow()
        .log_id
        .is_some_and(|log_id| term_of(&log_id) == term);
    LeaderState {
        term: Term(term),
        is_leader: leads && has_applied && has_quorum(inner),
        has_leader: server.current_leader.is_some(),
    }
}

/// Whether a quorum answered within the longest election timeout: until then no other member can lead.
pub(super) fn has_quorum(inner: &Inner) -> bool {
    if inner.raft.voter_ids().eq([inner.identity.member_id]) {
        return true;
    }
    let data = inner.raft.data_metrics();
    let acked = data.borrow_watched().last_quorum_acked;
    acked.is_some_and(|acked| acked.elapsed() < inner.config.timings.election_max)
}
