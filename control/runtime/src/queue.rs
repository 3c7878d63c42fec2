//! The queue of keys to look at, pure: time comes in as an argument.
//!
//! A key is in the queue once, however often it is added. A key added while a worker has it runs again afterwards, so that
//! no change is missed. A failed key waits, longer each time. The semantics are client-go's rate-limited work queue.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Keys waiting, due later, and being worked on.
#[derive(Debug)]
pub struct Queue<K> {
    ready: VecDeque<K>,
    queued: HashSet<K>,
    later: BTreeSet<(Instant, K)>,
    due: BTreeMap<K, Instant>,
    running: HashSet<K>,
    dirty: HashSet<K>,
    failures: HashMap<K, u32>,
}

impl<K: Clone + Eq + Hash + Ord> Default for Queue<K> {
    fn default() -> Self {
        Queue {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            later: BTreeSet::new(),
            due: BTreeMap::new(),
            running: HashSet::new(),
            dirty: HashSet::new(),
            failures: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    /// The key must be looked at.
    pub fn add(&mut self, key: K) {
        if self.running.contains(&key) {
            self.dirty.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// The key must be looked at, at `at` at the latest.
    pub fn add_at(&mut self, key: K, at: Instant) {
        if let Some(before) = self.due.get(&key).copied() {
            if before <= at {
                return;
            }
            self.later.remove(&(before, key.clone()));
        }
        self.due.insert(key.clone(), at);
        self.later.insert((at, key));
    }

    /// The next key to look at; it counts as being worked on until `done` or `failed`.
    pub fn take(&mut self, now: Instant) -> Option<K> {
        while let Some((at, key)) = self.later.first().cloned() {
            if at > now {
                break;
            }
            self.later.remove(&(at, key.clone()));
            self.due.remove(&key);
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    /// When the next delayed key is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// The key was looked at, and all is well.
    pub fn done(&mut self, key: &K) {
        self.failures.remove(key);
        self.finish(key);
    }

    /// The key was looked at in vain; it comes again after a while, which is returned.
    pub fn failed(&mut self, key: &K, now: Instant) -> Duration {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let wait = (BACKOFF_FIRST * 2u32.saturating_pow(*failures)).min(BACKOFF_MAX);
        *failures = (*failures + 1).min(16);
        self.add_at(key.clone(), now + wait);
        self.finish(key);
        wait
    }

    fn finish(&mut self, key: &K) {
        self.running.remove(key);
        if self.dirty.remove(key) {
            self.add(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_added_while_it_runs_runs_again_once() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.take(now), Some("a"));
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.take(now), None);
        queue.done(&"a");
        assert_eq!(queue.take(now), Some("a"));
        queue.done(&"a");
        assert_eq!(queue.take(now), None);
    }

    #[test]
    fn failures_wait_longer_and_success_forgets_them() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add("a");
        queue.take(now);
        assert_eq!(queue.failed(&"a", now), BACKOFF_FIRST);
        assert_eq!(queue.take(now), None);
        assert_eq!(queue.take(now + BACKOFF_FIRST), Some("a"));
        assert_eq!(queue.failed(&"a", now), BACKOFF_FIRST * 2);
        assert_eq!(queue.take(now + BACKOFF_FIRST * 2), Some("a"));
        queue.done(&"a");
        queue.add("a");
        queue.take(now);
        assert_eq!(queue.failed(&"a", now), BACKOFF_FIRST);
    }

    #[test]
    fn the_earliest_of_several_wishes_counts() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add_at("a", now + Duration::from_secs(9));
        queue.add_at("a", now + Duration::from_secs(3));
        queue.add_at("a", now + Duration::from_secs(5));
        assert_eq!(queue.next_due(), Some(now + Duration::from_secs(3)));
        assert_eq!(queue.take(now + Duration::from_secs(3)), Some("a"));
        queue.done(&"a");
        assert_eq!(queue.take(now + Duration::from_secs(10)), None);
    }
}
