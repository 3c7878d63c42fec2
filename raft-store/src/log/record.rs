//! How a log entry is written, on disk and on the wire alike.
//!
//! A record is a format byte, a kind byte, term and index (little-endian `u64`), the body, and a CRC-32C over all of it. The
//! body of a batch is the batch's own frame, untouched; that of a membership is JSON.

use crate::types::{Entry, Membership, Payload, log_id, term_of};
use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 18;
const TRAILER_BYTES: usize = 4;

const BLANK: u8 = 0;
const BATCH: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Why bytes are not a log record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Shorter than any record.
    #[error("the log record is torn: it has {0} bytes")]
    Torn(usize),
    /// The bytes changed since they were written.
    #[error("the log record is corrupt: its crc32c is {found:08x}, {expected:08x} was written")]
    Corrupt {
        /// What the trailer says.
        expected: u32,
        /// What the bytes have.
        found: u32,
    },
    /// Written by a later version.
    #[error(
        "the log record has format {0}, this program reads format {FORMAT}; use the version that wrote it"
    )]
    UnknownFormat(u8),
    /// Written by a later version.
    #[error("the log record is of the unknown kind {0}")]
    UnknownKind(u8),
    /// The membership cannot be read.
    #[error("the log record holds a membership that cannot be read")]
    Membership(#[source] serde_json::Error),
}

/// Writes an entry.
pub fn encode(entry: &Entry) -> Bytes {
    let (kind, body) = match &entry.payload {
        EntryPayload::Blank => (BLANK, Bytes::new()),
        EntryPayload::Normal(payload) => (BATCH, payload.0.clone()),
        EntryPayload::Membership(membership) => (
            MEMBERSHIP,
            serde_json::to_vec(membership)
                .expect("a membership is plain data with string keys")
                .into(),
        ),
    };
    let mut record = BytesMut::with_capacity(HEADER_BYTES + body.len() + TRAILER_BYTES);
    record.put_u8(FORMAT);
    record.put_u8(kind);
    record.put_u64_le(term_of(&entry.log_id));
    record.put_u64_le(entry.log_id.index);
    record.extend_from_slice(&body);
    record.put_u32_le(crc32c::crc32c(&record));
    record.freeze()
}

/// Reads an entry; a batch's body shares the record's memory.
pub fn decode(record: &Bytes) -> Result<Entry, RecordError> {
    let size = record.len();
    let Some(body_bytes) = size.checked_sub(HEADER_BYTES + TRAILER_BYTES) else {
        return Err(RecordError::Torn(size));
    };
    let expected = u32_at(record, size - TRAILER_BYTES);
    let found = crc32c::crc32c(&record[..size - TRAILER_BYTES]);
    if expected != found {
        return Err(RecordError::Corrupt { expected, found });
    }
    if record[0] != FORMAT {
        return Err(RecordError::UnknownFormat(record[0]));
    }
    let body = record.slice(HEADER_BYTES..HEADER_BYTES + body_bytes);
    let payload = match record[1] {
        BLANK => EntryPayload::Blank,
        BATCH => EntryPayload::Normal(Payload(body)),
        MEMBERSHIP => EntryPayload::Membership(
            serde_json::from_slice::<Membership>(&body).map_err(RecordError::Membership)?,
        ),
        kind => return Err(RecordError::UnknownKind(kind)),
    };
    Ok(Entry {
        log_id: log_id(u64_at(record, 2), u64_at(record, 10)),
        payload,
    })
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were cut"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were cut"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Node;
    use std::collections::{BTreeMap, BTreeSet};

    fn entries() -> Vec<Entry> {
        let nodes = BTreeMap::from([(1, Node::default()), (7, Node::default())]);
        let membership =
            Membership::new(vec![BTreeSet::from([1])], nodes).expect("the voter is a node");
        vec![
            Entry {
                log_id: log_id(1, 1),
                payload: EntryPayload::Membership(membership),
            },
            Entry {
                log_id: log_id(2, 2),
                payload: EntryPayload::Blank,
            },
            Entry {
                log_id: log_id(2, u64::MAX),
                payload: EntryPayload::Normal(Payload(Bytes::from_static(b"frame"))),
            },
        ]
    }

    #[test]
    fn comes_back_as_it_was_written() {
        for entry in entries() {
            assert_eq!(decode(&encode(&entry)).expect("it was just written"), entry);
        }
    }

    #[test]
    fn any_flipped_bit_is_told() {
        for entry in entries() {
            let record = encode(&entry);
            for bit in 0..record.len() * 8 {
                let mut damaged = record.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let result = decode(&damaged.into());
                assert!(
                    matches!(result, Err(RecordError::Corrupt { .. })),
                    "bit {bit}: {result:?}"
                );
            }
        }
    }

    #[test]
    fn a_batch_is_written_as_it_was_in_the_first_version() {
        let entry = Entry {
            log_id: log_id(3, 5),
            payload: EntryPayload::Normal(Payload(Bytes::from_static(b"ab"))),
        };
        let golden = [
            &[1, 1, 3, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0][..],
            b"ab",
        ]
        .concat();
        assert_eq!(encode(&entry)[..golden.len()], golden[..]);
    }
}
