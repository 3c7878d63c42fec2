//! Answers: their shape before they become HTTP, and how a `Status` is written.
//!
//! Never decides anything: whoever answers gives code, headers and content; [`Answer::finish`] adds what every answer has.

use crate::flow::Turn;
use crate::negotiate::accepts_gzip;
use crate::pace::{InFlight, Paced};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER, VARY, WARNING,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use objects::Status;
use sha2::{Digest, Sha256};
use std::io::Write;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BodyError(String);

impl BodyError {
    /// From whatever went wrong.
    pub fn new(why: impl std::fmt::Display) -> Self {
        BodyError(why.to_string())
    }
}

/// A body of any kind.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Answers above this many bytes are compressed when the client takes gzip, as apiserver does.
const GZIP_FROM_BYTES: usize = 128 * 1024;

/// An answer before it is written.
pub struct Answer {
    /// The code.
    pub code: StatusCode,
    /// Headers beyond those that every answer has.
    pub headers: HeaderMap,
    /// What is said.
    pub content: Content,
    /// The request's turn, which lasts until all is said.
    pub turn: Option<Turn>,
}

/// The content of an answer.
pub enum Content {
    /// All at once; may be compressed.
    Whole(Bytes),
    /// As it comes; written out at once.
    Stream(Body),
}

impl Answer {
    /// JSON.
    pub fn json(code: StatusCode, body: impl Into<Bytes>) -> Self {
        Answer::whole(code, "application/json", body)
    }

    /// Text for people.
    pub fn text(code: StatusCode, body: impl Into<Bytes>) -> Self {
        Answer::whole(code, "text/plain; charset=utf-8", body)
    }

    /// Bytes of a type.
    pub fn whole(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Answer {
            code,
            headers: content_type_header(content_type),
            content: Content::Whole(body.into()),
            turn: None,
        }
    }

    /// A value as JSON.
    pub fn value(code: StatusCode, value: &impl serde::Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Answer::json(code, body),
            Err(error) => Answer::status(&Status::internal(error)),
        }
    }

    /// A stream of a type.
    pub fn stream(content_type: &'static str, body: Body) -> Self {
        Answer {
            code: StatusCode::OK,
            headers: content_type_header(content_type),
            content: Content::Stream(body),
            turn: None,
        }
    }

    /// A `Status`, under the code that it names.
    pub fn status(status: &Status) -> Self {
        let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(status).unwrap_or_else(|_| b"{}".to_vec());
        let mut answer = Answer::json(code, body);
        let retry_after = status
            .details
            .as_ref()
            .and_then(|it| it.retry_after_seconds);
        if let Some(seconds) = retry_after {
            answer.set(RETRY_AFTER, &seconds.to_string());
        }
        answer
    }

    /// A document that clients keep: with an ETag, and 304 when the client has this very one.
    pub fn document(
        request: &HeaderMap,
        content_type: &'static str,
        body: impl Into<Bytes>,
    ) -> Self {
        let body: Bytes = body.into();
        let hash = hex::encode_upper(Sha256::digest(&body));
        Answer::tagged(request, content_type, &hash, body)
    }

    /// The same, when what stands for the content is known already.
    pub fn tagged(
        request: &HeaderMap,
        content_type: &'static str,
        hash: &str,
        body: Bytes,
    ) -> Self {
        let etag = format!("\"{hash}\"");
        let known = request
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|tag| tag.trim().trim_start_matches("W/") == etag);
        let mut answer = if known {
            Answer::whole(StatusCode::NOT_MODIFIED, content_type, Bytes::new())
        } else {
            Answer::whole(StatusCode::OK, content_type, body)
        };
        answer.set(ETAG, &etag);
        answer.set(VARY, "Accept");
        answer
    }

    /// Adds a header; a value that no header may hold is left out.
    pub fn set(&mut self, name: HeaderName, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
    }

    /// Adds what kubectl shows as `Warning: …`, by RFC 7234's code 299.
    #[must_use]
    pub fn with_warnings(mut self, warnings: &[String]) -> Self {
        for warning in warnings {
            let clean: String = warning.chars().filter(|c| !c.is_control()).collect();
            let quoted = clean.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
                self.headers.append(WARNING, value);
            }
        }
        self
    }

    /// Keeps the request's turn until all is said.
    #[must_use]
    pub fn holding(self, turn: Turn) -> Self {
        Answer {
            turn: Some(turn),
            ..self
        }
    }

    /// Writes the answer for a request that came with `request` headers; `head` leaves the content out.
    pub async fn finish(self, request: &HeaderMap, head: bool, asked: InFlight) -> Response<Paced> {
        let Answer {
            code,
            mut headers,
            content,
            turn,
        } = self;
        let has_end = matches!(content, Content::Whole(_));
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-cache, private"));
        let body = match content {
            Content::Whole(_) | Content::Stream(_) if head => empty(),
            Content::Stream(body) => body,
            Content::Whole(bytes) if bytes.len() > GZIP_FROM_BYTES && accepts_gzip(request) => {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
                full(gzip(bytes).await)
            }
            Content::Whole(bytes) => full(bytes),
        };
        let mut response = Response::new(Paced::new(body, has_end, asked, turn));
        *response.status_mut() = code;
        *response.headers_mut() = headers;
        response
    }
}

/// A body that holds `bytes`.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body without content.
pub fn empty() -> Body {
    full(Bytes::new())
}

fn content_type_header(content_type: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers
}

/// Compresses away from the runtime's own threads; `GZIP_FROM_BYTES` makes the detour worth it.
async fn gzip(bytes: Bytes) -> Bytes {
    let compress = move || {
        let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
        encoder
            .write_all(&bytes)
            .and_then(|()| encoder.finish())
            .expect("writing into memory does not fail")
    };
    match tokio::task::spawn_blocking(compress).await {
        Ok(compressed) => compressed.into(),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
