//! What a member tells of itself in numbers: for `/metrics`, which anybody's Prometheus reads, and for `ctl status`.

use crate::histogram::Distribution;
use crate::net::PeerFigures;
use crate::runtime;
use crate::store::{Inner, RaftStore};
use crate::types::MemberId;
use crate::work::WorkDone;
use mvcc::Meta;
use objects::cluster::MemberFigures;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::collections::BTreeMap;

/// A member's numbers at one moment. Counters begin with the process.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Whether it leads.
    pub is_leader: bool,
    /// Whether it knows a leader.
    pub has_leader: bool,
    /// Whether it only learns.
    pub is_learner: bool,
    /// How often another leader was seen.
    pub leader_changes: u64,
    /// Commands that wait for their reply.
    pub proposals_pending: u64,
    /// Commands that failed, or whose outcome is unknown.
    pub proposals_failed: u64,
    /// Commands that this member's clients proposed.
    pub proposals: u64,
    /// Raft entries into which they went.
    pub entries: u64,
    /// The last index that a quorum has.
    pub committed_index: u64,
    /// The last index applied.
    pub applied_index: u64,
    /// Writes of the state that took longer than they should.
    pub slow_applies: u64,
    /// How long writing the log took, its fsync included.
    pub fsync: Distribution,
    /// How long writing applied entries to the state took.
    pub commit: Distribution,
    /// Watches.
    pub watchers: u64,
    /// Watches that are behind and read history.
    pub slow_watchers: u64,
    /// The store's revision.
    pub revision: u64,
    /// The oldest revision that can be read.
    pub compacted_revision: u64,
    /// Bytes of changes since then.
    pub history_bytes: u64,
    /// Bytes of the database's files.
    pub db_bytes: u64,
    /// Bytes of them that hold something that is still there, as far as RocksDB knows.
    pub db_live_bytes: u64,
    /// The bytes at which writes are refused for want of room on the disk.
    pub db_bytes_max: u64,
    /// What went to and came from each other member that this one spoke with.
    pub peers: BTreeMap<MemberId, PeerFigures>,
    /// Bytes of the log's entries.
    pub log_bytes: u64,
    /// What the commands that it applied came to, and what it read.
    pub work: WorkDone,
    /// How many keys exist, as RocksDB estimates.
    pub keys: Option<u64>,
    /// Changes that wait for their live watchers.
    pub pending_events: u64,
    /// Snapshots of the leader's that take the state's place just now.
    pub snapshots_installing: u64,
    /// How long it took to write the state as an archive.
    pub archives: Distribution,
    /// How long it took to hash the state.
    pub hashes: Distribution,
}

impl RaftStore {
    /// This member's numbers. Waits for nothing but the local disk.
    pub async fn figures(&self) -> Figures {
        let inner = self.inner.clone();
        let counted = runtime::spawn_blocking(move || figures(&inner)).await;
        counted.unwrap_or_default() // A task that was cancelled: the member stops.
    }
}

/// This member's numbers.
pub(crate) fn figures(inner: &Inner) -> Figures {
    // Let go of at once: the consensus waits while its numbers are looked at.
    let (is_learner, committed) = {
        let raft = inner.raft.metrics();
        let raft = raft.borrow_watched();
        let is_learner = raft.state == openraft::ServerState::Learner;
        (is_learner, raft.local_committed)
    };
    let counted = inner.metrics.snapshot();
    let applied = *inner.applied.borrow();
    let leader = *inner.leader.borrow();
    let past = mvcc::past(&inner.db.view()).ok();
    let meta = Meta::load(&inner.db.live()).unwrap_or_default();
    let (db_bytes, db_live_bytes) = (inner.db.size_bytes(), inner.db.live_bytes());
    Figures {
        is_leader: leader.is_leader,
        has_leader: leader.has_leader,
        is_learner,
        leader_changes: counted.leader_changes,
        proposals_pending: counted.pending,
        proposals_failed: counted.failed,
        proposals: counted.proposals,
        entries: counted.entries,
        committed_index: committed.map_or(0, |log_id| log_id.index),
        applied_index: applied.log_id.map_or(0, |log_id| log_id.index),
        slow_applies: counted.slow_applies,
        fsync: counted.fsync,
        commit: counted.commit,
        watchers: inner.hub.watches() as u64,
        slow_watchers: inner.hub.watches().saturating_sub(inner.hub.watchers()) as u64,
        revision: meta.revision.0,
        compacted_revision: meta.compacted.0,
        history_bytes: past.map_or(0, |past| past.bytes),
        db_bytes,
        db_live_bytes,
        db_bytes_max: inner.space.db_bytes_max(&inner.config, db_bytes),
        peers: inner.peers.traffic().figures(),
        log_bytes: inner.log.bytes(),
        work: inner.metrics.work.done(),
        keys: inner.db.keys(),
        pending_events: inner.hub.pending_events() as u64,
        snapshots_installing: inner.metrics.snapshots_installing(),
        archives: inner.metrics.archives.distribution(),
        hashes: inner.metrics.hashes.distribution(),
    }
}

impl Figures {
    /// Those that `ctl status` shows.
    pub fn told(&self) -> MemberFigures {
        MemberFigures {
            fsync_p50_us: self.fsync.quantile_us(0.5),
            fsync_p99_us: self.fsync.quantile_us(0.99),
            commit_p50_us: self.commit.quantile_us(0.5),
            commit_p99_us: self.commit.quantile_us(0.99),
            proposals_pending: self.proposals_pending,
            proposals_failed: self.proposals_failed,
            leader_changes: self.leader_changes,
            slow_applies: self.slow_applies,
            watchers: self.watchers,
            slow_watchers: self.slow_watchers,
            db_live_bytes: self.db_live_bytes,
            db_bytes_max: self.db_bytes_max,
            log_bytes: self.log_bytes,
        }
    }
}
