//! The store's own numbers: one record in [`Table::Meta`], written with the changes that moved them.

use crate::codec;
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
}

impl Default for Meta {
    fn default() -> Self {
        Meta {
            revision: FIRST_REVISION,
            compacted: Revision(0),
            lease_clock_ms: 0,
            swept: (Revision(0), 0),
        }
    }
}

impl Meta {
    /// Reads the numbers; a store without any is empty.
    pub fn load<T: Tables + ?Sized>(tables: &T) -> Result<Meta, TablesError> {
        match tables.get(Table::Meta, KEY)? {
            None => Ok(Meta::default()),
            Some(frame) => codec::decode(&frame).map_err(|source| TablesError::Record {
                table: Table::Meta,
                key: KEY.to_vec(),
                source,
            }),
        }
    }

    /// The key and value that hold the numbers.
    pub(crate) fn record(&self) -> (Bytes, Bytes) {
        (
            Bytes::from_static(KEY),
            codec::encode(self).expect("a few numbers always fit a frame"),
        )
    }
}
