//! The store as the parts of a master use it: the `Store` trait over one Raft member.
//!
//! Reads and watches are answered by the local replica; a linearizable read first learns from the leader how far that must
//! be. Writes go to the leader, wherever it is.

mod compare;
mod contact;
mod entries;
mod health;
mod history;
mod leader;
mod leader_leases;
mod leases;
mod maintenance;
mod open;
mod propose;
mod read;
mod rhythm;
mod service;
mod slow;
mod space;
mod succession;

pub(crate) use compare::{compare, hash_here};
pub(crate) use contact::last_contact_ms;
pub(crate) use maintenance::matched;
pub use open::Parts;
pub(crate) use open::{Inner, is_lock};
pub(crate) use propose::{Forwarded, is_surely_not_done};
pub use service::{LeaseLife, LocalStatus};
pub(crate) use slow::{SlowWrites, is_slow};

use crate::archive;
use crate::db::View;
use crate::metrics::Snapshot;
use crate::runtime;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use mvcc::{
    At, Command, Consistency, Done, HistoryLimits, KeyVersions, LeaderState, LeaderStream, Moment,
    Past, RangeRequest, RangeResponse, Store, StoreError, Txn, TxnResponse, VersionsRequest,
    WatchRequest, WatchStream,
};
use objects::Revision;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::{ReceiverStream, WatchStream as Watching};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often to look whether the consensus still runs.
const STOPPED_LOOK: Duration = Duration::from_millis(250);

/// How long the last users of the files are waited for.
const CLOSE_MAX: Duration = Duration::from_secs(3);

/// One member of the store. Clones are handles of the same member; with the last one the member stops at once, as if it had
/// been killed. [`RaftStore::shutdown`] leaves in order.
#[derive(Clone)]
pub struct RaftStore {
    pub(crate) inner: Arc<Inner>,
    guard: Arc<DropGuard>,
}

impl RaftStore {
    pub(crate) fn new(inner: Arc<Inner>, stop: CancellationToken) -> Self {
        RaftStore {
            inner,
            guard: Arc::new(stop.drop_guard()),
        }
    }

    /// Proposes a command of the store's and waits until it is applied.
    pub async fn command(&self, command: Command) -> Result<Done, StoreError> {
        self.inner.propose(command).await
    }

    /// Sets how much of the past the cluster keeps.
    pub async fn keep_history(&self, limits: HistoryLimits) -> Result<(), StoreError> {
        self.inner
            .propose(Command::KeepHistory { limits })
            .await
            .map(|_| ())
    }

    /// The time that a lease command carries when it is proposed now.
    pub fn lease_now_ms(&self) -> u64 {
        self.inner.lease_now_ms()
    }

    /// The whole state in one archive, as of now, while the store goes on. `extra` are bytes of the caller that go along; `key` seals
    /// the state.
    pub async fn archive(
        &self,
        extra: Option<Bytes>,
        key: Option<archive::StateKey>,
    ) -> Result<ReceiverStream<io::Result<Bytes>>, StoreError> {
        let cluster_id = self.inner.identity.cluster_id.clone();
        let saved_ms = crate::clock::now_ms();
        self.export(move |view, out| {
            let origin = archive::Origin {
                cluster_id: &cluster_id,
                saved_ms: Some(saved_ms),
                extra: extra.as_deref(),
                key: key.as_ref(),
            };
            archive::write(view, origin, out).map_err(io::Error::other)?;
            Ok(())
        })
        .await
    }

