//! Raft's snapshots. The state on disk is itself the snapshot: building one waits until the state is there and notes how far it
//! is, and what is sent is the state of the moment of sending, with its own index. No copy of the state is kept.

use super::StateMachine;
use crate::db::Db;
use crate::runtime;
use crate::types::{SnapshotMeta, TypeConfig};
use openraft::RaftSnapshotBuilder;
use openraft::alias::SmSnapshotOf;
use std::io;
use std::sync::{Arc, Mutex};
use tempfile::TempPath;

/// Where a snapshot's bytes are.
pub enum SnapshotData {
    /// The state of this member as it is when it is read.
    Live(Arc<Db>),
    /// An archive that arrived, checked to be whole. The file goes with this value.
    Received(TempPath),
}

/// Puts the state on disk and notes how far it is.
pub struct Builder {
    meta: SnapshotMeta,
    db: Arc<Db>,
    current: Arc<Mutex<Option<SnapshotMeta>>>,
}

impl Builder {
    pub(super) fn new(
        meta: SnapshotMeta,
        db: Arc<Db>,
        current: Arc<Mutex<Option<SnapshotMeta>>>,
    ) -> Self {
        Builder { meta, db, current }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(
        &mut self,
    ) -> Result<SmSnapshotOf<TypeConfig, StateMachine>, io::Error> {
        let db = self.db.clone();
        runtime::spawn_blocking(move || db.persist())
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        *self.current.lock().expect("no holder of the lock panics") = Some(self.meta.clone());
        Ok(openraft::Snapshot {
            meta: self.meta.clone(),
            snapshot: SnapshotData::Live(self.db.clone()),
        })
    }
}
