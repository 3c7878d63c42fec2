//! A hash of what can be read up to a revision, by which members are compared.
//!
//! It covers exactly what a reader between the compacted revision and that one could see, never what merely is not swept
//! yet: so it is the same on every member that is compacted at the same revision, however far each has cleaned up.

use crate::meta::Meta;
use crate::past;
use crate::read::{ReadError, check_revision};
use crate::record::Version;
use crate::tables::{Table, Tables, TablesError, try_scan};
use objects::Revision;
use std::ops::{Bound, ControlFlow};

/// A hash and what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashAt {
    /// CRC-32C over the records, in the order of keys and revisions.
    pub hash: u32,
    /// The last revision that it covers.
    pub revision: Revision,
    /// The oldest that could be read; hashes with different ones cannot be compared.
    pub compacted: Revision,
}

/// The hash up to `revision`, or the newest one. Reads every version of every key.
pub fn hash_at<T: Tables + ?Sized>(
    tables: &T,
    revision: Option<Revision>,
) -> Result<HashAt, ReadError> {
    let Meta {
        revision: current,
        compacted,
        ..
    } = Meta::load(tables)?;
    let revision = revision.unwrap_or(current);
    check_revision(revision, current, compacted)?;
    let mut hash = Hash {
        tables,
        compacted,
        revision,
        crc: 0,
        oldest: None,
    };
    let mut key: Vec<u8> = vec![];
    let all = (Bound::Unbounded, Bound::Unbounded);
    try_scan(tables, Table::Versions, all, false, |row, value| {
        let (row_key, version) = Version::read(row, value)?;
        if key != row_key {
            hash.add_oldest()?;
            key.clear();
            key.extend_from_slice(row_key);
        }
        hash.add(version)?;
        Ok(ControlFlow::Continue(()))
    })?;
    hash.add_oldest()?;
    Ok(HashAt {
        hash: hash.crc,
        revision,
        compacted,
    })
}

struct Hash<'t, T: ?Sized> {
    tables: &'t T,
    compacted: Revision,
    revision: Revision,
    crc: u32,
    /// The last version of the key that is not later than the compacted revision: what a reader at that revision sees.
    oldest: Option<Version>,
}

impl<T: Tables + ?Sized> Hash<'_, T> {
    /// The next version of the key.
    fn add(&mut self, version: Version) -> Result<(), TablesError> {
        if version.revision <= self.compacted {
            self.oldest = Some(version);
            return Ok(());
        }
        self.add_oldest()?;
        match version.revision <= self.revision {
            true => self.add_record(version),
            false => Ok(()),
        }
    }

    /// No more versions of the key come that are not later than the compacted revision. One that deletes it shows nothing.
    fn add_oldest(&mut self) -> Result<(), TablesError> {
        match self.oldest.take().filter(|version| !version.is_delete) {
            Some(version) => self.add_record(version),
            None => Ok(()),
        }
    }

    fn add_record(&mut self, version: Version) -> Result<(), TablesError> {
        let record = past::record(self.tables, version)?.bytes;
        self.crc = crc32c::crc32c_append(self.crc, &(record.len() as u64).to_be_bytes());
        self.crc = crc32c::crc32c_append(self.crc, &record);
        Ok(())
    }
}
