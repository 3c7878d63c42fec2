//! What a stranger's bytes go through before anything is decided, as functions of the bytes alone: for fuzzing and for tests.

use crate::body;
use crate::path::Route;
use crate::query::Query;
use crate::{options, path::ResourcePath, tokens};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Uri};
use objects::Status;
use serde_json::Value;
use std::sync::LazyLock;
use tokio::runtime::{Builder, Runtime};

/// On whose threads YAML is read.
static TOKIO: LazyLock<Runtime> = LazyLock::new(|| {
    let built = Builder::new_current_thread().build();
    built.expect("a runtime without a driver needs nothing")
});

/// Reads a request's line, its options included; gives the names that it holds, if it is about a resource.
pub fn request_line(method: &Method, uri: &Uri) -> Result<Option<Vec<String>>, Status> {
    let query = Query::parse(uri.query().unwrap_or_default());
    let Route::Resource(path) = Route::parse(method, uri, &query) else {
        return Ok(None);
    };
    let ResourcePath {
        namespace,
        resource,
        name,
        subresource,
        ..
    } = path;
    options::list(&query, name.as_deref())?;
    options::write(&query, &HeaderMap::new(), false)?;
    options::delete(&query, &HeaderMap::new(), None)?;
    let names = [namespace, Some(resource), name, subresource];
    Ok(Some(names.into_iter().flatten().collect()))
}

/// Decodes the body of a write that should hold a `kind`.
pub fn body(content_type: &str, bytes: &[u8], kind: &str) -> Result<Value, Status> {
    let mut headers = HeaderMap::new();
    let content_type = HeaderValue::from_str(content_type).map_err(Status::internal)?;
    headers.insert(CONTENT_TYPE, content_type);
    let format = body::format(&headers)?;
    let bytes = Bytes::copy_from_slice(bytes);
    let decoded = TOKIO.block_on(body::decode(format, &bytes, kind))?;
    Ok(decoded.value)
}

/// Whom an issuer's token is of, when one of the keys of its key set signed it: name and groups.
pub fn token(token: &str, key_set: &Value) -> Result<(String, Vec<String>), String> {
    let known = tokens::input::signed(token, key_set);
    known.map(|caller| (caller.user, caller.groups))
}

/// What a token's claims come to, nothing of them verified: of an issuer's, name and groups. The cluster's own are read beside them.
pub fn claims(token: &str) -> Result<(String, Vec<String>), String> {
    let known = tokens::input::unsigned(token);
    known.map(|caller| (caller.user, caller.groups))
}

/// Decodes a patch; an apply patch may be YAML.
pub fn patch(bytes: &[u8], yaml: bool) -> Result<Value, Status> {
    let bytes = Bytes::copy_from_slice(bytes);
    let decoded = TOKIO.block_on(body::decode_patch(&bytes, yaml))?;
    Ok(decoded.value)
}
