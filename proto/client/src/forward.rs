//! Connections to ports of pods over WebSocket: a socket a connection. Protocol: Kubernetes' port-forward channels.
//!
//! A binary message is a channel byte and data: 0 the connection, 1 its failure, 255 ends a channel (v5). The first message of each
//! channel is the port's number.

use crate::socket::{self, Socket, framed, upgrade};
use crate::{Client, Error};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::{self, Message};

const DATA: u8 = 0;
const FAILURE: u8 = 1;
const CLOSE: u8 = 255;
/// Of the port's number.
const GREETING_BYTES: usize = 2;

/// The way to a port.
pub struct ForwardSender {
    socket: SplitSink<Socket, Message>,
    ends: bool,
}

/// The way back from a port.
pub struct ForwardReceiver {
    socket: SplitStream<Socket>,
    greeted: [bool; 2],
}

impl Client {
    /// Connects to a port of a pod; `path` is that of `pods/NAME/portforward`, and its query names the one port.
    pub async fn forward(&self, path: &str) -> Result<(ForwardSender, ForwardReceiver), Error> {
        let (socket, ends) = upgrade(self, path).await?;
        let (sink, stream) = socket.split();
        let sender = ForwardSender { socket: sink, ends };
        let receiver = ForwardReceiver {
            socket: stream,
            greeted: [false; 2],
        };
        Ok((sender, receiver))
    }
}

impl ForwardSender {
    /// Sends to the port.
    pub async fn send(&mut self, data: &[u8]) -> Result<(), Error> {
        self.message(framed(DATA, data)).await
    }

    /// Nothing more will be sent. A server that knows only `v4.channel.k8s.io` cannot be told.
    pub async fn end(&mut self) -> Result<(), Error> {
        if self.ends {
            self.message(framed(CLOSE, &[DATA])).await?;
        }
        Ok(())
    }

    async fn message(&mut self, message: Bytes) -> Result<(), Error> {
        self.socket
            .send(Message::Binary(message))
            .await
            .map_err(broken)
    }
}

impl ForwardReceiver {
    /// What comes next: bytes from the port, or why it failed; None when the connection is over.
    pub async fn next(&mut self) -> Result<Option<Result<Bytes, String>>, Error> {
        while let Some(message) = self.socket.next().await {
            let mut data = match message.map_err(broken)? {
                Message::Binary(data) => data,
                Message::Close(_) => return Ok(None),
                _ => continue,
            };
            let Some(channel @ (DATA | FAILURE)) = data.first().copied() else {
                continue;
            };
            data = data.slice(1..);
            let greeted = std::mem::replace(&mut self.greeted[usize::from(channel)], true);
            if !greeted && data.len() == GREETING_BYTES {
                continue;
            }
            if channel == DATA {
                return Ok(Some(Ok(data)));
            }
            return Ok(Some(Err(String::from_utf8_lossy(&data).into_owned())));
        }
        Ok(None)
    }
}

fn broken(error: tungstenite::Error) -> Error {
    socket::broken("port-forward", &error)
}
