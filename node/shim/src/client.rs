//! One connection of the agent: frames in, frames out, neither ever blocks the shim.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Result, bail};
use bytes::{Buf, BytesMut};
use prost::Message;
use rpc::shim::{Reply, StreamOutput, reply, stream_output};

/// No frame is longer.
const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Above this an exec's output is left in its pipe, so that the process waits.
const OUTPUT_BYTES_FULL: usize = 256 * 1024;
/// Above this the connection is dropped: its reader is stuck.
const OUTPUT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Requests and replies.
    Control {
        /// Events are sent too.
        subscribed: bool,
    },
    /// An exec or attach whose process is not there yet.
    StreamPending,
    /// An exec or attach of the process with this key.
    Stream {
        /// Key in the pod's table of processes.
        process: u64,
        /// The stream ends with the process and the process with the stream.
        exec: bool,
    },
}

/// A connection.
pub struct Client {
    /// The socket, non-blocking.
    pub socket: UnixStream,
    /// What it is used for.
    pub mode: Mode,
    /// Close it when all output is sent.
    pub finished: bool,
    input: BytesMut,
    output: BytesMut,
}

impl Client {
    /// Takes an accepted connection.
    pub fn new(socket: UnixStream) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            mode: Mode::Control { subscribed: false },
            finished: false,
            input: BytesMut::new(),
            output: BytesMut::new(),
        })
    }

    /// Reads what has come. An error means that the connection is over.
    pub fn fill(&mut self) -> Result<()> {
        let mut buffer = [0; 16 * 1024];
        match (&self.socket).read(&mut buffer) {
            Ok(0) => bail!("closed"),
            Ok(length) => self.input.extend_from_slice(&buffer[..length]),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Takes the next whole frame.
    pub fn next_frame<M: Message + Default>(&mut self) -> Result<Option<M>> {
        let mut peek = &self.input[..];
        let length = match prost::decode_length_delimiter(&mut peek) {
            Ok(length) if length > FRAME_BYTES_MAX => {
                bail!("a frame of {length} bytes is too long")
            }
            Ok(length) => length,
            // A varint has at most ten bytes.
            Err(_) if self.input.len() < 10 => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if peek.len() < length {
            return Ok(None);
        }
        let prefix = self.input.len() - peek.len();
        self.input.advance(prefix);
        let frame = self.input.split_to(length);
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        Ok(Some(M::decode(&frame[..])?))
    }

    /// Queues a reply.
    pub fn reply(&mut self, id: u64, body: reply::Body) {
        self.push(&Reply {
            id,
            body: Some(body),
        });
    }

    /// Queues a piece of a stream.
    pub fn stream(&mut self, body: stream_output::Body) {
        self.push(&StreamOutput { body: Some(body) });
    }

    fn push(&mut self, message: &impl Message) {
        message
            .encode_length_delimited(&mut self.output)
            .expect("a growing buffer has room");
    }

    /// Sends what the socket takes. An error means that the connection is over.
    pub fn flush(&mut self) -> Result<()> {
        while !self.output.is_empty() {
            match (&self.socket).write(&self.output) {
                Ok(0) => bail!("closed"),
                Ok(length) => self.output.advance(length),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.output.is_empty() {
            self.output = BytesMut::new();
        }
        if self.output.len() > OUTPUT_BYTES_MAX {
            bail!("its reader is stuck");
        }
        Ok(())
    }

    /// There is output to send.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// More output should wait.
    pub fn is_full(&self) -> bool {
        self.output.len() > OUTPUT_BYTES_FULL
    }
}
