//! Reads JSON bodies and tells of members that come twice, which Kubernetes' strict field validation refuses.
//! Never knows types: that is the schema's part. The last of two equal members wins, as in Go.

use objects::Status;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::RefCell;
use std::fmt;

/// How deep a body may be nested.
const DEPTH_MAX: usize = 120;

/// Reads a body; the texts name members that came twice (`duplicate field "spec.replicas"`).
pub fn decode_json(body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let duplicates = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let node = Node {
        duplicates: &duplicates,
        path: String::new(),
        depth: 0,
    };
    let value = node
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| {
            Status::bad_request(format!(
                "the object provided is unrecognized: it is no JSON: {error}"
            ))
        })?;
    Ok((value, duplicates.into_inner()))
}

struct Node<'a> {
    duplicates: &'a RefCell<Vec<String>>,
    path: String,
    depth: usize,
}

impl Node<'_> {
    fn below(&self, path: String) -> Node<'_> {
        Node {
            duplicates: self.duplicates,
            path,
            depth: self.depth + 1,
        }
    }

    fn check_depth<E: de::Error>(&self) -> Result<(), E> {
        if self.depth < DEPTH_MAX {
            return Ok(());
        }
        Err(E::custom(format!("nested deeper than {DEPTH_MAX} levels")))
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut list = Vec::new();
        while let Some(value) =
            access.next_element_seed(self.below(format!("{}[{}]", self.path, list.len())))?
        {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut map = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let path = if self.path.is_empty() {
                name.clone()
            } else {
                format!("{}.{name}", self.path)
            };
            let value = access.next_value_seed(self.below(path.clone()))?;
            if map.insert(name, value).is_some() {
                self.duplicates
                    .borrow_mut()
                    .push(format!("duplicate field {path:?}"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_duplicates_and_keeps_the_last() {
        let body = br#"{"spec":{"replicas":1,"replicas":2,"list":[{"a":1,"a":null}]}}"#;
        let (value, duplicates) = decode_json(body).expect("is JSON");
        assert_eq!(value["spec"]["replicas"], 2);
        assert_eq!(
            duplicates,
            [
                r#"duplicate field "spec.replicas""#,
                r#"duplicate field "spec.list[0].a""#
            ]
        );
    }

    #[test]
    fn refuses_what_is_no_json_or_too_deep() {
        for body in ["", "{", "{} {}", "x", &"[".repeat(200)] {
            assert_eq!(decode_json(body.as_bytes()).expect_err("refused").code, 400);
        }
    }
}
