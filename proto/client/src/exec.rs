//! Commands in containers over WebSocket. Protocol: Kubernetes' `v5.channel.k8s.io`, with `v4` where a server is older.
//!
//! A binary message is a channel byte and data: 0 stdin, 1 stdout, 2 stderr, 3 the outcome, 4 the terminal's size, 255 closes a
//! channel (v5).

use crate::http::{self as requests, KEEP_ALIVE};
use crate::{Client, Error};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::HeaderValue;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use objects::Status;
use rustix::net::sockopt;
use rustls_pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};

/// Until the node has answered; it may first have to be reached through the master.
const START_DEADLINE: Duration = Duration::from_secs(10);

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

type Socket = WebSocketStream<TlsStream<TcpStream>>;

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
        let mut failure = Error::Unreachable {
            servers: self.servers().join(", "),
            reason: "no server is known".to_owned(),
        };
        for server in self.servers_in_order() {
            match tokio::time::timeout(START_DEADLINE, self.exec_at(&server, path)).await {
                Ok(Err(error @ Error::Unreachable { .. })) => failure = error,
                Ok(done) => return done,
                Err(_) => {
                    failure = unreachable(&server, format!("no answer within {START_DEADLINE:?}"))
                }
            }
        }
        Err(failure)
    }

    async fn exec_at(&self, server: &str, path: &str) -> Result<(ExecSender, ExecReceiver), Error> {
        let refused = |reason: String| unreachable(server, reason);
        let url = format!("{}{path}", server.replacen("https://", "wss://", 1));
        let mut request = url
            .into_client_request()
            .map_err(|error| refused(error.to_string()))?;
        let headers = request.headers_mut();
        headers.insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static("v5.channel.k8s.io, v4.channel.k8s.io"),
        );
        if let Some(authorization) = self
            .authorization()
            .and_then(|text| HeaderValue::from_str(text).ok())
        {
            headers.insert(AUTHORIZATION, authorization);
        }
        let host = request
            .uri()
            .host()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned();
        let port = request.uri().port_u16().unwrap_or(443);
        let stream = self.connect(server, host, port).await?;
        let (socket, response) = tokio_tungstenite::client_async(request, stream)
            .await
            .map_err(|error| upgrade_failure(server, path, error))?;
        let protocol = response
            .headers()
            .get(SEC_WEBSOCKET_PROTOCOL)
            .and_then(|value| value.to_str().ok());
        let closes_stdin = protocol == Some("v5.channel.k8s.io");
        let (sink, stream) = socket.split();
        let sender = ExecSender {
            socket: sink,
            closes_stdin,
        };
        Ok((sender, ExecReceiver { socket: stream }))
    }

    async fn connect(
        &self,
        server: &str,
        host: String,
        port: u16,
    ) -> Result<TlsStream<TcpStream>, Error> {
        let refused = |error: &dyn std::fmt::Display| unreachable(server, error.to_string());
        let connecting = TcpStream::connect((host.as_str(), port));
        let tcp = tokio::time::timeout(requests::CONNECT_DEADLINE, connecting)
            .await
            .map_err(|error| refused(&error))?
            .map_err(|error| refused(&error))?;
        notice_silence(&tcp).map_err(|error| refused(&error))?;
        let name = ServerName::try_from(host).map_err(|error| refused(&error))?;
        TlsConnector::from(Arc::new(self.tls()))
            .connect(name, tcp)
            .await
            .map_err(|error| refused(&error))
    }
}

/// A command may be silent for as long as it likes, a master that is gone may not: the kernel asks it.
fn notice_silence(tcp: &TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, KEEP_ALIVE)?;
    sockopt::set_tcp_keepintvl(tcp, KEEP_ALIVE)?;
    let unacknowledged = 2 * KEEP_ALIVE;
    sockopt::set_tcp_user_timeout(
        tcp,
        unacknowledged.as_millis().try_into().unwrap_or(u32::MAX),
    )?;
    Ok(())
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

fn framed(channel: u8, data: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(data.len() + 1);
    message.put_u8(channel);
    message.put_slice(data);
    message.freeze()
}

fn upgrade_failure(server: &str, path: &str, error: tungstenite::Error) -> Error {
    if let tungstenite::Error::Http(response) = &error {
        let body = response.body().as_deref().unwrap_or_default();
        return match serde_json::from_slice::<Status>(body) {
            Ok(status) => status.into(),
            Err(_) => Error::Unreadable {
                server: server.to_owned(),
                what: format!("GET {path}"),
                reason: format!("{} {}", response.status(), String::from_utf8_lossy(body)),
            },
        };
    }
    unreachable(server, error.to_string())
}

fn unreachable(server: &str, reason: String) -> Error {
    Error::Unreachable {
        servers: server.to_owned(),
        reason,
    }
}

fn unreadable(reason: String) -> Error {
    Error::Unreadable {
        server: "the node".to_owned(),
        what: "exec".to_owned(),
        reason,
    }
}

fn broken(error: tungstenite::Error) -> Error {
    Error::Interrupted {
        server: "the node".to_owned(),
        what: "exec".to_owned(),
        reason: error.to_string(),
        write: true,
    }
}
