//! What breaking some of the promises takes beyond a word at their place; see [`mvcc::planted`]. The environment variable
//! `TRIREME_PLANTED_BUG` chooses the bug when a member is opened.
#![cfg(feature = "planted-bugs")]

use crate::config::OpenError;
use crate::db::{Db, WriteBatch};
use crate::store::Inner;
use crate::types::{Payload, Replies, term_of};
use bytes::Bytes;
use mvcc::planted::{self, Bug};
use mvcc::{Batch, Meta, Overlay};
use objects::Term;

const VARIABLE: &str = "TRIREME_PLANTED_BUG";

/// By how much the revision is lower after a restart.
const LOWER_BY: u64 = 3;

/// Plants what the environment says, before a member is opened over `db`.
pub fn begin(db: &Db) -> Result<(), OpenError> {
    if let Ok(text) = std::env::var(VARIABLE) {
        let bug = planted::plant(&text)
            .map_err(|reason| OpenError::Settings(format!("{VARIABLE}: {reason}")))?;
        tracing::error!(bug = bug.name(), "this member breaks a promise on purpose");
    }
    if planted::is(Bug::RevisionLower) {
        lower_revision(db)?;
    }
    Ok(())
}

fn lower_revision(db: &Db) -> Result<(), OpenError> {
    let view = db.live();
    if Meta::load(&view)?.revision.0 <= LOWER_BY + 1 {
        return Ok(());
    }
    let mut overlay = Overlay::new(&view)?;
    planted::lower_revision(&mut overlay, LOWER_BY);
    let mut batch = WriteBatch::default();
    db.add_writes(&mut batch, overlay.into_writes());
    db.write(batch).map_err(|source| OpenError::Database {
        path: "the database".to_owned(),
        source,
    })
}

/// Answers a batch as it would be answered if it were committed now, and only then sees to that. None when that bug is not planted
/// or this member does not lead.
pub fn answer_early(inner: &Inner, batch: &Bytes) -> Option<Replies> {
    let state = *inner.leader.borrow();
    if !planted::is(Bug::AckBeforeCommit) || !state.is_leader {
        return None;
    }
    let commands = Batch::decode(batch).ok()?;
    let view = inner.db.live();
    let mut overlay = Overlay::new(&view).ok()?;
    let last = inner.applied.borrow().log_id?;
    let at = mvcc::Applied {
        index: last.index + 1,
        term: Term(term_of(&last)),
    };
    let outcomes = mvcc::apply_batch(&mut overlay, at, &commands).ok()?;
    let (raft, payload) = (inner.raft.clone(), Payload(batch.clone()));
    tokio::spawn(async move {
        // Whether it is ever committed is just what nobody waits for.
        let _ = raft.client_write(payload).await;
    });
    Some(Replies(
        outcomes.into_iter().map(|outcome| outcome.reply).collect(),
    ))
}
