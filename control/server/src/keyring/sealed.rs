//! A store in which secrets lie sealed: what goes down is sealed, what comes up is opened, and everything below (the log, the
//! state, its history, snapshots, etcd's API) holds only what is sealed.
//!
//! ```text
//! sealed := "trireme:sealed:1:", key's id: u32, nonce: 24 bytes, XChaCha20-Poly1305 of the value; the store's key is authenticated
//! ```
//!
//! A value without that beginning is from before secrets were sealed; it is passed on as it is, and sealed when it is next written.

use super::{KeyRing, Ring};
use crate::clock;
use async_trait::async_trait;
use bytes::Bytes;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use futures::StreamExt;
use mvcc::{
    At, Compare, Event, KeyRange, KeyValue, KeyVersions, LeaderStream, Moment, Op, OpResult, Past,
    RangeRequest, RangeResponse, Store, StoreError, Txn, TxnResponse, VersionsRequest, WatchBatch,
    WatchRequest, WatchStream,
};
use objects::{GroupResource, Revision, resource_prefix};
use std::sync::{Arc, LazyLock};

const MAGIC: &[u8] = b"trireme:sealed:1:";
const ID_BYTES: usize = 4;
const NONCE_BYTES: usize = 24;
/// Secrets that are read at once while all are sealed again.
const PAGE: usize = 200;

static PREFIX: LazyLock<String> =
    LazyLock::new(|| resource_prefix(&GroupResource::new("", "secrets")));

/// A store in which secrets lie sealed.
#[derive(Clone)]
pub struct SealedStore {
    below: Arc<dyn Store>,
    ring: KeyRing,
}

impl SealedStore {
    /// Above a store.
    pub fn new(below: Arc<dyn Store>, ring: KeyRing) -> Self {
        SealedStore { below, ring }
    }

    /// Seals every secret that does not lie under the newest key; answers with how many.
    pub async fn seal_again(&self) -> Result<u64, StoreError> {
        let first = self.ring.newest().await?.secrets.first().map(|key| key.id);
        let mut range = KeyRange::prefix(PREFIX.clone());
        let mut sealed = 0;
        loop {
            let mut request = RangeRequest::new(range.clone());
            request.limit = Some(PAGE);
            let page = self.below.range(request).await?;
            for kv in &page.kvs {
                if id_of(&kv.value) == first {
                    continue;
                }
                let value = self.opened(kv).await?.value;
                let txn = Txn {
                    compare: vec![Compare::unchanged(kv.key.clone(), kv.mod_revision)],
                    success: vec![Op::put(kv.key.clone(), value)],
                    ..Txn::default()
                };
                // Whoever changed it meanwhile sealed it under the newest key.
                self.txn(txn).await?;
                sealed += 1;
            }
            match page.kvs.last() {
                Some(last) if page.more => range.start = [&last.key[..], &[0]].concat().into(),
                _ => return Ok(sealed),
            }
        }
    }

