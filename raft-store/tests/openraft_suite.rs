//! openraft's own suite over our log and state machine, on RocksDB.

use mvcc::{Hub, HubLimits};
use objects::Revision;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use raft_store::db::Db;
use raft_store::log::LogStore;
use raft_store::metrics::Metrics;
use raft_store::state::StateMachine;
use raft_store::types::TypeConfig;
use std::sync::Arc;
use tempfile::TempDir;

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let db = Arc::new(Db::open(&dir.path().join("db")).expect("a new database"));
        let metrics = Arc::new(Metrics::default());
        let log = LogStore::open(db.clone(), metrics.clone()).expect("an empty log");
        let hub = Hub::new(HubLimits::default(), Revision(1), Revision(0));
        let state = StateMachine::open(db, "test".to_owned(), dir.path().to_owned(), hub, metrics)
            .expect("an empty state");
        Ok((dir, log, state))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes() {
    Suite::test_all(OnDisk)
        .await
        .expect("openraft's suite passes");
}
