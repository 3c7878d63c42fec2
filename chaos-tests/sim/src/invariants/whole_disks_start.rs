//! A member whose disk is whole and has room starts: no crash, wherever it strikes, leaves what looks like damage.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::Event;
use raft_store::types::MemberId;
use std::collections::BTreeSet;

#[derive(Default)]
pub struct Check {
    damaged: BTreeSet<MemberId>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "whole_disks_start"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Damaged { member, .. } | Event::NotesDamaged { member } => {
                self.damaged.insert(*member);
                Ok(())
            }
            Event::Started { member, .. } => {
                self.damaged.remove(member);
                Ok(())
            }
            Event::Refused {
                member,
                reason,
                is_damaged,
            } => {
                let was_damaged = self.damaged.remove(member);
                let is_full = facts.full_since.contains_key(member);
                match (was_damaged && *is_damaged) || (is_full && !is_damaged) {
                    true => Ok(()),
                    false => Err(format!("m{member} does not start: {reason}")),
                }
            }
            _ => Ok(()),
        }
    }
}
