//! Learners become voters: by themselves when they caught up, in one step with the removal of whom they replace. And what a
//! former leader left half done is finished.

use super::change::{Outcome, node_of, removal, write};
use super::quorum::{self, Joining, is_heard};
use super::transfer::transfer_here;
use super::{MembershipError, members};
use crate::store::{Inner, matched};
use crate::types::{MemberId, Node, Plan};
use crate::work::WorkDone;
use objects::cluster::Member;
use openraft::ChangeMembers;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::collections::{BTreeMap, BTreeSet};

/// A learner so few entries behind has caught up.
const CAUGHT_UP_ENTRIES: u64 = 100;

/// Finishes a change that a former leader began, and makes voters of learners that caught up. Only the leader's call does
/// anything.
pub(crate) async fn finish_changes(inner: &Inner) {
    if !inner.leader.borrow().is_leader {
        return;
    }
    let Ok(_one_at_a_time) = inner.changing.try_lock() else {
        return;
    };
    if is_joint(inner) {
        let nothing = ChangeMembers::AddVoterIds(BTreeSet::new());
        match write(inner, vec![nothing]).await {
            Ok(()) => tracing::info!("the change of the members that was half done is done"),
            Err(err) => tracing::warn!(error = ?err, "the members are still being changed"),
        }
        return;
    }
    if let Err(Some(err)) = next_step(inner).await {
        tracing::warn!(error = %err, "the members cannot be changed yet as they should be");
    }
}

/// Does what is due first: one change at a time.
async fn next_step(inner: &Inner) -> Outcome<()> {
    let members = members(&inner.raft);
    let replaced = |by: &Member| {
        let leaving = members.iter().find(|member| by.replaces == Some(member.id));
        leaving.cloned()
    };
    for member in &members {
        if member.voter {
            if let Some(leaving) = replaced(member) {
                return finish_replacement(inner, member, &leaving).await;
            }
            continue;
        }
        let is_held = node_of(inner, member.id).is_ok_and(|node| node.plan.is_held);
        if !is_held && has_caught_up(inner, member.id) {
            return promote(inner, member, replaced(member)).await.map(|_| ());
        }
    }
    Ok(())
}

/// Makes a voter of a learner because somebody asks for it.
pub(super) async fn by_hand(inner: &Inner, id: MemberId) -> Outcome<Member> {
    let members = members(&inner.raft);
    let Some(learner) = members.iter().find(|member| member.id == id) else {
        return Err(Some(MembershipError::Unknown(id.to_string())));
    };
    if learner.voter {
        return Err(Some(MembershipError::VotesAlready(learner.name.clone())));
    }
    if !has_caught_up(inner, id) {
        return Err(Some(MembershipError::NotCaughtUp(learner.name.clone())));
    }
    let leaving = members
        .iter()
        .find(|member| learner.replaces == Some(member.id));
    promote(inner, learner, leaving.cloned()).await
}

async fn promote(inner: &Inner, learner: &Member, leaving: Option<Member>) -> Outcome<Member> {
    // A leader cannot remove itself: the new voter keeps its plan, and the next leader finishes it.
    let is_own = |member: &Member| member.id == inner.identity.member_id;
    let leads_now = leaving.as_ref().is_some_and(is_own);
    let leaving: Vec<&Member> = leaving.iter().filter(|_| !leads_now).collect();
    quorum::check(inner, &leaving, Joining::Learner(learner.id))?;
    let node = node_of(inner, learner.id)?;
    let plan = Plan {
        replaces: node.plan.replaces.filter(|_| leads_now),
        ..Plan::default()
    };
    let node = Node { plan, ..node };
    let mut changes = vec![
        ChangeMembers::SetNodes(BTreeMap::from([(learner.id, node)])),
        ChangeMembers::AddVoterIds(BTreeSet::from([learner.id])),
    ];
    changes.extend(removal(&leaving));
    write(inner, changes).await?;
    inner.metrics.work.add(&WorkDone {
        learners_promoted: 1,
        ..WorkDone::default()
    });
    tracing::info!(
        member = learner.id,
        name = learner.name,
        "a member caught up and votes from now on"
    );
    for left in leaving {
        tell_replaced(left, learner);
    }
    Ok(Member {
        voter: true,
        replaces: None,
        ..learner.clone()
    })
}

/// The new member votes, and the old one, which led, is still there.
async fn finish_replacement(inner: &Inner, by: &Member, leaving: &Member) -> Outcome<()> {
    if leaving.id == inner.identity.member_id {
        return transfer_here(inner, None).await.map_err(Some);
    }
    quorum::check(inner, &[leaving], Joining::Nobody)?;
    let node = Node {
        plan: Plan::default(),
        ..node_of(inner, by.id)?
    };
    let mut changes = vec![ChangeMembers::SetNodes(BTreeMap::from([(by.id, node)]))];
    changes.extend(removal(&[leaving]));
    write(inner, changes).await?;
    tell_replaced(leaving, by);
    Ok(())
}

fn tell_replaced(left: &Member, by: &Member) {
    tracing::info!(
        member = left.id,
        name = left.name,
        by = by.name,
        "a member was replaced"
    );
}

fn has_caught_up(inner: &Inner, id: MemberId) -> bool {
    let Some((last, matched)) = matched(inner) else {
        return false;
    };
    let index = matched.iter().find(|(member, _)| *member == id);
    index.is_some_and(|(_, index)| *index > 0 && index + CAUGHT_UP_ENTRIES >= last)
        && is_heard(inner, id)
}

fn is_joint(inner: &Inner) -> bool {
    let metrics = inner.raft.server_metrics();
    let metrics = metrics.borrow_watched();
    metrics
        .membership_config
        .membership()
        .get_joint_config()
        .len()
        > 1
}
