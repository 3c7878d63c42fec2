//! How a change of a key stands in the tables: one record, shared by `Latest` and `History`, so that a put is encoded once.
//!
//! A record is a kind byte, the numbers (bare bincode), the key and the value. `History` is ordered by (revision, sub),
//! big-endian. `Versions` is ordered by (key, revision): the key's zero bytes are escaped and two zero bytes end it, so
//! that the versions of one key lie together and keys keep their order.

use crate::codec::{self, CodecError};
use crate::store::{KeyRange, KeyRangeEnd, KeyValue, LeaseId};
use crate::tables::{Table, TablesError};
use bytes::Bytes;
use objects::Revision;
use serde::{Deserialize, Serialize};
use std::ops::Bound;

const KIND_PUT: u8 = 1;
const KIND_DELETE: u8 = 2;

/// Room for the kind and the numbers; more is allowed, it only costs a larger allocation.
const HEADER_BYTES_USUAL: usize = 24;

/// A record's numbers as they are encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Numbers {
    create_revision: Revision,
    mod_revision: Revision,
    version: u64,
    lease: LeaseId,
    sub: u32,
    key_bytes: u32,
}

/// A change of a key as a table holds it; key and value share the record's bytes.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) is_delete: bool,
    pub(crate) sub: u32,
    /// For a delete only the key and `mod_revision` say something.
    pub(crate) kv: KeyValue,
    /// The record itself.
    pub(crate) bytes: Bytes,
}

impl Record {
    /// The record of a put.
    pub(crate) fn put(kv: KeyValue, sub: u32) -> Self {
        Record::build(kv, sub, false)
    }

    /// The record of a delete of `key` at `revision`.
    pub(crate) fn delete(key: Bytes, revision: Revision, sub: u32) -> Self {
        let kv = KeyValue {
            key,
            value: Bytes::new(),
            create_revision: Revision(0),
            mod_revision: revision,
            version: 0,
            lease: LeaseId(0),
        };
        Record::build(kv, sub, true)
    }

    fn build(kv: KeyValue, sub: u32, is_delete: bool) -> Self {
        let numbers = Numbers {
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
            sub,
            key_bytes: u32::try_from(kv.key.len()).expect("a request is far smaller than 4 GiB"),
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES_USUAL + kv.key.len() + kv.value.len());
        bytes.push(if is_delete { KIND_DELETE } else { KIND_PUT });
        codec::encode_bare(&numbers, &mut bytes).expect("a vector takes any numbers");
        let key_at = bytes.len();
        bytes.extend_from_slice(&kv.key);
        bytes.extend_from_slice(&kv.value);
        let bytes = Bytes::from(bytes);
        let value_at = key_at + kv.key.len();
        let kv = KeyValue {
            key: bytes.slice(key_at..value_at),
            value: bytes.slice(value_at..),
            ..kv
        };
        Record {
            is_delete,
            sub,
            kv,
            bytes,
        }
    }

    /// Reads the record that stands under `at` in `table`, without copying.
    pub(crate) fn read(table: Table, at: &[u8], bytes: Bytes) -> Result<Self, TablesError> {
        let header = Header::read(table, at, &bytes)?;
        let key = bytes.slice(header.key_at..header.value_at);
        let value = bytes.slice(header.value_at..);
        Ok(Record {
            is_delete: header.is_delete,
            sub: header.numbers.sub,
            kv: header.key_value(key, value),
            bytes,
        })
    }
}

/// A record's numbers and where its key and value lie, for scans that take only some of them.
pub(crate) struct Header {
    pub(crate) is_delete: bool,
    numbers: Numbers,
    key_at: usize,
    value_at: usize,
}

impl Header {
    /// Reads the numbers of the record that stands under `at` in `table`.
    pub(crate) fn read(table: Table, at: &[u8], bytes: &[u8]) -> Result<Self, TablesError> {
        Header::parse(bytes).map_err(|source| TablesError::Record {
            table,
            key: at.to_vec(),
            source,
        })
    }

