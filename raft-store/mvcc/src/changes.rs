//! All changes that are kept, in their order: what another store is filled with.

use crate::record::{Record, parse_history_key};
use crate::store::KeyValue;
use crate::tables::{Table, Tables, TablesError, try_scan};
use bytes::Bytes;
use objects::Revision;
use std::ops::{Bound, ControlFlow};

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its revision.
    pub revision: Revision,
    /// Its place among the changes of that revision.
    pub sub: u32,
    /// Whether the key was deleted; then only the key says something.
    pub is_delete: bool,
    /// The key as it was written.
    pub kv: KeyValue,
}

/// Visits every change that is kept, the newest one of each key among them, until `visit` breaks.
pub fn changes<T: Tables + ?Sized>(
    tables: &T,
    visit: &mut dyn FnMut(Change) -> ControlFlow<()>,
) -> Result<(), TablesError> {
    let all = (Bound::Unbounded, Bound::Unbounded);
    try_scan(tables, Table::History, all, false, |row, record| {
        let (revision, sub) = parse_history_key(row)?;
        let record = Record::read(Table::History, row, Bytes::copy_from_slice(record))?;
        Ok(visit(Change {
            revision,
            sub,
            is_delete: record.is_delete,
            kv: record.kv,
        }))
    })
}
