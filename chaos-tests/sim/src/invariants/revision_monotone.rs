//! Revisions never go back: not in a member's state while it lives, and not in what clients are told one after the other.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::{Asked, Event, Written};
use mvcc::Consistency;
use objects::Revision;
use raft_store::types::MemberId;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Check {
    members: BTreeMap<MemberId, Revision>,
    told: Revision,
    /// What was told before a request was made.
    floors: BTreeMap<u64, Revision>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "revision_monotone"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Written {
                member, written, ..
            } => written.iter().try_for_each(|change| match change {
                Written::Applied { revision, .. } => {
                    let last = self.members.insert(*member, *revision).unwrap_or_default();
                    match *revision >= last {
                        true => Ok(()),
                        false => Err(format!(
                            "m{member} was at revision {last} and is at {revision}"
                        )),
                    }
                }
                _ => Ok(()),
            }),
            Event::Crashed { member, .. } => {
                self.members
                    .insert(*member, facts.members[member].durable.revision);
                Ok(())
            }
            Event::Invoked { op, asked, .. } => {
                let is_current = match asked {
                    Asked::Txn(_) => true,
                    Asked::Range(request) => request.consistency == Consistency::Linearizable,
                    Asked::Other(_) => false,
                };
                if is_current {
                    self.floors.insert(*op, self.told);
                }
                Ok(())
            }
            Event::Answered {
                op,
                result: Ok(response),
                ..
            } => self.told(*op, response.revision),
            Event::Read {
                op,
                result: Ok(response),
                ..
            } => self.told(*op, response.revision),
            _ => Ok(()),
        }
    }
}

impl Check {
    fn told(&mut self, op: u64, revision: Revision) -> Result<(), String> {
        let Some(floor) = self.floors.remove(&op) else {
            return Ok(());
        };
        self.told = self.told.max(revision);
        match revision >= floor {
            true => Ok(()),
            false => Err(format!(
                "request {op} was answered at revision {revision}, though {floor} had been told before it was made"
            )),
        }
    }
}
