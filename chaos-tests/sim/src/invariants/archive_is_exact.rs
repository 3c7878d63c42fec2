//! An archive holds the state exactly as it was at its revision, and so does the cluster that is made of it.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::Event;
use objects::Revision;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Check {
    saved: BTreeMap<Revision, u64>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "archive_is_exact"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Saved {
                at,
                applied,
                revision,
                hash,
            } => {
                let right = applied.and_then(|applied| facts.committed.get(&applied.index));
                self.saved.insert(*revision, *hash);
                match right {
                    Some(right) if (right.revision, right.hash) == (*revision, *hash) => Ok(()),
                    Some(right) => Err(format!(
                        "the archive of m{at} says revision {revision} and holds {hash:016x}; right is revision {} with {:016x}",
                        right.revision, right.hash
                    )),
                    None => Err(format!(
                        "the archive of m{at} holds entry {applied:?}, which is not committed"
                    )),
                }
            }
            Event::Restored { saved, hash, .. } => match self.saved.get(saved) {
                Some(right) if right == hash => Ok(()),
                right => Err(format!(
                    "of the archive of revision {saved} with {right:016x?} came a state with {hash:016x}"
                )),
            },
            _ => Ok(()),
        }
    }
}
