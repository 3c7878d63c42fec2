//! The store's own numbers: one record in [`Table::Meta`], written with the changes that moved them.

use crate::codec::{self, CodecError};
use crate::notes::HistoryLimits;
use crate::tables::{Table, Tables, TablesError};
use bytes::Bytes;
use objects::Revision;
use serde::{Deserialize, Serialize};

/// Under which key of [`Table::Meta`] the numbers stand.
const KEY: &[u8] = b"mvcc";

/// The revision of a store to which nothing was ever written, as in etcd: zero stays free to mean "none".
pub const FIRST_REVISION: Revision = Revision(1);

/// The store's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The last revision written.
    pub revision: Revision,
    /// The oldest revision that can be read; what only older ones need may be gone.
    pub compacted: Revision,
    /// The leases' time in milliseconds: the largest that any command brought. It never goes back.
    pub lease_clock_ms: u64,
    /// Up to where `compact::sweep` has cleaned history: all changes before this revision and sub are done.
    pub(crate) swept: (Revision, u32),
    /// The bytes of all changes that were ever written to history.
    pub written_bytes: u64,
    /// How much of the past is kept, if that was set.
    pub history_limits: Option<HistoryLimits>,
}

/// The numbers as they were written before history had a size: still read.
#[derive(Serialize, Deserialize)]
struct MetaWithoutSize {
    revision: Revision,
    compacted: Revision,
    lease_clock_ms: u64,
    swept: (Revision, u32),
}

impl Default for Meta {
    fn default() -> Self {
        Meta {
            revision: FIRST_REVISION,
            compacted: Revision(0),
            lease_clock_ms: 0,
            swept: (Revision(0), 0),
            written_bytes: 0,
            history_limits: None,
        }
    }
}

impl Meta {
    /// Reads the numbers; a store without any is empty.
    pub fn load<T: Tables + ?Sized>(tables: &T) -> Result<Meta, TablesError> {
        match tables.get(Table::Meta, KEY)? {
            None => Ok(Meta::default()),
            Some(frame) => Meta::decode(&frame).map_err(|source| TablesError::Record {
                table: Table::Meta,
                key: KEY.to_vec(),
                source,
            }),
        }
    }

    fn decode(frame: &[u8]) -> Result<Meta, CodecError> {
        let malformed = match codec::decode(frame) {
            Err(CodecError::Malformed(why)) => why,
            decoded => return decoded,
        };
        let MetaWithoutSize {
            revision,
            compacted,
            lease_clock_ms,
            swept,
        } = codec::decode(frame).map_err(|_| CodecError::Malformed(malformed))?;
        Ok(Meta {
            revision,
            compacted,
            lease_clock_ms,
            swept,
            ..Meta::default()
        })
    }

    /// The key and value that hold the numbers.
    pub(crate) fn record(&self) -> (Bytes, Bytes) {
        (
            Bytes::from_static(KEY),
            codec::encode(self).expect("a few numbers always fit a frame"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{MemTables, Write};

    #[test]
    fn the_numbers_of_an_earlier_version_are_read() {
        let before = MetaWithoutSize {
            revision: Revision(300),
            compacted: Revision(9),
            lease_clock_ms: 70_000,
            swept: (Revision(8), 1),
        };
        let mut tables = MemTables::default();
        tables.write([Write {
            table: Table::Meta,
            key: Bytes::from_static(KEY),
            value: Some(codec::encode(&before).unwrap()),
        }]);
        let meta = Meta::load(&tables).unwrap();
        assert_eq!(
            (meta.revision, meta.compacted),
            (Revision(300), Revision(9))
        );
        assert_eq!((meta.swept, meta.written_bytes), ((Revision(8), 1), 0));
        let (key, value) = meta.record();
        tables.write([Write {
            table: Table::Meta,
            key,
            value: Some(value),
        }]);
        assert_eq!(Meta::load(&tables).unwrap(), meta);
    }
}
