//! The state machine: applies committed entries to the tables, answers who proposed them, and tells the watchers.
//!
//! Many entries go into one write, together with the index up to which they are applied. That write is not synced: it stands
//! behind its entries in the same write-ahead log, and entries are synced before they are acknowledged. It asks no clock and
//! decides nothing: what a command does is said by `mvcc::apply`.

mod install;
mod own;
mod snapshot;

pub use install::InstallError;
pub use own::OwnRecords;
pub use snapshot::{Builder, SnapshotData};

use crate::damage;
use crate::db::{Db, WriteBatch};
use crate::metrics::Metrics;
use crate::runtime;
use crate::stages::Stage;
use crate::types::{LogId, MemberId, Replies, SnapshotMeta, StoredMembership, TypeConfig, term_of};
use crate::work::WorkDone;
use futures::{Stream, StreamExt};
use mvcc::planted::{self, Bug};
use mvcc::{Batch, Event, Hub, Meta, Overlay, TablesError};
use objects::{Revision, Term};
use openraft::EntryPayload;
use openraft::OptionalSend;
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio::time::Instant;

/// Entries that go into one write at most; beyond that their clients would wait for each other.
const BATCH_ENTRIES_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Changes of old history that one slice of sweeping looks at: entries wait for it, so it must stay short.
const SWEEP_CHANGES: usize = 200;

/// How far the local replica is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The last entry applied.
    pub log_id: Option<LogId>,
    /// The revision of the state.
    pub revision: Revision,
}

/// The state machine of one member.
pub struct StateMachine {
    db: Arc<Db>,
    cluster_id: String,
    tmp_dir: PathBuf,
    own: OwnRecords,
    snapshot: Arc<Mutex<Option<SnapshotMeta>>>,
    applied: watch::Sender<Applied>,
    hub: Hub,
    metrics: Arc<Metrics>,
}

/// An entry's replies that wait for the write.
type Waiting = (ApplyResponder<TypeConfig>, Replies);

impl StateMachine {
    /// The state machine over the tables of `db`; snapshots that arrive are put together in `tmp_dir`.
    pub fn open(
        db: Arc<Db>,
        cluster_id: String,
        tmp_dir: PathBuf,
        hub: Hub,
        metrics: Arc<Metrics>,
    ) -> Result<Self, TablesError> {
        let view = db.live();
        let own = OwnRecords::load(&view)?;
        let revision = Meta::load(&view)?.revision;
        drop(view);
        let (applied, _) = watch::channel(Applied {
            log_id: own.applied,
            revision,
        });
        Ok(StateMachine {
            db,
            cluster_id,
            tmp_dir,
            own,
            snapshot: Arc::default(),
            applied,
            hub,
            metrics,
        })
    }

    /// Tells of each change of how far the replica is.
    pub fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    /// The largest id that any member ever had.
    pub fn member_id_max(&self) -> u64 {
        self.own.member_id_max
    }

    /// Whether a member of this id was there and is no more, for good.
    pub fn is_removed(&self, id: MemberId) -> bool {
        let mut members = self.own.membership.nodes();
        let is_member = members.any(|(member, _)| *member == id);
        id <= self.own.member_id_max && !is_member
    }

    /// Deletes a slice of the history that was compacted; returns whether all is done.
    pub fn sweep(&mut self) -> io::Result<bool> {
        let view = self.db.live();
        let mut overlay = Overlay::new(&view).map_err(io::Error::other)?;
        if !mvcc::needs_sweep(&overlay) {
            return Ok(true);
        }
        let is_done = mvcc::sweep(&mut overlay, SWEEP_CHANGES).map_err(io::Error::other)?;
        let mut batch = WriteBatch::default();
        self.db.add_writes(&mut batch, overlay.into_writes());
        self.db.write_state(batch).map_err(io::Error::other)?;
        Ok(is_done)
    }

