//! The schemas of a document: the types that its paths name, and those that these reach.

use super::Describe;
use crate::ResourceDef;
use crate::schema::{Alternative, Field, Schemas, Shape, Type};
use objects::GroupVersionKind;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";

/// Collects schemas while references to them are written.
pub(super) struct Components<'a> {
    schemas: &'a Schemas,
    group: &'a str,
    version: &'a str,
    describe: Describe,
    written: BTreeMap<String, Value>,
    queue: Vec<&'a Type>,
    custom: BTreeMap<String, &'a ResourceDef>,
}

impl<'a> Components<'a> {
    /// For the document of a group and version.
    pub(super) fn new(
        schemas: &'a Schemas,
        group: &'a str,
        version: &'a str,
        describe: Describe,
    ) -> Self {
        Components {
            schemas,
            group,
            version,
            describe,
            written: BTreeMap::new(),
            queue: Vec::new(),
            custom: BTreeMap::new(),
        }
    }

    /// Knows a row of a custom kind, so that its kind and the kind of its lists have schemas.
    pub(super) fn know(&mut self, row: &'a ResourceDef) {
        if row.custom.is_some() {
            self.custom.insert(row.kind.clone(), row);
            self.custom.insert(row.list_kind.clone(), row);
        }
    }

    /// A reference to the schema of a kind; a free map for a kind without one.
    pub(super) fn kind(&mut self, kind: &GroupVersionKind) -> Value {
        let custom = self.custom.get(&kind.kind).copied();
        if let Some(row) =
            custom.filter(|row| row.group == kind.group && row.version == kind.version)
        {
            return self.custom_kind(row, kind.kind == row.list_kind);
        }
        match self.schemas.kind(kind) {
            Some(r#type) => self.reference(r#type),
            None => json!({"type": "object"}),
        }
    }

    /// The schemas by name.
    pub(super) fn finish(mut self) -> BTreeMap<String, Value> {
        while let Some(r#type) = self.queue.pop() {
            let schema = self.schema(r#type);
            self.written.insert(r#type.name.clone(), schema);
        }
        self.written
    }

    /// The schema of a custom kind or of its lists.
    fn custom_kind(&mut self, row: &'a ResourceDef, is_list: bool) -> Value {
        let kind = if is_list { &row.list_kind } else { &row.kind };
        let group: Vec<&str> = row.group.rsplit('.').collect();
        let name = format!("{}.{}.{kind}", group.join("."), row.version);
        if self.written.contains_key(&name) {
            return reference_to(&name);
        }
        self.written.insert(name.clone(), Value::Null);
        let meta = |kind: &str| format!("{META}.{kind}");
        let mut schema = match (is_list, &row.custom) {
            (false, Some(custom)) => custom.published(),
            _ => {
                let items = self.custom_kind(row, false);
                json!({"type": "object", "required": ["items"], "properties": {"items": {"type": "array", "items": items}}})
            }
        };
        let metadata = self
            .schemas
            .named(&meta(if is_list { "ListMeta" } else { "ObjectMeta" }));
        let properties = &mut schema["properties"];
        for name in ["apiVersion", "kind"] {
            properties[name] = json!({"type": "string"});
        }
        if let Some(metadata) = metadata {
            let reference = self.reference(metadata);
            properties["metadata"] = json!({"allOf": [reference]});
        }
        schema["x-kubernetes-group-version-kind"] =
            json!([{"group": row.group, "kind": kind, "version": row.version}]);
        self.written.insert(name.clone(), schema);
        reference_to(&name)
    }

    fn reference(&mut self, r#type: &'a Type) -> Value {
        if !self.written.contains_key(&r#type.name) {
            // Its place is taken before it is described, so that a type that holds itself is queued once.
            self.written.insert(r#type.name.clone(), Value::Null);
            self.queue.push(r#type);
        }
        reference_to(&r#type.name)
    }

    fn leaf(&mut self, name: &str, schema: Value) -> Value {
        self.written.entry(name.to_owned()).or_insert(schema);
        reference_to(name)
    }

    fn schema(&mut self, r#type: &'a Type) -> Value {
        let mut schema = Map::new();
        if let Some(text) = (self.describe)(&r#type.name, None) {
            schema.insert("description".to_owned(), json!(text));
        }
        schema.insert("type".to_owned(), json!("object"));
        let required: Vec<&str> = r#type
            .fields
            .iter()
            .filter(|field| field.required)
            .map(|field| field.name)
            .collect();
        if !required.is_empty() {
            schema.insert("required".to_owned(), json!(required));
        }
        let properties: BTreeMap<&str, Value> = r#type
            .fields
            .iter()
            .map(|field| (field.name, self.property(r#type, field)))
            .collect();
        if !properties.is_empty() {
            schema.insert("properties".to_owned(), json!(properties));
        }
        if r#type.is_atomic {
            schema.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
        }
        if let Some(kind) = &r#type.kind {
            // Options of writes are a kind of every group: here of the document's.
            let (group, version) = match kind.group.as_str() {
                "meta.k8s.io" => (self.group, self.version),
                group => (group, kind.version.as_str()),
            };
            let kinds = json!([{"group": group, "kind": kind.kind, "version": version}]);
            schema.insert("x-kubernetes-group-version-kind".to_owned(), kinds);
        }
        Value::Object(schema)
    }

    fn property(&mut self, owner: &Type, field: &Field) -> Value {
        let mut property = match self.shape(&field.shape) {
            // Beside a reference nothing may stand, within allOf anything.
            Value::Object(map) if map.contains_key("$ref") => json!({"allOf": [map]}),
            schema => schema,
        };
        if let Some(text) = (self.describe)(&owner.name, Some(field.name)) {
            property["description"] = json!(text);
        }
        if let Some(default) = &field.default {
            property["default"] = default.clone();
        }
        let topology = &field.topology;
        if let Some(list) = topology.list {
            property["x-kubernetes-list-type"] = json!(list);
        }
        if !topology.keys.is_empty() {
            property["x-kubernetes-list-map-keys"] = json!(topology.keys);
        }
        if topology.atomic_map {
            property["x-kubernetes-map-type"] = json!("atomic");
        }
        if topology.granular_map {
            property["x-kubernetes-map-type"] = json!("granular");
        }
        let rule = field.patch;
        let strategies = [
            (rule.merge, "merge"),
            (rule.replace, "replace"),
            (rule.retain_keys, "retainKeys"),
        ];
        let strategies: Vec<&str> = strategies
            .iter()
            .filter(|strategy| strategy.0)
            .map(|strategy| strategy.1)
            .collect();
        if !strategies.is_empty() {
            property["x-kubernetes-patch-strategy"] = json!(strategies.join(","));
        }
        if let Some(key) = rule.key {
            property["x-kubernetes-patch-merge-key"] = json!(key);
        }
        property
    }

    fn shape(&mut self, shape: &Shape) -> Value {
        match shape {
            Shape::Text => json!({"type": "string"}),
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Quantity => {
                self.leaf(QUANTITY, json!({"oneOf": [{"type": "string"}, {"type": "number"}]}))
            }
            Shape::IntOrString => self.leaf(
                INT_OR_STRING,
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
            ),
            Shape::Time => {
                self.leaf(&format!("{META}.Time"), json!({"type": "string", "format": "date-time"}))
            }
            Shape::MicroTime => {
                self.leaf(&format!("{META}.MicroTime"), json!({"type": "string", "format": "date-time"}))
            }
            Shape::Raw => self.leaf(RAW, json!({"type": "object"})),
            Shape::Json => self.leaf(&format!("{EXTENSIONS}.JSON"), json!({})),
            Shape::Duration => self.leaf(&format!("{META}.Duration"), json!({"type": "string"})),
            Shape::Either(id, alternative) => {
                let word = match alternative {
                    Alternative::List => "Array",
                    Alternative::Bool => "Bool",
                    Alternative::Texts => "StringArray",
                };
                self.leaf(&format!("{}Or{word}", self.schemas.get(*id).name), json!({}))
            }
            Shape::FieldsV1 => self.leaf(&format!("{META}.FieldsV1"), json!({"type": "object"})),
            Shape::List(element) | Shape::WrappedList(element) => {
                json!({"type": "array", "items": self.element(element)})
            }
            Shape::Map(value) => {
                json!({"type": "object", "additionalProperties": self.element(value)})
            }
            Shape::Struct(id) => self.reference(self.schemas.get(*id)),
        }
    }

    fn element(&mut self, shape: &Shape) -> Value {
        match self.shape(shape) {
            Value::Object(map) if map.contains_key("$ref") => json!({"allOf": [map]}),
            schema => schema,
        }
    }
}

fn reference_to(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}
