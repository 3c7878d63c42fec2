//! The data of all members are compared, by their hash at one revision: members that applied the same entries must have the
//! same. One that differs from the majority is damaged, whatever its disk says.

use super::Inner;
use crate::membership::{self, Question};
use mvcc::{HashAt, StoreError};
use objects::Revision;
use objects::cluster::{Member, MemberCheck};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a member may take to reach the revision and to read all its data.
pub(crate) const HASH_MAX: Duration = Duration::from_secs(120);
/// How long a member may take to reach the revision.
const REACH_MAX: Duration = Duration::from_secs(10);

/// Compares as often as the configuration says, as long as the member runs. Only the leader's looks do anything.
pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(inner.config.timings.compare).await;
        if !inner.leader.borrow().is_leader {
            continue;
        }
        if let Err(err) = compare(&inner).await {
            tracing::info!(error = %err, "the members' data were not compared");
        }
    }
}

/// Compares now; members that differ in two looks are noted as damaged, and are dealt with where that is safe.
pub(crate) async fn compare(inner: &Inner) -> Result<Vec<MemberCheck>, StoreError> {
    let first = look(inner).await;
    if first.iter().all(|check| check.same != Some(false)) {
        return Ok(first);
    }
    let mut second = look(inner).await;
    for check in &mut second {
        let differed = |before: &&MemberCheck| before.member.id == check.member.id;
        let before = first.iter().find(differed).and_then(|before| before.same);
        if check.same == Some(false) && before != Some(false) {
            check.same = None;
        }
    }
    for check in second.iter().filter(|check| check.same == Some(false)) {
        let problem = check.problem.as_deref().unwrap_or_default();
        tracing::error!(
            member = check.member.id,
            name = check.member.name,
            problem,
            "a member's data are damaged"
        );
        inner.health.note_corrupt(check.member.id, problem);
    }
    Ok(second)
}

async fn look(inner: &Inner) -> Vec<MemberCheck> {
    let revision = inner.applied.borrow().revision;
    let members = membership::members(&inner.raft);
    let asked = members.into_iter().map(async |member| {
        let hash = hash_of(inner, &member, revision).await;
        (member, hash)
    });
    let hashes = futures::future::join_all(asked).await;
    let majority = majority(&hashes);
    let checks = hashes.into_iter().map(|(member, hash)| match (hash, majority) {
        (Err(problem), _) => check(member, revision, None, Some(problem)),
        (Ok(hash), Some(majority)) if hash.compacted != majority.compacted => {
            let problem = "it is compacted at another revision just now".to_owned();
            check(member, revision, None, Some(problem))
        }
        (Ok(hash), Some(majority)) if hash != majority => {
            let problem = format!(
                "its data differ from the majority's at revision {revision}: hash {:08x} instead of {:08x}",
                hash.hash, majority.hash
            );
            check(member, revision, Some(false), Some(problem))
        }
        (Ok(_), Some(_)) => check(member, revision, Some(true), None),
        (Ok(_), None) => {
            let problem = "no majority of the voters has the same data".to_owned();
            check(member, revision, None, Some(problem))
        }
    });
    if majority.is_none() {
        tracing::warn!(%revision, "the members' data could not be compared: no majority answered alike");
    }
    checks.collect()
}

/// This member's hash at a revision, which it may still have to reach. One at a time, since each reads everything.
pub(crate) async fn hash_here(inner: &Inner, revision: Revision) -> Result<HashAt, StoreError> {
    let _one_at_a_time = inner.hashing.lock().await;
    let mut applied = inner.applied.clone();
    let reached = applied.wait_for(|applied| applied.revision >= revision);
    match tokio::time::timeout(REACH_MAX, reached).await {
        Ok(Ok(_)) => {}
        _ => {
            return Err(StoreError::Unavailable(format!(
                "revision {revision} was not reached in time"
            )));
        }
    }
    let db = inner.db.clone();
    let began = Instant::now();
    let hash = super::read::in_background(move || mvcc::hash_at(&db.view(), Some(revision))).await;
    tracing::debug!(%revision, took = ?began.elapsed(), "the data were hashed");
    hash
}

async fn hash_of(inner: &Inner, member: &Member, revision: Revision) -> Result<HashAt, String> {
    if member.id == inner.identity.member_id {
        let hash = hash_here(inner, revision).await;
        return hash.map_err(|err| err.to_string());
    }
    let question = Question::Hash { revision };
    match membership::ask(inner, member, &question, HASH_MAX).await? {
        membership::Reply::Hash {
            hash,
            revision,
            compacted,
        } => Ok(HashAt {
            hash,
            revision,
            compacted,
        }),
        membership::Reply::Refused(reason) => Err(reason),
        membership::Reply::Condemned
        | membership::Reply::Member
        | membership::Reply::Removed { .. } => Err("it answered another question".to_owned()),
    }
}

/// The hash that more than half of all voters have.
fn majority(hashes: &[(Member, Result<HashAt, String>)]) -> Option<HashAt> {
    let voters = hashes.iter().filter(|(member, _)| member.voter);
    let all = voters.clone().count();
    let mut counts: BTreeMap<(u32, Revision), (usize, HashAt)> = BTreeMap::new();
    for (_, hash) in voters {
        if let Ok(hash) = hash {
            let count = counts
                .entry((hash.hash, hash.compacted))
                .or_insert((0, *hash));
            count.0 += 1;
        }
    }
    let most = counts.into_values().max_by_key(|(count, _)| *count);
    most.filter(|(count, _)| *count > all / 2)
        .map(|(_, hash)| hash)
}

fn check(
    member: Member,
    revision: Revision,
    same: Option<bool>,
    problem: Option<String>,
) -> MemberCheck {
    MemberCheck {
        member,
        revision: revision.0,
        same,
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it votes, and its hash and compacted revision.
    type Answer = (bool, Option<(u32, u64)>);

    fn hashes(answers: &[Answer]) -> Vec<(Member, Result<HashAt, String>)> {
        let member = |(at, (voter, hash)): (usize, &Answer)| {
            let member = Member {
                id: at as u64 + 1,
                name: format!("m{at}"),
                peer_address: String::new(),
                api_url: String::new(),
                voter: *voter,
                replaces: None,
                replaced_by: None,
            };
            let hash = hash.map(|(hash, compacted)| HashAt {
                hash,
                revision: Revision(9),
                compacted: Revision(compacted),
            });
            (member, hash.ok_or_else(|| "away".to_owned()))
        };
        answers.iter().enumerate().map(member).collect()
    }

    #[test]
    fn only_more_than_half_of_all_voters_decide() {
        let found = |answers: &[Answer]| {
            majority(&hashes(answers)).map(|hash| (hash.hash, hash.compacted.0))
        };
        let (a, b) = (Some((1, 5)), Some((2, 5)));
        assert_eq!(found(&[(true, a), (true, a), (true, b)]), Some((1, 5)));
        assert_eq!(found(&[(true, a), (true, a), (true, None)]), Some((1, 5)));
        assert_eq!(found(&[(true, a), (true, b), (true, None)]), None);
        assert_eq!(
            found(&[(true, a), (true, b)]),
            None,
            "nobody knows which of two is right"
        );
        assert_eq!(found(&[(true, a), (true, b), (false, b), (false, b)]), None);
        assert_eq!(found(&[(true, a), (true, Some((1, 4)))]), None);
    }
}
