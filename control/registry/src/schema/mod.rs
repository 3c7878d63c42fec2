//! The types of the API as data, and what follows from them: strict decoding, strategic merge patches, Protobuf bodies.
//!
//! A type is looked up, never known: no kind is named in this module. The facts are `data/schema.txt`, which
//! `cargo xtask schema` takes from the Go sources of Kubernetes' API types; the behaviour is that of its API machinery.

mod conform;
mod directives;
mod leaf;
mod load;
mod merge;
mod protobuf;
mod wire;
mod wire_leaf;

pub use conform::{Conformed, accept, accept_patched, conform};
pub use merge::{MergeError, strategic_merge};
pub use protobuf::{PROTOBUF_MAGIC, ProtobufError};
#[cfg(test)]
pub(crate) use wire::{Payload, Reader};

use objects::GroupVersionKind;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::OnceLock;

/// The types of every built-in kind. Immutable; one for the process.
#[derive(Debug)]
pub struct Schemas {
    types: Vec<Type>,
    by_name: HashMap<String, TypeId>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), TypeId>,
}

/// A place in the table of types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(u32);

/// A map with known members.
#[derive(Debug)]
pub struct Type {
    /// `io.k8s.api.core.v1.Pod`.
    pub name: String,
    /// `Pod`, as Go's errors name it.
    pub go_name: &'static str,
    /// `v1.Pod`, as Go's errors name it where it is the type of a member.
    pub go_path: String,
    /// Set for a kind of the API.
    pub kind: Option<GroupVersionKind>,
    /// Owned as a whole when applied.
    pub is_atomic: bool,
    /// Its members, in the order of the sources; those of embedded types among them.
    pub fields: Vec<Field>,
    by_json: Vec<u16>,
    by_number: Vec<(u32, Wire)>,
}

/// What a Protobuf field number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    /// The member at this place in `fields`.
    Member(u16),
    /// A message whose members stand in the map itself.
    Embedded(TypeId),
}

/// A member of a type.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// What it holds.
    pub shape: Shape,
    /// A pointer in Go, so that an explicit zero is kept apart from absence.
    pub pointer: bool,
    /// Written even when zero.
    pub keep: bool,
    /// Must be there, as OpenAPI says it. Validation is the strategies' part, not decoding's.
    pub required: bool,
    /// How a strategic merge patch treats it.
    pub patch: PatchRule,
    /// How lists and maps merge when applied.
    pub topology: Topology,
    /// What OpenAPI publishes as its default. Objects get theirs from the strategies.
    pub default: Option<Value>,
    go_type: Option<&'static str>,
}

/// How a strategic merge patch treats a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchRule {
    /// Lists are merged, not replaced.
    pub merge: bool,
    /// The member of a list's elements that tells them apart; None for lists of scalars.
    pub key: Option<&'static str>,
    /// Maps are replaced, not merged.
    pub replace: bool,
    /// Members that the patch does not name are dropped.
    pub retain_keys: bool,
}

/// What `x-kubernetes-list-type` and its kin say of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// `map`, `set` or `atomic`; None for what is no list or says nothing.
    pub list: Option<&'static str>,
    /// The members that make the key in a list of type `map`.
    pub keys: Vec<&'static str>,
    /// A map that is owned as a whole.
    pub atomic_map: bool,
    /// A map of a type that is owned as a whole elsewhere, but not here.
    pub granular_map: bool,
}

/// What a value looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A text.
    Text,
    /// A boolean.
    Bool,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A number.
    Double,
    /// Base64 in JSON.
    Bytes,
    /// `500m`, `1Gi`.
    Quantity,
    /// A whole number or a text.
    IntOrString,
    /// RFC 3339 with whole seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// Any object.
    Raw,
    /// Any JSON value.
    Json,
    /// A time span as Go writes it: `30s`.
    Duration,
    /// A set of fields, as server-side apply writes it.
    FieldsV1,
    /// A list.
    List(Box<Shape>),
    /// A list that is a message of its own in Protobuf, its elements being field 1.
    WrappedList(Box<Shape>),
    /// A map of texts to values.
    Map(Box<Shape>),
    /// A map with known members.
    Struct(TypeId),
    /// A map with known members, or something else in its place.
    Either(TypeId, Alternative),
}

