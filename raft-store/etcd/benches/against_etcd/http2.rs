//! A gRPC client over plain HTTP/2 that costs next to nothing, so that on a machine whose cores servers and clients share, the
//! servers are what is measured: one blocking thread a connection, all requests that are due in one write, answers cut into
//! messages without reading their headers.
//!
//! An answer counts when it has a message: a failed gRPC call has none. Framing: RFC 9113; header blocks: RFC 7541.

use anyhow::{Context, Result, bail};
use std::collections::{HashSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
/// What a gRPC message has before its bytes: whether it is compressed, and its length.
pub const MESSAGE_PREFIX_BYTES: usize = 5;
const WINDOW_AT_FIRST: i64 = 65_535;
const WINDOW_MAX: u32 = (1 << 31) - 1;
/// Received bytes after which the server is given new room.
const ROOM_AFTER: u32 = 1 << 28;
const READ_BYTES: usize = 256 << 10;

mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RESET: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GO_AWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
}
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// What came.
pub enum Event<'a> {
    /// Some bytes of a stream's messages.
    Data(u32, &'a [u8]),
    /// The stream is over; an answer without data before it is a failure.
    End(u32),
}

/// A connection for calls of one method.
pub struct Connection {
    stream: TcpStream,
    path: &'static str,
    authority: String,
    received: Vec<u8>,
    to_send: Vec<u8>,
    next_stream: u32,
    /// Calls that are not over.
    open: HashSet<u32>,
    /// Bytes of messages that the server takes now.
    send_window: i64,
    /// Frames of messages that wait for it.
    blocked: VecDeque<(u32, bool, Vec<u8>)>,
    /// Bytes received since the server was given room.
    taken: u32,
}

