//! Forgetting history: a compaction is decided at once, by a command, and cleaned up in slices.
//!
//! A command only moves the line below which nothing can be read. What lies below it is then deleted by [`sweep`], a bounded
//! slice at a time, by each member for itself: it changes nothing that can be read, so members need not keep step.

use crate::command::{Done, Reply};
use crate::notes;
use crate::overlay::Overlay;
use crate::past;
use crate::record::{Header, Version, history_key, parse_history_key, version_key};
use crate::store::StoreError;
use crate::tables::{Table, Tables, TablesError, try_scan};
use objects::Revision;
use std::ops::{Bound, ControlFlow};

/// How far a restore moves the revision: further than any cluster gets in the life of a watcher's cache.
pub const RESTORE_RAISES_BY: u64 = 1_000_000_000;

/// Makes `revision` the oldest that can be read. As in etcd, a revision that was compacted before is refused.
pub(crate) fn compact<T: Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    revision: Revision,
) -> Reply {
    let meta = overlay.meta_mut();
    if revision > meta.revision {
        return Err(StoreError::FutureRevision {
            requested: revision,
            current: meta.revision,
        });
    }
    if revision <= meta.compacted {
        return Err(StoreError::Compacted {
            requested: revision,
            oldest: meta.compacted,
        });
    }
    meta.compacted = revision;
    Ok(Done::Compacted(revision))
}

/// Moves the revision forward by `by` and forgets all history, so that a watch or read at any revision known before is
/// answered with `Compacted` and never with silence. Returns the new revision.
pub fn raise_revision<T: Tables + ?Sized>(overlay: &mut Overlay<'_, T>, by: u64) -> Revision {
    let meta = overlay.meta_mut();
    meta.revision = Revision(meta.revision.0.saturating_add(by));
    meta.compacted = meta.revision;
    meta.revision
}

/// Whether there is history left to be deleted by [`sweep`].
pub fn needs_sweep<T: Tables + ?Sized>(overlay: &Overlay<'_, T>) -> bool {
    overlay.meta().swept < (overlay.meta().compacted, 0)
}

/// Deletes what only revisions before the compacted one need, looking at no more than `changes_max` changes. Returns
/// whether all is done. Its cost is that of the changes between two compactions, not that of the store.
pub fn sweep<T: Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    changes_max: usize,
) -> Result<bool, TablesError> {
    if !needs_sweep(overlay) {
        return Ok(true);
    }
    let compacted = overlay.meta().compacted;
    let changes = changes_to_sweep(overlay, compacted, changes_max)?;
    for change in &changes {
        if let Some(before) = past::version_before(overlay, &change.key, change.version.revision)? {
            delete_version(overlay, &change.key, before)?;
        }
        if change.version.is_delete {
            delete_version(overlay, &change.key, change.version)?;
        }
    }
    let is_done =
        changes.len() < changes_max && notes::drop_samples(overlay, changes_max - changes.len())?;
    match (is_done, changes.last()) {
        (true, _) => overlay.meta_mut().swept = (compacted, 0),
        (false, Some(Sweepable { version, .. })) => {
            overlay.meta_mut().swept = (version.revision, version.sub + 1);
        }
        (false, None) => {}
    }
    Ok(is_done)
}

/// A change below the line: the version before it of the same key can go. There is one at most, since changes are swept in
/// their order: each took away the one before it. Looking for more would walk over all that a much changed key left behind.
struct Sweepable {
    key: Vec<u8>,
    version: Version,
}

fn changes_to_sweep<T: Tables + ?Sized>(
    overlay: &Overlay<'_, T>,
    compacted: Revision,
    changes_max: usize,
) -> Result<Vec<Sweepable>, TablesError> {
    let (from, from_sub) = overlay.meta().swept;
    let (start, end) = (history_key(from, from_sub), history_key(compacted, 0));
    let bounds = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
    let mut changes = vec![];
    try_scan(overlay, Table::History, bounds, false, |row, record| {
        if changes.len() == changes_max {
            return Ok(ControlFlow::Break(()));
        }
        changes.push(read_sweepable(row, record)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(changes)
}

fn read_sweepable(row: &[u8], record: &[u8]) -> Result<Sweepable, TablesError> {
    let (revision, sub) = parse_history_key(row)?;
    let header = Header::read(Table::History, row, record)?;
    let version = Version {
        revision,
        sub,
        is_delete: header.is_delete,
    };
    Ok(Sweepable {
        key: header.key(record).to_vec(),
        version,
    })
}

fn delete_version<T: Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    key: &[u8],
    version: Version,
) -> Result<(), TablesError> {
    overlay.delete(Table::History, version.history_key());
    overlay.delete(Table::Versions, version_key(key, version.revision).into());
    notes::drop_author(overlay, version.revision)
}
