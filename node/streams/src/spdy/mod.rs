//! Remote command streams over SPDY/3.1 on a connection that HTTP has already upgraded.
//! Framing, sessions and roles are pure and beside this; here is what reads and writes.

mod dictionary;
pub(crate) mod frame;
pub(crate) mod headers;
mod roles;
pub(crate) mod session;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use self::frame::Frame;
use self::roles::{Roles, Streams};
use self::session::{Event, Session, SessionError};
use crate::command::{self, Channel, RemoteCommand, Wants};
use crate::drive::{Broken, Incoming, Receive, Transmit, drive};

const READ_BYTES: usize = 64 * 1024;
const GOAWAY_OK: u32 = 0;

/// Waits for the client to open its streams, then starts serving.
pub(crate) async fn open<S>(io: S, wants: Wants) -> Result<RemoteCommand, Broken>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (io, mut output) = tokio::io::split(io);
    let (command, mut ends) = command::pair(wants);
    let mut reader = Reader {
        io,
        session: Session::new(),
        roles: Roles::new(wants),
    };
    // Nothing waits for heartbeats yet: the deadline for opening is shorter than a client's patience.
    let (heartbeats, _unheard) = mpsc::channel(1);
    let streams = loop {
        if let Some(streams) = reader.roles.complete() {
            break streams;
        }
        match reader.receive().await? {
            Incoming::Reply(bytes) => output.write_all(&bytes).await?,
            early => ends.feeds.feed(early, &heartbeats).await,
        }
    };
    if let Some(bytes) = reader.session.take_replies() {
        output.write_all(&bytes).await?;
    }
    output.flush().await?;
    let writer = Writer {
        io: output,
        streams,
        buffer: BytesMut::new(),
        ping: 0,
    };
    tokio::spawn(drive(reader, writer, ends));
    Ok(command)
}

/// What bytes say that come in these pieces: the events, the data of neighbouring ones joined, then why the session ended.
pub(crate) fn told(pieces: &[&[u8]]) -> Vec<String> {
    let mut session = Session::new();
    let mut told: Vec<(Option<frame::StreamId>, String)> = Vec::new();
    for piece in pieces {
        session.input().extend_from_slice(piece);
        loop {
            let event = match session.next() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    told.push((None, error.to_string()));
                    return told.into_iter().map(|(_, text)| text).collect();
                }
            };
            match event {
                Event::Data { id, bytes } => match told.last_mut() {
                    Some((Some(last), text)) if *last == id => text.push_str(&hex(&bytes)),
                    _ => told.push((Some(id), format!("data of {id:?}: {}", hex(&bytes)))),
                },
                other => {
                    if let Event::Opened { id, .. } = &other {
                        session.accept(*id);
                    }
                    told.push((None, format!("{other:?}")));
                }
            }
        }
    }
    told.into_iter().map(|(_, text)| text).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Reader<S> {
    io: ReadHalf<S>,
    session: Session,
    roles: Roles,
}

impl<S: AsyncRead + AsyncWrite + Send> Receive for Reader<S> {
    async fn receive(&mut self) -> Result<Incoming, Broken> {
        loop {
            if let Some(bytes) = self.session.take_replies() {
                return Ok(Incoming::Reply(bytes));
            }
            match self.session.next()? {
                Some(event) => {
                    if let Some(incoming) = self.handle(event) {
                        return Ok(incoming);
                    }
                }
                None => self.fill().await?,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite> Reader<S> {
    fn handle(&mut self, event: Event) -> Option<Incoming> {
        if let Event::Opened { id, headers } = &event {
            if self.roles.assign(*id, headers) {
                self.session.accept(*id);
            } else {
                self.session.refuse(*id);
            }
        }
        self.roles.interpret(event)
    }

    /// Reads what there is; replies to what was read before are out by then.
    async fn fill(&mut self) -> Result<(), Broken> {
        let input = self.session.input();
        input.reserve(READ_BYTES);
        match self.io.read_buf(input).await? {
            0 => Err(Broken::Closed),
            _ => Ok(()),
        }
    }
}

struct Writer<S> {
    io: WriteHalf<S>,
    streams: Streams,
    buffer: BytesMut,
    /// The last ping; a server's are even.
    ping: u32,
}

impl<S: AsyncRead + AsyncWrite + Send> Writer<S> {
    async fn send(&mut self) -> Result<(), Broken> {
        self.io.write_all_buf(&mut self.buffer).await?;
        Ok(self.io.flush().await?)
    }
}

impl<S: AsyncRead + AsyncWrite + Send> Transmit<Reader<S>> for Writer<S> {
    async fn data(&mut self, channel: Channel, bytes: Bytes) -> Result<(), Broken> {
        let Some(id) = self.streams.output(channel) else {
            return Ok(());
        };
        let fin = false;
        Frame::Data { id, fin, bytes }.encode(&mut self.buffer);
        self.send().await
    }

    async fn reply(&mut self, bytes: Bytes) -> Result<(), Broken> {
        self.buffer.extend_from_slice(&bytes);
        self.send().await
    }

    async fn heartbeat(&mut self) -> Result<(), Broken> {
        self.ping = self.ping.wrapping_add(2);
        Frame::Ping(self.ping).encode(&mut self.buffer);
        self.send().await
    }

    /// The connection stays open for the client to close: closed by the server, spdystream drops what it has not handed
    /// on yet.
    async fn end(&mut self, status: Bytes) -> Result<(), Broken> {
        let fin = true;
        for id in self.streams.of_process() {
            let bytes = Bytes::new();
            Frame::Data { id, fin, bytes }.encode(&mut self.buffer);
        }
        if let Some(id) = self.streams.error {
            let bytes = status;
            Frame::Data { id, fin, bytes }.encode(&mut self.buffer);
        }
        let opened = self.streams.of_process().chain(self.streams.error);
        if let Some(last) = opened.max() {
            let status = GOAWAY_OK;
            Frame::GoAway { last, status }.encode(&mut self.buffer);
        }
        self.send().await
    }

    async fn close(mut self, _reader: Reader<S>) -> Result<(), Broken> {
        Ok(self.io.shutdown().await?)
    }
}

impl From<SessionError> for Broken {
    fn from(error: SessionError) -> Self {
        Broken::Protocol(error.to_string())
    }
}
