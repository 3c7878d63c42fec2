//! The agent's side of a shim's socket: requests with deadlines, events, streams.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use prost::Message;
use rpc::shim::{Container, Reply, Request, reply, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

/// As the shim's own bound.
const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A shim answers in microseconds, unless the machine is stalled.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

type Waiting = Arc<Mutex<BTreeMap<u64, oneshot::Sender<reply::Body>>>>;

/// A control connection.
pub(crate) struct Connection {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Waiting,
    next_id: AtomicU64,
}

impl Connection {
    /// Connects to the shim of a pod's folder. Events go to `events`, which closes with the connection.
    pub async fn open(folder: &Path, events: mpsc::Sender<Container>) -> io::Result<Self> {
        let (reader, writer) = connect(folder).await?.into_split();
        let waiting = Waiting::default();
        tokio::spawn(read_replies(
            FrameReader::new(reader),
            waiting.clone(),
            events,
        ));
        Ok(Self {
            writer: tokio::sync::Mutex::new(writer),
            waiting,
            next_id: AtomicU64::new(1),
        })
    }

    /// Sends a request and waits for its reply. A failure of the shim's is an error with its words.
    pub async fn request(
        &self,
        body: request::Body,
        time_max: Duration,
    ) -> io::Result<reply::Body> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting
            .lock()
            .expect("no holder of this lock panics")
            .insert(id, sender);
        let exchange = async {
            let frame = Request {
                id,
                body: Some(body),
            }
            .encode_length_delimited_to_vec();
            self.writer.lock().await.write_all(&frame).await?;
            receiver.await.map_err(|_| {
                io::Error::new(
                    io::ErrorKind::ConnectionReset,
                    "the shim has closed the connection",
                )
            })
        };
        let result = tokio::time::timeout(time_max, exchange).await;
        self.waiting
            .lock()
            .expect("no holder of this lock panics")
            .remove(&id);
        match result {
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the shim did not answer within {time_max:?}"),
            )),
            Ok(Err(error)) => Err(error),
            Ok(Ok(reply::Body::Failure(failure))) => Err(io::Error::other(failure.message)),
            Ok(Ok(body)) => Ok(body),
        }
    }
}

async fn read_replies(mut reader: FrameReader, waiting: Waiting, events: mpsc::Sender<Container>) {
    while let Ok(Some(Reply {
        id,
        body: Some(body),
    })) = reader.next::<Reply>().await
    {
        if let reply::Body::Event(container) = body {
            if events.send(container).await.is_err() {
                break;
            }
            continue;
        }
        let sender = waiting
            .lock()
            .expect("no holder of this lock panics")
            .remove(&id);
        if let Some(sender) = sender {
            // A caller that gave up needs no reply.
            let _ = sender.send(body);
        }
    }
    // Those who wait are told by their senders' end.
    waiting
        .lock()
        .expect("no holder of this lock panics")
        .clear();
}

/// Connects to the socket of a pod's folder, however long its path.
pub(crate) async fn connect(folder: &Path) -> io::Result<UnixStream> {
    let opened = File::open(folder)?;
    let path = format!("/proc/self/fd/{}/shim.sock", opened.as_raw_fd());
    match tokio::time::timeout(CONNECT_TIME_MAX, UnixStream::connect(path)).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the shim did not accept the connection",
        )),
    }
}

/// Reads length-delimited messages.
pub(crate) struct FrameReader {
    reader: OwnedReadHalf,
    buffer: BytesMut,
}

impl FrameReader {
    pub fn new(reader: OwnedReadHalf) -> Self {
        Self {
            reader,
            buffer: BytesMut::new(),
        }
    }

    /// The next message; None at the end. Cancelling loses nothing.
    pub async fn next<M: Message + Default>(&mut self) -> io::Result<Option<M>> {
        loop {
            if let Some(message) = take_frame(&mut self.buffer)? {
                return Ok(Some(message));
            }
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

fn take_frame<M: Message + Default>(buffer: &mut BytesMut) -> io::Result<Option<M>> {
    let damaged = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut peek = &buffer[..];
    let length = match prost::decode_length_delimiter(&mut peek) {
        Ok(length) if length > FRAME_BYTES_MAX => {
            return Err(damaged(format!("a frame of {length} bytes is too long")));
        }
        Ok(length) => length,
        Err(_) if buffer.len() < 10 => return Ok(None),
        Err(error) => return Err(damaged(error.to_string())),
    };
    if peek.len() < length {
        return Ok(None);
    }
    let prefix = buffer.len() - peek.len();
    buffer.advance(prefix);
    let frame = buffer.split_to(length).freeze();
    M::decode(frame)
        .map(Some)
        .map_err(|error| damaged(error.to_string()))
}
