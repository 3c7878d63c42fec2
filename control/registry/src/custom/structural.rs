//! Whether a schema is structural: every value has a type, and what junctions say is limits only. Rules and words: Kubernetes'
//! documentation of structural schemas and its apiextensions/v1 validation.

use super::schema::Schema;
use super::{check, is_of_every_object, rules, shape};
use crate::Faults;
use regex::Regex;
use serde_json::{Map, Value, json};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// Members that a structural schema may not have anywhere.
const FORBIDDEN: [&str; 6] = [
    "$ref",
    "additionalItems",
    "definitions",
    "dependencies",
    "id",
    "patternProperties",
];
/// Members that may not stand within junctions.
const NOT_IN_JUNCTIONS: [&str; 8] = [
    "additionalProperties",
    "default",
    "description",
    "nullable",
    "title",
    "type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
];
/// How deep a schema may be nested.
const DEPTH_MAX: usize = 64;
const REASONS: [&str; 4] = [
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
];
const FORMATS: [&str; 27] = [
    "",
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "date-time",
    "datetime",
    "double",
    "duration",
    "email",
    "float",
    "hexcolor",
    "hostname",
    "int32",
    "int64",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
];

/// Judges the schema of a version.
pub fn check(source: &Value, field: &str, faults: &mut Faults) {
    if source.get("type") != Some(&json!("object")) {
        match source.get("type") {
            None => faults.required(format!("{field}.type"), "must not be empty at the root"),
            Some(kind) => {
                faults.invalid(format!("{field}.type"), kind, "must be object at the root")
            }
        }
    }
    let mut checker = Checker { faults };
    checker.schema(source, field, 0, true);
}

/// Warnings for formats that nobody checks.
pub fn unknown_formats(source: &Value, field: &str, told: &mut Vec<String>) {
    let format = source
        .get("format")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !FORMATS.contains(&format) && !["ip", "uuid3", "uuid4", "uuid5"].contains(&format) {
        told.push(format!("unrecognized format {format:?}"));
    }
    for (name, of) in children(source) {
        unknown_formats(of, &format!("{field}.{name}"), told);
    }
}

fn children(source: &Value) -> Vec<(String, &Value)> {
    let properties = source
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let mut children: Vec<(String, &Value)> = properties
        .map(|(name, of)| (format!("properties[{name}]"), of))
        .collect();
    for name in ["items", "additionalProperties"] {
        if let Some(of) = source.get(name).filter(|of| of.is_object()) {
            children.push((name.to_owned(), of));
        }
    }
    children
}

struct Checker<'a> {
    faults: &'a mut Faults,
}

