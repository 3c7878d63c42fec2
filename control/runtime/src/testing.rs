//! What the unit tests of this crate share: a world over a store in memory, under a clock that stands.

use crate::world::SharedWorld;
use async_trait::async_trait;
use futures::StreamExt;
use mvcc::{
    At, KeyVersions, LeaderState, LeaderStream, MemStore, Moment, Op, Past, RangeRequest,
    RangeResponse, Store, StoreError, Txn, TxnResponse, VersionsRequest, WatchRequest, WatchStream,
};
use objects::{Revision, Term, Timestamp, Uid};
use registry::Shell;
use std::sync::Arc;

struct Standing;

impl Shell for Standing {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix(1_800_000_000)
    }

    fn uid(&self) -> Uid {
        Uid::from("uid")
    }

    fn name_suffix(&self) -> String {
        "bcdfg".to_owned()
    }
}

/// A store that tells a watcher nothing of revisions without a change in its range; a real one does so every few seconds.
struct Terse(MemStore);

#[async_trait]
impl Store for Terse {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.0.range(request).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        self.0.txn(txn).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        let told = self.0.watch(request).await?;
        let changes = told.filter(|batch| {
            let is_news = batch
                .as_ref()
                .map_or(true, |batch| !batch.events.is_empty());
            futures::future::ready(is_news)
        });
        Ok(changes.boxed())
    }

    async fn versions(&self, request: VersionsRequest) -> Result<KeyVersions, StoreError> {
        self.0.versions(request).await
    }

    async fn past(&self) -> Result<Past, StoreError> {
        self.0.past().await
    }

    async fn moment(&self, at: At) -> Result<Moment, StoreError> {
        self.0.moment(at).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.0.compact(revision).await
    }

    fn applied_revision(&self) -> Revision {
        self.0.applied_revision()
    }

    fn leader(&self) -> LeaderStream {
        self.0.leader()
    }
}

/// The world of a store that leads, and the watch that keeps it.
pub async fn world(store: &MemStore) -> (SharedWorld, WatchStream) {
    lead(store);
    SharedWorld::load(Arc::new(Terse(store.clone())), Arc::new(Standing))
        .await
        .expect("loads")
}

/// Writes a key as it is.
pub async fn put(store: &MemStore, key: &str, value: &str) {
    lead(store);
    let put = Op::put(key.as_bytes().to_vec(), value.as_bytes().to_vec());
    let txn = Txn {
        success: vec![put],
        ..Txn::default()
    };
    store.txn(txn).await.expect("is written");
}

fn lead(store: &MemStore) {
    store.set_leader(LeaderState {
        term: Term(1),
        is_leader: true,
        has_leader: true,
    });
}
