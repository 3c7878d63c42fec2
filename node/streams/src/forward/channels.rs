//! Port-forward over WebSocket messages: of the port with index i, the channel 2i carries data and 2i+1 the failure.
//! The first message on each is the port's number, two bytes with the lower first. Connections are made at once.
//! The fifth version can end a channel, which half-closes the connection; the fourth has no word for it.

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::{Connect, PIECES_MAX, Said, carry};
use crate::accept::{Rejected, Version, bad_request};
use crate::drive::{Broken, WRITE_STALL_MAX};
use crate::websocket;

/// Two channels a port, and 255 is the close signal.
const PORTS_MAX: usize = 127;
const CLOSE: u8 = 255;

/// Whether so many ports can be forwarded.
pub(super) fn check(ports: &[u16]) -> Result<(), Rejected> {
    match ports.len() {
        0 => Err(bad_request("query parameter \"port\" is required")),
        1..=PORTS_MAX => Ok(()),
        _ => Err(bad_request("at most 127 ports can be forwarded at once")),
    }
}

/// Serves one client until it goes, or until every port has closed.
pub(super) async fn serve<S>(
    io: S,
    version: Version,
    ports: &[u16],
    connect: Connect,
) -> Result<(), Broken>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sink, stream) = websocket::server(io).await.split();
    let (said, heard) = mpsc::channel(PIECES_MAX);
    let mut tasks = JoinSet::new();
    let mut inputs = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let (input, receiver) = mpsc::channel(PIECES_MAX);
        inputs.push(Some(input));
        tasks.spawn(carry(index, *port, receiver, said.clone(), connect.clone()));
    }
    drop(said);
    let ended = tokio::select! {
        broken = read(stream, version, inputs) => Err(broken),
        written = write(sink, ports, heard) => written,
    };
    match ended {
        Err(Broken::Closed) => Ok(()),
        ended => ended,
    }
}

async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: SplitStream<WebSocketStream<S>>,
    version: Version,
    mut inputs: Vec<Option<mpsc::Sender<Bytes>>>,
) -> Broken {
    loop {
        let message = match stream.next().await {
            Some(Ok(Message::Binary(payload))) => payload,
            Some(Ok(Message::Close(_))) | None => return Broken::Closed,
            Some(Ok(_)) => continue,
            Some(Err(error)) => return error.into(),
        };
        match parse(version, &message) {
            Some(Meaning::Data(index)) => {
                if let Some(Some(input)) = inputs.get(index) {
                    // A connection that has ended takes no more.
                    let _ = input.send(message.slice(1..)).await;
                }
            }
            Some(Meaning::End(index)) => {
                if let Some(input) = inputs.get_mut(index) {
                    *input = None;
                }
            }
            None => {}
        }
    }
}

/// What a client's message is for: the port's index.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    Data(usize),
    End(usize),
}

fn parse(version: Version, message: &[u8]) -> Option<Meaning> {
    match (message, version) {
        ([CLOSE, channel], Version::V5) if channel % 2 == 0 => {
            Some(Meaning::End(usize::from(channel / 2)))
        }
        ([CLOSE, ..], _) => None,
        ([channel, _, ..], _) if channel % 2 == 0 => Some(Meaning::Data(usize::from(channel / 2))),
        _ => None,
    }
}

async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    ports: &[u16],
    mut heard: mpsc::Receiver<Said<usize>>,
) -> Result<(), Broken> {
    for (index, port) in ports.iter().enumerate() {
        for channel in [data_channel(index), error_channel(index)] {
            sink.feed(message(channel, &port.to_le_bytes())).await?;
        }
    }
    sink.flush().await?;
    while let Some(said) = heard.recv().await {
        let message = match said {
            Said::Data(index, bytes) => message(data_channel(index), &bytes),
            Said::Over(index, Some(why)) => message(error_channel(index), why.as_bytes()),
            Said::DataEnd(_) | Said::Over(_, None) => continue,
        };
        timeout(WRITE_STALL_MAX, sink.send(message))
            .await
            .map_err(|_| Broken::Stalled)??;
    }
    Ok(sink.close().await?)
}

fn data_channel(index: usize) -> u8 {
    2 * index as u8
}

fn error_channel(index: usize) -> u8 {
    data_channel(index) + 1
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut message = BytesMut::with_capacity(1 + bytes.len());
    message.put_u8(channel);
    message.put_slice(bytes);
    Message::Binary(message.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_port_by_their_channel() {
        assert_eq!(parse(Version::V4, b"\x00a"), Some(Meaning::Data(0)));
        assert_eq!(parse(Version::V4, b"\x04a"), Some(Meaning::Data(2)));
        assert_eq!(parse(Version::V4, b"\x01a"), None, "errors go one way");
        assert_eq!(parse(Version::V4, b"\x00"), None);
        assert_eq!(parse(Version::V5, b"\xff\x02"), Some(Meaning::End(1)));
        assert_eq!(parse(Version::V4, b"\xff\x02"), None);
        assert_eq!(parse(Version::V5, b""), None);
    }

    #[test]
    fn a_query_names_one_to_127_ports() {
        assert!(check(&[]).is_err());
        assert!(check(&[80]).is_ok());
        assert!(check(&[80; 128]).is_err());
    }
}
