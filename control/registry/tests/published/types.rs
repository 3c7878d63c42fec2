//! Schemas and objects as the published cases write them: YAML.

use registry::apply::schema::{Field, List, Map, Relation, Scalar, Schema, TypeDef, TypeRef};
use serde_json::Value;
use std::collections::BTreeMap;

/// Reads an object; tabs before lines are the Go source's.
pub fn object(text: &str) -> Result<Value, String> {
    let text = text.strip_prefix('\n').unwrap_or(text);
    let indent = text.len() - text.trim_start_matches('\t').len();
    let lines = text.lines().map(|line| {
        let tabs = line.len() - line.trim_start_matches('\t').len();
        &line[tabs.min(indent)..]
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    // Go's reader passes over brackets that close nothing.
    let read =
        serde_saphyr::from_str(&text).or_else(|error| match text.trim_end().strip_suffix('}') {
            Some(shorter) => serde_saphyr::from_str(shorter),
            None => Err(error),
        });
    read.map_err(|error| error.to_string())
}

/// Reads a schema. It lives as long as the test.
pub fn schema(text: &str) -> Result<&'static Schema, String> {
    let value: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let mut schema = Schema::default();
    schema.deduced();
    for r#type in value["types"].as_array().into_iter().flatten() {
        let name = r#type["name"].as_str().ok_or("a type without a name")?;
        let id = schema.declare(name);
        if !["__untyped_atomic_", "__untyped_deduced_"].contains(&name) {
            let def = def(&mut schema, r#type)?;
            schema.define(id, def);
        }
    }
    Ok(Box::leak(Box::new(schema)))
}

fn def(schema: &mut Schema, value: &Value) -> Result<TypeDef, String> {
    let mut def = TypeDef::default();
    if let Some(scalar) = value["scalar"].as_str() {
        def.scalar = Some(match scalar {
            "numeric" | "number" => Scalar::Numeric,
            "string" => Scalar::Text,
            "boolean" => Scalar::Boolean,
            "untyped" => Scalar::Untyped,
            other => return Err(format!("no scalar {other:?}")),
        });
    }
    if let Some(list) = value["list"].as_object() {
        let element = list
            .get("elementType")
            .ok_or("a list without elementType")?;
        let keys = list
            .get("keys")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        def.list = Some(List {
            element: refer(schema, element)?.ok_or("an empty elementType")?,
            relation: relation(list.get("elementRelationship"))?.unwrap_or(Relation::Separable),
            keys: keys.filter_map(Value::as_str).map(str::to_owned).collect(),
        });
    }
    if let Some(map) = value["map"].as_object() {
        let mut fields = BTreeMap::new();
        for field in map
            .get("fields")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let name = field["name"].as_str().ok_or("a field without a name")?;
            let r#type = refer(schema, &field["type"])?.ok_or("a field without a type")?;
            let field = Field {
                r#type,
                default: field.get("default").cloned(),
                absent: None,
            };
            fields.insert(name.to_owned(), field);
        }
        let element = map.get("elementType");
        let deduced = element.is_some_and(|element| {
            element["namedType"] == "__untyped_deduced_" || element["scalar"] == "untyped"
        });
        def.map = Some(Map {
            deduced: deduced && fields.is_empty(),
            fields,
            element: match element {
                Some(element) => refer(schema, element)?,
                None => None,
            },
            relation: relation(map.get("elementRelationship"))?.unwrap_or(Relation::Separable),
        });
    }
    Ok(def)
}

fn refer(schema: &mut Schema, value: &Value) -> Result<Option<TypeRef>, String> {
    let mut reference: TypeRef = match value["namedType"].as_str() {
        Some(name) => schema.declare(name).into(),
        None if value["scalar"].is_null() && value["list"].is_null() && value["map"].is_null() => {
            return Ok(None);
        }
        None => {
            let def = def(schema, value)?;
            schema.add(def).into()
        }
    };
    reference.relation = relation(value.get("elementRelationship"))?;
    Ok(Some(reference))
}

fn relation(value: Option<&Value>) -> Result<Option<Relation>, String> {
    Ok(match value.and_then(Value::as_str) {
        None => None,
        Some("atomic") => Some(Relation::Atomic),
        Some("associative") => Some(Relation::Associative),
        Some("separable") => Some(Relation::Separable),
        Some(other) => return Err(format!("no relation {other:?}")),
    })
}
