//! What was committed stays so: a new leader has all of it (leader completeness), and a member's end takes it from no quorum. That
//! no other entry takes its place is told by the facts.

use super::Invariant;
use super::committed_on_a_quorum::has_quorum;
use crate::facts::{Facts, LOST};
use crate::judge::Event;
use crate::switch::Message;
use raft_store::types::term_of;

#[derive(Default)]
pub struct Check {
    term: u64,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        LOST
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        let Some(last) = facts.last_committed() else {
            return Ok(());
        };
        match event {
            Event::Crashed { member, .. } => match has_quorum(facts, last) {
                true => Ok(()),
                false => Err(format!(
                    "entry {last} was committed; with the end of m{member} it is on no quorum's disks any more"
                )),
            },
            Event::Sent {
                from,
                message: Message::Append { term, .. },
                ..
            } if *term > self.term && *term > term_of(&last) => {
                self.term = *term;
                let now = &facts.members[from].now;
                let has = match now.log.get(&last.index) {
                    Some(term) => *term == term_of(&last),
                    None => now
                        .applied
                        .is_some_and(|applied| applied.index >= last.index),
                };
                match has {
                    true => Ok(()),
                    false => Err(format!(
                        "m{from} leads in term {term} without the committed entry {last}"
                    )),
                }
            }
            _ => Ok(()),
        }
    }
}
