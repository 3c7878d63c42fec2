//! An entry is called committed, and applied, only when it is on the disks of a quorum.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::Event;
use raft_store::types::{LogId, MemberId};
use std::collections::BTreeSet;

#[derive(Default)]
pub struct Check {
    last: Option<LogId>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "committed_on_a_quorum"
    }

    fn check(&mut self, facts: &Facts, _: &Event<'_>) -> Result<(), String> {
        let Some(now) = facts.last_committed().filter(|now| Some(*now) != self.last) else {
            return Ok(());
        };
        self.last = Some(now);
        match has_quorum(facts, now) {
            true => Ok(()),
            false => Err(format!(
                "entry {now} is called committed, but only {:?} have it on disk",
                holders(facts, now)
            )),
        }
    }
}

/// Who has an entry on disk.
fn holders(facts: &Facts, entry: LogId) -> Vec<MemberId> {
    let members = facts.members.keys().copied();
    members
        .filter(|member| facts.has_durably(*member, entry))
        .collect()
}

/// Whether an entry is on the disks of a quorum.
pub fn has_quorum(facts: &Facts, entry: LogId) -> bool {
    let is_quorum = |voters: &BTreeSet<MemberId>| {
        let have = voters
            .iter()
            .filter(|voter| facts.has_durably(**voter, entry));
        have.count() > voters.len() / 2
    };
    let groups = facts.groups(entry.index);
    groups.iter().any(|joint| joint.iter().all(is_quorum))
}
