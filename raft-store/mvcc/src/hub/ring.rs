//! The most recent events, bounded in bytes, from which watchers catch up without reading the tables.

use crate::store::{Event, KeyRange, KeyValue};
use objects::Revision;
use std::collections::VecDeque;
use std::sync::Arc;

/// What an event costs beside its keys and values.
const EVENT_BYTES: usize = 256;

pub(super) struct Ring {
    bytes_max: usize,
    bytes: usize,
    /// All events from this revision on are here.
    oldest: Revision,
    events: VecDeque<Arc<Event>>,
}

impl Ring {
    /// Empty; the next event to come has at least revision `next`.
    pub(super) fn new(bytes_max: usize, next: Revision) -> Self {
        Ring {
            bytes_max,
            bytes: 0,
            oldest: next,
            events: VecDeque::new(),
        }
    }

    /// The first revision of which all is here.
    pub(super) fn oldest(&self) -> Revision {
        self.oldest
    }

    /// Adds the newest events, and lets go of the oldest revisions when they are too many bytes.
    pub(super) fn push(&mut self, events: Vec<Arc<Event>>) {
        self.bytes += events.iter().map(|event| event_bytes(event)).sum::<usize>();
        self.events.extend(events);
        while let Some(event) = self
            .events
            .pop_front_if(|event| self.bytes > self.bytes_max || event.revision() < self.oldest)
        {
            self.bytes -= event_bytes(&event);
            self.oldest = event.revision().next();
        }
    }

    /// The events of `range` from `from` on, looking at about `changes_max` but never stopping within a revision. With
    /// them the last revision looked at, or None when the end was reached.
    pub(super) fn read(
        &self,
        range: &KeyRange,
        from: Revision,
        changes_max: usize,
    ) -> (Vec<Arc<Event>>, Option<Revision>) {
        let start = self.events.partition_point(|event| event.revision() < from);
        let end = match self
            .events
            .get(start.saturating_add(changes_max.max(1)) - 1)
        {
            None => self.events.len(),
            Some(last) => self
                .events
                .partition_point(|event| event.revision() <= last.revision()),
        };
        let events = self
            .events
            .range(start..end)
            .filter(|event| range.contains(event.key()))
            .cloned()
            .collect();
        let read_to = (end < self.events.len()).then(|| self.events[end - 1].revision());
        (events, read_to)
    }
}

pub(super) fn event_bytes(event: &Event) -> usize {
    let key_value = |kv: &KeyValue| kv.key.len() + kv.value.len();
    EVENT_BYTES
        + match event {
            Event::Put { kv, prev } => key_value(kv) + prev.as_ref().map_or(0, key_value),
            Event::Delete { key, prev, .. } => key.len() + prev.as_ref().map_or(0, key_value),
        }
}
