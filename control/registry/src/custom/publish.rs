//! A custom kind's schema as OpenAPI 3 publishes it: as it was written, with the members that every object has.

use serde_json::{Map, Value};

/// The schema without what the document adds: type and metadata.
pub fn schema(source: &Value) -> Value {
    let mut schema = source.clone();
    let Value::Object(members) = &mut schema else {
        return Value::Object(Map::new());
    };
    members
        .entry("type")
        .or_insert_with(|| Value::from("object"));
    let properties = members
        .entry("properties")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(properties) = properties {
        properties.retain(|name, _| !super::is_of_every_object(name));
    }
    schema
}
