//! The versions of one key, the newest first: what it was, when, and who made it so.
//!
//! Only what every member surely has is told: the version that the oldest kept revision shows, and all after it. What lies before
//! may be swept already, or not.

use crate::meta::Meta;
use crate::notes::{self, Author};
use crate::past;
use crate::read::ReadError;
use crate::record::{Version, version_key};
use crate::store::KeyValue;
use crate::tables::{Table, Tables, try_scan};
use bytes::Bytes;
use objects::Revision;
use std::ops::{Bound, ControlFlow};

/// Which versions of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionsRequest {
    /// The key.
    pub key: Bytes,
    /// Only those before this revision; None from the newest on.
    pub before: Option<Revision>,
    /// At most so many.
    pub limit: usize,
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVersion {
    /// The revision that made it.
    pub revision: Revision,
    /// The key as it was then; None when it was deleted.
    pub kv: Option<KeyValue>,
    /// Who did it, when that was noted.
    pub author: Option<Author>,
    /// When, in milliseconds since 1970, as [`notes::time_of`] tells it.
    pub at_ms: Option<u64>,
}

/// Some versions of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyVersions {
    /// The newest first.
    pub versions: Vec<KeyVersion>,
    /// Whether older ones are kept, beyond the limit.
    pub more: bool,
}

/// The versions of a key, the newest first.
pub fn versions<T: Tables + ?Sized>(
    tables: &T,
    request: &VersionsRequest,
) -> Result<KeyVersions, ReadError> {
    let compacted = Meta::load(tables)?.compacted;
    let before = request.before.unwrap_or(Revision(u64::MAX));
    let start = version_key(&request.key, Revision(0));
    let end = version_key(&request.key, before);
    let bounds = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
    let mut rows = vec![];
    let mut more = false;
    try_scan(tables, Table::Versions, bounds, true, |row, value| {
        let version = Version::read(row, value)?.1;
        // A delete before the line leaves nothing that the line shows.
        if version.is_delete && version.revision < compacted {
            return Ok(ControlFlow::Break(()));
        }
        if rows.len() == request.limit {
            more = true;
            return Ok(ControlFlow::Break(()));
        }
        rows.push(version);
        Ok(match version.revision <= compacted {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    })?;
    let read = |version: Version| -> Result<KeyVersion, ReadError> {
        let revision = version.revision;
        let kv = match version.is_delete {
            true => None,
            false => Some(past::record(tables, version)?.kv),
        };
        Ok(KeyVersion {
            revision,
            kv,
            author: notes::author(tables, revision)?,
            at_ms: notes::time_of(tables, revision)?,
        })
    };
    Ok(KeyVersions {
        versions: rows.into_iter().map(read).collect::<Result<_, _>>()?,
        more,
    })
}
