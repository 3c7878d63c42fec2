//! Bodies in Kubernetes' Protobuf, read into the JSON that the same object would have: `k8s\0`, then a `runtime.Unknown`
//! that names the kind and holds the object's message. Never writes Protobuf: every client takes JSON answers.
//!
//! The messages are those of the types' facts. Trap: encoders write zeros of members that are no pointers, where JSON
//! leaves them out; so zeros are dropped but for pointers and for members that JSON always writes.

use super::wire::{Payload, Reader};
use super::{Alternative, Field, Schemas, Shape, Type, TypeId, Wire, leaf, wire_leaf};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use objects::{GroupVersion, GroupVersionKind, Timestamp};
use serde_json::{Map, Value};

/// What every body begins with.
pub const PROTOBUF_MAGIC: &[u8; 4] = b"k8s\0";

/// How deep messages may be nested; the deepest type of the API has about 15 levels.
const DEPTH_MAX: u32 = 64;

/// Why a body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The body does not begin with `k8s\0`.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NoMagic,
    /// The body ends within a field.
    #[error("unexpected EOF")]
    Truncated,
    /// Something is not as the wire format wants it.
    #[error("proto: {0} is malformed")]
    Malformed(&'static str),
    /// A member holds something else than its type says.
    #[error("proto: wrong wireType for field {0}")]
    WrongType(&'static str),
    /// A member's value is none of its type.
    #[error("{field}: {why}")]
    BadValue {
        /// The member.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The body holds a kind that is not known.
    #[error("no kind {kind:?} is registered for version {version:?}")]
    UnknownKind {
        /// The kind.
        kind: String,
        /// Its `apiVersion`.
        version: String,
    },
    /// The object is packed in a way that is not known.
    #[error("unable to decode a protobuf body with content encoding {0:?}")]
    Encoding(String),
    /// Messages are nested too deep.
    #[error("messages are nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
}

impl Schemas {
    /// Reads a body. The value is an object as JSON would have it, `kind` and `apiVersion` first.
    pub fn decode_protobuf(&self, body: &[u8]) -> Result<(GroupVersionKind, Value), ProtobufError> {
        let message = body
            .strip_prefix(PROTOBUF_MAGIC)
            .ok_or(ProtobufError::NoMagic)?;
        let envelope = Envelope::read(message)?;
        let unknown = || ProtobufError::UnknownKind {
            kind: envelope.kind.clone(),
            version: envelope.api_version.clone(),
        };
        let version = GroupVersion::parse(&envelope.api_version).ok_or_else(unknown)?;
        let kind = GroupVersionKind::new(&version.group, &version.version, &envelope.kind);
        let r#type = self.kind(&kind).ok_or_else(unknown)?;
        let mut map = Map::new();
        map.insert("kind".to_owned(), Value::String(envelope.kind.clone()));
        map.insert(
            "apiVersion".to_owned(),
            Value::String(envelope.api_version.clone()),
        );
        self.message(r#type, envelope.raw, &mut map, 0)?;
        Ok((kind, Value::Object(map)))
    }

    /// Reads the members of a message into `map`.
    fn message(
        &self,
        r#type: &Type,
        message: &[u8],
        map: &mut Map<String, Value>,
        depth: u32,
    ) -> Result<(), ProtobufError> {
        if depth >= DEPTH_MAX {
            return Err(ProtobufError::TooDeep);
        }
        let mut reader = Reader::new(message);
        while let Some((number, payload)) = reader.next()? {
            match r#type.wire(number) {
                None => {} // A member of a newer version.
                Some(Wire::Embedded(id)) => {
                    let Payload::Bytes(inner) = payload else {
                        return Err(ProtobufError::WrongType(r#type.go_name));
                    };
                    self.message(self.get(id), inner, map, depth + 1)?;
                }
                Some(Wire::Member(at)) => {
                    let field = &r#type.fields[usize::from(at)];
                    self.member(field, payload, map, depth)?;
                }
            }
        }
        Ok(())
    }

    fn member(
        &self,
        field: &Field,
        payload: Payload<'_>,
        map: &mut Map<String, Value>,
        depth: u32,
    ) -> Result<(), ProtobufError> {
        match &field.shape {
            Shape::List(element) => {
                let slot = map
                    .entry(field.name)
                    .or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = slot {
                    list.push(
                        self.value(field, element, payload, depth)?
                            .unwrap_or_else(|| leaf::zero(element)),
                    );
                }
            }
            Shape::Map(value) => {
                let slot = map
                    .entry(field.name)
                    .or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = slot {
                    let (key, value) = self.map_entry(field, value, payload, depth)?;
                    map.insert(key, value);
                }
            }
            shape => {
                let value = self.value(field, shape, payload, depth)?;
                let means_absence =
                    |value: &Value| !field.pointer && !field.keep && leaf::is_zero(shape, value);
                if let Some(value) = value.filter(|value| !means_absence(value)) {
                    map.insert(field.name.to_owned(), value);
                }
            }
        }
        Ok(())
    }

    /// A value of a shape; None for those whose empty form means absence.
    fn value(
        &self,
        field: &Field,
        shape: &Shape,
        payload: Payload<'_>,
        depth: u32,
    ) -> Result<Option<Value>, ProtobufError> {
        let wrong = || ProtobufError::WrongType(field.name);
        let value = match (shape, payload) {
            (Shape::Bool, Payload::Varint(number)) => Value::Bool(number != 0),
            // Negative numbers come as 64 bits; the low half is the number.
            (Shape::Int32, Payload::Varint(number)) => Value::Number((number as i32).into()),
            (Shape::Int64, Payload::Varint(number)) => Value::Number((number as i64).into()),
            (Shape::Double, Payload::Fixed64(bits)) => leaf::double(f64::from_bits(bits)),
            (Shape::Text, Payload::Bytes(bytes)) => text(bytes),
            (Shape::Bytes, Payload::Bytes(bytes)) => Value::String(STANDARD.encode(bytes)),
            (Shape::Struct(id), Payload::Bytes(bytes)) => {
                let mut map = Map::new();
                self.message(self.get(*id), bytes, &mut map, depth + 1)?;
                Value::Object(map)
            }
            (Shape::WrappedList(element), Payload::Bytes(bytes)) => {
                let mut list = Vec::new();
                let mut reader = Reader::new(bytes);
                while let Some((number, payload)) = reader.next()? {
                    if number == 1 {
                        list.extend(self.value(field, element, payload, depth + 1)?);
                    }
                }
                Value::Array(list)
            }
            (Shape::Quantity, Payload::Bytes(bytes)) => return wire_leaf::quantity(field, bytes),
            (Shape::IntOrString, Payload::Bytes(bytes)) => wire_leaf::int_or_string(field, bytes)?,
            (Shape::Time, Payload::Bytes(bytes)) => {
                return wire_leaf::time(field, bytes, |time| time.to_string());
            }
            (Shape::MicroTime, Payload::Bytes(bytes)) => {
                return wire_leaf::time(field, bytes, Timestamp::to_micro_time);
            }
            (Shape::Duration, Payload::Bytes(bytes)) => wire_leaf::duration(field, bytes)?,
            (Shape::Either(id, alternative), Payload::Bytes(bytes)) => {
                return self.either(field, *id, *alternative, bytes, depth);
            }
            (Shape::Raw | Shape::FieldsV1 | Shape::Json, Payload::Bytes(bytes)) => {
                return wire_leaf::raw(field, bytes);
            }
            _ => return Err(wrong()),
        };
        Ok(Some(value))
    }

    /// A message that holds a struct or something in its place.
    fn either(
        &self,
        field: &Field,
        id: TypeId,
        alternative: Alternative,
        message: &[u8],
        depth: u32,
    ) -> Result<Option<Value>, ProtobufError> {
        let mut list = Vec::new();
        let mut allows = false;
        let mut reader = Reader::new(message);
        while let Some((number, payload)) = reader.next()? {
            let shape = match (number, alternative) {
                (1, Alternative::Bool) => {
                    allows = matches!(payload, Payload::Varint(number) if number != 0);
                    continue;
                }
                (1, _) | (2, Alternative::Bool) => Shape::Struct(id),
                (2, Alternative::List) => {
                    list.extend(self.value(field, &Shape::Struct(id), payload, depth + 1)?);
                    continue;
                }
                (2, Alternative::Texts) => {
                    list.extend(self.value(field, &Shape::Text, payload, depth + 1)?);
                    continue;
                }
                _ => continue,
            };
            return self.value(field, &shape, payload, depth + 1);
        }
        Ok(match alternative {
            Alternative::Bool => Some(Value::Bool(allows)),
            _ if list.is_empty() => None,
            _ => Some(Value::Array(list)),
        })
    }

    fn map_entry(
        &self,
        field: &Field,
        shape: &Shape,
        payload: Payload<'_>,
        depth: u32,
    ) -> Result<(String, Value), ProtobufError> {
        let Payload::Bytes(entry) = payload else {
            return Err(ProtobufError::WrongType(field.name));
        };
        let mut key = String::new();
        let mut value = None;
        let mut reader = Reader::new(entry);
        while let Some((number, payload)) = reader.next()? {
            match (number, payload) {
                (1, Payload::Bytes(bytes)) => key = String::from_utf8_lossy(bytes).into_owned(),
                (2, payload) => value = self.value(field, shape, payload, depth)?,
                _ => return Err(ProtobufError::WrongType(field.name)),
            }
        }
        Ok((key, value.unwrap_or_else(|| leaf::zero(shape))))
    }
}

/// `runtime.Unknown`.
#[derive(Default)]
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn read(message: &'a [u8]) -> Result<Self, ProtobufError> {
        let mut envelope = Envelope::default();
        let mut reader = Reader::new(message);
        while let Some((number, payload)) = reader.next()? {
            let Payload::Bytes(bytes) = payload else {
                return Err(ProtobufError::Malformed("the envelope"));
            };
            match number {
                1 => (envelope.api_version, envelope.kind) = text_pair(bytes)?,
                2 => envelope.raw = bytes,
                3 if !bytes.is_empty() => {
                    return Err(ProtobufError::Encoding(
                        String::from_utf8_lossy(bytes).into_owned(),
                    ));
                }
                _ => {} // The content type: the object is Protobuf, as the body.
            }
        }
        Ok(envelope)
    }
}

/// Fields 1 and 2 of a message of texts.
fn text_pair(message: &[u8]) -> Result<(String, String), ProtobufError> {
    let mut pair = (String::new(), String::new());
    let mut reader = Reader::new(message);
    while let Some((number, payload)) = reader.next()? {
        match (number, payload) {
            (1, Payload::Bytes(bytes)) => pair.0 = String::from_utf8_lossy(bytes).into_owned(),
            (2, Payload::Bytes(bytes)) => pair.1 = String::from_utf8_lossy(bytes).into_owned(),
            _ => {}
        }
    }
    Ok(pair)
}

fn text(bytes: &[u8]) -> Value {
    Value::String(String::from_utf8_lossy(bytes).into_owned())
}
