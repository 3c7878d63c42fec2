//! Handing leadership over.

use super::MembershipError;
use super::quorum::is_heard;
use crate::store::{Inner, matched};
use crate::types::MemberId;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a hand-over may take before it is given up.
const TRANSFER_MAX: Duration = Duration::from_secs(3);

/// Hands leadership over and waits until another member leads.
pub(crate) async fn transfer_here(
    inner: &Inner,
    to: Option<MemberId>,
) -> Result<(), MembershipError> {
    let own = inner.identity.member_id;
    let failed = |reason: &str| MembershipError::NotTransferred(reason.to_owned());
    let to = to
        .or_else(|| furthest(inner))
        .ok_or_else(|| failed("no other voter is reachable"))?;
    if to == own {
        return Ok(());
    }
    if !inner.raft.voter_ids().any(|id| id == to) {
        return Err(failed("that member does not vote yet"));
    }
    inner
        .raft
        .trigger()
        .transfer_leader(to)
        .await
        .map_err(|err| failed(&err.to_string()))?;
    let deadline = Instant::now() + TRANSFER_MAX;
    while Instant::now() < deadline {
        if inner
            .raft
            .current_leader()
            .await
            .is_some_and(|leader| leader != own)
        {
            return Ok(());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Err(failed("no other member leads yet"))
}

/// The other voter with the longest log that was heard lately.
fn furthest(inner: &Inner) -> Option<MemberId> {
    let (_, matched) = matched(inner)?;
    let voters: BTreeSet<MemberId> = inner.raft.voter_ids().collect();
    let others = matched.into_iter().filter(|(id, _)| {
        *id != inner.identity.member_id && voters.contains(id) && is_heard(inner, *id)
    });
    others.max_by_key(|(_, index)| *index).map(|(id, _)| id)
}
