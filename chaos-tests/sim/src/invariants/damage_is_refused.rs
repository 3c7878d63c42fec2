//! A member does not start when an entry of its log is damaged, or something that it had synced is missing: it may be what was
//! acknowledged, and is never taken for a torn tail.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::Event;
use raft_store::types::MemberId;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Check {
    damaged: BTreeMap<MemberId, String>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "damage_is_refused"
    }

    fn check(&mut self, _: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Damaged { member, what } => {
                self.damaged.insert(*member, (*what).to_owned());
                Ok(())
            }
            Event::Refused {
                member, is_damaged, ..
            } => match (self.damaged.remove(member), is_damaged) {
                (Some(what), false) => Err(format!(
                    "m{member} did not start, but not because of its damage: {what}"
                )),
                _ => Ok(()),
            },
            Event::Started { member, .. } => match self.damaged.remove(member) {
                None => Ok(()),
                Some(what) => Err(format!("m{member} started in spite of its damage: {what}")),
            },
            _ => Ok(()),
        }
    }
}