    /// What `write` makes of the whole state as of now, a chunk at a time, while the store goes on.
    pub async fn export(
        &self,
        write: impl FnOnce(&View<'_>, &mut dyn io::Write) -> io::Result<()> + Send + 'static,
    ) -> Result<ReceiverStream<io::Result<Bytes>>, StoreError> {
        self.inner.barrier().await?;
        let (sender, chunks) = mpsc::channel(4);
        let (db, metrics) = (self.inner.db.clone(), self.inner.metrics.clone());
        runtime::spawn_blocking(move || {
            let began = Instant::now();
            let mut out = archive::ChunkWriter::new(sender.clone());
            let written = write(&db.view(), &mut out).and_then(|()| io::Write::flush(&mut out));
            if let Err(err) = written {
                tracing::warn!(error = %err, "an archive was not finished");
                // A receiver that is gone does not want to know.
                let _ = sender.blocking_send(Err(err));
            }
            metrics.archives.record(began.elapsed());
        });
        Ok(ReceiverStream::new(chunks))
    }

    /// Waits until the member runs no longer, by request or because its storage failed, and tells why. After a failure
    /// nothing is known of what is on disk, so the process should end and start anew.
    pub async fn stopped(&self) -> String {
        loop {
            if let Some(reason) = self.inner.why_stopped() {
                self.inner.note_damage_found();
                return reason;
            }
            tokio::select! {
                biased;
                () = self.inner.stop.cancelled() => {
                    let condemned = self.inner.condemnation.get();
                    return condemned.cloned().unwrap_or_else(|| "the member was stopped".to_owned());
                }
                () = tokio::time::sleep(STOPPED_LOOK) => {}
            }
        }
    }

    /// Why the member failed, if it did; see [`stopped`](Self::stopped).
    pub fn failed(&self) -> Option<String> {
        self.inner.why_stopped()
    }

    /// Whether the member stopped because its data are damaged: its folder is marked, and no member opens it again.
    pub fn is_damaged(&self) -> bool {
        self.inner.condemnation.get().is_some()
    }

    /// Light counters of this member.
    pub fn metrics(&self) -> Snapshot {
        self.inner.metrics.snapshot()
    }

    /// Who this member is.
    pub fn identity(&self) -> &crate::identity::Identity {
        &self.inner.identity
    }

    /// Stops at once, as a crash would: nothing is handed over. What was acknowledged is on disk.
    ///
    /// Returns when the files are closed too: RocksDB must not be found open by the end of the process. Whoever keeps another
    /// handle keeps them open; that is waited for only a while.
    pub async fn kill(self) {
        let RaftStore { inner, guard } = self;
        let mut closed = inner.db.closed();
        drop(guard);
        inner.stop().await;
        drop(inner);
        if tokio::time::timeout(CLOSE_MAX, closed.changed())
            .await
            .is_err()
        {
            tracing::warn!(
                waited = ?CLOSE_MAX,
                "the store's files are still in use by a part of this process"
            );
        }
    }
}

#[async_trait]
impl Store for RaftStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        if request.consistency == Consistency::Linearizable {
            self.inner.barrier().await?;
        }
        self.inner.read(request).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        mvcc::validate(&txn)?;
        match self.inner.propose(Command::Txn(txn)).await? {
            Done::Txn(response) => Ok(response),
            other => Err(StoreError::Unavailable(format!(
                "a transaction was answered with {other:?}"
            ))),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        self.inner.check_member()?;
        self.inner.hub.watch(request, self.inner.history()).await
    }

    async fn versions(&self, request: VersionsRequest) -> Result<KeyVersions, StoreError> {
        self.inner.barrier().await?;
        self.inner
            .read_with(move |view| mvcc::versions(view, &request))
            .await
    }

    async fn past(&self) -> Result<Past, StoreError> {
        self.inner.barrier().await?;
        let past = self.inner.read_with(|view| Ok(mvcc::past(view)?)).await?;
        Ok(Past {
            limits: Some(past.limits.unwrap_or(self.inner.config.limits.history)),
            ..past
        })
    }

    async fn moment(&self, at: At) -> Result<Moment, StoreError> {
        self.inner.barrier().await?;
        self.inner
            .read_with(move |view| mvcc::moment(view, at))
            .await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner
            .propose(Command::Compact { revision })
            .await
            .map(|_| ())
    }

    fn applied_revision(&self) -> Revision {
        self.inner.applied.borrow().revision
    }

    fn leader(&self) -> LeaderStream {
        Watching::new(self.inner.leader.clone()).boxed()
    }
}

impl RaftStore {
    /// Who leads, now.
    pub fn leader_state(&self) -> LeaderState {
        *self.inner.leader.borrow()
    }
}
