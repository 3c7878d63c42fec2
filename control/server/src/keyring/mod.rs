//! The cluster's key ring: the keys that seal secrets in the store and those that sign service accounts' tokens. One for all
//! masters, kept in the store under [`KEY`], locked so that only holders of the CA's key can read it.
//!
//! ```text
//! CA's key, on every master's disk ──locks──> key ring, in the store ──seals──> secrets, in the store
//!                                                                    └─signs──> tokens
//! ```
//!
//! Every master follows the ring by a watch; whoever meets a key that it does not know reads the ring anew. Rotation puts a new
//! key first, seals every secret again, and keeps old keys for as long as the store's history may show what they sealed.

mod sealed;

pub use sealed::SealedStore;

use crate::clock;
use crate::pki::Authority;
use crate::vault;
use anyhow::{Context, Result, anyhow};
use api::TokenKeys;
use futures::StreamExt;
use mvcc::{
    Compare, Consistency, Event, KeyRange, KeyValue, Op, RangeRequest, Store, StoreError, Txn,
    WatchRequest,
};
use objects::cluster::{KeyRotation, KeysRotated};
use objects::{Revision, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Where the ring lies in the store.
const KEY: &str = "/trireme/key-ring";
const RETRY: Duration = Duration::from_millis(200);
/// How long a request waits for the ring of a master that has just started.
const RING_MAX: Duration = Duration::from_secs(10);
/// A new key verifies tokens on every master for this long before it signs any.
const PUBLISH: Duration = Duration::from_secs(3);
/// How long the key of a token counts after it has signed its last.
const TOKEN_KEYS_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long a sealed secret of the past can be read at least.
const SECRET_KEYS_KEPT_MIN: Duration = Duration::from_secs(24 * 3600);
/// How often a change of the ring is tried while others change it.
const TRIES_MAX: usize = 8;

/// The keys. It has no `Debug`, so that no log can show them.
#[derive(Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ring {
    /// Those that seal secrets; the first seals, all open.
    secrets: Vec<SecretKey>,
    /// Those that sign tokens; the first signs, all verify.
    tokens: Vec<TokenKey>,
}

/// A key that seals.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct SecretKey {
    id: u32,
    /// 32 bytes in hexadecimal.
    key: String,
    /// When another one took its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    retired: Option<Timestamp>,
}

/// A key that signs, as [`TokenKeys::generate`] makes it.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct TokenKey {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    retired: Option<Timestamp>,
}

impl Ring {
    fn generate() -> Result<Self> {
        Ok(Ring {
            secrets: vec![SecretKey::generate(1)],
            tokens: vec![TokenKey::generate()?],
        })
    }

    fn token_keys(&self) -> Vec<String> {
        self.tokens.iter().map(|token| token.key.clone()).collect()
    }
}

impl SecretKey {
    fn generate(id: u32) -> Self {
        SecretKey {
            id,
            key: clock::secret(32),
            retired: None,
        }
    }
}

impl TokenKey {
    fn generate() -> Result<Self> {
        Ok(TokenKey {
            key: TokenKeys::generate().context("no key for tokens could be made")?,
            retired: None,
        })
    }
}

/// The ring as a master has it; cheap to clone.
#[derive(Clone)]
pub struct KeyRing(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    authority: Authority,
    tokens: TokenKeys,
    known: watch::Sender<Option<Known>>,
}

#[derive(Clone)]
struct Known {
    ring: Arc<Ring>,
    /// The revision of its last change.
    revision: Revision,
}

impl KeyRing {
    /// Nothing is read yet; `store` is the one beneath, which holds what is sealed.
    pub fn new(store: Arc<dyn Store>, authority: Authority) -> Self {
        KeyRing(Arc::new(Inner {
            store,
            authority,
            tokens: TokenKeys::none(),
            known: watch::Sender::new(None),
        }))
    }

    /// The keys of tokens; they follow the ring.
    pub fn token_keys(&self) -> TokenKeys {
        self.0.tokens.clone()
    }