    async fn apply_all<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut some = Vec::new();
        let mut bytes = 0;
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            if let EntryPayload::Normal(payload) = &entry.payload {
                bytes += payload.0.len();
            }
            some.push((entry, responder));
            if some.len() >= BATCH_ENTRIES_MAX || bytes >= BATCH_BYTES_MAX {
                self.apply_some(std::mem::take(&mut some))?;
                bytes = 0;
            }
        }
        match some.is_empty() {
            true => Ok(()),
            false => self.apply_some(some),
        }
    }

    /// Applies some entries as one write.
    fn apply_some(&mut self, entries: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let began = Instant::now();
        if let Some((last, _)) = entries.last() {
            self.metrics.stages.committed(last.log_id.index);
        }
        let view = self.db.live();
        let mut overlay = Overlay::new(&view).map_err(io::Error::other)?;
        let mut events = Vec::new();
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut done = WorkDone::default();
        for (entry, responder) in entries {
            let replies = match entry.payload {
                EntryPayload::Blank => Replies::default(),
                EntryPayload::Membership(membership) => {
                    self.own
                        .set_membership(StoredMembership::new(Some(entry.log_id), membership));
                    Replies::default()
                }
                EntryPayload::Normal(payload) => {
                    let batches = Batch::decode_all(&payload.0).map_err(io::Error::other)?;
                    let mut replies = Replies::default();
                    for batch in &batches {
                        if planted::strikes(Bug::DoubleApply) {
                            apply_batch(&mut overlay, &entry.log_id, batch, &mut events)?;
                        }
                        let Replies(own) =
                            apply_batch(&mut overlay, &entry.log_id, batch, &mut events)?;
                        done.note(batch, &own);
                        replies.0.extend(own);
                    }
                    replies
                }
            };
            self.own.applied = Some(entry.log_id);
            waiting.extend(responder.map(|responder| (responder, replies)));
        }
        self.own.store(&mut overlay);
        let Meta {
            revision,
            compacted,
            ..
        } = *overlay.meta();
        let mut batch = WriteBatch::default();
        self.db.add_writes(&mut batch, overlay.into_writes());
        let writing = Instant::now();
        self.db.write_state(batch).map_err(io::Error::other)?;
        self.metrics.committed(writing.elapsed());
        done.note_events(&events);
        self.metrics.work.add(&done);
        self.metrics.stages.passed(Stage::Apply, began.elapsed());
        match events.is_empty() && revision > self.applied.borrow().revision {
            // The revision was raised: nobody who knows an older one can go on from it.
            true => self.hub.reset(revision, compacted),
            false => self.hub.publish(revision, events),
        }
        self.hub.compacted(compacted);
        self.applied.send_replace(Applied {
            log_id: self.own.applied,
            revision,
        });
        for (responder, replies) in waiting {
            responder.send(replies);
        }
        Ok(())
    }
}

fn apply_batch<T: mvcc::Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    log_id: &LogId,
    batch: &Batch,
    events: &mut Vec<Arc<Event>>,
) -> io::Result<Replies> {
    let at = mvcc::Applied {
        index: log_id.index,
        term: Term(term_of(log_id)),
    };
    let outcomes = mvcc::apply_batch(overlay, at, batch).map_err(io::Error::other)?;
    let mut replies = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        events.extend(outcome.events);
        replies.push(outcome.reply);
    }
    Ok(Replies(replies))
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.own.applied, self.own.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let applied = self.apply_all(entries).await;
        if let Err(err) = &applied
            && let Some(err) = err
                .get_ref()
                .and_then(|err| err.downcast_ref::<TablesError>())
            && damage::is_damaged_state(err)
        {
            self.db.damaged(err);
        }
        applied
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let meta = SnapshotMeta {
            last_log_id: self.own.applied,
            last_membership: self.own.membership.clone(),
        };
        Builder::new(meta, self.db.clone(), self.snapshot.clone())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let metrics = self.metrics.clone();
        let _installing = metrics.installing();
        let (db, tmp_dir, cluster_id) = (
            self.db.clone(),
            self.tmp_dir.clone(),
            self.cluster_id.clone(),
        );
        let installed =
            runtime::spawn_blocking(move || install::install(&db, snapshot, &cluster_id, &tmp_dir))
                .await
                .map_err(io::Error::other)?
                .map_err(io::Error::other)?;
        tracing::info!(revision = %installed.revision, "the state was replaced by a snapshot of the leader's");
        self.own = installed.own;
        *self.snapshot.lock().expect("no holder of the lock panics") = Some(meta.clone());
        self.hub.reset(installed.revision, installed.compacted);
        self.applied.send_replace(Applied {
            log_id: self.own.applied,
            revision: installed.revision,
        });
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::alias::SmSnapshotOf<TypeConfig, Self>>, io::Error> {
        let meta = self
            .snapshot
            .lock()
            .expect("no holder of the lock panics")
            .clone();
        Ok(meta.map(|meta| openraft::Snapshot {
            meta,
            snapshot: SnapshotData::Live(self.db.clone()),
        }))
    }
}
