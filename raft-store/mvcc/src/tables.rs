//! The tables under the store: ordered maps of bytes, which RocksDB's column families implement on disk and
//! [`MemTables`] in memory.
//!
//! This module knows no layout; what stands in a table is said by `record` and `meta`.

use crate::codec::CodecError;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

/// One ordered table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// The store's own numbers, and whatever its owner keeps beside them under keys of its own.
    Meta,
    /// key -> its record as it is now. A range of the newest state is one scan here.
    Latest,
    /// (revision, sub) -> the record of a change, put or delete. A watch from history is one scan here.
    History,
    /// (key, revision) -> where in `History` that version stands. A range at an old revision is one scan here.
    Versions,
    /// lease -> its time to live and when it ends.
    Leases,
    /// (lease, key) -> nothing: the keys that a lease holds.
    LeaseKeys,
    /// (kind, revision) -> when the revision was, or who wrote it.
    Notes,
}

impl Table {
    /// Every table, in the order of its number.
    pub const ALL: [Table; 7] = [
        Table::Meta,
        Table::Latest,
        Table::History,
        Table::Versions,
        Table::Leases,
        Table::LeaseKeys,
        Table::Notes,
    ];

    /// The table's name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Latest => "latest",
            Table::History => "history",
            Table::Versions => "versions",
            Table::Leases => "leases",
            Table::LeaseKeys => "lease_keys",
            Table::Notes => "notes",
        }
    }

    /// Its position in [`Table::ALL`].
    pub fn number(self) -> usize {
        self as usize
    }
}

/// What a scan calls for each key and value, in order, until it breaks.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// A consistent view of the tables. A failed read must stop the member: it may not go on with a guess.
pub trait Tables {
    /// The value under `key`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, TablesError>;

    /// Visits the keys between the bounds in order, or from the last to the first. Where the start lies behind
    /// the end there are none.
    fn scan(
        &self,
        table: Table,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        reverse: bool,
        visit: Visit<'_>,
    ) -> Result<(), TablesError>;
}

/// A scan whose visitor may fail.
pub(crate) fn try_scan<T: Tables + ?Sized>(
    tables: &T,
    table: Table,
    (start, end): (Bound<&[u8]>, Bound<&[u8]>),
    reverse: bool,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, TablesError>,
) -> Result<(), TablesError> {
    let mut failed = None;
    tables.scan(
        table,
        start,
        end,
        reverse,
        &mut |key, value| match visit(key, value) {
            Ok(flow) => flow,
            Err(err) => {
                failed = Some(err);
                ControlFlow::Break(())
            }
        },
    )?;
    failed.map_or(Ok(()), Err)
}

/// Why a table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    /// The storage failed.
    #[error(
        "table {table:?} cannot be read; check the disk, then restart the member or replace it"
    )]
    Storage {
        /// Which table.
        table: Table,
        /// What the storage said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A record is not what this program writes.
    #[error(
        "table {table:?} holds a record that cannot be read under key {key:02x?}; replace the member, its data is damaged"
    )]
    Record {
        /// Which table.
        table: Table,
        /// Under which key.
        key: Vec<u8>,
        /// What is wrong with it.
        #[source]
        source: CodecError,
    },
}

/// One change of a table, as a batch carries it to the storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Which table.
    pub table: Table,
    /// Which key.
    pub key: Bytes,
    /// The new value; None deletes.
    pub value: Option<Bytes>,
}

/// The tables in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemTables {
    tables: [BTreeMap<Bytes, Bytes>; Table::ALL.len()],
}

impl MemTables {
    /// Does the writes in their order.
    pub fn write(&mut self, writes: impl IntoIterator<Item = Write>) {
        for Write { table, key, value } in writes {
            let table = &mut self.tables[table.number()];
            match value {
                Some(value) => table.insert(key, value),
                None => table.remove(&key),
            };
        }
    }

    /// How many keys `table` has.
    pub fn len(&self, table: Table) -> usize {
        self.tables[table.number()].len()
    }
}

impl Tables for MemTables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, TablesError> {
        Ok(self.tables[table.number()].get(key).cloned())
    }

    fn scan(
        &self,
        table: Table,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        reverse: bool,
        visit: Visit<'_>,
    ) -> Result<(), TablesError> {
        if is_empty(start, end) {
            return Ok(());
        }
        let mut range = self.tables[table.number()].range::<[u8], _>((start, end));
        while let Some((key, value)) = if reverse {
            range.next_back()
        } else {
            range.next()
        } {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Whether no key can lie between the bounds; `BTreeMap::range` panics on such.
pub(crate) fn is_empty(start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (
            Bound::Included(start) | Bound::Excluded(start),
            Bound::Included(end) | Bound::Excluded(end),
        ) => start >= end,
    }
}
