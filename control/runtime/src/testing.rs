//! What the unit tests of this crate share: a world over a store in memory, under a clock that stands.

use crate::world::SharedWorld;
use mvcc::{LeaderState, MemStore, Op, Store, Txn, WatchStream};
use objects::{Term, Timestamp, Uid};
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

/// The world of a store that leads, and the watch that keeps it.
pub async fn world(store: &MemStore) -> (SharedWorld, WatchStream) {
    lead(store);
    SharedWorld::load(Arc::new(store.clone()), Arc::new(Standing))
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
