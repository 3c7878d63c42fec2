//! A member whose log holds a damaged entry does not start: the entry may be one that was acknowledged, and is never taken for a
//! torn tail.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::Event;
use raft_store::types::MemberId;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Check {
    damaged: BTreeMap<MemberId, u64>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "damage_is_refused"
    }

    fn check(&mut self, _: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Damaged { member, index } => {
                self.damaged.insert(*member, *index);
                Ok(())
            }
            Event::Refused {
                member, is_damaged, ..
            } => match (self.damaged.remove(member), is_damaged) {
                (Some(index), false) => Err(format!(
                    "m{member} did not start, but not because of its damaged entry {index}"
                )),
                _ => Ok(()),
            },
            Event::Started { member } => match self.damaged.remove(member) {
                None => Ok(()),
                Some(index) => Err(format!("m{member} started with its entry {index} damaged")),
            },
            _ => Ok(()),
        }
    }
}