impl Connection {
    /// Connects; no answer is waited for longer than `silence_max`.
    pub fn open(address: SocketAddr, path: &'static str, silence_max: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, silence_max)
            .with_context(|| format!("{address} does not take connections"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(silence_max))?;
        stream.set_write_timeout(Some(silence_max))?;
        let mut connection = Connection {
            stream,
            path,
            authority: address.to_string(),
            received: Vec::with_capacity(2 * READ_BYTES),
            to_send: PREFACE.to_vec(),
            next_stream: 1,
            open: HashSet::new(),
            send_window: WINDOW_AT_FIRST,
            blocked: VecDeque::new(),
            taken: 0,
        };
        // SETTINGS_INITIAL_WINDOW_SIZE: answers are never held up.
        let mut settings = vec![0, 4];
        settings.extend_from_slice(&WINDOW_MAX.to_be_bytes());
        connection.frame(kind::SETTINGS, 0, 0, &settings);
        connection.give_room(WINDOW_MAX - WINDOW_AT_FIRST as u32);
        connection.flush()?;
        Ok(connection)
    }

    /// Begins a call with its first message; `is_last` when there is no other. It goes out with the next flush.
    pub fn call(&mut self, message: &[u8], is_last: bool) -> u32 {
        let stream = self.next_stream;
        let block = self.header_block();
        self.next_stream += 2;
        self.open.insert(stream);
        self.frame(kind::HEADERS, END_HEADERS, stream, &block);
        self.send(stream, message, is_last);
        stream
    }

    /// Adds a message to a call.
    pub fn send(&mut self, stream: u32, message: &[u8], is_last: bool) {
        let mut body = Vec::with_capacity(MESSAGE_PREFIX_BYTES + message.len());
        body.push(0);
        body.extend_from_slice(&(message.len() as u32).to_be_bytes());
        body.extend_from_slice(message);
        self.blocked.push_back((stream, is_last, body));
        self.unblock();
    }

    /// Sends what waits.
    pub fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.to_send)?;
        self.to_send.clear();
        Ok(())
    }

    /// Waits for bytes and tells what came. False when nothing came in time.
    pub fn receive(&mut self, mut told: impl FnMut(&mut Self, Event<'_>)) -> Result<bool> {
        let before = self.received.len();
        self.received.resize(before + READ_BYTES, 0);
        let read = match self.stream.read(&mut self.received[before..]) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(read) => read,
            Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.received.truncate(before);
                return Ok(false);
            }
            Err(err) => return Err(err.into()),
        };
        let mut received = std::mem::take(&mut self.received);
        received.truncate(before + read);
        let mut at = 0;
        while let Some(header) = received.get(at..at + FRAME_HEADER_BYTES) {
            let size = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let (kind, flags) = (header[3], header[4]);
            let stream =
                u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & WINDOW_MAX;
            let Some(payload) =
                received.get(at + FRAME_HEADER_BYTES..at + FRAME_HEADER_BYTES + size)
            else {
                break;
            };
            self.take(kind, flags, stream, payload, &mut told)?;
            at += FRAME_HEADER_BYTES + size;
        }
        received.drain(..at);
        self.received = received;
        if self.taken > ROOM_AFTER {
            self.give_room(self.taken);
            self.taken = 0;
        }
        Ok(true)
    }

    fn take(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        told: &mut impl FnMut(&mut Self, Event<'_>),
    ) -> Result<()> {
        match kind {
            kind::DATA => {
                self.taken += payload.len() as u32;
                told(self, Event::Data(stream, payload));
            }
            kind::SETTINGS if flags & ACK == 0 => self.frame(kind::SETTINGS, ACK, 0, &[]),
            kind::PING if flags & ACK == 0 => self.frame(kind::PING, ACK, 0, payload),
            kind::WINDOW_UPDATE if stream == 0 => {
                let more = payload.first_chunk().context("a short frame")?;
                self.send_window += i64::from(u32::from_be_bytes(*more));
                self.unblock();
            }
            kind::GO_AWAY => bail!("the server ends the connection"),
            _ => {}
        }
        let ends = matches!(kind, kind::DATA | kind::HEADERS) && flags & END_STREAM != 0;
        // A server may reset a stream that it has ended.
        if (ends || kind == kind::RESET) && self.open.remove(&stream) {
            told(self, Event::End(stream));
        }
        Ok(())
    }

    fn unblock(&mut self) {
        while let Some((stream, is_last, body)) = self
            .blocked
            .pop_front_if(|(_, _, body)| self.send_window >= body.len() as i64)
        {
            self.send_window -= body.len() as i64;
            let flags = if is_last { END_STREAM } else { 0 };
            self.frame(kind::DATA, flags, stream, &body);
        }
    }

    fn give_room(&mut self, bytes: u32) {
        self.frame(kind::WINDOW_UPDATE, 0, 0, &bytes.to_be_bytes());
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.to_send
            .extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        self.to_send.extend_from_slice(&[kind, flags]);
        self.to_send.extend_from_slice(&stream.to_be_bytes());
        self.to_send.extend_from_slice(payload);
    }

    /// The first call tells the server four headers, which it keeps; later ones name them by number, as any client does.
    fn header_block(&self) -> Vec<u8> {
        const POST: u8 = 0x80 | 3;
        const HTTP: u8 = 0x80 | 6;
        const KEPT_NEWEST: u8 = 0x80 | 62;
        let mut block = vec![POST, HTTP];
        if self.next_stream > 1 {
            // Those whose names begin with a colon, told first, come first.
            block.extend((0..4).rev().map(|age| KEPT_NEWEST + age));
            return block;
        }
        let text = |block: &mut Vec<u8>, text: &str| {
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        };
        // Literals to be kept: the name by its number in the static table, or none.
        for (name, value) in [
            (4, self.path),
            (1, &*self.authority),
            (31, "application/grpc"),
        ] {
            block.push(0x40 | name);
            text(&mut block, value);
        }
        block.push(0x40);
        text(&mut block, "te");
        text(&mut block, "trailers");
        block
    }
}

/// Makes one call and returns the answer's message.
pub fn unary(
    address: SocketAddr,
    path: &'static str,
    message: &[u8],
    limit: Duration,
) -> Result<Vec<u8>> {
    let mut connection = Connection::open(address, path, limit)?;
    connection.call(message, true);
    connection.flush()?;
    let (mut answer, mut is_over) = (Vec::new(), false);
    while !is_over {
        let came = connection.receive(|_, event| match event {
            Event::Data(_, bytes) => answer.extend_from_slice(bytes),
            Event::End(_) => is_over = true,
        })?;
        if !came {
            bail!("{address} did not answer {path} in {limit:?}");
        }
        connection.flush()?;
    }
    if answer.len() < MESSAGE_PREFIX_BYTES {
        bail!("{address} refused {path}");
    }
    answer.drain(..MESSAGE_PREFIX_BYTES);
    Ok(answer)
}

/// Cuts the bytes of a stream into its messages.
#[derive(Default)]
pub struct Messages(Vec<u8>);

impl Messages {
    /// Adds bytes and tells each message that is whole.
    pub fn add(&mut self, bytes: &[u8], mut told: impl FnMut(&[u8])) {
        self.0.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(prefix) = self.0.get(at..at + MESSAGE_PREFIX_BYTES) {
            let size = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
            let start = at + MESSAGE_PREFIX_BYTES;
            let Some(message) = self.0.get(start..start + size) else {
                break;
            };
            told(message);
            at = start + size;
        }
        self.0.drain(..at);
    }
}
