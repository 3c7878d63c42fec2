//! What the state machine keeps beside the store's tables, in the same writes: how far it is, and who the members are.

use crate::types::{LogId, StoredMembership};
use bytes::Bytes;
use mvcc::codec::CodecError;
use mvcc::{Overlay, Table, Tables, TablesError};

const APPLIED_KEY: &[u8] = b"raft-applied";
const MEMBERSHIP_KEY: &[u8] = b"raft-membership";
const MEMBER_ID_MAX_KEY: &[u8] = b"raft-member-id-max";

/// The state machine's own records, under keys of their own in [`Table::Meta`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnRecords {
    /// The last entry applied.
    pub applied: Option<LogId>,
    /// The members as of that entry.
    pub membership: StoredMembership,
    /// The largest id that any member ever had: ids are never used again.
    pub member_id_max: u64,
    is_membership_changed: bool,
}

impl OwnRecords {
    /// Records of a state whose last entry is `applied`.
    pub fn new(applied: Option<LogId>, membership: StoredMembership, member_id_max: u64) -> Self {
        OwnRecords {
            applied,
            membership,
            member_id_max,
            is_membership_changed: true,
        }
    }

    /// Reads them; those of an empty state say that nothing was applied.
    pub fn load<T: Tables + ?Sized>(tables: &T) -> Result<Self, TablesError> {
        Ok(OwnRecords {
            applied: read(tables, APPLIED_KEY)?.flatten(),
            membership: read(tables, MEMBERSHIP_KEY)?.unwrap_or_default(),
            member_id_max: read(tables, MEMBER_ID_MAX_KEY)?.unwrap_or_default(),
            is_membership_changed: false,
        })
    }

    /// Takes over new members.
    pub fn set_membership(&mut self, membership: StoredMembership) {
        let largest = membership.nodes().map(|(id, _)| *id).max().unwrap_or(0);
        self.member_id_max = self.member_id_max.max(largest);
        self.membership = membership;
        self.is_membership_changed = true;
    }

    /// Adds what changed to a write.
    pub fn store<T: Tables + ?Sized>(&mut self, overlay: &mut Overlay<'_, T>) {
        overlay.put(
            Table::Meta,
            Bytes::from_static(APPLIED_KEY),
            json(&self.applied),
        );
        if std::mem::take(&mut self.is_membership_changed) {
            overlay.put(
                Table::Meta,
                Bytes::from_static(MEMBERSHIP_KEY),
                json(&self.membership),
            );
            overlay.put(
                Table::Meta,
                Bytes::from_static(MEMBER_ID_MAX_KEY),
                json(&self.member_id_max),
            );
        }
    }
}

fn json<V: serde::Serialize>(value: &V) -> Bytes {
    serde_json::to_vec(value)
        .expect("the records are plain data with string keys")
        .into()
}

fn read<T, V>(tables: &T, key: &[u8]) -> Result<Option<V>, TablesError>
where
    T: Tables + ?Sized,
    V: serde::de::DeserializeOwned,
{
    let Some(bytes) = tables.get(Table::Meta, key)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|err| TablesError::Record {
            table: Table::Meta,
            key: key.to_vec(),
            source: CodecError::Malformed(err.to_string()),
        })
}
