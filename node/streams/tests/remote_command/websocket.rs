//! What other WebSocket clients than kubectl do: the fourth protocol, text messages, silence, disappearance.

use std::time::Duration;

use crate::support::{Seen, Server, noise};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderValue, StatusCode};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

const V4: &str = "v4.channel.k8s.io";
const V5: &str = "v5.channel.k8s.io";

async fn connect(
    server: &Server,
    protocol: &'static str,
    query: &str,
) -> Result<WebSocketStream<TcpStream>, Error> {
    let address = server.address();
    let url = format!("ws://{address}/api/v1/namespaces/default/pods/p1/exec?{query}");
    let mut request = url.into_client_request()?;
    request
        .headers_mut()
        .insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    let socket = TcpStream::connect(address).await?;
    tokio_tungstenite::client_async(request, socket)
        .await
        .map(|(socket, _)| socket)
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Message {
    timeout(Duration::from_secs(10), socket.next())
        .await
        .expect("the server says something")
        .expect("the connection is open")
        .expect("the server speaks WebSocket")
}

/// What comes on the channels until the server closes, a line for each message.
async fn story(socket: &mut WebSocketStream<TcpStream>) -> Vec<String> {
    let mut story = Vec::new();
    loop {
        match next(socket).await {
            Message::Binary(bytes) => story.push(format!(
                "{} {}",
                bytes[0],
                String::from_utf8_lossy(&bytes[1..])
            )),
            Message::Close(frame) => {
                assert_eq!(frame.expect("a reason").code, CloseCode::Normal);
                let end = timeout(Duration::from_secs(5), socket.next()).await;
                assert!(matches!(end, Ok(None)), "the server closes the connection");
                return story;
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}

fn binary(bytes: &'static [u8]) -> Message {
    Message::Binary(Bytes::from_static(bytes))
}

#[tokio::test]
async fn the_fourth_protocol_works_and_cannot_end_input() {
    let mut server = Server::start().await;
    let query = "command=sh&command=-c&command=read+a;+echo+$a;+read+b;+echo+$b;+exit+3&stdin=true&stdout=true&stderr=true";
    let mut socket = connect(&server, V4, query).await.expect("accepted");
    assert_eq!(next(&mut socket).await, binary(b"\x01"), "the greeting");
    socket.send(binary(b"\x00one\n")).await.expect("sent");
    socket.send(binary(b"\xff\x00")).await.expect("sent");
    assert_eq!(next(&mut socket).await, binary(b"\x01one\n"));
    socket
        .send(Message::text("\x00two\n"))
        .await
        .expect("text messages are taken too");
    let story = story(&mut socket).await;
    assert_eq!(
        story,
        [
            "1 two\n",
            "3 {\"metadata\":{},\"status\":\"Failure\",\
             \"message\":\"command terminated with non-zero exit code: exit status 3\",\
             \"reason\":\"NonZeroExitCode\",\
             \"details\":{\"causes\":[{\"reason\":\"ExitCode\",\"message\":\"3\"}]}}",
        ]
    );
    assert_eq!(server.next_seen().await, Seen::Upgrade("websocket".into()));
    assert_eq!(server.next_seen().await, Seen::Finished(Ok(())));
}

#[tokio::test]
async fn a_command_given_up_ends_with_a_status() {
    let server = Server::start().await;
    let mut socket = connect(&server, V5, "command=abandon&stderr=true")
        .await
        .expect("accepted");
    let story = story(&mut socket).await;
    assert_eq!(story[0], "2 ");
    assert!(story[1].starts_with("3 {\"metadata\":{},\"status\":\"Failure\""));
    assert!(story[1].contains("how it ended is unknown"));
}

#[tokio::test]
async fn other_protocols_and_no_streams_are_refused() {
    let server = Server::start().await;
    let cases = [
        (
            "v1.channel.k8s.io",
            "command=true&stdout=true",
            StatusCode::FORBIDDEN,
        ),
        (V5, "command=true", StatusCode::BAD_REQUEST),
    ];
    for (protocol, query, status) in cases {
        match connect(&server, protocol, query).await {
            Err(Error::Http(response)) => assert_eq!(response.status(), status),
            other => panic!("{protocol} {query}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn pings_are_answered() {
    let server = Server::start().await;
    let mut socket = connect(&server, V5, "command=sleep&command=60&stdout=true")
        .await
        .expect("accepted");
    assert_eq!(next(&mut socket).await, binary(b"\x01"));
    let payload = Bytes::from_static(b"are you there");
    socket
        .send(Message::Ping(payload.clone()))
        .await
        .expect("sent");
    assert_eq!(next(&mut socket).await, Message::Pong(payload));
}

/// kubectl's patience with a silent server is 15 s; a full pipe must not count as silence, nor hide that kubectl is gone.
#[tokio::test]
async fn a_command_that_does_not_read_keeps_its_client_and_loses_it() {
    let mut server = Server::start().await;
    let query = "command=sleep&command=60&stdin=true&stdout=true";
    let mut socket = connect(&server, V5, query).await.expect("accepted");
    assert_eq!(next(&mut socket).await, binary(b"\x01"));
    let (mut sink, mut stream) = socket.split();
    let sending = tokio::spawn(async move {
        let piece = Bytes::from([&[0], &noise(32 * 1024)[..]].concat());
        while sink.send(Message::Binary(piece.clone())).await.is_ok() {}
    });
    let sign = timeout(Duration::from_secs(8), stream.next()).await;
    assert_eq!(
        sign.expect("a sign of life").expect("open").expect("right"),
        Message::Pong(Bytes::new())
    );
    assert!(!sending.is_finished(), "the pipe is full");
    assert_eq!(server.next_seen().await, Seen::Upgrade("websocket".into()));
    sending.abort();
    drop(stream);
    let _ = sending.await;
    sleep(Duration::from_millis(10)).await;
    assert_eq!(server.next_seen().await, Seen::Gone);
}
