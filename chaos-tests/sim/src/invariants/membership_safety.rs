//! The members change so that no two quorums can ever be apart: from one membership to the next a group of voters stays or moves by
//! one; and the number of a member that was removed never comes back.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::Event;
use raft_store::types::{MemberId, Membership};
use std::collections::BTreeSet;

#[derive(Default)]
pub struct Check {
    seen: Option<u64>,
    last: Option<Membership>,
    gone: BTreeSet<MemberId>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "membership_safety"
    }

    fn check(&mut self, facts: &Facts, _: &Event<'_>) -> Result<(), String> {
        let from = self.seen.map_or(0, |seen| seen + 1);
        for (index, membership) in facts.memberships.range(from..) {
            self.seen = Some(*index);
            self.follows(membership)?;
        }
        Ok(())
    }
}

impl Check {
    fn follows(&mut self, next: &Membership) -> Result<(), String> {
        let ids = |of: &Membership| {
            of.nodes()
                .map(|(id, _)| *id)
                .collect::<BTreeSet<MemberId>>()
        };
        if let Some(id) = ids(next).intersection(&self.gone).next() {
            return Err(format!(
                "the number of the removed member {id} is used again"
            ));
        }
        let Some(last) = self.last.replace(next.clone()) else {
            return Ok(());
        };
        self.gone.extend(ids(&last).difference(&ids(next)));
        let overlap = last.get_joint_config().iter().any(|old| {
            let moves = |new: &BTreeSet<MemberId>| old.symmetric_difference(new).count() <= 1;
            next.get_joint_config().iter().any(moves)
        });
        match overlap {
            true => Ok(()),
            false => Err(format!("the members went from {last} to {next} at once")),
        }
    }
}
