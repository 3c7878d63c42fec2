//! Recognises a request for streams and upgrades its connection.
//! [`negotiate`] is pure and decides; [`accept`] takes the connection over.
//! Where a client offers several protocols, its first that is known here is taken, as the kubelet does.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::command::{RemoteCommand, Wants};
use crate::{spdy, websocket};

const WEBSOCKET: &str = "websocket";
pub(crate) const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName =
    HeaderName::from_static("x-accepted-stream-protocol-versions");
pub(crate) const V5: &str = "v5.channel.k8s.io";
pub(crate) const V4: &str = "v4.channel.k8s.io";
/// A client has this long to open its streams after the upgrade: the kubelet's default.
const OPEN_MAX: Duration = Duration::from_secs(30);

/// Why a request gets no streams: the answer to give instead of the upgrade.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejected {
    /// A 4xx.
    pub status: StatusCode,
    /// What is wrong with the request, and what would do.
    pub message: String,
}

/// Why an accepted request came to nothing, or to an early end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP connection ended instead of being upgraded.
    #[error("upgrading the connection failed: {0}")]
    Upgrade(#[from] hyper::Error),
    /// The client left, or broke the protocol, before its streams were open.
    #[error("opening the streams failed: {0}")]
    Open(String),
    /// The client did not open its streams in time.
    #[error("the client did not open its streams within {} s", OPEN_MAX.as_secs())]
    Late,
    /// A forwarding broke off.
    #[error("forwarding ended: {0}")]
    Forward(String),
}

/// The upgrade in progress. It resolves after the 101 was sent, so run it beside the answer, not before it.
pub type Opening = BoxFuture<'static, Result<RemoteCommand, Error>>;

/// Takes the connection of a request over for the streams that it wants.
///
/// Answer with the response (a 101), and await the [`Opening`] in a task of its own: the command's streams are in it.
/// The connection must be HTTP/1.1 and served `with_upgrades`, else the opening fails.
/// `wants` comes from the request's query, which names the parameters differently at the API server and the kubelet.
pub fn accept<B>(
    request: &mut Request<B>,
    wants: Wants,
) -> Result<(Response<Empty<Bytes>>, Opening), Rejected> {
    if !(wants.stdin || wants.stdout || wants.stderr) {
        return Err(bad_request(
            "you must specify at least 1 of stdin, stdout, stderr",
        ));
    }
    let agreed = negotiate(request.method(), request.headers())?;
    let upgrade = hyper::upgrade::on(request);
    let opening = async move {
        let io = TokioIo::new(upgrade.await?);
        let open = async {
            match agreed.protocol {
                Protocol::WebSocket(version) => websocket::open(io, version, wants).await,
                Protocol::Spdy => spdy::open(io, wants).await,
            }
        };
        match timeout(OPEN_MAX, open).await {
            Ok(Ok(command)) => Ok(command),
            Ok(Err(broken)) => Err(Error::Open(broken.to_string())),
            Err(_) => Err(Error::Late),
        }
    };
    Ok((agreed.response, Box::pin(opening)))
}

/// The version of the WebSocket subprotocol. The fifth can end standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V5,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    WebSocket(Version),
    Spdy,
}

#[derive(Debug)]
struct Agreed {
    protocol: Protocol,
    response: Response<Empty<Bytes>>,
}

/// What the headers of a request ask for, and the answer to it.
fn negotiate(method: &Method, headers: &HeaderMap) -> Result<Agreed, Rejected> {
    if requires_upgrade(headers)? == SPDY {
        let response = negotiate_spdy(headers, V4)?;
        let protocol = Protocol::Spdy;
        return Ok(Agreed { protocol, response });
    }
    let (name, response) = negotiate_websocket(method, headers, &[V5, V4])?;
    let version = if name == V5 { Version::V5 } else { Version::V4 };
    let protocol = Protocol::WebSocket(version);
    Ok(Agreed { protocol, response })
}

/// The protocol of the upgrade that a request asks for.
pub(crate) fn requires_upgrade(headers: &HeaderMap) -> Result<&'static str, Rejected> {
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(bad_request(
            "this is a stream: send Connection: Upgrade, and Upgrade: websocket or SPDY/3.1",
        ));
    }
    let known = [WEBSOCKET, SPDY];
    known
        .into_iter()
        .find(|name| has_token(headers, &UPGRADE, name))
        .ok_or_else(|| bad_request("the Upgrade header must be websocket or SPDY/3.1"))
}