    /// Reads the ring, or makes it where there is none, and follows it, until `stop`.
    pub async fn follow(self, stop: CancellationToken) {
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.follow_once() => ended,
            };
            if let Err(error) = ended {
                tracing::warn!(error = %format!("{error:#}"), "the key ring is read anew");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn follow_once(&self) -> Result<()> {
        let from = self.load().await?;
        let request = WatchRequest {
            range: KeyRange::key(KEY),
            start: from.next(),
        };
        let mut batches = self.0.store.watch(request).await?;
        while let Some(batch) = batches.next().await {
            for event in &batch?.events {
                if let Event::Put { kv, .. } = &**event {
                    self.take(kv)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the ring from the local replica, else from a quorum, else makes it.
    async fn load(&self) -> Result<Revision> {
        for consistency in [Consistency::Stale, Consistency::Linearizable] {
            if let Some(kv) = self.read(consistency).await? {
                self.take(&kv)?;
                return Ok(kv.mod_revision);
            }
        }
        let ring = Ring::generate()?;
        let txn = Txn {
            compare: vec![Compare::absent(KEY)],
            success: vec![Op::put(KEY, self.lock(&ring)?)],
            ..Txn::default()
        };
        // Should another master have been faster, its ring is read at the next try.
        self.0.store.txn(txn).await?;
        let kv = self.read(Consistency::Linearizable).await?;
        let kv = kv.context("the key ring was written and is gone")?;
        self.take(&kv)?;
        Ok(kv.mod_revision)
    }

    async fn read(&self, consistency: Consistency) -> Result<Option<KeyValue>, StoreError> {
        let mut request = RangeRequest::new(KeyRange::key(KEY));
        request.consistency = consistency;
        let found = self.0.store.range(request).await?;
        Ok(found.kvs.into_iter().next())
    }

    /// Takes in a version of the ring, unless a newer one is known.
    fn take(&self, kv: &KeyValue) -> Result<()> {
        let ring = self.unlock(&kv.value)?;
        let current = self.0.known.borrow().as_ref().map(|known| known.revision);
        if current.is_some_and(|current| current >= kv.mod_revision) {
            return Ok(());
        }
        self.0
            .tokens
            .replace(&ring.token_keys())
            .context("the key ring's keys for tokens are unusable")?;
        self.0.known.send_replace(Some(Known {
            ring: Arc::new(ring),
            revision: kv.mod_revision,
        }));
        Ok(())
    }

    fn lock(&self, ring: &Ring) -> Result<String> {
        vault::lock_for_masters(&self.0.authority, &serde_json::to_string(ring)?)
    }

    fn unlock(&self, value: &[u8]) -> Result<Ring> {
        let locked = std::str::from_utf8(value).context("the key ring is malformed")?;
        let plain = vault::unlock_for_masters(&self.0.authority, locked)
            .context("the key ring cannot be opened with this cluster's CA")?;
        serde_json::from_str(&plain).context("the key ring is malformed")
    }

    /// The ring; waits for it a while at the start.
    async fn ring(&self) -> Result<Arc<Ring>, StoreError> {
        let mut known = self.0.known.subscribe();
        let waited = known.wait_for(Option::is_some);
        match tokio::time::timeout(RING_MAX, waited).await {
            Ok(Ok(known)) => Ok(known.as_ref().expect("it was waited for").ring.clone()),
            _ => Err(StoreError::Unavailable(
                "the key ring has not been read yet".to_owned(),
            )),
        }
    }

    /// The ring as a quorum has it now.
    async fn newest(&self) -> Result<Arc<Ring>, StoreError> {
        if let Some(kv) = self.read(Consistency::Linearizable).await? {
            self.take(&kv)
                .map_err(|error| StoreError::Refused(format!("{error:#}")))?;
        }
        self.ring().await
    }

    /// Puts new keys in the place of those that seal and sign; `store` is the one above, through which secrets are sealed again.
    pub async fn rotate(&self, store: &Arc<dyn Store>, asked: &KeyRotation) -> Result<KeysRotated> {
        let mut done = KeysRotated::default();
        let sealed = SealedStore::new(store.clone(), self.clone());
        if asked.secrets {
            self.change(|ring, now| {
                let id = ring.secrets.iter().map(|key| key.id).max().unwrap_or(0) + 1;
                if let Some(first) = ring.secrets.first_mut() {
                    first.retired.get_or_insert(now);
                }
                ring.secrets.insert(0, SecretKey::generate(id));
                Ok(())
            })
            .await?;
            done.secrets_sealed = sealed.seal_again().await?;
            let kept = match store.past().await {
                // Nothing of the past is kept by its age.
                Err(StoreError::Refused(_)) => 0,
                past => past?.limits.unwrap_or_default().keep_ms,
            };
            let kept = Duration::from_millis(kept).max(SECRET_KEYS_KEPT_MIN);
            self.change(|ring, now| {
                let lately = |at: Timestamp| now.since(at) <= kept;
                ring.secrets.retain(|key| key.retired.is_none_or(lately));
                Ok(())
            })
            .await?;
        }
        if asked.tokens {
            let key = TokenKey::generate()?;
            self.change(|ring, now| {
                let lately = |at: Timestamp| now.since(at) <= TOKEN_KEYS_KEPT;
                ring.tokens.retain(|key| key.retired.is_none_or(lately));
                ring.tokens.push(key.clone());
                Ok(())
            })
            .await?;
            tokio::time::sleep(PUBLISH).await;
            self.change(|ring, now| {
                let at = ring.tokens.iter().position(|known| known.key == key.key);
                let at = at.context("the new key for tokens is gone from the ring")?;
                let mut key = ring.tokens.remove(at);
                if let Some(first) = ring.tokens.first_mut() {
                    first.retired.get_or_insert(now);
                }
                key.retired = None;
                ring.tokens.insert(0, key);
                Ok(())
            })
            .await?;
            done.token_keys = 1;
        }
        let ring = self.newest().await?;
        done.secret_keys_kept = ring.secrets.len();
        done.token_keys_kept = ring.tokens.len();
        Ok(done)
    }

    async fn change(&self, change: impl Fn(&mut Ring, Timestamp) -> Result<()>) -> Result<()> {
        for _ in 0..TRIES_MAX {
            let kv = self.read(Consistency::Linearizable).await?;
            let kv = kv.context("there is no key ring yet; try again")?;
            let mut ring = self.unlock(&kv.value)?;
            change(&mut ring, clock::now())?;
            let txn = Txn {
                compare: vec![Compare::unchanged(KEY, kv.mod_revision)],
                success: vec![Op::put(KEY, self.lock(&ring)?)],
                ..Txn::default()
            };
            if self.0.store.txn(txn).await?.succeeded {
                self.newest().await?;
                return Ok(());
            }
        }
        Err(anyhow!("others change the key ring; try again"))
    }
}
