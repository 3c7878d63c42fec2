//! A watch tells every change of its range from where it was asked to begin up to the revision that it says it has reached, as it
//! was committed.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::Event;
use bytes::Bytes;
use mvcc::{KeyRange, WatchBatch, WatchRequest};
use objects::Revision;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Check {
    watches: BTreeMap<u64, Told>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "watch_complete"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::WatchBegan { watch, request, .. } => {
                self.watches.insert(*watch, Told::new(request));
                Ok(())
            }
            Event::WatchEnded { watch, .. } => match self.watches.remove(watch) {
                Some(mut told) => told.is_whole(facts, *watch, told.reached),
                None => Ok(()),
            },
            Event::WatchTold { watch, batch } => {
                let Some(told) = self.watches.get_mut(watch) else {
                    return Ok(());
                };
                if let Some(event) = batch.events.iter().find(|event| !is_true(facts, event)) {
                    return Err(format!(
                        "watch {watch} told a change of {} that was not committed so",
                        event.revision()
                    ));
                }
                told.take(batch);
                // The rest of the last revision may come alone; that is another invariant's matter, unless it never comes.
                let upto = batch
                    .events
                    .last()
                    .map_or(batch.revision, |last| Revision(last.revision().0 - 1));
                told.is_whole(facts, *watch, upto)
            }
            _ => Ok(()),
        }
    }
}

/// What one watch told.
pub struct Told {
    range: KeyRange,
    /// All before this revision was looked at.
    next: Revision,
    /// Up to where it says that it is.
    reached: Revision,
    changes: BTreeSet<(Revision, Bytes)>,
}

impl Told {
    /// A watch that told nothing yet.
    pub fn new(request: &WatchRequest) -> Self {
        Told {
            range: request.range.clone(),
            next: request.start,
            reached: Revision(0),
            changes: BTreeSet::new(),
        }
    }

    /// Takes note of a batch.
    pub fn take(&mut self, batch: &WatchBatch) {
        self.reached = self.reached.max(batch.revision);
        let changes = batch.events.iter();
        self.changes
            .extend(changes.map(|event| (event.revision(), event.key().clone())));
    }

    /// Whether some change of a revision was told.
    pub fn has_some_of(&self, revision: Revision) -> bool {
        let from = (revision, Bytes::new());
        self.changes
            .range(from..)
            .next()
            .is_some_and(|(at, _)| *at == revision)
    }

    /// The first revision up to `upto` of which a change was not told.
    pub fn missing(&mut self, facts: &Facts, upto: Revision) -> Option<Revision> {
        if self.next > upto {
            return None;
        }
        for (revision, events) in facts.history.range(self.next..=upto) {
            let is_told = |event: &mvcc::Event| {
                let key = event.key();
                !self.range.contains(key) || self.changes.contains(&(*revision, key.clone()))
            };
            if !events.iter().all(|event| is_told(event)) {
                return Some(*revision);
            }
        }
        self.next = upto.next();
        None
    }

    fn is_whole(&mut self, facts: &Facts, watch: u64, upto: Revision) -> Result<(), String> {
        match self.missing(facts, upto) {
            None => Ok(()),
            Some(revision) => Err(format!(
                "watch {watch} did not tell the change of {revision}"
            )),
        }
    }
}

fn is_true(facts: &Facts, event: &mvcc::Event) -> bool {
    let events = facts.history.get(&event.revision());
    events
        .into_iter()
        .flatten()
        .any(|known| match (&**known, event) {
            (mvcc::Event::Put { kv, .. }, mvcc::Event::Put { kv: told, .. }) => kv == told,
            (mvcc::Event::Delete { key, .. }, mvcc::Event::Delete { key: told, .. }) => key == told,
            _ => false,
        })
}
