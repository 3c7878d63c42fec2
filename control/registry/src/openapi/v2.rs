//! OpenAPI 2.0, in which older clients still read schemas: all groups in one document, made from those of version 3.
//! Differences as Kubernetes has them: beside a reference other members may stand, and bodies are parameters.

use serde_json::{Map, Value, json};

const V3_SCHEMAS: &str = "#/components/schemas/";
const GROUP_VERSION_KIND: &str = "x-kubernetes-group-version-kind";

/// The document of version 2 out of those of version 3.
pub(super) fn of_v3<'a>(documents: impl Iterator<Item = &'a Value>, version: &str) -> Value {
    let mut paths = Map::new();
    let mut definitions = Map::new();
    for document in documents {
        for (path, item) in members(&document["paths"]) {
            paths.insert(path.clone(), path_item(item));
        }
        for (name, schema) in members(&document["components"]["schemas"]) {
            merge_definition(&mut definitions, name, self::schema(schema));
        }
    }
    paths.insert(
        "/version/".to_owned(),
        json!({"get": {"operationId": "getCodeVersion", "responses": {"200": {"description": "OK"}}}}),
    );
    paths.sort_keys();
    definitions.sort_keys();
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "definitions": definitions,
    })
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Options of writes are a kind of every group: their documents each tell of their own.
fn merge_definition(definitions: &mut Map<String, Value>, name: &str, schema: Value) {
    let Some(known) = definitions.get_mut(name) else {
        definitions.insert(name.to_owned(), schema);
        return;
    };
    let Some(kinds) = known
        .get_mut(GROUP_VERSION_KIND)
        .and_then(Value::as_array_mut)
    else {
        return;
    };
    for kind in schema[GROUP_VERSION_KIND].as_array().into_iter().flatten() {
        if !kinds.contains(kind) {
            kinds.push(kind.clone());
        }
    }
}

fn path_item(item: &Value) -> Value {
    let operations = members(item).map(|(method, operation)| {
        let value = match method.as_str() {
            "parameters" => parameters(operation).into(),
            _ => self::operation(operation),
        };
        (method.clone(), value)
    });
    Value::Object(operations.collect())
}

fn operation(operation: &Value) -> Value {
    let mut made = Map::new();
    let mut all = parameters(&operation["parameters"]);
    if let Some((types, schema)) = body(operation) {
        all.insert(
            0,
            json!({"name": "body", "in": "body", "required": true, "schema": schema}),
        );
        made.insert("consumes".to_owned(), types);
    }
    made.insert("produces".to_owned(), json!(["application/json"]));
    made.insert("schemes".to_owned(), json!(["https"]));
    if !all.is_empty() {
        made.insert("parameters".to_owned(), all.into());
    }
    let responses = members(&operation["responses"]).map(|(code, response)| {
        let schema = self::schema(&response["content"]["application/json"]["schema"]);
        let description = &response["description"];
        (
            code.clone(),
            json!({"description": description, "schema": schema}),
        )
    });
    made.insert("responses".to_owned(), Value::Object(responses.collect()));
    let extensions = members(operation).filter(|(name, _)| name.starts_with("x-"));
    made.extend(extensions.map(|(name, value)| (name.clone(), value.clone())));
    Value::Object(made)
}

/// The media types and the schema of a request's body.
fn body(operation: &Value) -> Option<(Value, Value)> {
    let content = operation["requestBody"]["content"].as_object()?;
    let types: Vec<&String> = content.keys().collect();
    let schema = &content.values().next()?["schema"];
    Some((json!(types), self::schema(schema)))
}

fn parameters(list: &Value) -> Vec<Value> {
    let list = list.as_array().into_iter().flatten();
    let parameters = list.map(|parameter| {
        let mut parameter = parameter.clone();
        if let Some(map) = parameter.as_object_mut()
            && let Some(Value::Object(schema)) = map.shift_remove("schema")
        {
            map.extend(schema);
        }
        parameter
    });
    parameters.collect()
}

fn schema(schema: &Value) -> Value {
    let Value::Object(map) = schema else {
        return schema.clone();
    };
    let mut made = Map::new();
    for (name, value) in map {
        match (name.as_str(), value) {
            ("$ref", Value::String(target)) => {
                let name = target.trim_start_matches(V3_SCHEMAS);
                made.insert("$ref".to_owned(), json!(format!("#/definitions/{name}")));
            }
            ("allOf", Value::Array(one)) if one.len() == 1 => made.extend(
                self::schema(&one[0])
                    .as_object()
                    .cloned()
                    .into_iter()
                    .flatten(),
            ),
            // Version 2 has no alternatives: a text stands for all of them.
            ("oneOf", _) if !map.contains_key("type") => {
                made.insert("type".to_owned(), json!("string"));
            }
            // Custom kinds say more than version 2 can tell, and more than its clients may be held to.
            ("oneOf" | "anyOf" | "allOf" | "not" | "nullable" | "x-kubernetes-validations", _) => {}
            ("properties", Value::Object(properties)) => {
                let properties = properties.iter();
                let properties =
                    properties.map(|(name, value)| (name.clone(), self::schema(value)));
                made.insert(name.clone(), Value::Object(properties.collect()));
            }
            ("items" | "additionalProperties", value) => {
                made.insert(name.clone(), self::schema(value));
            }
            (_, value) => drop(made.insert(name.clone(), value.clone())),
        }
    }
    Value::Object(made)
}
