//! Request bodies: read under a limit, decoded by their `Content-Type` into one JSON value.
//!
//! Never looks into the object beyond its syntax: schema and kind are the registry's. An absent `Content-Type` is JSON.

use crate::flow::Flow;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use objects::{Reason, Status};
use registry::schema::Schemas;
use serde_json::Value;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;

/// The most that a request may hold, as in apiserver.
pub const REQUEST_BYTES_MAX: usize = 3 * 1024 * 1024;

/// How much of an unwanted body is read, and how long.
const LINGER_BYTES_MAX: usize = 256 * 1024 * 1024;
const LINGER_MAX: Duration = Duration::from_secs(5);

/// How an object is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`, or nothing said.
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// A decoded body.
#[derive(Debug)]
pub struct Decoded {
    /// The object.
    pub value: Value,
    /// Members that came more than once, as strict field validation names them; the last of them counts.
    pub duplicates: Vec<String>,
}

/// A request's body as it comes. What is left of it when nobody wants it any more is read for a while and thrown away:
/// a client that is still sending would otherwise see a broken connection instead of its answer.
pub struct Upload(Option<Incoming>);

impl Upload {
    /// The request with its body so wrapped.
    pub fn of(request: Request<Incoming>) -> Request<Upload> {
        request.map(|body| Upload(Some(body)))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.0 = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let left = self.0.take().filter(|body| !body.is_end_stream());
        if let (Some(body), Ok(runtime)) = (left, Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(LINGER_MAX, discard(body)));
        }
    }
}

async fn discard(mut body: Incoming) {
    let mut bytes_left = LINGER_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let count = frame.data_ref().map_or(0, Bytes::len);
        if count > bytes_left {
            return;
        }
        bytes_left -= count;
    }
}

/// A whole body, with its part of what all bodies may hold.
#[derive(Debug)]
pub struct Held {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Deref for Held {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

/// Reads a whole body; 413 when it is larger than `bytes_max`, 429 when all bodies together hold too much.
pub async fn read<B>(body: B, bytes_max: usize, flow: &Flow) -> Result<Held, Status>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut body = body;
    let mut pieces = Vec::new();
    let (mut size, mut room) = (0, None::<OwnedSemaphorePermit>);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Status::bad_request(format!("the request's body broke off: {error}"))
        })?;
        let Ok(piece) = frame.into_data() else {
            continue; // Trailers say nothing here.
        };
        size += piece.len();
        if size > bytes_max {
            return Err(Status::failure(
                413,
                Reason::RequestEntityTooLarge,
                format!("Request entity too large: limit is {bytes_max}"),
            ));
        }
        let more = flow.body(piece.len())?;
        match &mut room {
            Some(room) => room.merge(more),
            none => *none = Some(more),
        }
        pieces.push(piece);
    }
    let bytes = match &mut pieces[..] {
        [one] => std::mem::take(one),
        pieces => pieces.concat().into(),
    };
    Ok(Held { bytes, _room: room })
}

/// The media type without its parameters; None when nothing is said.
pub fn media_type(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media_type = text.split(';').next().unwrap_or_default().trim();
    (!media_type.is_empty()).then_some(media_type)
}

