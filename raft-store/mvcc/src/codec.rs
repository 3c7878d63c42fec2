//! How records are written: the only module that knows bincode.
//!
//! A frame is a format byte, the payload's length and CRC-32C (both little-endian `u32`), and the payload: bincode with its
//! standard configuration (little-endian, variable-length integers). A reader can tell a torn frame, of which the end is
//! missing, from a corrupt one. Types that go through here only append enum variants and never use serde's `untagged`,
//! `tag`, `flatten` or `skip` attributes, since bincode carries no field names.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The format that is written; a reader refuses those that it does not know.
pub const FORMAT: u8 = 1;

/// A frame's bytes before its payload.
pub const FRAME_HEADER_BYTES: usize = 9;

/// The largest payload that is written or accepted: a Raft entry holds at most a few megabytes.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The end is missing: a write was cut short.
    #[error("the record is torn: {have} bytes of {need}")]
    Torn {
        /// The bytes at hand.
        have: usize,
        /// The bytes that the record has.
        need: usize,
    },
    /// The bytes changed since they were written.
    #[error("the record is corrupt: its crc32c is {found:08x}, {expected:08x} was written")]
    Corrupt {
        /// What the header says.
        expected: u32,
        /// What the payload has.
        found: u32,
    },
    /// Written by a program that knows a later format.
    #[error(
        "the record has format {0}, this program reads format {FORMAT}; use the version that wrote it, or a later one"
    )]
    UnknownFormat(u8),
    /// Larger than any record may be.
    #[error("the record has {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The payload is intact, but not of the type that was expected.
    #[error("the record cannot be understood: {0}")]
    Malformed(String),
}

/// Writes `value` as one frame.
pub fn encode<V: Serialize>(value: &V) -> Result<Bytes, CodecError> {
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    encode_bare(value, &mut frame)?;
    seal(frame)
}

/// Makes a frame of a payload that was written before, without looking into it.
pub fn frame(payload: &[u8]) -> Result<Bytes, CodecError> {
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + payload.len());
    frame.resize(FRAME_HEADER_BYTES, 0);
    frame.extend_from_slice(payload);
    seal(frame)
}

/// Reads a value that is exactly one frame.
pub fn decode<V: DeserializeOwned>(frame: &[u8]) -> Result<V, CodecError> {
    let (payload, rest) = split_frame(frame)?;
    if !rest.is_empty() {
        return Err(CodecError::Malformed(format!(
            "{} bytes follow its end",
            rest.len()
        )));
    }
    let (value, read) = decode_bare(payload)?;
    if read != payload.len() {
        return Err(CodecError::Malformed(format!(
            "{} bytes of its payload were not read",
            payload.len() - read
        )));
    }
    Ok(value)
}

