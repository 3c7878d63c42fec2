//! A watch tells nothing twice, and nothing from before where it was asked to begin: whoever resumes after the last revision told
//! sees no change again.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::Event;
use bytes::Bytes;
use objects::Revision;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Check {
    watches: BTreeMap<u64, Told>,
}

struct Told {
    start: Revision,
    changes: BTreeSet<(Revision, Bytes)>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "watch_unique"
    }

    fn check(&mut self, _: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::WatchBegan { watch, request, .. } => {
                let told = Told {
                    start: request.start,
                    changes: BTreeSet::new(),
                };
                self.watches.insert(*watch, told);
            }
            Event::WatchEnded { watch, .. } => {
                self.watches.remove(watch);
            }
            Event::WatchTold { watch, batch } => {
                let Some(told) = self.watches.get_mut(watch) else {
                    return Ok(());
                };
                for event in &batch.events {
                    let change = (event.revision(), event.key().clone());
                    if event.revision() < told.start || !told.changes.insert(change) {
                        return Err(format!(
                            "watch {watch}, begun at {}, told the change of {} again",
                            told.start,
                            event.revision()
                        ));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
