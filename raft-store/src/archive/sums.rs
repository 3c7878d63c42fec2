//! What each table held when it was read: so many records, so many bytes, and a SHA-256 over all of them in order.
//!
//! The sums of the source travel in the archive; those of a restored store are computed from what its database gives back. Where
//! they are equal, nothing was lost between the one store and the other, whatever the way there.

use mvcc::{Table, Tables, TablesError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::ops::{Bound, ControlFlow};

/// What one table holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSum {
    /// The table's name on disk.
    pub table: String,
    /// How many records.
    pub records: u64,
    /// Their keys' and values' bytes.
    pub bytes: u64,
    /// SHA-256 over key length (u32 LE), key, value length (u32 LE), value of each record in order; hexadecimal.
    pub sha256: String,
}

/// Adds up one table while it is read.
pub(super) struct Summing {
    table: Table,
    records: u64,
    bytes: u64,
    hash: Sha256,
}

impl Summing {
    pub fn new(table: Table) -> Self {
        Summing {
            table,
            records: 0,
            bytes: 0,
            hash: Sha256::new(),
        }
    }

    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.records += 1;
        for part in [key, value] {
            self.bytes += part.len() as u64;
            self.hash.update(super::length_of(part).to_le_bytes());
            self.hash.update(part);
        }
    }

    pub fn finish(self) -> TableSum {
        TableSum {
            table: self.table.name().to_owned(),
            records: self.records,
            bytes: self.bytes,
            sha256: hex(&self.hash.finalize()),
        }
    }
}

/// The sums of all tables, read from `tables`.
pub fn sums_of<T: Tables + ?Sized>(tables: &T) -> Result<Vec<TableSum>, TablesError> {
    let sum = |table| {
        let mut summing = Summing::new(table);
        tables.scan(
            table,
            Bound::Unbounded,
            Bound::Unbounded,
            false,
            &mut |key, value| {
                summing.add(key, value);
                ControlFlow::Continue(())
            },
        )?;
        Ok(summing.finish())
    };
    Table::ALL.into_iter().map(sum).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all that is written to it");
        text
    })
}
