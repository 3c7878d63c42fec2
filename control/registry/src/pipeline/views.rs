//! What watchers share of a change: its JSON with the revision in place, and the fields that selectors may ask for. Made by
//! the first watcher that looks, kept while others are likely to look; bounded by count and bytes.

use super::select;
use crate::ResourceDef;
use bytes::Bytes;
use mvcc::KeyValue;
use objects::{Revision, splice_revision};
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// How many versions of objects are kept.
const VIEWS_MAX: usize = 4096;
/// How many bytes of JSON are kept.
const BYTES_MAX: usize = 16 << 20;

/// One version of an object as watchers see it.
pub struct View {
    /// The JSON, its revision in place.
    pub json: Bytes,
    fields: OnceLock<Value>,
}

impl View {
    /// The labels and the fields that selectors of the kind may ask for, and nothing else.
    pub fn fields(&self, row: &ResourceDef) -> &Value {
        self.fields
            .get_or_init(|| select::selectable(&self.json, row))
    }
}

/// The versions that watchers looked at last.
#[derive(Default)]
pub struct Views {
    recent: Mutex<Recent>,
    encoded: AtomicU64,
}

type Version = (Bytes, Revision);

#[derive(Default)]
struct Recent {
    views: HashMap<Version, Arc<View>>,
    order: VecDeque<Version>,
    bytes: usize,
}

impl Views {
    /// The view of a stored version.
    pub fn of(&self, kv: &KeyValue) -> Arc<View> {
        let version = (kv.key.clone(), kv.mod_revision);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = recent.views.get(&version) {
            return view.clone();
        }
        self.encoded.fetch_add(1, Ordering::Relaxed);
        let json = splice_revision(&kv.value, kv.mod_revision);
        let view = Arc::new(View {
            json,
            fields: OnceLock::new(),
        });
        recent.keep(version, view.clone());
        view
    }

    /// How many versions were made into JSON, however many watchers looked at each.
    pub fn encoded(&self) -> u64 {
        self.encoded.load(Ordering::Relaxed)
    }
}

impl Recent {
    fn keep(&mut self, version: Version, view: Arc<View>) {
        self.bytes += view.json.len();
        self.order.push_back(version.clone());
        self.views.insert(version, view);
        while self.order.len() > VIEWS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            if let Some(view) = self.views.remove(&oldest) {
                self.bytes -= view.json.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvcc::LeaseId;

    fn version(revision: u64, size: usize) -> KeyValue {
        let value = format!(
            r#"{{"kind":"A","apiVersion":"v1","metadata":{{"name":"{}"}}}}"#,
            "a".repeat(size)
        );
        KeyValue {
            key: Bytes::from_static(b"/registry/core/as/a"),
            value: value.into(),
            create_revision: Revision(1),
            mod_revision: Revision(revision),
            version: 1,
            lease: LeaseId(0),
        }
    }

    #[test]
    fn shares_what_is_recent_and_forgets_the_rest() {
        let views = Views::default();
        let first = views.of(&version(1, 1));
        assert!(Arc::ptr_eq(&first, &views.of(&version(1, 1))));
        assert_eq!(views.encoded(), 1);
        for revision in 2..40 {
            views.of(&version(revision, 1 << 20));
        }
        assert!(!Arc::ptr_eq(&first, &views.of(&version(1, 1))));
        let recent = views.recent.lock().expect("no panic");
        assert!(recent.bytes <= BYTES_MAX && recent.order.len() == recent.views.len());
    }
}