/// The first subprotocol that the client offers and `accepted` holds, and the answer that agrees to it.
pub(crate) fn negotiate_websocket(
    method: &Method,
    headers: &HeaderMap,
    accepted: &[&'static str],
) -> Result<(&'static str, Response<Empty<Bytes>>), Rejected> {
    if method != Method::GET {
        return Err(bad_request("a WebSocket is opened by GET"));
    }
    if !has_token(headers, &SEC_WEBSOCKET_VERSION, "13") {
        return Err(bad_request("Sec-WebSocket-Version must be 13"));
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .ok_or_else(|| bad_request("Sec-WebSocket-Key is missing"))?;
    let offered: Vec<&str> = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
    let known = |name: &&str| accepted.iter().copied().find(|accepted| accepted == name);
    let name = offered
        .iter()
        .find_map(known)
        .ok_or_else(|| no_common_protocol("Sec-WebSocket-Protocol", &offered, accepted))?;
    let mut response = switching(WEBSOCKET);
    let answer = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| bad_request("Sec-WebSocket-Key is not a key"))?;
    let headers = response.headers_mut();
    headers.insert(SEC_WEBSOCKET_ACCEPT, answer);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    Ok((name, response))
}

/// The answer to a client that offers the stream protocol `accepted`.
pub(crate) fn negotiate_spdy(
    headers: &HeaderMap,
    accepted: &'static str,
) -> Result<Response<Empty<Bytes>>, Rejected> {
    let offered: Vec<&str> = tokens(headers, &STREAM_PROTOCOL).collect();
    if !offered.contains(&accepted) {
        return Err(no_common_protocol(
            "X-Stream-Protocol-Version",
            &offered,
            &[accepted],
        ));
    }
    let mut response = switching(SPDY);
    let headers = response.headers_mut();
    headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(accepted));
    headers.insert(ACCEPTED_PROTOCOLS, HeaderValue::from_static(accepted));
    Ok(response)
}

fn switching(protocol: &'static str) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    response
}

/// The values of a header that may be sent in several lines and several to a line.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

pub(crate) fn bad_request(message: &str) -> Rejected {
    Rejected {
        status: StatusCode::BAD_REQUEST,
        message: message.to_owned(),
    }
}

/// 403, as the kubelet answers: kubectl shows the message.
fn no_common_protocol(header: &str, offered: &[&str], accepted: &[&str]) -> Rejected {
    Rejected {
        status: StatusCode::FORBIDDEN,
        message: format!(
            "unable to negotiate a protocol in {header}: client offers [{}], server accepts [{}]",
            offered.join(", "),
            accepted.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            })
    }

    fn web_socket(protocols: &'static str) -> HeaderMap {
        headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", protocols),
        ])
    }

    #[test]
    fn takes_the_first_known_websocket_protocol() {
        let cases = [
            ("v5.channel.k8s.io", Version::V5),
            ("v4.channel.k8s.io, v5.channel.k8s.io", Version::V4),
            (
                "base64.channel.k8s.io,v5.channel.k8s.io,v4.channel.k8s.io",
                Version::V5,
            ),
        ];
        for (protocols, version) in cases {
            let agreed = negotiate(&Method::GET, &web_socket(protocols)).expect(protocols);
            assert_eq!(agreed.protocol, Protocol::WebSocket(version));
            // The key and its answer are RFC 6455's example.
            assert_eq!(
                agreed.response.headers()[SEC_WEBSOCKET_ACCEPT],
                "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
            );
        }
    }

    #[test]
    fn refuses_other_websocket_protocols() {
        let rejected = negotiate(&Method::GET, &web_socket("channel.k8s.io")).expect_err("too old");
        assert_eq!(rejected.status, StatusCode::FORBIDDEN);
        assert_eq!(
            rejected.message,
            "unable to negotiate a protocol in Sec-WebSocket-Protocol: client offers [channel.k8s.io], \
             server accepts [v5.channel.k8s.io, v4.channel.k8s.io]"
        );
        let rejected = negotiate(&Method::POST, &web_socket(V5)).expect_err("POST");
        assert_eq!(rejected.status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn takes_spdy_with_the_fourth_protocol_only() {
        let offer = |protocols: &[&'static str]| {
            let mut lines = vec![("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
            lines.extend(
                protocols
                    .iter()
                    .map(|name| ("x-stream-protocol-version", *name)),
            );
            negotiate(&Method::POST, &headers(&lines))
        };
        let agreed = offer(&["v4.channel.k8s.io", "v3.channel.k8s.io"]).expect("v4");
        assert_eq!(agreed.protocol, Protocol::Spdy);
        assert_eq!(agreed.response.headers()[STREAM_PROTOCOL], V4);
        assert_eq!(
            offer(&["v3.channel.k8s.io"]).expect_err("old").status,
            StatusCode::FORBIDDEN
        );
        assert_eq!(offer(&[]).expect_err("none").status, StatusCode::FORBIDDEN);
    }

    #[test]
    fn a_plain_request_is_told_to_upgrade() {
        let rejected = negotiate(&Method::GET, &HeaderMap::new()).expect_err("no upgrade");
        assert_eq!(rejected.status, StatusCode::BAD_REQUEST);
    }
}
