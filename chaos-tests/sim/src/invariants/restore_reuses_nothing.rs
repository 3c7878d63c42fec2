//! A cluster that was restored uses no revision that the old one ever gave, and tells whoever knows one that it is compacted.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::Event;

#[derive(Default)]
pub struct Check;

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "restore_reuses_nothing"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Restored { revision, .. } | Event::RestoredWrote { revision }
                if *revision <= facts.revision =>
            {
                Err(format!(
                    "the restored cluster is at revision {revision}, which the old one had used up to {}",
                    facts.revision
                ))
            }
            Event::RestoredWatched {
                start,
                is_compacted: false,
            } => Err(format!(
                "a watch from revision {start} of the old cluster went on at the restored one"
            )),
            _ => Ok(()),
        }
    }
}
