//! `POST /images/import` and `GET /images`.

use std::path::Path;

use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::BodyDataStream;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::answer::{self, Body};
use super::query::Query;
use crate::context::Context;

/// An archive is not taken beyond this size.
const ARCHIVE_BYTES_MAX: u64 = 16 << 30;
/// A client that sends nothing for so long is given up.
const SILENCE_MAX: std::time::Duration = std::time::Duration::from_secs(120);

/// Every image of the node.
pub fn list(context: &Context) -> Response<Body> {
    match context.pods.images().list() {
        Ok(images) => {
            let image = |image: &node_runtime::Image| json!({ "reference": image.reference.to_string(), "digest": image.digest, "bytes": image.bytes });
            answer::json(&json!({ "images": images.iter().map(image).collect::<Vec<Value>>() }))
        }
        Err(error) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Takes an OCI archive; `name` names the only image of one that carries no name.
pub async fn import(context: &Context, request: Request<Incoming>) -> Response<Body> {
    let query = Query::parse(request.uri().query());
    let folder = context.logs.with_file_name("tmp");
    let path = folder.join(format!("import-{:016x}.tar", rand::random::<u64>()));
    let received = receive(&folder, &path, request.into_body()).await;
    let result = match received {
        Ok(()) => context
            .pods
            .images()
            .import_oci_archive(&path, query.get("name"))
            .await
            .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string())),
        Err(why) => Err(why),
    };
    // Absent when it could not be made.
    let _ = tokio::fs::remove_file(&path).await;
    match result {
        Ok(images) => answer::json(
            &json!({ "images": images.iter().map(|image| image.reference.to_string()).collect::<Vec<String>>() }),
        ),
        Err((status, why)) => answer::text(status, why),
    }
}

async fn receive(folder: &Path, path: &Path, body: Incoming) -> Result<(), (StatusCode, String)> {
    let disk = |error: std::io::Error| {
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("cannot write the archive: {error}"),
        )
    };
    tokio::fs::create_dir_all(folder).await.map_err(disk)?;
    let mut file = tokio::fs::File::create(path).await.map_err(disk)?;
    let mut chunks = BodyDataStream::new(body);
    let mut bytes: u64 = 0;
    loop {
        let chunk = match tokio::time::timeout(SILENCE_MAX, chunks.next()).await {
            Err(_) => {
                return Err((
                    StatusCode::REQUEST_TIMEOUT,
                    "the archive stopped coming".into(),
                ));
            }
            Ok(None) => break,
            Ok(Some(chunk)) => chunk.map_err(|error| {
                (
                    StatusCode::BAD_REQUEST,
                    format!("the archive broke off: {error}"),
                )
            })?,
        };
        bytes += chunk.len() as u64;
        if bytes > ARCHIVE_BYTES_MAX {
            return Err((
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the archive is larger than {ARCHIVE_BYTES_MAX} bytes"),
            ));
        }
        file.write_all(&chunk).await.map_err(disk)?;
    }
    file.flush().await.map_err(disk)
}
