//! When a watch says, without changes, how far it is, then every change up to there was told.

use super::Invariant;
use super::watch_complete::Told;
use crate::facts::Facts;
use crate::judge::Event;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Check {
    watches: BTreeMap<u64, Told>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "progress_is_true"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::WatchBegan { watch, request, .. } => {
                self.watches.insert(*watch, Told::new(request));
            }
            Event::WatchEnded { watch, .. } => {
                self.watches.remove(watch);
            }
            Event::WatchTold { watch, batch } => {
                let Some(told) = self.watches.get_mut(watch) else {
                    return Ok(());
                };
                if batch.events.is_empty() && batch.revision > facts.revision {
                    return Err(format!(
                        "watch {watch} says that it told all up to {}, but only {} is committed",
                        batch.revision, facts.revision
                    ));
                }
                // Some of the last revision's changes may have come alone; that is another invariant's matter.
                if batch.events.is_empty()
                    && let Some(missing) = told.missing(facts, batch.revision)
                    && !told.has_some_of(missing)
                {
                    return Err(format!(
                        "watch {watch} says that it told all up to {}, but not the change of {missing}",
                        batch.revision
                    ));
                }
                told.take(batch);
            }
            _ => {}
        }
        Ok(())
    }
}