    fn parse(bytes: &[u8]) -> Result<Self, CodecError> {
        let (kind, rest) = bytes
            .split_first()
            .ok_or(CodecError::Torn { have: 0, need: 1 })?;
        let is_delete = match *kind {
            KIND_PUT => false,
            KIND_DELETE => true,
            other => return Err(CodecError::UnknownFormat(other)),
        };
        let (numbers, read): (Numbers, usize) = codec::decode_bare(rest)?;
        let key_at = 1 + read;
        let value_at = key_at + numbers.key_bytes as usize;
        if bytes.len() < value_at {
            return Err(CodecError::Torn {
                have: bytes.len(),
                need: value_at,
            });
        }
        Ok(Header {
            is_delete,
            numbers,
            key_at,
            value_at,
        })
    }

    /// The key within the record's bytes.
    pub(crate) fn key<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[self.key_at..self.value_at]
    }

    /// The key's numbers with this key and value.
    pub(crate) fn key_value(&self, key: Bytes, value: Bytes) -> KeyValue {
        let Numbers {
            create_revision,
            mod_revision,
            version,
            lease,
            ..
        } = self.numbers;
        KeyValue {
            key,
            value,
            create_revision,
            mod_revision,
            version,
            lease,
        }
    }
}

/// The key of a change in `History`.
pub(crate) fn history_key(revision: Revision, sub: u32) -> Bytes {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&revision.0.to_be_bytes());
    key[8..].copy_from_slice(&sub.to_be_bytes());
    Bytes::copy_from_slice(&key)
}

/// Reads a key of `History`.
pub(crate) fn parse_history_key(key: &[u8]) -> Result<(Revision, u32), TablesError> {
    let parse = || Some((key.first_chunk::<8>()?, key.get(8..)?.try_into().ok()?));
    let (revision, sub) = parse().ok_or_else(|| misplaced(Table::History, key))?;
    Ok((
        Revision(u64::from_be_bytes(*revision)),
        u32::from_be_bytes(sub),
    ))
}

/// The key of a version in `Versions`.
pub(crate) fn version_key(key: &[u8], revision: Revision) -> Vec<u8> {
    let mut escaped = escape(key);
    escaped.extend_from_slice(&revision.0.to_be_bytes());
    escaped
}

/// One version of a key, as a row of `Versions` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) revision: Revision,
    pub(crate) sub: u32,
    pub(crate) is_delete: bool,
}

impl Version {
    /// The row's value; its revision stands in its key.
    pub(crate) fn value(self) -> Bytes {
        match (self.is_delete, self.sub.to_le_bytes()) {
            // Nearly all: the only put of its revision.
            (false, [0, 0, 0, 0]) => Bytes::from_static(&[KIND_PUT, 0, 0, 0, 0]),
            (false, [a, b, c, d]) => Bytes::copy_from_slice(&[KIND_PUT, a, b, c, d]),
            (true, [a, b, c, d]) => Bytes::copy_from_slice(&[KIND_DELETE, a, b, c, d]),
        }
    }

    /// Reads a row: the escaped key, which is the same for all versions of a key, and the version.
    pub(crate) fn read<'k>(key: &'k [u8], value: &[u8]) -> Result<(&'k [u8], Self), TablesError> {
        let parse = || {
            let (escaped, revision) = key.split_last_chunk::<8>()?;
            let [kind @ (KIND_PUT | KIND_DELETE), sub @ ..] = *<&[u8; 5]>::try_from(value).ok()?
            else {
                return None;
            };
            let version = Version {
                revision: Revision(u64::from_be_bytes(*revision)),
                sub: u32::from_le_bytes(sub),
                is_delete: kind == KIND_DELETE,
            };
            Some((escaped, version))
        };
        parse().ok_or_else(|| misplaced(Table::Versions, key))
    }

    /// Where the version's record stands in `History`.
    pub(crate) fn history_key(self) -> Bytes {
        history_key(self.revision, self.sub)
    }
}

