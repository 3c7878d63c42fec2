//! Objects and lists as they are answered: spliced from stored bytes, as tables, or their metadata alone.
//!
//! Never parses for the plain view: an object's bytes are the answer. Tables and metadata of many objects are made away
//! from the runtime's own threads.

use crate::negotiate::{MetaVersion, View};
use crate::query::Query;
use bytes::{BufMut, Bytes, BytesMut};
use objects::{Status, Timestamp};
use registry::tableprint::{IncludeObject, partial_metadata, table};
use registry::{List, ResourceDef};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Above this many objects the work leaves the runtime's threads.
const INLINE_OBJECTS_MAX: usize = 50;

/// How objects of one row are shown to one client.
#[derive(Clone)]
pub struct Presenter {
    row: Arc<ResourceDef>,
    view: View,
    include: IncludeObject,
    now: Timestamp,
}

impl Presenter {
    /// For a request that was negotiated to `view` at `now`.
    pub fn new(
        row: &Arc<ResourceDef>,
        view: View,
        query: &Query,
        now: Timestamp,
    ) -> Result<Self, Status> {
        Ok(Presenter {
            row: Arc::clone(row),
            view,
            include: IncludeObject::parse(query.get("includeObject").unwrap_or_default())?,
            now,
        })
    }

    /// The same at a later moment: ages in tables count on.
    pub fn set_now(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Whether objects are shown as they are stored.
    pub fn is_plain(&self) -> bool {
        self.view == View::Object
    }

    /// One object.
    pub fn object(&self, object: &Bytes) -> Result<Bytes, Status> {
        self.object_with(object, true)
    }

    /// One object; a table has its columns described or not.
    pub fn object_with(&self, object: &Bytes, with_columns: bool) -> Result<Bytes, Status> {
        match self.view {
            View::Object => Ok(object.clone()),
            View::Metadata(version) => {
                let value = partial_metadata(&parse(object)?);
                encode(&versioned(value, version))
            }
            View::Table(version) => {
                let revision = parse(object)?["metadata"]["resourceVersion"].take();
                let metadata = json!({ "resourceVersion": revision });
                self.table([object.as_ref()], metadata, version, with_columns)
            }
        }
    }

    /// A list.
    pub async fn list(self, list: List) -> Result<Bytes, Status> {
        if self.view == View::Object || list.items.len() <= INLINE_OBJECTS_MAX {
            return self.list_now(&list);
        }
        match tokio::task::spawn_blocking(move || self.list_now(&list)).await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// A table without rows that tells a revision, or the object's type and revision: what a bookmark carries.
    pub fn bookmark(&self, object: &Bytes) -> Result<Bytes, Status> {
        match self.view {
            View::Object => Ok(object.clone()),
            View::Metadata(_) => self.object(object),
            View::Table(version) => {
                let metadata = parse(object)?["metadata"].take();
                self.table([], metadata, version, false)
            }
        }
    }

    fn list_now(&self, list: &List) -> Result<Bytes, Status> {
        let metadata = list_metadata(list);
        match self.view {
            View::Object => Ok(splice(&list_head(&self.row, list), &list.items)),
            View::Table(version) => self.table(
                list.items.iter().map(AsRef::as_ref),
                metadata,
                version,
                true,
            ),
            View::Metadata(version) => {
                let items = list
                    .items
                    .iter()
                    .map(|object| Ok(partial_metadata(&parse(object)?)))
                    .map(|item| item.map(|item| versioned(item, version)))
                    .collect::<Result<Vec<Value>, Status>>()?;
                encode(&json!({
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": version.api_version(),
                    "metadata": metadata,
                    "items": items,
                }))
            }
        }
    }

    fn table<'a>(
        &self,
        objects: impl IntoIterator<Item = &'a [u8]>,
        metadata: Value,
        version: MetaVersion,
        with_columns: bool,
    ) -> Result<Bytes, Status> {
        let table = table(
            &self.row,
            objects,
            metadata,
            self.include,
            with_columns,
            self.now,
        )?;
        encode(&versioned(table, version))
    }
}

/// A list's own metadata.
fn list_metadata(list: &List) -> Value {
    let mut metadata = Map::new();
    metadata.insert(
        "resourceVersion".to_owned(),
        list.revision.to_string().into(),
    );
    if let Some(token) = &list.continue_token {
        metadata.insert("continue".to_owned(), token.as_str().into());
    }
    if let Some(remaining) = list.remaining {
        metadata.insert("remainingItemCount".to_owned(), remaining.into());
    }
    Value::Object(metadata)
}

/// The beginning of a list's JSON, up to its first object.
pub fn list_head(row: &ResourceDef, list: &List) -> String {
    format!(
        r#"{{"kind":{},"apiVersion":{},"metadata":{},"items":["#,
        Value::from(row.list_kind.as_str()),
        Value::from(row.api_version()),
        list_metadata(list),
    )
}

/// A list out of its objects' bytes: one copy, no parse.
fn splice(head: &str, items: &[Bytes]) -> Bytes {
    let size: usize = items.iter().map(|item| item.len() + 1).sum();
    let mut out = BytesMut::with_capacity(head.len() + size + 2);
    out.put_slice(head.as_bytes());
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        out.put_slice(item);
    }
    out.put_slice(b"]}");
    out.freeze()
}

fn versioned(mut value: Value, version: MetaVersion) -> Value {
    value["apiVersion"] = version.api_version().into();
    value
}

fn parse(object: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(object)
        .map_err(|error| Status::internal(format!("a stored object is no JSON: {error}")))
}

fn encode(value: &Value) -> Result<Bytes, Status> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(Status::internal)
}