/// Checks the first frame of `bytes` and returns its payload and what follows it.
pub fn split_frame(bytes: &[u8]) -> Result<(&[u8], &[u8]), CodecError> {
    let Some((header, rest)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return match bytes.first() {
            Some(format) if *format != FORMAT => Err(CodecError::UnknownFormat(*format)),
            _ => Err(CodecError::Torn {
                have: bytes.len(),
                need: FRAME_HEADER_BYTES,
            }),
        };
    };
    let [format, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    if format != FORMAT {
        return Err(CodecError::UnknownFormat(format));
    }
    let size = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let expected = u32::from_le_bytes([c0, c1, c2, c3]);
    if size > PAYLOAD_BYTES_MAX {
        return Err(CodecError::TooLarge {
            size,
            limit: PAYLOAD_BYTES_MAX,
        });
    }
    let Some((payload, rest)) = rest.split_at_checked(size) else {
        return Err(CodecError::Torn {
            have: bytes.len(),
            need: FRAME_HEADER_BYTES + size,
        });
    };
    match crc32c::crc32c(payload) {
        found if found == expected => Ok((payload, rest)),
        found => Err(CodecError::Corrupt { expected, found }),
    }
}

/// Appends `value` without a frame, for records whose table protects them already.
pub(crate) fn encode_bare<V: Serialize>(value: &V, into: &mut Vec<u8>) -> Result<(), CodecError> {
    bincode::serde::encode_into_std_write(value, into, bincode::config::standard())
        .map(|_| ())
        .map_err(|err| CodecError::Malformed(err.to_string()))
}

/// Reads a value from the start of `bytes`; returns how many bytes it took.
pub(crate) fn decode_bare<V: DeserializeOwned>(bytes: &[u8]) -> Result<(V, usize), CodecError> {
    bincode::serde::decode_from_slice(
        bytes,
        bincode::config::standard().with_limit::<PAYLOAD_BYTES_MAX>(),
    )
    .map_err(|err| CodecError::Malformed(err.to_string()))
}

/// Fills in the header of a frame whose payload is written.
fn seal(mut frame: Vec<u8>) -> Result<Bytes, CodecError> {
    let (header, payload) = frame.split_at_mut(FRAME_HEADER_BYTES);
    let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    if size as usize > PAYLOAD_BYTES_MAX {
        return Err(CodecError::TooLarge {
            size: payload.len(),
            limit: PAYLOAD_BYTES_MAX,
        });
    }
    header[0] = FORMAT;
    header[1..5].copy_from_slice(&size.to_le_bytes());
    header[5..9].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    Ok(Bytes::from(frame))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Author, Batch, Command, Compare, HistoryLimits, LeaseId, Op, Txn};
    use objects::{Revision, Term};
    use proptest::prelude::*;

    /// Some commands; what the bytes of each kind are is told by `golden`.
    fn batch() -> Batch {
        let txn = Txn {
            compare: vec![Compare::unchanged("/k", Revision(300))],
            success: vec![Op::put("/k", "v"), Op::Txn(Box::default())],
            failure: vec![Op::get("/k"), Op::delete("/k")],
            fence: Some(Term(3)),
        };
        let id = LeaseId(-2);
        Batch(vec![
            Command::Txn(txn),
            Command::Compact {
                revision: Revision(5),
            },
            Command::LeaseGrant {
                id,
                ttl_ms: 1000,
                now_ms: 70_000,
            },
            Command::LeaseRevoke { id },
            Command::LeaseKeepAlive { id, now_ms: 1 },
            Command::LeaseExpire {
                ids: vec![id, LeaseId(9)],
                now_ms: 2,
            },
            Command::LeaseRenewAll { now_ms: 3 },
            Command::RaiseRevision { by: 4 },
            Command::Tick {
                wall_ms: 70_001,
                now_ms: 5,
            },
            Command::KeepHistory {
                limits: HistoryLimits {
                    keep_ms: 6,
                    keep_bytes: 7,
                },
            },
            Command::Txn(Txn {
                success: vec![Op::Sign(Author {
                    at_ms: 8,
                    user: "u".to_owned(),
                    manager: "m".to_owned(),
                    action: "a".to_owned(),
                })],
                ..Txn::default()
            }),
        ])
    }

    #[test]
    fn the_bytes_of_a_frame_stay_the_same() {
        let frame = batch().encode().unwrap();
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        expect_test::expect!["015a000000c9af7ae00b0001022f6b000000fb2c010200022f6b0176000003000000000202022f6b000001022f6b0001010301050203fbe803fc70110100030304030105020312020603070408fc711101000509060700000104080175016d01610000"].assert_eq(&hex);
        assert_eq!(Batch::decode(&frame).unwrap(), batch());
    }

    #[test]
    fn a_torn_frame_is_told_from_a_corrupt_one() {
        let frame = batch().encode().unwrap();
        for have in 0..frame.len() {
            let torn = Batch::decode(&frame[..have]).unwrap_err();
            assert!(
                matches!(torn, CodecError::Torn { have: found, need } if found == have && need > have),
                "{torn}"
            );
        }
        for at in FRAME_HEADER_BYTES..frame.len() {
            let mut damaged = frame.to_vec();
            damaged[at] ^= 0x10;
            let corrupt = Batch::decode(&damaged).unwrap_err();
            assert!(matches!(corrupt, CodecError::Corrupt { .. }), "{corrupt}");
        }
        let mut later = frame.to_vec();
        later[0] = 9;
        assert_eq!(Batch::decode(&later), Err(CodecError::UnknownFormat(9)));
        let huge = [&[FORMAT][..], &u32::MAX.to_le_bytes(), &[0; 4]].concat();
        assert_eq!(
            Batch::decode(&huge),
            Err(CodecError::TooLarge {
                size: u32::MAX as usize,
                limit: PAYLOAD_BYTES_MAX
            })
        );
    }

    #[test]
    fn a_frame_of_another_type_is_malformed() {
        assert!(matches!(
            decode::<String>(&encode(&9u64).unwrap()),
            Err(CodecError::Malformed(_))
        ));
        assert!(matches!(
            decode::<u8>(&encode(&(1u8, 2u8)).unwrap()),
            Err(CodecError::Malformed(_))
        ));
        let two = [encode(&1u8).unwrap(), encode(&2u8).unwrap()].concat();
        assert!(matches!(decode::<u8>(&two), Err(CodecError::Malformed(_))));
        let (payload, rest) = split_frame(&two).unwrap();
        assert_eq!(
            (payload, split_frame(rest).unwrap()),
            (&[1u8][..], (&[2u8][..], &[][..]))
        );
        assert_eq!(frame(&[1]).unwrap(), encode(&1u8).unwrap());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Batch::decode(&bytes);
            let _ = Batch::decode(&frame(&bytes).unwrap());
        }
    }
}
