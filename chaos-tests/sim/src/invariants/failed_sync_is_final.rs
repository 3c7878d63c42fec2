//! A failed sync is never tried again: the kernel may have dropped what was to be written and then call the next one a success.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::Event;
use raft_store::types::MemberId;
use std::collections::BTreeSet;

#[derive(Default)]
pub struct Check {
    failed: BTreeSet<MemberId>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "failed_sync_is_final"
    }

    fn check(&mut self, _: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::SyncFailed { member } => {
                self.failed.insert(*member);
                Ok(())
            }
            Event::Crashed { member, .. } => {
                self.failed.remove(member);
                Ok(())
            }
            Event::Synced { member } if self.failed.contains(member) => {
                Err(format!("m{member} synced again after a sync had failed"))
            }
            _ => Ok(()),
        }
    }
}
