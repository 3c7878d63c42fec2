//! The live watchers, found by the key that changed: one look-up for those of the key alone and one for each length of
//! prefix in use, so that a change costs what it concerns, not the number of watchers.

use super::queue::Queue;
use crate::store::{KeyRange, KeyRangeEnd};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A live watcher; never used again after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WatcherId(u64);

#[derive(Default)]
pub(super) struct Watchers {
    last: u64,
    all: BTreeMap<WatcherId, (KeyRange, Arc<Queue>)>,
    by_key: BTreeMap<Bytes, BTreeSet<WatcherId>>,
    by_prefix: BTreeMap<usize, BTreeMap<Bytes, BTreeSet<WatcherId>>>,
    /// Those of other ranges.
    by_range: BTreeSet<WatcherId>,
}

impl Watchers {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn add(&mut self, range: KeyRange, queue: Arc<Queue>) -> WatcherId {
        self.last += 1;
        let id = WatcherId(self.last);
        if range.end == KeyRangeEnd::Single {
            self.by_key
                .entry(range.start.clone())
                .or_default()
                .insert(id);
        } else if is_prefix(&range) {
            let prefixes = self.by_prefix.entry(range.start.len()).or_default();
            prefixes.entry(range.start.clone()).or_default().insert(id);
        } else {
            self.by_range.insert(id);
        }
        self.all.insert(id, (range, queue));
        id
    }

    pub(super) fn remove(&mut self, id: WatcherId) {
        let Some((range, _)) = self.all.remove(&id) else {
            return;
        };
        if range.end == KeyRangeEnd::Single {
            remove_from(&mut self.by_key, &range.start, id);
        } else if is_prefix(&range) {
            let length = range.start.len();
            if let Some(prefixes) = self.by_prefix.get_mut(&length) {
                remove_from(prefixes, &range.start, id);
                if prefixes.is_empty() {
                    self.by_prefix.remove(&length);
                }
            }
        } else {
            self.by_range.remove(&id);
        }
    }

    /// The queue of a watcher that `matching` gave.
    pub(super) fn queue(&self, id: WatcherId) -> &Queue {
        &self.all[&id].1
    }

    pub(super) fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.all.values().map(|(_, queue)| &**queue)
    }

    /// Removes all.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Arc<Queue>> + use<> {
        let last = self.last;
        std::mem::replace(
            self,
            Watchers {
                last,
                ..Watchers::default()
            },
        )
        .all
        .into_values()
        .map(|(_, queue)| queue)
    }

    /// Calls `each` for every watcher of `key`.
    pub(super) fn matching(&self, key: &[u8], mut each: impl FnMut(WatcherId)) {
        let by_prefix = self
            .by_prefix
            .iter()
            .filter_map(|(length, prefixes)| prefixes.get(key.get(..*length)?));
        for ids in self.by_key.get(key).into_iter().chain(by_prefix) {
            ids.iter().copied().for_each(&mut each);
        }
        self.by_range
            .iter()
            .copied()
            .filter(|id| self.all[id].0.contains(key))
            .for_each(&mut each);
    }
}

fn is_prefix(range: &KeyRange) -> bool {
    *range == KeyRange::prefix(range.start.clone())
}

fn remove_from(index: &mut BTreeMap<Bytes, BTreeSet<WatcherId>>, key: &Bytes, id: WatcherId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