/// The format of an object in a body; 415 for one that the server does not read.
pub fn format(headers: &HeaderMap) -> Result<Format, Status> {
    match media_type(headers) {
        None | Some("application/json") => Ok(Format::Json),
        Some("application/yaml") => Ok(Format::Yaml),
        Some("application/vnd.kubernetes.protobuf") => Ok(Format::Protobuf),
        Some(_) => Err(unsupported(
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// 415 with what would have been read.
pub fn unsupported(accepted: &str) -> Status {
    Status::failure(
        415,
        Reason::UnsupportedMediaType,
        format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        ),
    )
}

/// Decodes a body that should hold a `kind`.
pub async fn decode(format: Format, bytes: &Bytes, kind: &str) -> Result<Decoded, Status> {
    match format {
        Format::Json => {
            decode_json(bytes).map_err(|error| unrecognized(kind, "json", &error, bytes))
        }
        Format::Yaml => {
            let decoded = decode_yaml(bytes).await;
            decoded.map_err(|error| unrecognized(kind, "yaml", &error, bytes))
        }
        Format::Protobuf => {
            let (_, value) = Schemas::builtin()
                .decode_protobuf(bytes)
                .map_err(|error| unrecognized(kind, "protobuf", &error.to_string(), bytes))?;
            Ok(Decoded {
                value,
                duplicates: vec![],
            })
        }
    }
}

/// Decodes a patch: always JSON, but for apply patches, which are YAML (of which JSON is a part).
pub async fn decode_patch(bytes: &Bytes, yaml: bool) -> Result<Decoded, Status> {
    let mut decoded = decode_json(bytes);
    if yaml && decoded.is_err() {
        decoded = decode_yaml(bytes).await;
    }
    decoded.map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))
}

fn decode_json(bytes: &[u8]) -> Result<Decoded, String> {
    let (value, duplicates) = registry::decode_json(bytes).map_err(|status| {
        let (_, why) = status
            .message
            .rsplit_once("no JSON: ")
            .unwrap_or(("", &status.message));
        why.to_owned()
    })?;
    Ok(Decoded { value, duplicates })
}

/// On a thread whose stack nobody has used yet, since the parser takes a good part of it for deep nesting; aliases that unfold
/// into the most that the parser allows keep it busy for a while.
async fn decode_yaml(bytes: &Bytes) -> Result<Decoded, String> {
    let bytes = bytes.clone();
    let read = move || serde_saphyr::from_slice(&bytes).map_err(|error| error.to_string());
    let value = tokio::task::spawn_blocking(read).await;
    Ok(Decoded {
        value: value.map_err(|error| error.to_string())??,
        duplicates: vec![],
    })
}

/// How apimachinery says that a body is not what its type promises.
fn unrecognized(kind: &str, format: &str, error: &str, bytes: &[u8]) -> Status {
    const SHOWN_BYTES: usize = 200;
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]);
    let more = if bytes.len() > SHOWN_BYTES {
        " ..."
    } else {
        ""
    };
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; {format} parse error: {error} ({shown:?}{more})"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ApiConfig;

    #[test]
    fn formats_by_content_type() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, text.parse().expect("a header"));
            format(&headers)
        };
        assert_eq!(format(&HeaderMap::new()).expect("JSON"), Format::Json);
        assert_eq!(
            of("application/json; charset=utf-8").expect("JSON"),
            Format::Json
        );
        assert_eq!(of("application/yaml").expect("YAML"), Format::Yaml);
        assert_eq!(of("text/html").expect_err("not read").code, 415);
    }

    #[tokio::test]
    async fn broken_json_says_so() {
        let body = Bytes::from_static(b"{\"kind\":");
        let decoded = decode(Format::Json, &body, "Pod").await;
        let status = decoded.expect_err("broken");
        assert_eq!(status.code, 400);
        assert!(status.message.starts_with("the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: "), "{}", status.message);
    }

    #[tokio::test]
    async fn large_bodies_are_refused_and_so_are_too_many() {
        let flow = Flow::new(&ApiConfig::default());
        let body = |bytes: usize| http_body_util::Full::new(Bytes::from(vec![b'x'; bytes]));
        let large = read(body(REQUEST_BYTES_MAX + 1), REQUEST_BYTES_MAX, &flow).await;
        assert_eq!(large.expect_err("too large").code, 413);
        let mut held = Vec::new();
        let refused = loop {
            match read(body(REQUEST_BYTES_MAX), REQUEST_BYTES_MAX, &flow).await {
                Ok(body) => held.push(body),
                Err(status) => break status,
            }
            assert!(held.len() < 1000);
        };
        assert_eq!(refused.code, 429);
        assert!(held.len() > 50);
        held.pop();
        let again = read(body(REQUEST_BYTES_MAX), REQUEST_BYTES_MAX, &flow).await;
        assert_eq!(again.expect("there is room").len(), REQUEST_BYTES_MAX);
    }
}