    async fn seal_ops(&self, ops: &mut [Op]) -> Result<(), StoreError> {
        for op in ops {
            match op {
                Op::Put { key, value, .. } if is_secret(key) => {
                    *value = seal(&*self.ring.ring().await?, key, value)?;
                }
                Op::Update {
                    key,
                    value: Some(value),
                    ..
                } if is_secret(key) => *value = seal(&*self.ring.ring().await?, key, value)?,
                Op::Txn(txn) => {
                    Box::pin(self.seal_ops(&mut txn.success)).await?;
                    Box::pin(self.seal_ops(&mut txn.failure)).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn open_results(&self, results: &mut [OpResult]) -> Result<(), StoreError> {
        for result in results {
            match result {
                OpResult::Put(Some(kv)) => self.open(kv).await?,
                OpResult::Deleted(_, kvs) => self.open_all(kvs).await?,
                OpResult::Range(response) => self.open_all(&mut response.kvs).await?,
                OpResult::Txn(response) => {
                    Box::pin(self.open_results(&mut response.results)).await?;
                }
                OpResult::Put(None) | OpResult::Signed => {}
            }
        }
        Ok(())
    }

    /// Opens what is sealed. Among several, one that cannot be opened (it was damaged, or put there past this store) is left out and
    /// logged: it must not take the others along.
    async fn open_all(&self, kvs: &mut Vec<KeyValue>) -> Result<(), StoreError> {
        let is_one = kvs.len() == 1;
        let mut unreadable = Vec::new();
        for (at, kv) in kvs.iter_mut().enumerate() {
            match self.open(kv).await {
                Err(StoreError::Refused(why)) if !is_one => {
                    tracing::error!(why, "a secret in the store is unreadable");
                    unreadable.push(at);
                }
                opened => opened?,
            }
        }
        for at in unreadable.into_iter().rev() {
            kvs.remove(at);
        }
        Ok(())
    }

    async fn open(&self, kv: &mut KeyValue) -> Result<(), StoreError> {
        if is_secret(&kv.key) && id_of(&kv.value).is_some() {
            *kv = self.opened(kv).await?;
        }
        Ok(())
    }

    async fn opened(&self, kv: &KeyValue) -> Result<KeyValue, StoreError> {
        let Some(id) = id_of(&kv.value) else {
            return Ok(kv.clone());
        };
        let mut ring = self.ring.ring().await?;
        if !ring.secrets.iter().any(|key| key.id == id) {
            ring = self.ring.newest().await?;
        }
        Ok(KeyValue {
            value: open(&ring, &kv.key, &kv.value)?,
            ..kv.clone()
        })
    }

    async fn open_batch(&self, batch: WatchBatch) -> Result<WatchBatch, StoreError> {
        let mut events = Vec::with_capacity(batch.events.len());
        for event in batch.events {
            if !is_secret(event.key()) {
                events.push(event);
                continue;
            }
            match self.open_event(Event::clone(&event)).await {
                Ok(opened) => events.push(Arc::new(opened)),
                Err(StoreError::Refused(why)) => {
                    tracing::error!(why, "a secret in the store is unreadable");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(WatchBatch {
            revision: batch.revision,
            events,
        })
    }

    async fn open_event(&self, mut event: Event) -> Result<Event, StoreError> {
        match &mut event {
            Event::Put { kv, prev } => {
                self.open(kv).await?;
                if let Some(prev) = prev {
                    self.open(prev).await?;
                }
            }
            Event::Delete {
                prev: Some(prev), ..
            } => self.open(prev).await?,
            Event::Delete { prev: None, .. } => {}
        }
        Ok(event)
    }
}

#[async_trait]
impl Store for SealedStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let mut response = self.below.range(request).await?;
        self.open_all(&mut response.kvs).await?;
        Ok(response)
    }

    async fn txn(&self, mut txn: Txn) -> Result<TxnResponse, StoreError> {
        self.seal_ops(&mut txn.success).await?;
        self.seal_ops(&mut txn.failure).await?;
        let mut response = self.below.txn(txn).await?;
        self.open_results(&mut response.results).await?;
        Ok(response)
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        let batches = self.below.watch(request).await?;
        let store = self.clone();
        let opened = batches.then(move |batch| {
            let store = store.clone();
            async move {
                match batch {
                    Ok(batch) if batch.events.iter().any(|event| is_secret(event.key())) => {
                        store.open_batch(batch).await
                    }
                    batch => batch,
                }
            }
        });
        Ok(opened.boxed())
    }

    async fn versions(&self, request: VersionsRequest) -> Result<KeyVersions, StoreError> {
        let mut versions = self.below.versions(request).await?;
        for version in &mut versions.versions {
            if let Some(kv) = &mut version.kv {
                self.open(kv).await?;
            }
        }
        Ok(versions)
    }

    async fn past(&self) -> Result<Past, StoreError> {
        self.below.past().await
    }

    async fn moment(&self, at: At) -> Result<Moment, StoreError> {
        self.below.moment(at).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.below.compact(revision).await
    }

    fn applied_revision(&self) -> Revision {
        self.below.applied_revision()
    }

    fn leader(&self) -> LeaderStream {
        self.below.leader()
    }
}

fn is_secret(key: &[u8]) -> bool {
    key.starts_with(PREFIX.as_bytes())
}

/// The id of the key under which a value is sealed; None for one that is not.
fn id_of(value: &[u8]) -> Option<u32> {
    let rest = value.strip_prefix(MAGIC)?;
    rest.first_chunk::<ID_BYTES>()
        .map(|id| u32::from_be_bytes(*id))
}

fn seal(ring: &Ring, key: &[u8], value: &[u8]) -> Result<Bytes, StoreError> {
    let refused = |why: &str| StoreError::Refused(format!("a secret cannot be sealed: {why}"));
    let first = ring
        .secrets
        .first()
        .ok_or_else(|| refused("the key ring has no key"))?;
    let nonce: [u8; NONCE_BYTES] = clock::random();
    let payload = Payload {
        msg: value,
        aad: key,
    };
    let sealed = cipher(&first.key)
        .ok_or_else(|| refused("its key is malformed"))?
        .encrypt(&nonce.into(), payload)
        .map_err(|_| refused("the cipher refused it"))?;
    Ok([MAGIC, &first.id.to_be_bytes(), &nonce, &sealed]
        .concat()
        .into())
}

fn open(ring: &Ring, key: &[u8], value: &[u8]) -> Result<Bytes, StoreError> {
    let name = String::from_utf8_lossy(key);
    let refused = |why: &str| StoreError::Refused(format!("{name} cannot be opened: {why}"));
    let id = id_of(value).ok_or_else(|| refused("it is not sealed"))?;
    let rest = &value[MAGIC.len() + ID_BYTES..];
    let (nonce, sealed) = rest
        .split_first_chunk::<NONCE_BYTES>()
        .ok_or_else(|| refused("it is cut short"))?;
    let known = ring.secrets.iter().find(|known| known.id == id);
    let known = known.ok_or_else(|| refused("the key ring has its key no longer"))?;
    let payload = Payload {
        msg: sealed,
        aad: key,
    };
    cipher(&known.key)
        .ok_or_else(|| refused("its key is malformed"))?
        .decrypt(&(*nonce).into(), payload)
        .map(Bytes::from)
        .map_err(|_| refused("it was changed, or belongs to another key"))
}

fn cipher(key: &str) -> Option<XChaCha20Poly1305> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(key, &mut bytes).ok()?;
    Some(XChaCha20Poly1305::new(&bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Authority;
    use mvcc::{Consistency, MemStore};

    fn authority(key: &str) -> Authority {
        Authority {
            certificate_pem: "C".to_owned(),
            key_pem: key.to_owned(),
        }
    }

    async fn sealed(below: &MemStore) -> SealedStore {
        let below: Arc<dyn Store> = Arc::new(below.clone());
        let ring = KeyRing::new(below.clone(), authority("K"));
        ring.load().await.expect("a ring");
        SealedStore::new(below, ring)
    }

    async fn put(store: &dyn Store, key: &str, value: &str) {
        let txn = Txn {
            success: vec![Op::put(key.to_owned(), value.to_owned())],
            ..Txn::default()
        };
        store.txn(txn).await.expect("writes");
    }

    async fn get(store: &dyn Store, key: &str) -> Bytes {
        let mut request = RangeRequest::new(KeyRange::key(key.to_owned()));
        request.consistency = Consistency::Stale;
        let found = store.range(request).await.expect("reads");
        found.kvs[0].value.clone()
    }

    #[tokio::test]
    async fn what_lies_below_is_sealed_and_what_comes_up_is_plain() {
        let below = MemStore::new();
        let store = sealed(&below).await;
        let secret = "/registry/core/secrets/default/a";
        let mut watch = store
            .watch(WatchRequest {
                range: KeyRange::prefix("/registry/"),
                start: Revision(1),
            })
            .await
            .expect("watches");
        put(&store, secret, "hunter2").await;
        put(&store, "/registry/core/configmaps/default/a", "plain").await;
        assert_eq!(&get(&store, secret).await[..], b"hunter2");
        let lies = get(&below, secret).await;
        assert!(lies.starts_with(MAGIC) && !lies.windows(7).any(|it| it == b"hunter2"));
        assert_eq!(
            &get(&below, "/registry/core/configmaps/default/a").await[..],
            b"plain"
        );
        loop {
            let batch = watch.next().await.expect("goes on").expect("is told");
            let mut puts = batch.events.iter().filter_map(|event| match &**event {
                Event::Put { kv, .. } if is_secret(&kv.key) => Some(kv.value.clone()),
                _ => None,
            });
            if let Some(value) = puts.next_back() {
                assert_eq!(&value[..], b"hunter2");
                break;
            }
        }
        // Moved to another name it does not open.
        let moved = Txn {
            success: vec![Op::put("/registry/core/secrets/default/b", lies)],
            ..Txn::default()
        };
        below.txn(moved).await.expect("writes");
        let request =
            RangeRequest::new(KeyRange::key("/registry/core/secrets/default/b".to_owned()));
        assert!(store.range(request).await.is_err());
    }

    #[tokio::test]
    async fn a_new_key_seals_all_and_the_old_one_opens_the_past() {
        let below = MemStore::new();
        let store = sealed(&below).await;
        let names: Vec<String> = (0..PAGE + 5)
            .map(|at| format!("/registry/core/secrets/default/s{at:04}"))
            .collect();
        for name in &names {
            put(&store, name, name).await;
        }
        // One from before secrets were sealed.
        put(&below, "/registry/core/secrets/default/old", "plain").await;
        let before = below.applied_revision();
        store
            .ring
            .change(|ring, now| {
                ring.secrets[0].retired = Some(now);
                ring.secrets.insert(0, super::super::SecretKey::generate(2));
                Ok(())
            })
            .await
            .expect("changes");
        let count = store.seal_again().await.expect("seals");
        assert_eq!(count, names.len() as u64 + 1);
        assert_eq!(store.seal_again().await, Ok(0));
        assert_eq!(id_of(&get(&below, &names[3]).await), Some(2));
        assert_eq!(&get(&store, &names[3]).await[..], names[3].as_bytes());
        let mut request = RangeRequest::new(KeyRange::key(names[3].clone()));
        request.revision = Some(before);
        let past = store.range(request).await.expect("reads the past");
        assert_eq!(&past.kvs[0].value[..], names[3].as_bytes());
    }

    #[tokio::test]
    async fn masters_of_another_ca_cannot_read_the_ring() {
        let below = MemStore::new();
        drop(sealed(&below).await);
        let ring = KeyRing::new(Arc::new(below.clone()), authority("other"));
        assert!(ring.load().await.is_err());
        // The same CA finds the same keys.
        let (one, two) = (sealed(&below).await, sealed(&below).await);
        put(&one, "/registry/core/secrets/default/a", "x").await;
        assert_eq!(
            &get(&two, "/registry/core/secrets/default/a").await[..],
            b"x"
        );
    }
}
