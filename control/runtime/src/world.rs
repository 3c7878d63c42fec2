//! The cache as many readers share it while one follower keeps it: filled by a read, then kept by a watch.

use crate::cache::{Applied, Cache};
use futures::StreamExt;
use mvcc::{
    Event, KeyRange, RangeRequest, Store, StoreError, WatchBatch, WatchRequest, WatchStream,
};
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
        let all = store.range(RangeRequest::new(range)).await?;
        let now = shell.now();
        let mut cache = Cache::new(now);
        for kv in &all.kvs {
            cache.set(kv, now);
        }
        // All keys, not only those of objects: each revision then brings a batch, and `caught_up` never waits for a revision
        // that changed something else.
        let watch = store
            .watch(WatchRequest {
                range: KeyRange::prefix(Vec::new()),
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
            self.take_in(&batch, &notice);
            self.seen.send_replace(batch.revision);
        }
        StoreError::ShuttingDown
    }

    fn take_in(&self, batch: &WatchBatch, notice: &impl Fn(&Applied, &Cache)) {
        let of_objects = |event: &&Arc<Event>| event.key().starts_with(REGISTRY_ROOT.as_bytes());
        let mut events = batch.events.iter().filter(of_objects).peekable();
        if events.peek().is_none() {
            return;
        }
        let now = self.shell.now();
        let mut cache = self.cache.write().expect("no holder of this lock panics");
        for event in events {
            if let Some(applied) = cache.apply(event, now) {
                notice(&applied, &cache);
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use mvcc::MemStore;

    #[tokio::test]
    async fn a_revision_that_changes_no_object_is_caught_up_with() {
        let store = MemStore::new();
        let (world, watch) = testing::world(&store).await;
        let following = world.clone();
        let follow = tokio::spawn(async move { following.follow(watch, |_, _| {}).await });
        testing::put(&store, "/elsewhere/a", "{}").await;
        tokio::time::timeout(CATCH_UP_DEADLINE / 2, world.caught_up())
            .await
            .expect("sees the revision at once");
        follow.abort();
    }
}
