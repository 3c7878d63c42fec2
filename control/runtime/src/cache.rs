//! Every object of the store, as bytes with a record beside it: the world that controllers and scheduler see.
//!
//! It is filled by one read and kept by one watch of the store. An object is parsed when a controller asks for it, since a
//! parsed one costs nine times its bytes.

use crate::record::record_of;
use bytes::Bytes;
use mvcc::{Event, KeyValue};
use objects::{GroupResource, Object, ObjectKey, Revision, Timestamp, Uid};
use reconcile::controller::{Change, Record, World};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// The world, at one revision.
pub struct Cache {
    began: Timestamp,
    /// When each node that is gone was seen to go; pods may still be bound to it.
    gone_nodes: BTreeMap<ObjectKey, Timestamp>,
    objects: BTreeMap<ObjectKey, Entry>,
    by_owner: HashMap<Uid, BTreeSet<ObjectKey>>,
    by_uid: HashMap<Uid, ObjectKey>,
    by_namespace: HashMap<String, BTreeSet<ObjectKey>>,
}

struct Entry {
    stored: Bytes,
    revision: Revision,
    record: Record,
    observed_since: Timestamp,
    first_seen: Timestamp,
}

/// A change that the cache took in.
pub struct Applied {
    /// Which object.
    pub key: ObjectKey,
    /// As it was.
    pub before: Option<Record>,
    /// As it is.
    pub after: Option<Record>,
}

impl Applied {
    /// The change, for the controllers.
    pub fn change(&self) -> Change<'_> {
        Change {
            key: &self.key,
            before: self.before.as_ref(),
            after: self.after.as_ref(),
        }
    }
}

impl Cache {
    /// An empty world that begins now.
    pub fn new(began: Timestamp) -> Self {
        Cache {
            began,
            gone_nodes: BTreeMap::new(),
            objects: BTreeMap::new(),
            by_owner: HashMap::new(),
            by_uid: HashMap::new(),
            by_namespace: HashMap::new(),
        }
    }

    /// Takes in an object read from the store. None when the key is no object's or the object is unreadable (that is logged).
    pub fn set(&mut self, kv: &KeyValue, now: Timestamp) -> Option<Applied> {
        let key = ObjectKey::from_store_key(&kv.key)?;
        let record = match record_of(&kv.value) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(%key, revision = %kv.mod_revision, %error, "a stored object is unreadable; controllers do not see it");
                return None;
            }
        };
        let first_seen = self.objects.get(&key).map_or(now, |entry| entry.first_seen);
        let before = self.forget(&key);
        self.gone_nodes.remove(&key);
        self.by_uid.insert(record.uid.clone(), key.clone());
        for (owner, _) in &record.owners {
            self.by_owner
                .entry(owner.clone())
                .or_default()
                .insert(key.clone());
        }
        if let Some(namespace) = &key.namespace {
            self.by_namespace
                .entry(namespace.clone())
                .or_default()
                .insert(key.clone());
        }
        let after = Some(record.clone());
        let entry = Entry {
            stored: kv.value.clone(),
            revision: kv.mod_revision,
            record,
            observed_since: now,
            first_seen,
        };
        self.objects.insert(key.clone(), entry);
        Some(Applied { key, before, after })
    }

    /// Takes in a change told by the store.
    pub fn apply(&mut self, event: &Event, now: Timestamp) -> Option<Applied> {
        match event {
            Event::Put { kv, .. } => self.set(kv, now),
            Event::Delete { key, .. } => {
                let key = ObjectKey::from_store_key(key)?;
                let before = self.forget(&key)?;
                if key.resource == reconcile::controller::nodes() {
                    self.gone_nodes.insert(key.clone(), now);
                }
                Some(Applied {
                    key,
                    before: Some(before),
                    after: None,
                })
            }
        }
    }

    /// Every key.
    pub fn all_keys(&self) -> impl Iterator<Item = (&ObjectKey, &Record)> {
        self.objects.iter().map(|(key, entry)| (key, &entry.record))
    }

    fn forget(&mut self, key: &ObjectKey) -> Option<Record> {
        let record = self.objects.remove(key)?.record;
        self.by_uid.remove(&record.uid);
        for (owner, _) in &record.owners {
            remove_from(&mut self.by_owner, owner, key);
        }
        if let Some(namespace) = &key.namespace {
            remove_from(&mut self.by_namespace, namespace, key);
        }
        Some(record)
    }

    fn of_resource(
        &self,
        resource: &GroupResource,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = (&ObjectKey, &Entry)> {
        let first = ObjectKey::new(resource.clone(), namespace, "");
        let resource = resource.clone();
        let namespace = namespace.map(str::to_owned);
        self.objects
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(move |(key, _)| {
                key.resource == resource && (namespace.is_none() || key.namespace == namespace)
            })
    }
}

