//! Brings a custom object into the form of its schema: members that it does not know go, defaults come.
//! Rules: Kubernetes' documentation of field pruning, defaulting and nullable.

use super::is_of_every_object;
use super::schema::{Additional, Schema};
use crate::schema as builtin;
use serde_json::{Map, Value};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// What pruning told of a body.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Members that went, each as `unknown field "spec.a"`.
    pub unknown: Vec<String>,
    /// Why metadata cannot be read at all.
    pub wrong_type: Option<String>,
}

/// Takes out of a whole object what its schema does not know.
pub fn prune(schema: &Schema, object: &mut Value) -> Pruned {
    let mut pruned = Pruned::default();
    prune_object(schema, object, "", &mut pruned);
    pruned
}

fn prune_object(schema: &Schema, object: &mut Value, path: &str, pruned: &mut Pruned) {
    let Value::Object(members) = object else {
        return;
    };
    if let Some(metadata) = members.get_mut("metadata") {
        prune_metadata(metadata, path, pruned);
    }
    prune_members(schema, members, path, true, pruned);
}

fn prune_metadata(metadata: &mut Value, path: &str, pruned: &mut Pruned) {
    let schemas = builtin::Schemas::builtin();
    let Some(r#type) = schemas.named(OBJECT_META) else {
        return;
    };
    let found = builtin::conform(schemas, r#type, metadata, &[]);
    let prefix = join(path, "metadata");
    let placed = found
        .strict
        .iter()
        .map(|fault| fault.replacen("field \"", &format!("field \"{prefix}."), 1));
    pruned.unknown.extend(placed);
    pruned.wrong_type = pruned.wrong_type.take().or(found.wrong_type);
}

fn prune_members(
    schema: &Schema,
    members: &mut Map<String, Value>,
    path: &str,
    whole: bool,
    pruned: &mut Pruned,
) {
    members.retain(|name, value| {
        if whole && is_of_every_object(name) {
            return true;
        }
        let place = join(path, name);
        let of = match (schema.properties.get(name), &schema.additional) {
            (Some(of), _) => of,
            (None, Additional::Of(of)) => of,
            (None, Additional::Any) => return true,
            (None, Additional::None) if schema.preserves => return true,
            (None, Additional::None) => {
                pruned.unknown.push(format!("unknown field {place:?}"));
                return false;
            }
        };
        prune_value(of, value, &place, pruned);
        true
    });
}

fn prune_value(schema: &Schema, value: &mut Value, path: &str, pruned: &mut Pruned) {
    match value {
        Value::Object(_) if schema.embedded => prune_object(schema, value, path, pruned),
        Value::Object(members) => prune_members(schema, members, path, false, pruned),
        Value::Array(values) => {
            if let Some(items) = &schema.items {
                for (at, value) in values.iter_mut().enumerate() {
                    prune_value(items, value, &format!("{path}[{at}]"), pruned);
                }
            }
        }
        _ => {}
    }
}

/// Fills in defaults; a null that may not be one and has a default is as if it were absent.
pub fn default(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, of) in &schema.properties {
                let Some(default) = &of.default else {
                    continue;
                };
                let absent = members
                    .get(name)
                    .is_none_or(|value| value.is_null() && !of.nullable);
                if absent {
                    members.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in members {
                match (schema.properties.get(name), &schema.additional) {
                    (Some(of), _) => self::default(of, value),
                    (None, Additional::Of(of)) => self::default(of, value),
                    (None, _) => {}
                }
            }
        }
        Value::Array(values) => {
            if let Some(items) = &schema.items {
                for value in values {
                    self::default(items, value);
                }
            }
        }
        _ => {}
    }
}

/// Whether any value may get a default.
pub fn has_defaults(schema: &Schema) -> bool {
    let of_additional = match &schema.additional {
        Additional::Of(of) => has_defaults(of),
        _ => false,
    };
    of_additional
        || schema
            .items
            .as_ref()
            .is_some_and(|items| has_defaults(items))
        || schema
            .properties
            .values()
            .any(|of| of.default.is_some() || has_defaults(of))
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}
