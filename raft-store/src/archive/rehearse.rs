//! Proves an archive by restoring it for real: into a scratch folder, by the same code as a restore, and read back from there.
//!
//! Never touches any other folder; what it made is gone when it returns. The keys of the caller
//! are not opened; of them it needs no more than what opens the state, where that is sealed.

use super::{RestoreError, Restored, StateKey, restore};
use crate::db::Db;
use crate::identity::db_dir;
use crate::state::OwnRecords;
use crate::types::Node;
use mvcc::{Meta, Table, Tables};
use std::io::Read;
use std::ops::{Bound, ControlFlow};
use std::path::Path;

/// The id of the scratch cluster; no real one has it, since those are UUIDs.
const SCRATCH_CLUSTER: &str = "rehearsal";

/// What a rehearsal found; that there is one says that all checks were good.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// What was restored.
    pub restored: Restored,
    /// Keys that exist at its revision.
    pub keys: u64,
}

/// Restores the archive into a folder within `scratch` and looks at the result as a member would when it starts: the records are the
/// saved ones, whoever knows an older revision will be told so, and the new member votes alone. `each_key` sees every key that exists.
pub fn rehearse<R: Read>(
    archive: R,
    key: Option<&StateKey>,
    scratch: &Path,
    each_key: &mut dyn FnMut(&[u8]),
) -> Result<Rehearsal, RestoreError> {
    let folder = |source| RestoreError::Folder {
        path: scratch.display().to_string(),
        source,
    };
    std::fs::create_dir_all(scratch).map_err(folder)?;
    let scratch = tempfile::tempdir_in(scratch).map_err(folder)?;
    let data_dir = scratch.path().join("store");
    let restored = restore(archive, key, &data_dir, SCRATCH_CLUSTER, Node::default())?;
    let db = Db::open(&db_dir(&data_dir))?;
    let view = db.live();
    let (meta, own) = (Meta::load(&view)?, OwnRecords::load(&view)?);
    let alone = own.membership.voter_ids().eq([restored.member_id]);
    if meta.revision != restored.revision || meta.compacted != restored.revision || !alone {
        return Err(RestoreError::NotBegun);
    }
    let mut keys = 0;
    view.scan(
        Table::Latest,
        Bound::Unbounded,
        Bound::Unbounded,
        false,
        &mut |key, _| {
            keys += 1;
            each_key(key);
            ControlFlow::Continue(())
        },
    )?;
    Ok(Rehearsal { restored, keys })
}
