//! The envelope: an object as the write path holds it, and its bytes as the store keeps them.
//!
//! Stored bytes are the object's JSON without a resource version: `{"kind":…,"apiVersion":…,"metadata":{…},…}`. The revision
//! is known only at commit, so readers splice it in as the first member of `metadata`; no reader parses for that.

use crate::{GroupVersionKind, ObjectMeta, Revision};
use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Map, Value};

const METADATA_OPENING: &[u8] = b"\"metadata\":{";

/// An object: its type, its metadata, and everything else as it came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    /// `apiVersion` and `kind`.
    pub types: GroupVersionKind,
    /// `metadata`.
    pub metadata: ObjectMeta,
    /// Every other member: `spec`, `status`, `data`, …
    pub body: Map<String, Value>,
}

/// Why bytes or a value are no object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Not JSON, or a member has the wrong type.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// `apiVersion` or `kind` is absent or is no text.
    #[error("Object '{0}' is missing")]
    Missing(&'static str),
    /// The JSON is no map.
    #[error("an object must be a JSON map, not {0}")]
    NotAMap(&'static str),
}

impl Object {
    /// Reads an object out of a JSON value.
    pub fn from_value(value: Value) -> Result<Self, ObjectError> {
        let mut body = match value {
            Value::Object(map) => map,
            other => return Err(ObjectError::NotAMap(type_name(&other))),
        };
        let kind = take_text(&mut body, "kind")?;
        let api_version = take_text(&mut body, "apiVersion")?;
        let metadata = match body.remove("metadata") {
            None | Some(Value::Null) => ObjectMeta::default(),
            Some(value) => serde_json::from_value(value)?,
        };
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        Ok(Object {
            types: GroupVersionKind::new(group, version, &kind),
            metadata,
            body,
        })
    }

    /// Reads an object out of JSON.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ObjectError> {
        Self::from_value(serde_json::from_slice(bytes)?)
    }

    /// The object as one JSON value; `kind`, `apiVersion` and `metadata` come first.
    pub fn to_value(&self) -> Value {
        let mut map = Map::with_capacity(self.body.len() + 3);
        map.insert("kind".to_owned(), Value::String(self.types.kind.clone()));
        map.insert(
            "apiVersion".to_owned(),
            Value::String(self.types.api_version()),
        );
        let metadata = serde_json::to_value(&self.metadata).expect("metadata is plain data");
        map.insert("metadata".to_owned(), metadata);
        map.extend(
            self.body
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        Value::Object(map)
    }

    /// The bytes to store: without a resource version, whatever `metadata` says.
    pub fn to_stored(&self) -> Bytes {
        let mut object = self.clone();
        object.metadata.resource_version.clear();
        Bytes::from(serde_json::to_vec(&object.to_value()).expect("an object is plain data"))
    }

    /// Reads stored bytes and sets the revision under which they were committed.
    pub fn from_stored(bytes: &[u8], revision: Revision) -> Result<Self, ObjectError> {
        let mut object = Self::from_json(bytes)?;
        object.metadata.resource_version = revision.to_string();
        Ok(object)
    }

    /// A typed view of the object for reading; never written back, since a view drops what it does not know.
    pub fn view<T: for<'de> Deserialize<'de>>(&self) -> Result<T, ObjectError> {
        Ok(serde_json::from_value(self.to_value())?)
    }
}

/// A typed view straight from stored bytes, with the revision spliced in.
pub fn object_view<T: for<'de> Deserialize<'de>>(
    stored: &[u8],
    revision: Revision,
) -> Result<T, ObjectError> {
    Ok(serde_json::from_slice(&splice_revision(stored, revision))?)
}

/// The JSON of a stored object with its `resourceVersion` in place; one copy, no parse.
pub fn splice_revision(stored: &[u8], revision: Revision) -> Bytes {
    let Some(at) = memchr::memmem::find(stored, METADATA_OPENING) else {
        return Bytes::copy_from_slice(stored); // Not ours: every stored object opens its metadata.
    };
    let (head, tail) = stored.split_at(at + METADATA_OPENING.len());
    let mut out = BytesMut::with_capacity(stored.len() + 44);
    out.put_slice(head);
    out.put_slice(b"\"resourceVersion\":\"");
    out.put_slice(revision.to_string().as_bytes());
    out.put_slice(if tail.first() == Some(&b'}') {
        b"\""
    } else {
        b"\","
    });
    out.put_slice(tail);
    out.freeze()
}

fn take_text(map: &mut Map<String, Value>, field: &'static str) -> Result<String, ObjectError> {
    match map.remove(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        _ => Err(ObjectError::Missing(field)),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revision_is_spliced_and_stripped() {
        let json = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","resourceVersion":"3"},"data":{"metadata":{}}}"#;
        let stored = Object::from_json(json).expect("parses").to_stored();
        assert!(!String::from_utf8_lossy(&stored).contains("resourceVersion"));
        let read = splice_revision(&stored, Revision(17));
        let object = Object::from_json(&read).expect("parses");
        assert_eq!(object.metadata.resource_version, "17");
        assert_eq!(
            object,
            Object::from_stored(&stored, Revision(17)).expect("parses")
        );
    }
}
