//! Objects as a `Table` of meta/v1, which is what `kubectl get` asks for. Never reads the store.

use crate::custom::Custom;
use crate::{ColumnKind, ResourceDef};
use objects::{Status, Timestamp};
use serde_json::{Map, Value, json};

/// How much of each object a row carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata, as `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// Reads the `includeObject` parameter; the empty text is as if it were absent.
    pub fn parse(text: &str) -> Result<Self, Status> {
        match text {
            "" | "Metadata" => Ok(IncludeObject::Metadata),
            "None" => Ok(IncludeObject::None),
            "Object" => Ok(IncludeObject::Object),
            other => Err(Status::bad_request(format!(
                "unrecognized includeObject value: {other:?}; use None, Metadata or Object"
            ))),
        }
    }
}

/// A table of objects' JSON; `metadata` is the list's, `with_columns` is false for all but the first event of a watch.
pub fn table<'a>(
    row: &ResourceDef,
    objects: impl IntoIterator<Item = &'a [u8]>,
    metadata: Value,
    include: IncludeObject,
    with_columns: bool,
    now: Timestamp,
) -> Result<Value, Status> {
    let rows: Result<Vec<Value>, Status> = objects
        .into_iter()
        .map(|object| table_row(row, object, include, now))
        .collect();
    let columns = if with_columns {
        column_definitions(row)
    } else {
        Value::Array(Vec::new())
    };
    Ok(json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows?,
    }))
}

/// The columns' headings, types and priorities.
pub fn column_definitions(row: &ResourceDef) -> Value {
    if let Some(custom) = &row.custom {
        return custom_definitions(custom);
    }
    row.columns
        .iter()
        .map(|column| {
            let (kind, format) = match column.kind {
                ColumnKind::Text => ("string", ""),
                ColumnKind::Name => ("string", "name"),
                ColumnKind::Date => ("string", "date"),
                ColumnKind::Integer => ("integer", ""),
            };
            json!({
                "name": column.name,
                "type": kind,
                "format": format,
                "description": column.description,
                "priority": column.priority,
            })
        })
        .collect()
}

fn custom_definitions(custom: &Custom) -> Value {
    let name = json!({
        "name": "Name",
        "type": "string",
        "format": "name",
        "description": "Name must be unique within a namespace.",
        "priority": 0,
    });
    let printed = custom.columns.iter().map(|column| {
        json!({
            "name": column.name,
            "type": column.kind,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        })
    });
    std::iter::once(name).chain(printed).collect()
}

/// An object's `PartialObjectMetadata`.
pub fn partial_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or(Value::Object(Map::new())),
    })
}

fn table_row(
    row: &ResourceDef,
    json: &[u8],
    include: IncludeObject,
    now: Timestamp,
) -> Result<Value, Status> {
    let object: Value = serde_json::from_slice(json)
        .map_err(|error| Status::internal(format!("a stored {} is no JSON: {error}", row.kind)))?;
    let cells: Vec<Value> = match &row.custom {
        Some(custom) => {
            let name = object
                .pointer("/metadata/name")
                .cloned()
                .unwrap_or_default();
            let printed = custom
                .columns
                .iter()
                .map(|column| column.cell(&object, now));
            std::iter::once(name).chain(printed).collect()
        }
        None => {
            let columns = row.columns.iter();
            columns.map(|column| (column.cell)(&object, now)).collect()
        }
    };
    let object = match include {
        IncludeObject::None => None,
        IncludeObject::Metadata => Some(partial_metadata(&object)),
        IncludeObject::Object => Some(object),
    };
    let mut table_row = json!({"cells": cells});
    if let Some(object) = object {
        table_row["object"] = object;
    }
    Ok(table_row)
}
