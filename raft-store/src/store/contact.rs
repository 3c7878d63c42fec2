//! When this member last belonged to a majority: it heard a leader, or as leader a majority heard it. Kept on disk every few
//! seconds, so that a survivor of a lost majority can tell a person how old its state may be. Nothing is decided by it.

use super::Inner;
use crate::clock;
use crate::db::{Db, Family, WriteBatch};
use std::sync::atomic::{AtomicU64, Ordering};

const CONTACT_KEY: &[u8] = b"last-contact";

/// The last contact, by the wall clock.
#[derive(Debug, Default)]
pub(crate) struct Contact {
    heard_ms: AtomicU64,
    kept_ms: AtomicU64,
}

impl Contact {
    /// A leader was heard just now.
    pub fn heard(&self) {
        self.heard_ms.store(clock::now_ms(), Ordering::Relaxed);
    }
}

/// Notes it on disk when it changed. Not synced: it goes with the next write of the log.
pub(super) fn keep(inner: &Inner) {
    let contact = &inner.contact;
    let leads_a_quorum = inner.leader.borrow().is_leader;
    if leads_a_quorum {
        contact.heard();
    }
    let heard = contact.heard_ms.load(Ordering::Relaxed);
    if heard == contact.kept_ms.swap(heard, Ordering::Relaxed) {
        return;
    }
    let mut batch = WriteBatch::default();
    batch.put(Family::Own, CONTACT_KEY, heard.to_le_bytes().to_vec());
    if let Err(err) = inner.db.write(batch) {
        tracing::warn!(error = %err, "the time of the last contact cannot be noted");
    }
}

/// What was noted, in milliseconds since 1970.
pub(crate) fn last_contact_ms(db: &Db) -> Option<u64> {
    let bytes = db.own(CONTACT_KEY).ok()??;
    bytes[..].try_into().ok().map(u64::from_le_bytes)
}
