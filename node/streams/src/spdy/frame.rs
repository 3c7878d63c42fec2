//! SPDY/3.1 frames as bytes, both ways. Pure: never reads or writes a socket, never looks into header blocks.
//! Layout from the SPDY/3 draft, section 2.2. Data is handed on as it comes, so a large frame needs no large buffer.
//!
//! ```text
//! control: 1 | version 3 (15 bits) | type (16) | flags (8) | length (24) | payload
//! data:    0 | stream (31 bits)                | flags (8) | length (24) | payload
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u16 = 3;
const HEAD_BYTES: usize = 8;
/// Those of kubectl have some hundred bytes.
const CONTROL_BYTES_MAX: usize = 64 * 1024;
const FIN: u8 = 0x01;
const UNIDIRECTIONAL: u8 = 0x02;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// A stream's number: odd ones are the client's, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamId(u32);

impl StreamId {
    /// The lower 31 bits.
    pub(crate) const fn new(id: u32) -> Self {
        Self(id & 0x7fff_ffff)
    }

    pub(crate) fn is_of_client(self) -> bool {
        self.0 % 2 == 1
    }
}

/// One frame. A header block stays compressed: blocks must be inflated in order, whatever becomes of their frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    SynStream {
        id: StreamId,
        associated: StreamId,
        priority: u8,
        fin: bool,
        unidirectional: bool,
        block: Bytes,
    },
    SynReply {
        id: StreamId,
        fin: bool,
        block: Bytes,
    },
    Reset {
        id: StreamId,
        status: ResetStatus,
    },
    /// Each a word of flags and id, and a value.
    Settings(Vec<(u32, u32)>),
    Ping(u32),
    GoAway {
        last: StreamId,
        status: u32,
    },
    Headers {
        id: StreamId,
        fin: bool,
        block: Bytes,
    },
    WindowUpdate {
        id: StreamId,
        delta: u32,
    },
    /// A decoder may give one frame in several of these; `fin` is on the last.
    Data {
        id: StreamId,
        fin: bool,
        bytes: Bytes,
    },
    /// A control frame of a type that the draft does not know: to be passed over.
    Unknown(u16),
}

/// Why a stream is reset: the draft's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResetStatus(pub(crate) u32);

impl ResetStatus {
    pub(crate) const PROTOCOL_ERROR: Self = Self(1);
    pub(crate) const INVALID_STREAM: Self = Self(2);
    pub(crate) const REFUSED_STREAM: Self = Self(3);
}

/// Bytes that are no SPDY/3 frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a control frame of SPDY version {0}; only 3 is spoken")]
    Version(u16),
    #[error("a control frame of {0} bytes; {CONTROL_BYTES_MAX} are allowed")]
    TooLong(usize),
    #[error("a control frame of type {kind} with {length} bytes, which is too short")]
    TooShort { kind: u16, length: usize },
}

impl Frame {
    /// Appends the frame's bytes.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        match self {
            Frame::SynStream {
                id,
                associated,
                priority,
                fin,
                unidirectional,
                block,
            } => {
                let flags = flag(*fin, FIN) | flag(*unidirectional, UNIDIRECTIONAL);
                control(out, SYN_STREAM, flags, 10 + block.len());
                out.put_u32(id.0);
                out.put_u32(associated.0);
                out.put_u8(priority << 5);
                out.put_u8(0);
                out.put_slice(block);
            }
            Frame::SynReply { id, fin, block } => with_block(out, SYN_REPLY, *id, *fin, block),
            Frame::Headers { id, fin, block } => with_block(out, HEADERS, *id, *fin, block),
            Frame::Reset { id, status } => two_words(out, RST_STREAM, id.0, status.0),
            Frame::GoAway { last, status } => two_words(out, GOAWAY, last.0, *status),
            Frame::WindowUpdate { id, delta } => two_words(out, WINDOW_UPDATE, id.0, *delta),
            Frame::Settings(entries) => {
                control(out, SETTINGS, 0, 4 + 8 * entries.len());
                out.put_u32(entries.len() as u32);
                for (id, value) in entries {
                    out.put_u32(*id);
                    out.put_u32(*value);
                }
            }
            Frame::Ping(id) => {
                control(out, PING, 0, 4);
                out.put_u32(*id);
            }
            Frame::Data { id, fin, bytes } => {
                out.put_u32(id.0);
                put_flags_and_length(out, flag(*fin, FIN), bytes.len());
                out.put_slice(bytes);
            }
            Frame::Unknown(kind) => control(out, *kind, 0, 0),
        }
    }
}

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_flags_and_length(out, flags, length);
}

