//! Remote command streams over a WebSocket that HTTP has already upgraded.
//! Framing, masking, pings and the closing handshake are tungstenite's; the meaning of messages is in [`message`].

mod message;

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error as SocketError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use crate::accept::Version;
use crate::command::{self, Channel, RemoteCommand, Wants};
use crate::drive::{Broken, Incoming, Receive, Transmit, drive};

/// The largest message of a client. kubectl's have 32 KiB; the Python client sends what it is given in one.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// To answer a client's Close frame.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Starts serving an upgraded connection.
pub(crate) async fn open<S>(io: S, version: Version, wants: Wants) -> Result<RemoteCommand, Broken>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sink, stream) = server(io).await.split();
    let reader = Reader { stream, version };
    let mut writer = Writer { sink };
    writer.greet(wants).await?;
    let (command, ends) = command::pair(wants);
    tokio::spawn(drive(reader, writer, ends));
    Ok(command)
}

/// The server's side of a WebSocket, with the bounds of this crate.
pub(crate) async fn server<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> WebSocketStream<S> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

struct Reader<S> {
    stream: SplitStream<WebSocketStream<S>>,
    version: Version,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Receive for Reader<S> {
    async fn receive(&mut self) -> Result<Incoming, Broken> {
        loop {
            let message = self.stream.next().await.ok_or(Broken::Closed)??;
            let payload = match message {
                Message::Binary(payload) => payload,
                Message::Text(payload) => payload.into(),
                Message::Close(_) => {
                    self.answer_close().await;
                    return Err(Broken::Closed);
                }
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            if let Some(incoming) = message::parse(self.version, payload) {
                return Ok(incoming);
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Reader<S> {
    /// Reading on is what sends the answer.
    async fn answer_close(&mut self) {
        let rest = async { while let Some(Ok(_)) = self.stream.next().await {} };
        // A client that does not wait for the answer needs none.
        let _ = timeout(CLOSE_MAX, rest).await;
    }
}

struct Writer<S> {
    sink: SplitSink<WebSocketStream<S>, Message>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Writer<S> {
    /// An empty message on the lowest channel of output: some clients wait for it before they send.
    async fn greet(&mut self, wants: Wants) -> Result<(), Broken> {
        let greeting = if wants.stdout {
            message::output(Channel::Stdout, b"")
        } else if wants.stderr && !wants.tty {
            message::output(Channel::Stderr, b"")
        } else {
            message::status(b"")
        };
        Ok(self.sink.send(Message::Binary(greeting)).await?)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Transmit<Reader<S>> for Writer<S> {
    async fn data(&mut self, channel: Channel, bytes: Bytes) -> Result<(), Broken> {
        let message = message::output(channel, &bytes);
        Ok(self.sink.send(Message::Binary(message)).await?)
    }

    async fn reply(&mut self, bytes: Bytes) -> Result<(), Broken> {
        Ok(self.sink.send(Message::Pong(bytes)).await?)
    }

    /// A pong that was not asked for: RFC 6455 allows it as a sign of life, and clients count it as the answer to their
    /// pings.
    async fn heartbeat(&mut self) -> Result<(), Broken> {
        Ok(self.sink.send(Message::Pong(Bytes::new())).await?)
    }

    async fn end(&mut self, status: Bytes) -> Result<(), Broken> {
        let status = message::status(&status);
        self.sink.send(Message::Binary(status)).await?;
        let close = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        Ok(self.sink.send(Message::Close(Some(close))).await?)
    }

    async fn close(self, reader: Reader<S>) -> Result<(), Broken> {
        match reader.stream.reunite(self.sink) {
            Ok(mut socket) => Ok(socket.get_mut().shutdown().await?),
            Err(_) => Err(Broken::Closed),
        }
    }
}

impl From<SocketError> for Broken {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::ConnectionClosed | SocketError::AlreadyClosed => Broken::Closed,
            SocketError::Io(error) => Broken::Io(error),
            other => Broken::Protocol(other.to_string()),
        }
    }
}
