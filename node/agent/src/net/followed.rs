//! Collections of the API that are followed, each reduced to what its user needs.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{Change, Client, Reflected, reflect};
use serde_json::Value;
use tokio::sync::mpsc;

use super::services::{self, Key};

/// Changes that wait; a reflector waits when there are more.
const QUEUED_MAX: usize = 64;
/// Changes within this time are given together.
pub const TOGETHER: Duration = Duration::from_millis(15);

/// A collection that is followed, reduced by `reduce` to what is needed.
pub struct Followed<T> {
    receiver: mpsc::Receiver<Reflected>,
    reduce: fn(&Value) -> Option<T>,
    /// What is there, by `namespace/name`.
    pub items: BTreeMap<Key, T>,
    /// Whether the whole set was told once.
    pub complete: bool,
}

impl<T: PartialEq> Followed<T> {
    /// Follows `path` until it is dropped.
    pub fn start(client: &Client, path: &str, reduce: fn(&Value) -> Option<T>) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUED_MAX);
        tokio::spawn(reflect(client.clone(), path.to_owned(), sender));
        Self {
            receiver,
            reduce,
            items: BTreeMap::new(),
            complete: false,
        }
    }

    /// Waits for news, and takes those that came with it. False if none of them matters to `reduce`.
    pub async fn changed(&mut self) -> bool {
        let changed = match self.receiver.recv().await {
            Some(reflected) => self.take(reflected),
            // A reflector ends only with its receiver.
            None => std::future::pending().await,
        };
        self.take_waiting() | changed
    }

    /// Takes what has come meanwhile.
    pub fn take_waiting(&mut self) -> bool {
        let mut changed = false;
        while let Ok(reflected) = self.receiver.try_recv() {
            changed |= self.take(reflected);
        }
        changed
    }

    fn take(&mut self, reflected: Reflected) -> bool {
        match reflected {
            Reflected::All(objects) => {
                let items: BTreeMap<Key, T> = objects
                    .iter()
                    .filter_map(|object| Some((services::key(object), (self.reduce)(object)?)))
                    .collect();
                let changed = !self.complete || items != self.items;
                self.complete = true;
                self.items = items;
                changed
            }
            Reflected::Change(Change::Set(object)) => {
                let (key, item) = (services::key(&object), (self.reduce)(&object));
                if self.items.get(&key) == item.as_ref() {
                    return false;
                }
                match item {
                    Some(item) => drop(self.items.insert(key, item)),
                    None => drop(self.items.remove(&key)),
                }
                true
            }
            Reflected::Change(Change::Removed(object)) => {
                self.items.remove(&services::key(&object)).is_some()
            }
        }
    }
}