/// Panics for a frame of 16 MiB or more: what is made here is cut into pieces far smaller.
fn put_flags_and_length(out: &mut BytesMut, flags: u8, length: usize) {
    assert!(length < 1 << 24, "a frame's length has 24 bits");
    out.put_u32(u32::from(flags) << 24 | length as u32);
}

fn with_block(out: &mut BytesMut, kind: u16, id: StreamId, fin: bool, block: &[u8]) {
    control(out, kind, flag(fin, FIN), 4 + block.len());
    out.put_u32(id.0);
    out.put_slice(block);
}

fn two_words(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    control(out, kind, 0, 8);
    out.put_u32(first);
    out.put_u32(second);
}

/// Cuts bytes into frames.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The rest of a data frame that has come in part.
    rest: Option<Rest>,
}

#[derive(Clone, Copy, Debug)]
struct Rest {
    id: StreamId,
    fin: bool,
    length: usize,
}

impl Decoder {
    /// Takes the next frame, or the next part of a data frame, from the bytes; None when more are needed.
    pub(crate) fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if let Some(rest) = self.rest {
            return Ok(self.data(rest, bytes));
        }
        if bytes.len() < HEAD_BYTES {
            return Ok(None);
        }
        let mut head = &bytes[..HEAD_BYTES];
        let first = head.get_u32();
        let second = head.get_u32();
        let flags = (second >> 24) as u8;
        let length = (second & 0x00ff_ffff) as usize;
        if first & 0x8000_0000 == 0 {
            bytes.advance(HEAD_BYTES);
            let rest = Rest {
                id: StreamId::new(first),
                fin: flags & FIN != 0,
                length,
            };
            self.rest = Some(rest);
            return Ok(self.data(rest, bytes));
        }
        let version = (first >> 16) as u16 & 0x7fff;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if length > CONTROL_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        if bytes.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        bytes.advance(HEAD_BYTES);
        let payload = bytes.split_to(length).freeze();
        parse(first as u16, flags, payload).map(Some)
    }

    fn data(&mut self, rest: Rest, bytes: &mut BytesMut) -> Option<Frame> {
        if bytes.is_empty() && rest.length > 0 {
            return None;
        }
        let part = bytes.split_to(rest.length.min(bytes.len())).freeze();
        let length = rest.length - part.len();
        self.rest = (length > 0).then_some(Rest { length, ..rest });
        Some(Frame::Data {
            id: rest.id,
            fin: rest.fin && length == 0,
            bytes: part,
        })
    }
}

