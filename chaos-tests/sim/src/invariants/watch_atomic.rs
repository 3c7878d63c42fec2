//! A watch tells all changes of one revision in one batch.

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
        "watch_atomic"
    }

    fn check(&mut self, _: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::WatchTold { watch, batch } => {
                let (Some(first), Some(last)) = (batch.events.first(), batch.events.last()) else {
                    return Ok(());
                };
                let before = self.last.insert(*watch, last.revision());
                match before == Some(first.revision()) {
                    false => Ok(()),
                    true => Err(format!(
                        "watch {watch} told the changes of revision {} in two batches",
                        first.revision()
                    )),
                }
            }
            Event::WatchEnded { watch, .. } => {
                self.last.remove(watch);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
