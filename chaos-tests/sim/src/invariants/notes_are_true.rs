//! What a member notes of how far its log was synced is on its disk, however its life ended.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::Event;
use raft_store::types::MemberId;
use std::collections::BTreeSet;

#[derive(Default)]
pub struct Check {
    /// Whose disk, or notes, were damaged since it last started.
    damaged: BTreeSet<MemberId>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "notes_are_true"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Damaged { member, .. } | Event::NotesDamaged { member } => {
                self.damaged.insert(*member);
                Ok(())
            }
            Event::Started { member, .. } | Event::Refused { member, .. } => {
                self.damaged.remove(member);
                Ok(())
            }
            Event::Noted { member, synced } if !self.damaged.contains(member) => {
                if let Some(last) = synced.last
                    && !facts.has_durably(*member, last)
                {
                    return Err(format!(
                        "m{member} noted that entry {last} is on its disk, where it is not"
                    ));
                }
                let durable = facts.members.get(member).map(|member| &member.durable);
                match durable.and_then(|durable| durable.vote) {
                    vote if vote >= synced.vote => Ok(()),
                    vote => Err(format!(
                        "m{member} noted the vote {:?}, on its disk is {vote:?}",
                        synced.vote
                    )),
                }
            }
            _ => Ok(()),
        }
    }
}