/// Reads a control frame's payload.
fn parse(kind: u16, flags: u8, mut payload: Bytes) -> Result<Frame, FrameError> {
    let length = payload.len();
    let least = match kind {
        SYN_STREAM => 10,
        RST_STREAM | GOAWAY | WINDOW_UPDATE => 8,
        SYN_REPLY | HEADERS | PING | SETTINGS => 4,
        other => return Ok(Frame::Unknown(other)),
    };
    if length < least {
        return Err(FrameError::TooShort { kind, length });
    }
    let fin = flags & FIN != 0;
    let first = payload.get_u32();
    let id = StreamId::new(first);
    Ok(match kind {
        SYN_STREAM => {
            let associated = StreamId::new(payload.get_u32());
            let priority = payload.get_u8() >> 5;
            payload.advance(1);
            Frame::SynStream {
                id,
                associated,
                priority,
                fin,
                unidirectional: flags & UNIDIRECTIONAL != 0,
                block: payload,
            }
        }
        SYN_REPLY => Frame::SynReply {
            id,
            fin,
            block: payload,
        },
        HEADERS => Frame::Headers {
            id,
            fin,
            block: payload,
        },
        RST_STREAM => Frame::Reset {
            id,
            status: ResetStatus(payload.get_u32()),
        },
        GOAWAY => Frame::GoAway {
            last: id,
            status: payload.get_u32(),
        },
        WINDOW_UPDATE => Frame::WindowUpdate {
            id,
            delta: payload.get_u32(),
        },
        PING => Frame::Ping(first),
        _ => {
            // Every entry has eight bytes, so the frame's length bounds them whatever their number says.
            let count = payload.len() / 8;
            if (first as usize) > count {
                return Err(FrameError::TooShort { kind, length });
            }
            let entries = (0..first).map(|_| (payload.get_u32(), payload.get_u32()));
            Frame::Settings(entries.collect())
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        let id = || any::<u32>().prop_map(StreamId::new);
        let block = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        prop_oneof![
            (id(), id(), 0u8..8, any::<bool>(), any::<bool>(), block()).prop_map(
                |(id, associated, priority, fin, unidirectional, block)| Frame::SynStream {
                    id,
                    associated,
                    priority,
                    fin,
                    unidirectional,
                    block
                }
            ),
            (id(), any::<bool>(), block()).prop_map(|(id, fin, block)| Frame::SynReply {
                id,
                fin,
                block
            }),
            (id(), any::<bool>(), block()).prop_map(|(id, fin, block)| Frame::Headers {
                id,
                fin,
                block
            }),
            (id(), any::<u32>()).prop_map(|(id, status)| Frame::Reset {
                id,
                status: ResetStatus(status)
            }),
            prop::collection::vec(any::<(u32, u32)>(), 0..4).prop_map(Frame::Settings),
            any::<u32>().prop_map(Frame::Ping),
            (id(), any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
            (id(), any::<u32>()).prop_map(|(id, delta)| Frame::WindowUpdate { id, delta }),
            (id(), any::<bool>(), block()).prop_map(|(id, fin, bytes)| Frame::Data {
                id,
                fin,
                bytes
            }),
            (10u16..100).prop_map(Frame::Unknown),
        ]
    }

    /// Decodes pieces as they would come from a socket, and joins the parts of data frames.
    fn decode_pieces(bytes: &[u8], piece: usize) -> Vec<Frame> {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::new();
        let mut frames: Vec<Frame> = Vec::new();
        let mut open: Option<(StreamId, BytesMut)> = None;
        for piece in bytes.chunks(piece) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = decoder.decode(&mut buffer).expect("frames") {
                let Frame::Data { id, fin, bytes } = frame else {
                    frames.push(frame);
                    continue;
                };
                let (_, joined) = open.get_or_insert_with(|| (id, BytesMut::new()));
                joined.extend_from_slice(&bytes);
                if decoder.rest.is_none() {
                    let bytes = open.take().expect("just inserted").1.freeze();
                    frames.push(Frame::Data { id, fin, bytes });
                }
            }
        }
        assert!(buffer.is_empty(), "all bytes were frames");
        frames
    }

    proptest! {
        #[test]
        fn frames_survive_the_wire(frames in prop::collection::vec(any_frame(), 0..12), piece in 1usize..64) {
            let mut bytes = BytesMut::new();
            frames.iter().for_each(|frame| frame.encode(&mut bytes));
            prop_assert_eq!(decode_pieces(&bytes, piece), frames);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = Decoder::default();
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decoder.decode(&mut buffer) {}
        }

        #[test]
        fn random_control_frames_never_panic(kind in 0u16..12, flags: u8, payload in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut buffer = BytesMut::new();
            control(&mut buffer, kind, flags, payload.len());
            buffer.put_slice(&payload);
            let mut decoder = Decoder::default();
            while let Ok(Some(_)) = decoder.decode(&mut buffer) {}
        }
    }

    #[test]
    fn other_versions_and_long_control_frames_are_refused() {
        let decode = |bytes: &[u8]| Decoder::default().decode(&mut BytesMut::from(bytes));
        assert_eq!(
            decode(&[0x80, 2, 0, 1, 0, 0, 0, 0]),
            Err(FrameError::Version(2))
        );
        assert_eq!(
            decode(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]),
            Err(FrameError::TooLong(0xff_ffff))
        );
        assert_eq!(
            decode(&[0x80, 3, 0, 6, 0, 0, 0, 1, 9]),
            Err(FrameError::TooShort { kind: 6, length: 1 })
        );
    }
}
