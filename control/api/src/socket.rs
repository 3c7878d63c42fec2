//! A stream of lines over a WebSocket, a text message a line: browsers open only six connections to a server by HTTP/1.1, and a
//! page watches more than that.
//!
//! As in apiserver, a watch is so answered when its client asks to upgrade. Of the client only pings and its close are heard. One
//! that does not read stops its own stream, and nothing else.

use crate::answer::{Answer, Content};
use crate::body::Upload;
use crate::flow::Place;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper_util::rt::TokioIo;
use objects::Status;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tracing::debug;

/// What a client may send, which is next to nothing.
const MESSAGE_BYTES_MAX: usize = 4096;
/// How long one line may take to be sent.
const SEND_MAX: Duration = Duration::from_secs(60);

/// Whether the request asks to become a WebSocket.
pub fn is_asked(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket"))
}

/// Upgrades the connection and sends the lines; `place` is held until they end.
pub fn answer(
    mut request: Request<Upload>,
    lines: BoxStream<'static, Bytes>,
    place: Place,
) -> Result<Answer, Status> {
    let headers = handshake(request.headers())?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => feed(TokioIo::new(upgraded), lines).await,
            Err(error) => debug!(%error, "an upgrade was not completed"),
        }
        drop(place);
    });
    Ok(Answer {
        code: StatusCode::SWITCHING_PROTOCOLS,
        headers,
        content: Content::Whole(Bytes::new()),
        turn: None,
    })
}

/// The headers of the 101. Of the subprotocols the client's first is taken: none of them changes what is sent.
fn handshake(asked: &HeaderMap) -> Result<HeaderMap, Status> {
    let text = |name| {
        asked
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let Some(key) = text(SEC_WEBSOCKET_KEY).filter(|_| text(SEC_WEBSOCKET_VERSION) == Some("13"))
    else {
        return Err(Status::bad_request(
            "a WebSocket needs Sec-WebSocket-Key and Sec-WebSocket-Version: 13",
        ));
    };
    let accept = derive_accept_key(key.as_bytes());
    let accept = HeaderValue::from_str(&accept).map_err(Status::internal)?;
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    let protocol = text(SEC_WEBSOCKET_PROTOCOL).and_then(|offered| offered.split(',').next());
    if let Some(protocol) = protocol.and_then(|name| HeaderValue::from_str(name.trim()).ok()) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(headers)
}

async fn feed<S>(io: S, mut lines: BoxStream<'static, Bytes>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            heard = socket.next() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
        };
        let Some(text) = line.map(trimmed) else {
            break;
        };
        let Ok(text) = Utf8Bytes::try_from(text) else {
            return debug!("a line is no UTF-8");
        };
        let sent = tokio::time::timeout(SEND_MAX, socket.send(Message::Text(text)));
        if !matches!(sent.await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = tokio::time::timeout(SEND_MAX, socket.close(None)).await;
}

fn trimmed(line: Bytes) -> Bytes {
    line.slice(..line.trim_ascii_end().len())
}
