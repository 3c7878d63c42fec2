//! Answers of the kubelet API.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A text.
pub fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    with(
        status,
        "text/plain; charset=utf-8",
        whole(text.into().into()),
    )
}

/// A text of a type.
pub fn typed(content_type: &'static str, text: String) -> Response<Body> {
    with(StatusCode::OK, content_type, whole(text.into()))
}

/// A JSON value.
pub fn json(value: &Value) -> Response<Body> {
    with(
        StatusCode::OK,
        "application/json",
        whole(value.to_string().into()),
    )
}

/// A stream of bytes; a failure cuts the answer off.
pub fn stream<S, E>(chunks: S) -> Response<Body>
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: std::fmt::Display,
{
    let frames = chunks.map(|chunk| {
        chunk
            .map(Frame::data)
            .map_err(|error| std::io::Error::other(error.to_string()))
    });
    with(
        StatusCode::OK,
        "text/plain; charset=utf-8",
        StreamBody::new(frames).boxed_unsync(),
    )
}

/// A body of known bytes.
pub fn whole(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn with(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
