//! Cuts an archive into chunks while it is written, for a receiver that may be slow.

use crate::runtime;
use bytes::Bytes;
use std::io;
use tokio::sync::mpsc;

/// Bytes of one chunk.
const CHUNK_BYTES: usize = 1 << 20;

/// Sends what is written, a chunk at a time; waits while the channel is full. For a thread that may block.
pub(crate) struct ChunkWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    chunk: Vec<u8>,
}

impl ChunkWriter {
    pub fn new(sender: mpsc::Sender<io::Result<Bytes>>) -> Self {
        ChunkWriter {
            sender,
            chunk: Vec::new(),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let chunk = Bytes::from(std::mem::take(&mut self.chunk));
        let sent = match runtime::is_simulated() {
            // The one thread of a simulation cannot wait for the receiver, whose queue must take the whole archive.
            true => self.sender.try_send(Ok(chunk)).is_ok(),
            false => self.sender.blocking_send(Ok(chunk)).is_ok(),
        };
        match sent {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the receiver is gone",
            )),
        }
    }
}

impl io::Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.chunk.is_empty() {
            true => Ok(()),
            false => self.send(),
        }
    }
}
