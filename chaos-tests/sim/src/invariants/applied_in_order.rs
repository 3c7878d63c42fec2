//! A member applies every committed entry once, in order: its state only moves forward while it lives.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::{Event, Written};
use raft_store::types::MemberId;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Check {
    applied: BTreeMap<MemberId, u64>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "applied_in_order"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Written {
                member, written, ..
            } => written.iter().try_for_each(|change| match change {
                Written::Applied {
                    log_id: Some(log_id),
                    ..
                } => {
                    let last = self.applied.insert(*member, log_id.index).unwrap_or(0);
                    match log_id.index >= last {
                        true => Ok(()),
                        false => Err(format!("m{member} applied {last}, then {}", log_id.index)),
                    }
                }
                _ => Ok(()),
            }),
            Event::Crashed { member, .. } => {
                let durable = facts.members[member].durable.applied;
                self.applied
                    .insert(*member, durable.map_or(0, |log_id| log_id.index));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
