//! Commands in containers over WebSocket. Protocol: Kubernetes' `v5.channel.k8s.io`, with `v4` where a server is older.
//!
//! A binary message is a channel byte and data: 0 stdin, 1 stdout, 2 stderr, 3 the outcome, 4 the terminal's size, 255 closes a
//! channel (v5).

use crate::socket::{self, Socket, framed, upgrade};
use crate::{Client, Error};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use objects::Status;
use tokio_tungstenite::tungstenite::{self, Message};

/// What goes to the command.
#[derive(Clone, Debug)]
pub enum ExecInput {
    /// Bytes for its standard input.
    Stdin(Bytes),
    /// The end of its standard input.
    StdinClosed,
    /// The terminal's size.
    Resize {
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
}

/// What comes from the command.
#[derive(Clone, Debug)]
pub enum ExecOutput {
    /// From its standard output, or its terminal.
    Stdout(Bytes),
    /// From its standard error.
    Stderr(Bytes),
    /// How it ended: `Success`, or a failure with the cause `ExitCode`.
    Done(Box<Status>),
}

/// The way to a running command. Use it apart from the way back: a command that waits for its output to be read may read
/// no input meanwhile.
pub struct ExecSender {
    socket: SplitSink<Socket, Message>,
    closes_stdin: bool,
}

/// The way back from a running command.
pub struct ExecReceiver {
    socket: SplitStream<Socket>,
}

impl Client {
    /// Starts a command; `path` is that of `pods/NAME/exec` (or `attach`) with its query.
    pub async fn exec(&self, path: &str) -> Result<(ExecSender, ExecReceiver), Error> {
        let (socket, closes_stdin) = upgrade(self, path).await?;
        let (sink, stream) = socket.split();
        let sender = ExecSender {
            socket: sink,
            closes_stdin,
        };
        Ok((sender, ExecReceiver { socket: stream }))
    }
}

impl ExecSender {
    /// Sends to the command.
    pub async fn send(&mut self, input: ExecInput) -> Result<(), Error> {
        let message = match input {
            ExecInput::Stdin(data) => framed(0, &data),
            ExecInput::StdinClosed if self.closes_stdin => framed(255, &[0]),
            ExecInput::StdinClosed => return Ok(()), // v4 cannot say it; the command ends with the connection.
            ExecInput::Resize { width, height } => framed(
                4,
                format!("{{\"Width\":{width},\"Height\":{height}}}").as_bytes(),
            ),
        };
        self.socket
            .send(Message::Binary(message))
            .await
            .map_err(broken)
    }
}

impl ExecReceiver {
    /// What comes next; None when the server closed the stream.
    pub async fn next(&mut self) -> Result<Option<ExecOutput>, Error> {
        while let Some(message) = self.socket.next().await {
            let mut data = match message.map_err(broken)? {
                Message::Binary(data) => data,
                Message::Close(_) => return Ok(None),
                _ => continue,
            };
            if data.len() < 2 {
                continue; // Servers open each channel with an empty message.
            }
            let channel = data.split_to(1)[0];
            return match channel {
                1 => Ok(Some(ExecOutput::Stdout(data))),
                2 => Ok(Some(ExecOutput::Stderr(data))),
                3 => outcome(&data).map(Some),
                _ => continue,
            };
        }
        Ok(None)
    }
}

fn outcome(data: &[u8]) -> Result<ExecOutput, Error> {
    let mut value: serde_json::Value =
        serde_json::from_slice(data).map_err(|error| unreadable(error.to_string()))?;
    if let Some(map) = value.as_object_mut() {
        // Kubelets leave out what every Status has.
        map.entry("kind").or_insert_with(|| "Status".into());
        map.entry("apiVersion").or_insert_with(|| "v1".into());
    }
    let status = serde_json::from_value(value).map_err(|error| unreadable(error.to_string()))?;
    Ok(ExecOutput::Done(Box::new(status)))
}

fn unreadable(reason: String) -> Error {
    Error::Unreadable {
        server: "the node".to_owned(),
        what: "exec".to_owned(),
        reason,
    }
}

fn broken(error: tungstenite::Error) -> Error {
    socket::broken("exec", &error)
}
