//! Makes a new cluster of an archive: one member, a new identity, and a revision far beyond any that was known before.

use super::{ArchiveError, Header, Part, Reader, StateKey, TableSum, sums_of};
use crate::db::{Db, EngineError, Family, WriteBatch};
use crate::identity::{Identity, IdentityError};
use crate::log::VOTE_KEY;
use crate::state::OwnRecords;
use crate::types::{LogId, MemberId, Membership, Node, StoredMembership, Vote, log_id, term_of};
use bytes::Bytes;
use mvcc::{Overlay, Table, TablesError, Write};
use objects::Revision;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The archive cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The folder holds something.
    #[error("{0} is not empty; restore into a new folder")]
    NotEmpty(String),
    /// The folder cannot be used.
    #[error("the folder {path} cannot be used")]
    Folder {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The new cluster would look like the old one to its members.
    #[error(
        "a restored cluster needs a new id; {0} is the id of the cluster that the archive was taken from"
    )]
    SameCluster(String),
    /// What was restored is not what was saved.
    #[error(
        "the restored table {0:?} is not the one that was saved; take another copy of the archive, and check the disk that was restored to"
    )]
    Differs(String),
    /// The records are there, but not the new beginning.
    #[error(
        "the restored store does not begin a new cluster; this is a fault of the program, please report it"
    )]
    NotBegun,
    /// The identity cannot be written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The database failed.
    #[error("the database cannot be written")]
    Database(#[from] EngineError),
    /// The state cannot be read back.
    #[error("the restored state cannot be read back")]
    State(#[from] TablesError),
}

/// What became of an archive.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the archive held.
    pub header: Header,
    /// The caller's own bytes in it.
    pub extra: Option<Bytes>,
    /// The new member's id.
    pub member_id: MemberId,
    /// The new cluster's revision.
    pub revision: Revision,
    /// The sums of the restored tables, as they were read back, before the new cluster began; those of the source where the archive
    /// tells them.
    pub sums: Vec<TableSum>,
    /// Whether the archive told the source's sums. Archives of format 1 do not.
    pub compared: bool,
}

/// Fills the new folder `data_dir` for the member of the new cluster `cluster_id` that `node` describes, and compares what its database
/// gives back with the sums of the source. `key` opens a state that is sealed. A damaged archive leaves no usable folder behind: the
/// identity is written last.
pub fn restore<R: Read>(
    archive: R,
    key: Option<&StateKey>,
    data_dir: &Path,
    cluster_id: &str,
    node: Node,
) -> Result<Restored, RestoreError> {
    let reader = reader_for(archive, key, cluster_id)?;
    prepare(data_dir)?;
    let db = Db::open(&crate::identity::db_dir(data_dir))?;
    let restored = fill_all(reader, &db, node.clone())?;
    Identity::new(cluster_id, restored.member_id, &node.name).store(data_dir)?;
    Ok(restored)
}

/// The same, of a state that is not sealed, into an empty database that lies in no folder.
pub fn restore_into<R: Read>(
    archive: R,
    db: &Db,
    cluster_id: &str,
    node: Node,
) -> Result<Restored, RestoreError> {
    fill_all(reader_for(archive, None, cluster_id)?, db, node)
}

fn reader_for<R: Read>(
    archive: R,
    key: Option<&StateKey>,
    cluster_id: &str,
) -> Result<Reader<R>, RestoreError> {
    let mut reader = Reader::new(archive)?;
    reader.unlock(key)?;
    match reader.header().cluster_id == cluster_id {
        true => Err(RestoreError::SameCluster(cluster_id.to_owned())),
        false => Ok(reader),
    }
}

fn fill_all<R: Read>(mut reader: Reader<R>, db: &Db, node: Node) -> Result<Restored, RestoreError> {
    let (mut extra, mut source) = (None, None);
    while let Some(part) = reader.next_part()? {
        match part {
            Part::Extra(bytes) => extra = Some(bytes),
            Part::Sums(sums) => source = Some(sums),
            Part::Block(table, records) => fill(db, table, records)?,
            Part::Sealed => return Err(ArchiveError::Sealed.into()),
        }
    }
    let sums = sums_of(&db.live())?;
    if let Some(source) = &source {
        compare(source, &sums)?;
    }
    let header = reader.header().clone();
    let member_id = header.member_id_max + 1;
    let revision = begin_anew(db, header.applied, 0, member_id, node)?;
    db.sync()?;
    Ok(Restored {
        header,
        extra,
        member_id,
        revision,
        sums,
        compared: source.is_some(),
    })
}

/// Finds the first table that is not as it was at the source.
fn compare(source: &[TableSum], restored: &[TableSum]) -> Result<(), RestoreError> {
    let differs = |there: &&TableSum| !restored.contains(there);
    let missing = |here: &&TableSum| !source.iter().any(|there| there.table == here.table);
    let other = source
        .iter()
        .find(differs)
        .or_else(|| restored.iter().find(missing));
    match other {
        None => Ok(()),
        Some(TableSum { table, .. }) => Err(RestoreError::Differs(table.clone())),
    }
}

fn prepare(data_dir: &Path) -> Result<(), RestoreError> {
    let folder = |source| RestoreError::Folder {
        path: data_dir.display().to_string(),
        source,
    };
    std::fs::create_dir_all(data_dir).map_err(folder)?;
    let mut entries = std::fs::read_dir(data_dir).map_err(folder)?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(RestoreError::NotEmpty(data_dir.display().to_string())),
    }
}

fn fill(db: &Db, table: Table, records: Vec<(Bytes, Bytes)>) -> Result<(), EngineError> {
    let mut batch = WriteBatch::default();
    let writes = records.into_iter().map(|(key, value)| Write {
        table,
        key,
        value: Some(value),
    });
    db.add_writes(&mut batch, writes.collect());
    db.write(batch)
}

/// Raises the revision and makes the new member the only one, as of one entry after the last one applied; the log is empty then.
/// The vote is in no earlier term than that entry or `vote_term`, so that terms only grow. Returns the new revision.
pub(crate) fn begin_anew(
    db: &Db,
    applied: Option<LogId>,
    vote_term: u64,
    member_id: MemberId,
    node: Node,
) -> Result<Revision, RestoreError> {
    let (term, index) = applied.map_or((1, 0), |applied| (term_of(&applied), applied.index));
    let applied = Some(log_id(term, index + 1));
    let membership = Membership::new(
        vec![BTreeSet::from([member_id])],
        BTreeMap::from([(member_id, node)]),
    )
    .expect("the only voter is the only node");
    let view = db.live();
    let mut overlay = Overlay::new(&view)?;
    let revision = mvcc::raise_revision(&mut overlay, mvcc::RESTORE_RAISES_BY);
    OwnRecords::new(
        applied,
        StoredMembership::new(applied, membership),
        member_id,
    )
    .store(&mut overlay);
    let mut batch = WriteBatch::default();
    db.add_writes(&mut batch, overlay.into_writes());
    crate::log::clear(&mut batch);
    let vote = Vote::new(term.max(vote_term), member_id);
    batch.put(
        Family::Own,
        VOTE_KEY,
        serde_json::to_vec(&vote).expect("a vote is plain numbers"),
    );
    db.write(batch)?;
    Ok(revision)
}
