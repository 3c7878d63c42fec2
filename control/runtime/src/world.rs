//! The cache as many readers share it while one follower keeps it: filled by a read, then kept by a watch.

use crate::cache::{Applied, Cache};
use futures::StreamExt;
use mvcc::{KeyRange, RangeRequest, Store, StoreError, WatchRequest, WatchStream};
use objects::{REGISTRY_ROOT, Revision};
use registry::Shell;
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::Duration;
use tokio::sync::watch;

/// For how long a writer waits until the cache shows its write; the watch is local, so this is plenty.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(5);

/// The shared cache.
#[derive(Clone)]
pub struct SharedWorld {
    cache: Arc<RwLock<Cache>>,
    seen: watch::Sender<Revision>,
    store: Arc<dyn Store>,
    shell: Arc<dyn Shell>,
}

impl SharedWorld {
    /// Reads everything, and opens the watch that goes on from there.
    pub async fn load(
        store: Arc<dyn Store>,
        shell: Arc<dyn Shell>,
    ) -> Result<(Self, WatchStream), StoreError> {
        let range = KeyRange::prefix(REGISTRY_ROOT.as_bytes().to_vec());
        let all = store.range(RangeRequest::new(range.clone())).await?;
        let now = shell.now();
        let mut cache = Cache::new(now);
        for kv in &all.kvs {
            cache.set(kv, now);
        }
        let watch = store
            .watch(WatchRequest {
                range,
                start: all.revision.next(),
            })
            .await?;
        let (seen, _) = watch::channel(all.revision);
        Ok((
            SharedWorld {
                cache: Arc::new(RwLock::new(cache)),
                seen,
                store,
                shell,
            },
            watch,
        ))
    }

    /// The present state; hold it only while deciding.
    pub fn read(&self) -> RwLockReadGuard<'_, Cache> {
        self.cache.read().expect("no holder of this lock panics")
    }

    /// Takes in what the watch tells and hands each change on, until the watch ends.
    pub async fn follow(
        &self,
        mut watch: WatchStream,
        notice: impl Fn(&Applied, &Cache),
    ) -> StoreError {
        while let Some(batch) = watch.next().await {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return error,
            };
            let now = self.shell.now();
            let mut cache = self.cache.write().expect("no holder of this lock panics");
            for event in &batch.events {
                if let Some(applied) = cache.apply(event, now) {
                    notice(&applied, &cache);
                }
            }
            drop(cache);
            self.seen.send_replace(batch.revision);
        }
        StoreError::ShuttingDown
    }

    /// Waits until the cache shows all that this member has applied by now.
    pub async fn caught_up(&self) {
        let target = self.store.applied_revision();
        let mut seen = self.seen.subscribe();
        let reached = tokio::time::timeout(
            CATCH_UP_DEADLINE,
            seen.wait_for(|revision| *revision >= target),
        )
        .await;
        if reached.is_err() {
            tracing::warn!(%target, seen = %*self.seen.borrow(), "the controllers' cache lags behind the store");
        }
    }
}
