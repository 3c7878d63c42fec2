//! What a service over the store asks beyond the `Store` trait: leases, hashes, read-only transactions, watches with a
//! probe, and how this member is.

use super::leader::has_quorum;
use super::leader_leases::{remaining_ms, ttl_ms};
use super::read::{in_background, refused};
use super::{Inner, RaftStore};
use crate::types::MemberId;
use bytes::Bytes;
use mvcc::{
    Command, Consistency, HashAt, Lease, LeaseId, Probe, StoreError, Txn, TxnResponse,
    WatchRequest, WatchStream,
};
use objects::Revision;
use openraft::Instant as _;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::time::Duration;
use tokio::time::Instant;

/// How often to look whether compacted history is gone.
const SWEPT_LOOK: Duration = Duration::from_millis(50);

/// A leader that was not heard for so many of the longest election timeouts is lost.
const SILENT_ELECTIONS: u32 = 3;

/// How a lease is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseLife {
    /// How long it lives without a keep-alive.
    pub ttl_ms: u64,
    /// How long it still lives.
    pub remaining_ms: u64,
    /// The keys that it holds; empty when they were not asked.
    pub keys: Vec<Bytes>,
}

/// How this member is, as it sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalStatus {
    /// The term.
    pub term: u64,
    /// Who leads, if that is known.
    pub leader: Option<MemberId>,
    /// The last entry in the log.
    pub last_log_index: u64,
    /// The last entry applied.
    pub applied_index: u64,
    /// The revision applied.
    pub revision: Revision,
    /// The bytes on disk.
    pub db_size_bytes: u64,
    /// Whether the disk is full.
    pub is_full: bool,
}

impl RaftStore {
    /// Watches as [`mvcc::Store::watch`] does, with a probe that asks the watch for its progress.
    pub async fn watch_probed(
        &self,
        request: WatchRequest,
    ) -> Result<(WatchStream, Probe), StoreError> {
        self.inner.check_member()?;
        let history = self.inner.history();
        self.inner.hub.watch_probed(request, history).await
    }

    /// Waits until this member has everything that was acknowledged before this call.
    pub async fn barrier(&self) -> Result<(), StoreError> {
        self.inner.barrier().await
    }

    /// Runs a transaction that changes nothing on the local replica, without an entry in the log.
    pub async fn read_txn(
        &self,
        txn: Txn,
        consistency: Consistency,
    ) -> Result<TxnResponse, StoreError> {
        mvcc::validate(&txn)?;
        if consistency == Consistency::Linearizable {
            self.inner.barrier().await?;
        }
        let db = self.inner.db.clone();
        in_background(move || mvcc::read_txn(&db.view(), &txn)).await
    }

    /// The hash of all that this member's readers can see up to `revision`, or the newest one.
    pub async fn hash_at(&self, revision: Option<Revision>) -> Result<HashAt, StoreError> {
        let (db, began) = (self.inner.db.clone(), Instant::now());
        let hash = in_background(move || mvcc::hash_at(&db.view(), revision)).await;
        self.inner.metrics.hashes.record(began.elapsed());
        hash
    }

    /// A checksum over this member's newest state, leases and numbers included.
    pub async fn fingerprint(&self) -> Result<(Revision, u32), StoreError> {
        let db = self.inner.db.clone();
        in_background(move || Ok(mvcc::fingerprint(&db.view())?)).await
    }

    /// Creates a lease; returns how long it lives without a keep-alive.
    pub async fn lease_grant(&self, id: LeaseId, ttl_ms: u64) -> Result<u64, StoreError> {
        self::ttl_ms(self.inner.lease_grant(id, ttl_ms).await)
    }

    /// Lets a lease live for its whole time to live again; returns how long that is.
    pub async fn lease_keep_alive(&self, id: LeaseId) -> Result<u64, StoreError> {
        ttl_ms(self.inner.lease_keep_alive(id).await)
    }

    /// Ends a lease and deletes its keys.
    pub async fn lease_revoke(&self, id: LeaseId) -> Result<(), StoreError> {
        let revoked = self.inner.propose(Command::LeaseRevoke { id }).await;
        revoked.map(|_| ())
    }

    /// How a lease is, by the leader's clock; None when there is none of that id.
    pub async fn lease_life(
        &self,
        id: LeaseId,
        with_keys: bool,
    ) -> Result<Option<LeaseLife>, StoreError> {
        self.inner.barrier().await?;
        let found = self.inner.read_lease(id, with_keys)?;
        let Some((lease, keys)) = found else {
            return Ok(None);
        };
        let now_ms = self.inner.leader_lease_clock_ms().await?;
        Ok(Some(LeaseLife {
            ttl_ms: lease.ttl_ms,
            remaining_ms: remaining_ms(lease.ends_ms, now_ms),
            keys,
        }))
    }

    /// Every lease.
    pub async fn leases(&self) -> Result<Vec<Lease>, StoreError> {
        self.inner.barrier().await?;
        let db = self.inner.db.clone();
        in_background(move || Ok(mvcc::leases(&db.view())?)).await
    }

    /// Waits until this member has deleted all history that is compacted.
    pub async fn wait_swept(&self) -> Result<(), StoreError> {
        loop {
            let db = self.inner.db.clone();
            let is_swept = in_background(move || {
                let view = db.view();
                Ok(!mvcc::needs_sweep(&mvcc::Overlay::new(&view)?))
            });
            if is_swept.await? {
                return Ok(());
            }
            tokio::time::sleep(SWEPT_LOOK).await;
        }
    }

    /// How this member is; asks nobody.
    pub fn local_status(&self) -> LocalStatus {
        let inner = &self.inner;
        let metrics = inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let applied = *inner.applied.borrow();
        LocalStatus {
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            applied_index: applied.log_id.map_or(0, |log_id| log_id.index),
            revision: applied.revision,
            db_size_bytes: inner.db.size_bytes(),
            is_full: inner.space.is_full(),
        }
    }
}

impl RaftStore {
    /// Whether a leader was heard lately: this member, confirmed by a quorum, or another one whose appends arrive.
    pub async fn hears_leader(&self) -> bool {
        self.inner.hears_leader().await
    }
}

impl Inner {
    /// As [`RaftStore::hears_leader`].
    pub async fn hears_leader(&self) -> bool {
        let Some(leader) = self.raft.current_leader().await else {
            return false;
        };
        if leader == self.identity.member_id {
            return has_quorum(self);
        }
        let heard = self
            .raft
            .with_raft_state(|state| state.vote_last_modified())
            .await;
        let silence_max = self.config.timings.election_max * SILENT_ELECTIONS;
        heard.is_ok_and(|heard| heard.is_some_and(|heard| heard.elapsed() < silence_max))
    }

    fn read_lease(
        &self,
        id: LeaseId,
        with_keys: bool,
    ) -> Result<Option<(Lease, Vec<Bytes>)>, StoreError> {
        let view = self.db.view();
        let read = || {
            let Some(lease) = mvcc::lease(&view, id)? else {
                return Ok(None);
            };
            let keys = match with_keys {
                true => mvcc::lease_keys(&view, id)?,
                false => vec![],
            };
            Ok(Some((lease, keys)))
        };
        read().map_err(refused)
    }
}
