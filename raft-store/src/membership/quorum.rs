//! Who is heard, and whether the voters that a change leaves could still agree. Only the leader can tell.

use super::{MembershipError, members, status};
use crate::store::Inner;
use crate::types::MemberId;
use objects::cluster::Member;
use openraft::Instant as _;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::collections::BTreeSet;

/// A voter that was not heard for so many of the longest election timeouts counts as gone.
const GONE_AFTER_ELECTIONS: u32 = 2;

/// Who votes newly after a change.
#[derive(Clone, Copy)]
pub(super) enum Joining {
    Nobody,
    Learner(MemberId),
    /// Somebody who will be heard when it begins to vote.
    Heard,
}

/// Refuses when the voters that are left without `leaving`, together with who joins, could not agree on anything.
pub(super) fn check(
    inner: &Inner,
    leaving: &[&Member],
    joining: Joining,
) -> Result<(), MembershipError> {
    let names = || {
        let names: Vec<&str> = leaving.iter().map(|member| member.name.as_str()).collect();
        names.join(", ")
    };
    let is_leaving = |id: &MemberId| leaving.iter().any(|member| member.id == *id);
    let rest: BTreeSet<MemberId> = inner
        .raft
        .voter_ids()
        .filter(|id| !is_leaving(id))
        .collect();
    let healthy = rest.iter().filter(|id| is_heard(inner, **id)).count();
    let (joins, joins_healthy) = match joining {
        Joining::Nobody => (0, 0),
        Joining::Learner(id) => (1, usize::from(is_heard(inner, id))),
        Joining::Heard => (1, 1),
    };
    let (voters, healthy) = (rest.len() + joins, healthy + joins_healthy);
    let quorum = voters / 2 + 1;
    match (voters, healthy) {
        (0, _) => Err(MembershipError::LastVoter(names())),
        (voters, healthy) if healthy < quorum => Err(MembershipError::WouldLoseQuorum {
            name: names(),
            healthy,
            voters,
            quorum,
        }),
        _ => Ok(()),
    }
}

/// Whether this leader heard from a member lately.
pub(super) fn is_heard(inner: &Inner, id: MemberId) -> bool {
    if id == inner.identity.member_id {
        return true;
    }
    let gone_after = inner.config.timings.election_max * GONE_AFTER_ELECTIONS;
    let data = inner.raft.data_metrics();
    let data = data.borrow_watched();
    let heard = data
        .heartbeat
        .as_ref()
        .and_then(|heartbeat| heartbeat.get(&id).copied().flatten());
    heard.is_some_and(|at| at.elapsed() < gone_after)
}

/// Whether a member is surely not there. A leader that was just elected has heard nobody yet, so the member is asked too.
pub(super) async fn is_gone(inner: &Inner, member: &Member) -> bool {
    member.id != inner.identity.member_id
        && !is_heard(inner, member.id)
        && status::ask_other(inner, member).await.is_err()
}

/// The member of that name, or of that id.
pub(super) fn find(inner: &Inner, name_or_id: &str) -> Result<Member, MembershipError> {
    let members = members(&inner.raft);
    let by_name = members.iter().find(|member| member.name == name_or_id);
    let found = by_name.or_else(|| {
        members
            .iter()
            .find(|member| member.id.to_string() == name_or_id)
    });
    found
        .cloned()
        .ok_or_else(|| MembershipError::Unknown(name_or_id.to_owned()))
}
