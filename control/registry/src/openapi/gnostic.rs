//! OpenAPI 2.0 as Protobuf: gnostic's `OpenAPIv2.proto`, which kubectl reads. Only what [`super::v2`] writes is encoded.

use serde_json::{Map, Value};

/// The document as a message `Document`.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    out.message(2, |info| {
        info.text(1, &document["info"]["title"]);
        info.text(2, &document["info"]["version"]);
    });
    out.message(8, |paths| {
        paths.named(2, &document["paths"], path_item);
    });
    out.message(9, |definitions| {
        definitions.named(1, &document["definitions"], schema);
    });
    out.0
}

fn path_item(out: &mut Message, item: &Value) {
    let methods = ["get", "put", "post", "delete", "options", "head", "patch"];
    for (number, method) in (2..).zip(methods) {
        if let Some(found) = item.get(method) {
            out.message(number, |out| operation(out, found));
        }
    }
    out.each(9, &item["parameters"], parameters_item);
}

fn operation(out: &mut Message, operation: &Value) {
    out.text(5, &operation["operationId"]);
    out.texts(6, &operation["produces"]);
    out.texts(7, &operation["consumes"]);
    out.each(8, &operation["parameters"], parameters_item);
    out.message(9, |responses| {
        responses.named(1, &operation["responses"], |value, found| {
            value.message(1, |out| response(out, found));
        });
    });
    out.texts(10, &operation["schemes"]);
    out.extensions(13, operation);
}

fn response(out: &mut Message, response: &Value) {
    out.text(1, &response["description"]);
    if let Some(found) = response.get("schema").filter(|schema| schema.is_object()) {
        out.message(2, |item| item.message(1, |out| schema(out, found)));
    }
}

/// `ParametersItem{parameter}` around `Parameter{body or other}`; of the others, those in query and path.
fn parameters_item(out: &mut Message, parameter: &Value) {
    out.message(1, |out| match parameter["in"].as_str() {
        Some("body") => out.message(1, |body| {
            body.text(2, &parameter["name"]);
            body.text(3, &parameter["in"]);
            body.flag(4, &parameter["required"]);
            body.message(5, |out| schema(out, &parameter["schema"]));
        }),
        Some("path") => out.message(2, |other| {
            other.message(4, |path| {
                path.flag(1, &parameter["required"]);
                path.text(2, &parameter["in"]);
                path.text(4, &parameter["name"]);
                path.text(5, &parameter["type"]);
                path.flag(19, &parameter["uniqueItems"]);
            })
        }),
        _ => out.message(2, |other| {
            other.message(3, |query| {
                query.flag(1, &parameter["required"]);
                query.text(2, &parameter["in"]);
                query.text(4, &parameter["name"]);
                query.text(6, &parameter["type"]);
                query.flag(20, &parameter["uniqueItems"]);
            })
        }),
    });
}

fn schema(out: &mut Message, found: &Value) {
    out.text(1, &found["$ref"]);
    out.text(2, &found["format"]);
    out.text(4, &found["description"]);
    if let Some(default) = found.get("default") {
        out.message(5, |any| any.yaml(default));
    }
    out.texts(19, &found["required"]);
    if let Some(inner) = found.get("additionalProperties") {
        out.message(21, |item| item.message(1, |out| schema(out, inner)));
    }
    if found["type"].is_string() {
        out.message(22, |item| item.text(1, &found["type"]));
    }
    if let Some(inner) = found.get("items") {
        out.message(23, |item| item.message(1, |out| schema(out, inner)));
    }
    if let Some(inner) = found.get("properties") {
        out.message(25, |properties| properties.named(1, inner, schema));
    }
    out.extensions(31, found);
}

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(&mut self, mut number: usize) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, field: usize, bytes: &[u8]) {
        self.number(field << 3 | 2);
        self.number(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// A text; none where the value is none.
    fn text(&mut self, field: usize, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: usize, list: &Value) {
        for text in list.as_array().into_iter().flatten() {
            self.text(field, text);
        }
    }

    fn flag(&mut self, field: usize, value: &Value) {
        if value == &Value::Bool(true) {
            self.number(field << 3);
            self.number(1);
        }
    }

    fn message(&mut self, field: usize, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    fn each(&mut self, field: usize, list: &Value, write: fn(&mut Message, &Value)) {
        for value in list.as_array().into_iter().flatten() {
            self.message(field, |out| write(out, value));
        }
    }

    /// A map as repeated `{1: name, 2: value}`.
    fn named(&mut self, field: usize, map: &Value, write: fn(&mut Message, &Value)) {
        for (name, value) in map.as_object().into_iter().flat_map(Map::iter) {
            self.message(field, |out| {
                out.bytes(1, name.as_bytes());
                out.message(2, |out| write(out, value));
            });
        }
    }

    /// `Any`, whose value is YAML, of which JSON is a part.
    fn yaml(&mut self, value: &Value) {
        self.bytes(2, format!("{value}\n").as_bytes());
    }

    /// `x-…` members as repeated `NamedAny`.
    fn extensions(&mut self, field: usize, map: &Value) {
        let members = map.as_object().into_iter().flat_map(Map::iter);
        for (name, value) in members.filter(|(name, _)| name.starts_with("x-")) {
            self.message(field, |out| {
                out.bytes(1, name.as_bytes());
                out.message(2, |any| any.yaml(value));
            });
        }
    }
}