/// An owned pair of bounds, for tables whose keys are built.
pub(crate) struct Bounds {
    pub(crate) start: Bound<Vec<u8>>,
    pub(crate) end: Bound<Vec<u8>>,
}

impl Bounds {
    /// The rows of `Versions` for the keys of `range`.
    pub(crate) fn of_versions(range: &KeyRange) -> Self {
        let start = Bound::Included(escape(&range.start));
        let end = match &range.end {
            KeyRangeEnd::Single => Bound::Included(version_key(&range.start, Revision(u64::MAX))),
            KeyRangeEnd::Before(end) => Bound::Excluded(escape(end)),
            KeyRangeEnd::Unbounded => Bound::Unbounded,
        };
        Bounds { start, end }
    }

    pub(crate) fn start(&self) -> Bound<&[u8]> {
        self.start.as_ref().map(Vec::as_slice)
    }

    pub(crate) fn end(&self) -> Bound<&[u8]> {
        self.end.as_ref().map(Vec::as_slice)
    }
}

/// A record that stands where it cannot.
pub(crate) fn misplaced(table: Table, key: &[u8]) -> TablesError {
    let source = CodecError::Malformed("the row's key or value has the wrong shape".to_owned());
    TablesError::Record {
        table,
        key: key.to_vec(),
        source,
    }
}

/// The key with its zero bytes escaped and its end marked.
fn escape(key: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(key.len() + 10);
    for byte in key {
        escaped.push(*byte);
        if *byte == 0 {
            escaped.push(u8::MAX);
        }
    }
    escaped.extend_from_slice(&[0, 0]);
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_does_not_change() {
        let kv = KeyValue {
            key: Bytes::from_static(b"/a"),
            value: Bytes::from_static(b"v"),
            create_revision: Revision(2),
            mod_revision: Revision(300),
            version: 4,
            lease: LeaseId(7),
        };
        let put = Record::put(kv.clone(), 5);
        expect_test::expect!["0102fb2c01040e05022f6176"].assert_eq(&hex(&put.bytes));
        let read = Record::read(Table::Latest, b"/a", put.bytes).unwrap();
        assert_eq!((read.kv, read.sub, read.is_delete), (kv, 5, false));
        let gone = Record::delete(Bytes::from_static(b"/a"), Revision(9), 1);
        expect_test::expect!["020009000001022f61"].assert_eq(&hex(&gone.bytes));
        let version = Version {
            revision: Revision(255),
            sub: 258,
            is_delete: true,
        };
        expect_test::expect!["0202010000"].assert_eq(&hex(&version.value()));
        expect_test::expect!["6100ff62000000000000000000ff"]
            .assert_eq(&hex(&version_key(b"a\0b", Revision(255))));
        expect_test::expect!["00000000000000ff00000003"]
            .assert_eq(&hex(&history_key(Revision(255), 3)));
        assert_eq!(
            parse_history_key(&history_key(Revision(255), 3)).unwrap(),
            (Revision(255), 3)
        );
    }

    #[test]
    fn damage_is_an_error_that_names_the_row() {
        let record = Record::delete(Bytes::from_static(b"/a"), Revision(9), 1).bytes;
        for cut in 0..record.len() {
            assert!(
                Record::read(Table::Latest, b"/a", record.slice(..cut)).is_err(),
                "{cut}"
            );
        }
        assert!(Record::read(Table::Latest, b"/a", Bytes::from_static(b"\x07rest")).is_err());
        assert!(Version::read(b"short", b"12345").is_err());
        assert!(parse_history_key(b"short").is_err());
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    proptest! {
        #[test]
        fn versions_keep_the_order_of_keys(
            a in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xfe), Just(0xff)], 0..5),
            b in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xfe), Just(0xff)], 0..5),
            x in 0u64..4, y in 0u64..4,
        ) {
            let (x, y) = (Revision(x), Revision(y));
            prop_assert_eq!((&a, x).cmp(&(&b, y)), version_key(&a, x).cmp(&version_key(&b, y)));
        }
    }
}
