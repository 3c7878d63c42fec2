//! Port-forward streams: the server side of what `kubectl port-forward` speaks once its HTTP request is upgraded.
//!
//! Three protocols, one meaning: a client's connection is a pair of a data stream and an error stream, and the data is
//! carried to and from a port of the pod.
//! - SPDY/3.1 with `portforward.k8s.io` (kubectl up to 1.30): any number of connections;
//! - the same frames within a WebSocket, `SPDY/3.1+portforward.k8s.io` (kubectl from 1.31);
//! - WebSocket with `v4.channel.k8s.io` (the client libraries): one connection a port of the query.
//!
//! Never opens a connection: the caller's [`Connect`] does. Where a client does not read, its connection to the pod waits.
//! The rules are Kubernetes' (k8s.io/client-go `portforward`, the kubelet's `portforward` package).

mod channels;
mod spdy;

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{SinkExt, StreamExt};
use http::header::HeaderMap;
use http::{Method, Request, Response};
use http_body_util::Empty;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::error::Error as SocketError;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use crate::accept::{
    Error, Rejected, SPDY, V4, V5, Version, bad_request, negotiate_spdy, negotiate_websocket,
    requires_upgrade,
};
use crate::command::PIECE_BYTES_MAX;
use crate::websocket;

const FORWARD: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// So many pieces wait in each direction of a connection; then the side that makes them waits.
const PIECES_MAX: usize = 16;

/// A connection to a port of the pod.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Opens a connection to a port of the pod; the error is what the client is told. It has a deadline of its own.
pub type Connect =
    Arc<dyn Fn(u16) -> BoxFuture<'static, Result<Box<dyn Socket>, String>> + Send + Sync>;

/// The forwarding: run it beside the answer, since it begins after the 101 was sent. It ends with the client.
pub type Forwarding = BoxFuture<'static, Result<(), Error>>;

/// Takes the connection of a request over for the ports that it wants.
///
/// `ports` are those of the query, which only the protocol of client libraries needs: the others name a port with each
/// connection. The HTTP connection must be HTTP/1.1 and served `with_upgrades`.
pub fn accept<B>(
    request: &mut Request<B>,
    ports: &[u16],
    connect: Connect,
) -> Result<(Response<Empty<Bytes>>, Forwarding), Rejected> {
    let (protocol, response) = negotiate(request.method(), request.headers())?;
    if matches!(protocol, Protocol::Channels(_)) {
        channels::check(ports)?;
    }
    let ports = ports.to_vec();
    let upgrade = hyper::upgrade::on(request);
    let forwarding = async move {
        let io = TokioIo::new(upgrade.await?);
        let ended = match protocol {
            Protocol::Spdy => {
                let (read, write) = tokio::io::split(io);
                spdy::serve(read, write, connect).await
            }
            Protocol::Tunnel => {
                let (read, write) = tunnel(io).await;
                spdy::serve(read, write, connect).await
            }
            Protocol::Channels(version) => channels::serve(io, version, &ports, connect).await,
        };
        ended.map_err(|broken| Error::Forward(broken.to_string()))
    };
    Ok((response, Box::pin(forwarding)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Spdy,
    Tunnel,
    Channels(Version),
}

/// What the headers of a request ask for, and the answer to it.
fn negotiate(
    method: &Method,
    headers: &HeaderMap,
) -> Result<(Protocol, Response<Empty<Bytes>>), Rejected> {
    match requires_upgrade(headers)? {
        SPDY => Ok((Protocol::Spdy, negotiate_spdy(headers, FORWARD)?)),
        _ => {
            let (name, response) = negotiate_websocket(method, headers, &[TUNNEL, V5, V4])?;
            let protocol = match name {
                TUNNEL => Protocol::Tunnel,
                V5 => Protocol::Channels(Version::V5),
                _ => Protocol::Channels(Version::V4),
            };
            Ok((protocol, response))
        }
    }
}

/// A WebSocket as the bytes that its binary messages carry.
async fn tunnel(
    io: TokioIo<Upgraded>,
) -> (
    impl AsyncRead + Send + Unpin,
    impl AsyncWrite + Send + Unpin,
) {
    let (sink, stream) = websocket::server(io).await.split();
    let bytes = stream.filter_map(|message| async move {
        match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(_) => None,
            Err(SocketError::ConnectionClosed | SocketError::AlreadyClosed) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        }
    });
    let messages = sink
        .sink_map_err(io::Error::other)
        .with(|bytes: Bytes| async move { Ok::<_, io::Error>(Message::Binary(bytes)) });
    (
        StreamReader::new(Box::pin(bytes)),
        SinkWriter::new(CopyToBytes::new(Box::pin(messages))),
    )
}

/// What a connection says to its client; `K` names the connection.
#[derive(Debug)]
enum Said<K> {
    /// From the port.
    Data(K, Bytes),
    /// The port sends no more.
    DataEnd(K),
    /// The connection is over; with the reason when it failed.
    Over(K, Option<String>),
}

/// Carries one connection to its end. `input` ends when the client sends no more.
async fn carry<K: Copy>(
    key: K,
    port: u16,
    input: mpsc::Receiver<Bytes>,
    said: mpsc::Sender<Said<K>>,
    connect: Connect,
) {
    let failure = match connect(port).await {
        Ok(socket) => join(key, socket, input, &said)
            .await
            .err()
            .map(|error| error.to_string()),
        Err(failure) => Some(failure),
    };
    // A client that is gone needs no word.
    let _ = said.send(Said::Over(key, failure)).await;
}

/// Moves bytes both ways until the port has closed and the client has sent all.
async fn join<K: Copy>(
    key: K,
    socket: Box<dyn Socket>,
    mut input: mpsc::Receiver<Bytes>,
    said: &mpsc::Sender<Said<K>>,
) -> io::Result<()> {
    let (mut from, mut to) = tokio::io::split(socket);
    let up = async {
        while let Some(bytes) = input.recv().await {
            // A port that takes no more may still have something to say.
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let down = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PIECE_BYTES_MAX);
            let count = (&mut from)
                .take(PIECE_BYTES_MAX as u64)
                .read_buf(&mut buffer)
                .await?;
            let piece = match count {
                0 => Said::DataEnd(key),
                _ => Said::Data(key, buffer.split().freeze()),
            };
            if said.send(piece).await.is_err() || count == 0 {
                return Ok(());
            }
        }
    };
    tokio::pin!(up, down);
    tokio::select! {
        // What the client may still send has no reader any more.
        ended = &mut down => ended,
        () = &mut up => down.await,
    }
}

/// A port of a query or a header.
fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

/// The ports of a query: several values, and several to a value.
pub fn parse_ports<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Vec<u16>, Rejected> {
    let texts = values.into_iter().flat_map(|value| value.split(','));
    texts
        .filter(|text| !text.is_empty())
        .map(|text| {
            parse_port(text)
                .ok_or_else(|| bad_request(&format!("unable to parse {text:?} as a port")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_one_by_one_or_together() {
        assert_eq!(parse_ports(["80", "443,8080", ""]), Ok(vec![80, 443, 8080]));
        assert_eq!(
            parse_ports(["0"]).expect_err("no port").message,
            "unable to parse \"0\" as a port"
        );
        assert!(parse_ports(["65536"]).is_err());
    }
}
