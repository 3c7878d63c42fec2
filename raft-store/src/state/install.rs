//! Puts the content of an archive in the place of the state: into new tables, which become the state in one write.

use super::{OwnRecords, SnapshotData};
use crate::archive::{self, ArchiveError, Part, Reader};
use crate::db::{Db, EngineError, NextGeneration, WriteBatch};
use bytes::Bytes;
use mvcc::{Table, TablesError};
use objects::Revision;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

/// Why an archive was not installed; the state is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The archive cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The file of the archive cannot be opened.
    #[error("the received snapshot cannot be opened")]
    Open(#[source] std::io::Error),
    /// The database failed.
    #[error("the received snapshot cannot be written to the database")]
    Database(#[from] EngineError),
    /// The new state cannot be read.
    #[error("the received snapshot cannot be read back")]
    State(#[from] TablesError),
}

/// What the state is after an installation.
pub struct Installed {
    pub own: OwnRecords,
    pub revision: Revision,
    pub compacted: Revision,
}

/// Replaces the state of `db`.
pub fn install(
    db: &Db,
    snapshot: SnapshotData,
    cluster_id: &str,
    tmp_dir: &Path,
) -> Result<Installed, InstallError> {
    let path = match snapshot {
        SnapshotData::Received(path) => path,
        SnapshotData::Live(source) => {
            let file = tempfile::NamedTempFile::new_in(tmp_dir).map_err(InstallError::Open)?;
            archive::write(
                &source.view(),
                archive::Origin::transfer(cluster_id),
                BufWriter::new(file.as_file()),
            )?;
            file.into_temp_path()
        }
    };
    let file = File::open(&path).map_err(InstallError::Open)?;
    let mut reader = Reader::new(BufReader::with_capacity(1 << 20, file))?;
    reader.unlock(None)?;
    let next = db.next_generation()?;
    while let Some(part) = reader.next_part()? {
        if let Part::Block(table, records) = part {
            fill(db, &next, table, records)?;
        }
    }
    next.switch(WriteBatch::default())?;
    let view = db.live();
    let meta = mvcc::Meta::load(&view)?;
    Ok(Installed {
        own: OwnRecords::load(&view)?,
        revision: meta.revision,
        compacted: meta.compacted,
    })
}

fn fill(
    db: &Db,
    next: &NextGeneration<'_>,
    table: Table,
    records: Vec<(Bytes, Bytes)>,
) -> Result<(), EngineError> {
    let mut batch = WriteBatch::default();
    for (key, value) in records {
        next.put(&mut batch, table, key, value);
    }
    db.write(batch)
}