impl Checker<'_> {
    fn schema(&mut self, source: &Value, field: &str, depth: usize, is_root: bool) {
        if depth > DEPTH_MAX {
            return self
                .faults
                .forbidden(field, "the schema is nested too deeply");
        }
        let Value::Object(members) = source else {
            return self.faults.invalid(field, source, "must be a schema");
        };
        let is = |name: &str| members.get(name) == Some(&Value::Bool(true));
        let kind = members
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let is_free =
            is("x-kubernetes-int-or-string") || is("x-kubernetes-preserve-unknown-fields");
        if kind.is_empty() && !is_free && !is_root {
            self.faults.required(
                format!("{field}.type"),
                "must not be empty for specified object fields",
            );
        }
        if !kind.is_empty() && !TYPES.contains(&kind) {
            self.faults
                .unsupported(format!("{field}.type"), kind, &TYPES);
        }
        if is("x-kubernetes-int-or-string") && !kind.is_empty() {
            let told = "must be empty if x-kubernetes-int-or-string is true";
            self.faults
                .invalid_text(format!("{field}.type"), kind, told);
        }
        if is("x-kubernetes-embedded-resource") && kind != "object" {
            let told = "must be object if x-kubernetes-embedded-resource is true";
            self.faults
                .invalid_text(format!("{field}.type"), kind, told);
        }
        self.forbidden(members, field);
        self.limits(members, field);
        self.lists(members, kind, field);
        if is_root {
            self.metadata(members, field);
        }
        self.default(members, field);
        self.expressions(source, members, field, is_root);
        self.junctions(members, members, field, depth);
        if let Some(within) = members.get("not").filter(|not| !not.is_null()) {
            self.junction(within, members, &format!("{field}.not"), depth + 1);
        }
        for (name, of) in children(source) {
            self.schema(of, &format!("{field}.{name}"), depth + 1, false);
        }
    }

    fn forbidden(&mut self, members: &Map<String, Value>, field: &str) {
        for name in FORBIDDEN
            .iter()
            .filter(|name| members.get(**name).is_some_and(|value| !value.is_null()))
        {
            self.faults.forbidden(
                format!("{field}.{name}"),
                &format!("{name} is not supported"),
            );
        }
        if members.get("uniqueItems") == Some(&Value::Bool(true)) {
            let told =
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.faults.forbidden(format!("{field}.uniqueItems"), told);
        }
        let has = |name: &str| {
            members.get(name).is_some_and(|value| {
                value.is_object() && value.as_object().is_some_and(|map| !map.is_empty())
            })
        };
        if members.get("additionalProperties") == Some(&Value::Bool(false)) {
            let told = "additionalProperties cannot be set to false";
            self.faults
                .forbidden(format!("{field}.additionalProperties"), told);
        } else if has("properties")
            && members
                .get("additionalProperties")
                .is_some_and(|of| !of.is_null())
        {
            let told = "additionalProperties and properties are mutual exclusive";
            self.faults
                .forbidden(format!("{field}.additionalProperties"), told);
        }
        if members.get("items").is_some_and(Value::is_array) {
            let told = "items must be a schema object and not an array";
            self.faults.forbidden(format!("{field}.items"), told);
        }
    }

    fn limits(&mut self, members: &Map<String, Value>, field: &str) {
        if let Some(Value::String(pattern)) = members.get("pattern")
            && Regex::new(pattern).is_err()
        {
            let told = "must be a valid regular expression, but isn't: it does not compile";
            self.faults
                .invalid_text(format!("{field}.pattern"), pattern, told);
        }
    }

    fn lists(&mut self, members: &Map<String, Value>, kind: &str, field: &str) {
        let keys = super::schema::texts(members.get("x-kubernetes-list-map-keys"));
        let list = members
            .get("x-kubernetes-list-type")
            .and_then(Value::as_str);
        if let Some(list) = list {
            let place = format!("{field}.x-kubernetes-list-type");
            if !["atomic", "map", "set"].contains(&list) {
                self.faults
                    .unsupported(&place, list, &["atomic", "map", "set"]);
            }
            if kind != "array" {
                let told = "must be array if x-kubernetes-list-type is specified";
                self.faults
                    .invalid_text(format!("{field}.type"), kind, told);
            }
        }
        let place = format!("{field}.x-kubernetes-list-map-keys");
        match (list, keys.is_empty()) {
            (Some("map"), true) => {
                self.faults
                    .required(&place, "must not be empty if x-kubernetes-list-type is map");
            }
            (Some("map"), false) | (_, true) => {}
            (_, false) => {
                self.faults.invalid(
                    &place,
                    &json!(keys),
                    "must be empty if x-kubernetes-list-type is not map",
                );
            }
        }
        if list != Some("map") {
            return;
        }
        let items = members.get("items");
        for (at, key) in keys.iter().enumerate() {
            let property = items.and_then(|items| items.get("properties")?.get(key));
            let Some(property) = property else {
                let told = "entries must all be names of item properties";
                self.faults
                    .invalid_text(format!("{place}[{at}]"), key, told);
                continue;
            };
            let required = super::schema::texts(items.and_then(|items| items.get("required")));
            if !required.contains(key) && property.get("default").is_none() {
                let told = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                self.faults
                    .required(format!("{field}.items.properties[{key}].default"), told);
            }
        }
    }

    /// The root may limit an object's name and nothing else of its metadata.
    fn metadata(&mut self, members: &Map<String, Value>, field: &str) {
        let properties = members.get("properties").and_then(Value::as_object);
        let metadata = properties.and_then(|properties| properties.get("metadata"));
        let limited = metadata
            .and_then(|metadata| metadata.get("properties"))
            .and_then(Value::as_object);
        for name in limited.into_iter().flat_map(Map::keys) {
            if !["name", "generateName"].contains(&name.as_str()) {
                let told = "must not specify anything other than name and generateName, but metadata is implicitly specified";
                self.faults
                    .forbidden(format!("{field}.properties[metadata]"), told);
                return;
            }
        }
    }

    fn default(&mut self, members: &Map<String, Value>, field: &str) {
        let Some(default) = members.get("default").filter(|default| !default.is_null()) else {
            return;
        };
        let schema = Schema::read(&Value::Object(members.clone()));
        let place = format!("{field}.default");
        let mut kept = default.clone();
        let holder = Schema {
            kind: "object".to_owned(),
            properties: [("default".to_owned(), schema.clone())].into(),
            ..Schema::default()
        };
        let mut held = json!({"default": kept.take()});
        let pruned = shape::prune(&holder, &mut held);
        if !pruned.unknown.is_empty() {
            self.faults
                .invalid(&place, default, "must not have unknown fields");
        }
        shape::default(&holder, &mut held);
        check::value(&schema, &held["default"], &place, self.faults);
    }

    fn expressions(
        &mut self,
        source: &Value,
        members: &Map<String, Value>,
        field: &str,
        is_root: bool,
    ) {
        let Some(validations) = members.get("x-kubernetes-validations") else {
            return;
        };
        let schema = Schema::read(source);
        let shape = match is_root {
            true => rules::root_shape(&schema),
            false => schema.shape(),
        };
        let (_, wrong) = rules::compile(Some(validations), &shape);
        for rules::Wrong {
            at,
            member,
            text,
            why,
        } in wrong
        {
            self.faults.invalid_text(
                format!("{field}.x-kubernetes-validations[{at}].{member}"),
                &text,
                &why,
            );
        }
        for (at, rule) in validations.as_array().into_iter().flatten().enumerate() {
            let field = format!("{field}.x-kubernetes-validations[{at}]");
            let text = |name: &str| rule.get(name).and_then(Value::as_str).unwrap_or_default();
            if text("rule").trim().is_empty() {
                self.faults
                    .required(format!("{field}.rule"), "rule is not specified");
            }
            let message = text("message");
            if text("rule").contains('\n')
                && message.trim().is_empty()
                && text("messageExpression").is_empty()
            {
                self.faults.required(
                    format!("{field}.message"),
                    "message must be specified if rule contains line breaks",
                );
            }
            if message.trim().contains('\n') {
                self.faults.invalid_text(
                    format!("{field}.message"),
                    message,
                    "message must not contain line breaks",
                );
            }
            if !text("reason").is_empty() && !REASONS.contains(&text("reason")) {
                self.faults
                    .unsupported(format!("{field}.reason"), text("reason"), &REASONS);
            }
        }
    }

    /// Schemas under `allOf`, `anyOf` and `oneOf`, each within the one around it.
    fn junctions(
        &mut self,
        members: &Map<String, Value>,
        around: &Map<String, Value>,
        field: &str,
        depth: usize,
    ) {
        for junction in ["allOf", "anyOf", "oneOf"] {
            let each = members.get(junction).and_then(Value::as_array);
            for (at, within) in each.into_iter().flatten().enumerate() {
                let place = format!("{field}.{junction}[{at}]");
                self.junction(within, around, &place, depth + 1);
            }
        }
    }

    /// What stands within a junction limits values that the schema around it describes.
    fn junction(&mut self, source: &Value, around: &Map<String, Value>, field: &str, depth: usize) {
        if depth > DEPTH_MAX {
            return self
                .faults
                .forbidden(field, "the schema is nested too deeply");
        }
        let Value::Object(members) = source else {
            return self.faults.invalid(field, source, "must be a schema");
        };
        let is_int_or_string = around.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true));
        for name in NOT_IN_JUNCTIONS {
            if name == "type" && is_int_or_string {
                continue;
            }
            if members.get(name).is_some_and(|value| !value.is_null()) {
                self.faults
                    .forbidden(format!("{field}.{name}"), "must be empty to be structural");
            }
        }
        self.limits(members, field);
        let properties = members
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        for (name, within) in properties {
            let known = around
                .get("properties")
                .and_then(|properties| properties.get(name))
                .and_then(Value::as_object);
            let place = format!("{field}.properties[{name}]");
            match known {
                Some(known) => self.junction(within, known, &place, depth + 1),
                None if is_of_every_object(name) => {}
                None => {
                    let told = "must not be present because it is not defined in a structural schema around it";
                    self.faults.required(place, told);
                }
            }
        }
        self.junctions(members, around, field, depth);
    }
}
