//! WebSockets through a master to a node, as exec and port-forward open them.

use crate::http::{self as requests, KEEP_ALIVE};
use crate::{Client, Error};
use bytes::{BufMut, Bytes, BytesMut};
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
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// Until the node has answered; it may first have to be reached through the master.
const START_DEADLINE: Duration = Duration::from_secs(10);

pub type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Opens a socket at the first master that can be reached, and says whether the other side knows the signal that ends a channel
/// (`v5.channel.k8s.io`).
pub async fn upgrade(client: &Client, path: &str) -> Result<(Socket, bool), Error> {
    let mut failure = Error::Unreachable {
        servers: client.servers().join(", "),
        reason: "no server is known".to_owned(),
    };
    for server in client.servers_in_order() {
        match tokio::time::timeout(START_DEADLINE, upgrade_at(client, &server, path)).await {
            Ok(Err(error @ Error::Unreachable { .. })) => failure = error,
            Ok(done) => return done,
            Err(_) => {
                failure = unreachable(&server, format!("no answer within {START_DEADLINE:?}"))
            }
        }
    }
    Err(failure)
}

async fn upgrade_at(client: &Client, server: &str, path: &str) -> Result<(Socket, bool), Error> {
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
    if let Some(authorization) = client
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
    let stream = connect(client, server, host, port).await?;
    let (socket, response) = tokio_tungstenite::client_async(request, stream)
        .await
        .map_err(|error| upgrade_failure(server, path, error))?;
    let protocol = response
        .headers()
        .get(SEC_WEBSOCKET_PROTOCOL)
        .and_then(|value| value.to_str().ok());
    Ok((socket, protocol == Some("v5.channel.k8s.io")))
}

/// A connection to a server, by HTTP/1.1.
pub async fn connect(
    client: &Client,
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
    TlsConnector::from(Arc::new(client.tls()))
        .connect(name, tcp)
        .await
        .map_err(|error| refused(&error))
}

/// A stream may be silent for as long as it likes, a master that is gone may not: the kernel asks it.
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

/// A message: the channel, then its bytes.
pub fn framed(channel: u8, data: &[u8]) -> Bytes {
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

/// The stream broke off; what was sent before may or may not have arrived.
pub fn broken(what: &str, error: &tungstenite::Error) -> Error {
    Error::Interrupted {
        server: "the node".to_owned(),
        what: what.to_owned(),
        reason: error.to_string(),
        write: true,
    }
}