impl World for Cache {
    fn get(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        let entry = self.objects.get(key)?;
        match Object::from_stored(&entry.stored, entry.revision) {
            Ok(object) => Some(Arc::new(object)),
            Err(error) => {
                tracing::error!(%key, revision = %entry.revision, %error, "a stored object is unreadable");
                None
            }
        }
    }

    fn record(&self, key: &ObjectKey) -> Option<&Record> {
        self.objects.get(key).map(|entry| &entry.record)
    }

    fn keys(
        &self,
        resource: &GroupResource,
        namespace: Option<&str>,
        wanted: &dyn Fn(&Record) -> bool,
    ) -> Vec<ObjectKey> {
        let matching = self
            .of_resource(resource, namespace)
            .filter(|(_, entry)| wanted(&entry.record));
        matching.map(|(key, _)| key.clone()).collect()
    }

    fn keys_in_namespace(&self, namespace: &str) -> Vec<ObjectKey> {
        self.by_namespace
            .get(namespace)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    fn owned_by(&self, uid: &Uid) -> Vec<ObjectKey> {
        self.by_owner
            .get(uid)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    fn key_of(&self, uid: &Uid) -> Option<ObjectKey> {
        self.by_uid.get(uid).cloned()
    }

    fn began(&self) -> Timestamp {
        self.began
    }

    fn missing_since(&self, key: &ObjectKey) -> Timestamp {
        self.gone_nodes.get(key).copied().unwrap_or(self.began)
    }

    fn first_seen(&self, key: &ObjectKey) -> Option<Timestamp> {
        self.objects.get(key).map(|entry| entry.first_seen)
    }

    fn observed_since(&self, key: &ObjectKey) -> Option<Timestamp> {
        self.objects.get(key).map(|entry| entry.observed_since)
    }
}

fn remove_from<K: std::hash::Hash + Eq + Clone>(
    index: &mut HashMap<K, BTreeSet<ObjectKey>>,
    at: &K,
    key: &ObjectKey,
) {
    if let Some(keys) = index.get_mut(at) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvcc::LeaseId;

    fn kv(key: &str, value: &str, revision: u64) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            create_revision: Revision(1),
            mod_revision: Revision(revision),
            version: 1,
            lease: LeaseId(0),
        }
    }

    #[test]
    fn indexes_follow_every_change() {
        let pods = GroupResource::new("", "pods");
        let now = Timestamp::from_unix(100);
        let mut cache = Cache::new(now);
        let owned = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","uid":"1","ownerReferences":[{"uid":"o","controller":true}]}}"#;
        let free = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","uid":"1"}}"#;
        cache
            .set(&kv("/registry/core/pods/x/a", owned, 5), now)
            .expect("taken in");
        assert_eq!(cache.owned_by(&Uid::from("o")).len(), 1);
        assert_eq!(cache.keys(&pods, Some("x"), &|_| true).len(), 1);
        assert!(cache.keys(&pods, Some("y"), &|_| true).is_empty());
        let applied = cache
            .set(&kv("/registry/core/pods/x/a", free, 6), now)
            .expect("taken in");
        assert_eq!(
            applied.change().controllers().collect::<Vec<_>>(),
            [&Uid::from("o")]
        );
        assert!(cache.owned_by(&Uid::from("o")).is_empty());
        assert_eq!(
            cache
                .get(&applied.key)
                .expect("there")
                .metadata
                .resource_version,
            "6"
        );
        let gone = Event::Delete {
            key: Bytes::from_static(b"/registry/core/pods/x/a"),
            revision: Revision(7),
            prev: None,
        };
        assert!(cache.apply(&gone, now).expect("was there").after.is_none());
        assert!(cache.key_of(&Uid::from("1")).is_none() && cache.keys_in_namespace("x").is_empty());
    }
}
