//! In a term at most one member leads (election safety).

use super::Invariant;
use crate::facts::Facts;
use crate::judge::Event;
use crate::switch::Message;
use raft_store::types::MemberId;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Check {
    leaders: BTreeMap<u64, MemberId>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "one_leader_a_term"
    }

    fn check(&mut self, _: &Facts, event: &Event<'_>) -> Result<(), String> {
        let Event::Sent {
            from,
            message: Message::Append { term, leader, .. },
            ..
        } = event
        else {
            return Ok(());
        };
        let known = *self.leaders.entry(*term).or_insert(*leader);
        match known == *leader && leader == from {
            true => Ok(()),
            false => Err(format!(
                "m{from} leads in term {term} for m{leader}, and m{known} leads in it too"
            )),
        }
    }
}
