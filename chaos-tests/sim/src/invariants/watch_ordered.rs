//! A watch tells changes in the order of their revisions.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::Event;
use objects::Revision;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Check {
    last: BTreeMap<u64, Revision>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "watch_ordered"
    }

    fn check(&mut self, _: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::WatchTold { watch, batch } => {
                let last = self.last.entry(*watch).or_default();
                let revisions = batch.events.iter().map(|event| event.revision());
                for revision in revisions.chain([batch.revision]) {
                    if revision < *last {
                        return Err(format!(
                            "watch {watch} told revision {last}, then {revision}"
                        ));
                    }
                    *last = revision;
                }
            }
            Event::WatchEnded { watch, .. } => {
                self.last.remove(watch);
            }
            _ => {}
        }
        Ok(())
    }
}