/// What may stand in the place of a struct. In Protobuf both are a message with a field for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alternative {
    /// A list of the same struct: Protobuf fields 1 struct, 2 list.
    List,
    /// A boolean: Protobuf fields 1 boolean, 2 struct.
    Bool,
    /// A list of texts: Protobuf fields 1 struct, 2 list.
    Texts,
}

impl Schemas {
    /// The facts that the program carries, parsed at the first call.
    pub fn builtin() -> &'static Schemas {
        static BUILTIN: OnceLock<Schemas> = OnceLock::new();
        BUILTIN.get_or_init(|| {
            load::parse(include_str!("../../data/schema.txt"))
                .expect("the table is generated and a test reads it")
        })
    }

    /// The type of a kind. The options of writes (`DeleteOptions`) are kinds of every group and version; a beta version whose types
    /// the sources do not tell has those of the version that it became.
    pub fn kind(&self, kind: &GroupVersionKind) -> Option<&Type> {
        let own = (&*kind.group, &*kind.version, &*kind.kind);
        let shared = ("meta.k8s.io", "v1", &*kind.kind);
        let (grown, _) = kind.version.split_once("beta").unwrap_or_default();
        let id = self
            .by_kind
            .get(&own)
            .or_else(|| self.by_kind.get(&shared))
            .or_else(|| self.by_kind.get(&(&*kind.group, grown, &*kind.kind)))?;
        Some(self.get(*id))
    }

    /// The type of an OpenAPI name, such as `io.k8s.api.core.v1.Pod`.
    pub fn named(&self, name: &str) -> Option<&Type> {
        self.by_name.get(name).map(|id| self.get(*id))
    }

    /// The type at a place.
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// All types.
    pub fn types(&self) -> impl Iterator<Item = &Type> {
        self.types.iter()
    }
}

impl Type {
    /// The member of a JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let at = self
            .by_json
            .binary_search_by(|at| self.fields[usize::from(*at)].name.cmp(name))
            .ok()?;
        Some(&self.fields[usize::from(self.by_json[at])])
    }

    fn wire(&self, number: u32) -> Option<Wire> {
        let at = self
            .by_number
            .binary_search_by_key(&number, |entry| entry.0)
            .ok()?;
        Some(self.by_number[at].1)
    }
}

impl Field {
    /// The name of its type in Go's errors: `[]v1.Container`, `int32`.
    pub fn go_type(&self, schemas: &Schemas) -> String {
        match self.go_type {
            Some(name) => name.to_owned(),
            None => self.shape.go_type(schemas),
        }
    }
}

impl Shape {
    fn go_type(&self, schemas: &Schemas) -> String {
        match self {
            Shape::Text => "string".to_owned(),
            Shape::Bool => "bool".to_owned(),
            Shape::Int32 => "int32".to_owned(),
            Shape::Int64 => "int64".to_owned(),
            Shape::Double => "float64".to_owned(),
            Shape::Bytes => "[]uint8".to_owned(),
            Shape::Quantity => "resource.Quantity".to_owned(),
            Shape::IntOrString => "intstr.IntOrString".to_owned(),
            Shape::Time => "v1.Time".to_owned(),
            Shape::MicroTime => "v1.MicroTime".to_owned(),
            Shape::Raw => "runtime.RawExtension".to_owned(),
            Shape::Json => "v1.JSON".to_owned(),
            Shape::Duration => "v1.Duration".to_owned(),
            Shape::FieldsV1 => "v1.FieldsV1".to_owned(),
            Shape::List(element) | Shape::WrappedList(element) => {
                format!("[]{}", element.go_type(schemas))
            }
            Shape::Map(value) => format!("map[string]{}", value.go_type(schemas)),
            Shape::Struct(id) => schemas.get(*id).go_path.clone(),
            Shape::Either(id, alternative) => {
                let word = match alternative {
                    Alternative::List => "Array",
                    Alternative::Bool => "Bool",
                    Alternative::Texts => "StringArray",
                };
                format!("{}Or{word}", schemas.get(*id).go_path)
            }
        }
    }
}

#[cfg(test)]
mod tests;
