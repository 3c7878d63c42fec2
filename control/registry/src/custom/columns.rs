//! The columns that a definition prints: `additionalPrinterColumns`, or the age alone.

use super::jsonpath::JsonPath;
use crate::table::text_age;
use objects::Timestamp;
use serde_json::{Value, json};

/// A column of a custom kind.
#[derive(Debug)]
pub struct PrintedColumn {
    /// The heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean`, `date`.
    pub kind: String,
    /// The format of the cells, which may be empty.
    pub format: String,
    /// What it shows.
    pub description: String,
    /// 0 is always shown, more only with `-o wide`.
    pub priority: i64,
    path: JsonPath,
}

/// The columns of a version. A path that cannot be read was refused when the definition was written.
pub fn read(version: &Value) -> Vec<PrintedColumn> {
    let given = version["additionalPrinterColumns"]
        .as_array()
        .filter(|columns| !columns.is_empty());
    let age = [json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"})];
    let columns = given.map_or(&age[..], Vec::as_slice).iter();
    columns.filter_map(column).collect()
}

fn column(column: &Value) -> Option<PrintedColumn> {
    let text = |name: &str| column[name].as_str().unwrap_or_default().to_owned();
    let path = JsonPath::parse(&text("jsonPath")).ok()?;
    let description = match text("description") {
        empty if empty.is_empty() => format!(
            "Custom resource definition column (in JSONPath format): {}",
            text("jsonPath")
        ),
        told => told,
    };
    Some(PrintedColumn {
        name: text("name"),
        kind: text("type"),
        format: text("format"),
        description,
        priority: column["priority"].as_i64().unwrap_or(0),
        path,
    })
}

impl PrintedColumn {
    /// The cell of an object; null where it has nothing to show.
    pub fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let found = self.path.find(object);
        let Some(first) = found.first().filter(|value| !value.is_null()) else {
            return Value::Null;
        };
        match self.kind.as_str() {
            "integer" => first.as_f64().map_or(Value::Null, |number| {
                first
                    .as_i64()
                    .map_or_else(|| json!(number.trunc()), |whole| json!(whole))
            }),
            "number" => first.as_f64().map_or(Value::Null, |number| json!(number)),
            "boolean" => first.as_bool().map_or(Value::Null, |value| json!(value)),
            "date" => first
                .as_str()
                .map_or(Value::Null, |text| json!(text_age(text, now))),
            _ => {
                let texts: Vec<String> = found.iter().map(|value| plain(value)).collect();
                json!(texts.join(","))
            }
        }
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
