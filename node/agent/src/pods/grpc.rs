//! The gRPC health checking protocol, as far as a probe speaks it: one `Check` over plain HTTP/2.
//! Rule: grpc/doc/health-checking.md and PROTOCOL-HTTP2.md.

use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;

const CHECK: &str = "/grpc.health.v1.Health/Check";
/// A flag that says uncompressed, and the message's length.
const PREFIX_BYTES: usize = 5;
const ANSWER_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

impl ServingStatus {
    /// As the protocol's definition writes it.
    fn name(self) -> &'static str {
        match self {
            ServingStatus::Unknown => "UNKNOWN",
            ServingStatus::Serving => "SERVING",
            ServingStatus::NotServing => "NOT_SERVING",
            ServingStatus::ServiceUnknown => "SERVICE_UNKNOWN",
        }
    }
}

/// Asks whether `service` serves (the whole server where it is empty); the error is what the event says.
pub async fn check(stream: TcpStream, authority: &str, service: &str) -> Result<(), String> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| format!("no HTTP/2: {error}"))?;
    let driver = tokio::spawn(connection);
    let answered = exchange(&mut sender, authority, service).await;
    driver.abort();
    match answered? {
        ServingStatus::Serving => Ok(()),
        other => Err(format!(
            "service unhealthy (responded with \"{}\")",
            other.name()
        )),
    }
}

async fn exchange(
    sender: &mut hyper::client::conn::http2::SendRequest<Full<Bytes>>,
    authority: &str,
    service: &str,
) -> Result<ServingStatus, String> {
    let request = Request::post(format!("http://{authority}{CHECK}"))
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .header(http::header::USER_AGENT, "kube-probe/1.35")
        .body(Full::new(framed(service)))
        .map_err(|error| format!("the probe's request cannot be made: {error}"))?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| format!("no answer: {error}"))?;
    let (head, body) = answer.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(format!("the server answered {}", head.status));
    }
    let body = Limited::new(body, ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| format!("the answer broke off: {error}"))?;
    // An answer without a message has its status among the headers.
    let trailers = body.trailers().cloned().unwrap_or_default();
    let told = |name: &str| {
        let value = trailers.get(name).or(head.headers.get(name));
        value.and_then(|value| value.to_str().ok())
    };
    match told("grpc-status") {
        Some("0") => parse(&body.to_bytes()),
        Some("12") => Err(
            "this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                .to_owned(),
        ),
        code => Err(format!(
            "gRPC status {}: {}",
            code.unwrap_or("absent"),
            told("grpc-message").unwrap_or_default()
        )),
    }
}

fn framed(service: &str) -> Bytes {
    let message = HealthCheckRequest {
        service: service.to_owned(),
    };
    let message = message.encode_to_vec();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    // A service's name in a pod is at most a few hundred bytes.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    framed.freeze()
}

fn parse(body: &[u8]) -> Result<ServingStatus, String> {
    let message = match body {
        [0, a, b, c, d, message @ ..] => {
            let length = u32::from_be_bytes([*a, *b, *c, *d]);
            usize::try_from(length)
                .ok()
                .and_then(|length| message.get(..length))
        }
        _ => None,
    };
    let message = message.ok_or("the answer is no gRPC message")?;
    let response = HealthCheckResponse::decode(message)
        .map_err(|error| format!("the answer is no HealthCheckResponse: {error}"))?;
    Ok(response.status())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed_as_grpc_has_them() {
        assert_eq!(&framed("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&framed("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(parse(&[0, 0, 0, 0, 2, 8, 1]), Ok(ServingStatus::Serving));
        assert_eq!(parse(&[0, 0, 0, 0, 0]), Ok(ServingStatus::Unknown));
        for wrong in [&[][..], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 9, 8]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    /// A server that answers every call with a status in a message, or with a code alone.
    async fn server(status: i32, code: &'static str) -> std::net::SocketAddr {
        use http_body_util::StreamBody;
        use hyper::body::Frame;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let service = hyper::service::service_fn(
                move |request: Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.uri().path(), CHECK);
                    let body = request
                        .into_body()
                        .collect()
                        .await
                        .expect("a body")
                        .to_bytes();
                    assert_eq!(body, framed("db"));
                    let message = HealthCheckResponse { status }.encode_to_vec();
                    let mut bytes = vec![0, 0, 0, 0, u8::try_from(message.len()).expect("short")];
                    bytes.extend(message);
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", code.parse().expect("a code"));
                    let frames = [Frame::data(Bytes::from(bytes)), Frame::trailers(trailers)];
                    let frames =
                        futures::stream::iter(frames.map(Ok::<_, std::convert::Infallible>));
                    Ok::<_, std::convert::Infallible>(http::Response::new(StreamBody::new(frames)))
                },
            );
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // It ends with the client.
            let _ = connection
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        address
    }

    #[tokio::test]
    async fn a_server_says_how_it_is() {
        let ask = async |status, code| {
            let address = server(status, code).await;
            let stream = TcpStream::connect(address).await.expect("connects");
            check(stream, &address.to_string(), "db").await
        };
        assert_eq!(ask(1, "0").await, Ok(()));
        let unhealthy = ask(2, "0").await.expect_err("unhealthy");
        assert!(unhealthy.contains("NOT_SERVING"), "{unhealthy}");
        let absent = ask(0, "12").await.expect_err("absent");
        assert!(absent.contains("does not implement"), "{absent}");
    }
}
