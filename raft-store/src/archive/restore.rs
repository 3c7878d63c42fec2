//! Makes a new cluster of an archive: one member, a new identity, and a revision far beyond any that was known before.

use super::{ArchiveError, Header, Part, Reader};
use crate::db::{Db, EngineError, WriteBatch};
use crate::identity::{Identity, IdentityError};
use crate::state::OwnRecords;
use crate::types::{Membership, Node, StoredMembership, log_id, term_of};
use bytes::Bytes;
use mvcc::{Meta, Overlay, Table, TablesError, Write};
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

/// Fills the new folder `data_dir` for the member `name` of the new cluster `cluster_id`. A damaged archive leaves no usable
/// folder behind: the identity is written last. Returns what the archive held, and the caller's own bytes in it.
pub fn restore<R: Read>(
    archive: R,
    data_dir: &Path,
    cluster_id: &str,
    node: Node,
) -> Result<(Header, Option<Bytes>), RestoreError> {
    let mut reader = Reader::new(archive)?;
    if reader.header().cluster_id == cluster_id {
        return Err(RestoreError::SameCluster(cluster_id.to_owned()));
    }
    prepare(data_dir)?;
    let db = Db::open(&crate::identity::db_dir(data_dir))?;
    let mut extra = None;
    while let Some(part) = reader.next_part()? {
        match part {
            Part::Extra(bytes) => extra = Some(bytes),
            Part::Block(table, records) => fill(&db, table, records)?,
        }
    }
    let header = reader.header().clone();
    let member_id = header.member_id_max + 1;
    begin_anew(&db, &header, member_id, node.clone())?;
    db.sync()?;
    Identity::new(cluster_id, member_id, &node.name).store(data_dir)?;
    Ok((header, extra))
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

/// Raises the revision and makes the new member the only one, as of one entry after the archive's last.
fn begin_anew(db: &Db, header: &Header, member_id: u64, node: Node) -> Result<(), RestoreError> {
    let (term, index) = header
        .applied
        .map_or((1, 0), |applied| (term_of(&applied), applied.index));
    let applied = Some(log_id(term, index + 1));
    let membership = Membership::new(
        vec![BTreeSet::from([member_id])],
        BTreeMap::from([(member_id, node)]),
    )
    .expect("the only voter is the only node");
    let view = db.live();
    let mut overlay = Overlay::new(&view)?;
    mvcc::raise_revision(&mut overlay, mvcc::RESTORE_RAISES_BY);
    OwnRecords::new(
        applied,
        StoredMembership::new(applied, membership),
        member_id,
    )
    .store(&mut overlay);
    let mut batch = WriteBatch::default();
    db.add_writes(&mut batch, overlay.into_writes());
    db.write(batch)?;
    debug_assert!(Meta::load(&db.live())?.revision > header.revision);
    Ok(())
}
