//! Reads JSON bodies and tells of members that come twice, which Kubernetes' strict field validation refuses.
//! Never knows types: that is the schema's part. The last of two equal members wins, as in Go.

use objects::Status;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::RefCell;
use std::fmt;

/// How deep a body may be nested.
const DEPTH_MAX: usize = 120;
/// How many members that came twice are named; there may be a million, each with a path of a megabyte.
const DUPLICATES_MAX: usize = 16;
/// How much of a path is told.
const PATH_CHARS_MAX: usize = 256;

/// Reads a body; the texts name members that came twice (`duplicate field "spec.replicas"`).
pub fn decode_json(body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let duplicates = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let node = Node {
        duplicates: &duplicates,
        above: None,
        step: Step::Index(0),
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

/// A value on the way from the body's root to where the reading is. The path is put together only where it is told: its length is
/// the client's choice.
struct Node<'a> {
    duplicates: &'a RefCell<Vec<String>>,
    above: Option<&'a Node<'a>>,
    step: Step<'a>,
    depth: usize,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Member(&'a str),
    Index(usize),
}

impl Node<'_> {
    fn below<'b>(&'b self, step: Step<'b>) -> Node<'b> {
        Node {
            duplicates: self.duplicates,
            above: Some(self),
            step,
            depth: self.depth + 1,
        }
    }

    #[cold]
    fn tell_duplicate(&self, name: &str) {
        let mut told = self.duplicates.borrow_mut();
        if told.len() >= DUPLICATES_MAX {
            return;
        }
        let mut steps = vec![Step::Member(name)];
        let mut node = self;
        while let Some(above) = node.above {
            steps.push(node.step);
            node = above;
        }
        let mut path = String::new();
        for step in steps.into_iter().rev() {
            match step {
                Step::Index(index) => path.push_str(&format!("[{index}]")),
                Step::Member(name) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.extend(name.chars().take(PATH_CHARS_MAX));
                }
            }
        }
        let path: String = path.chars().take(PATH_CHARS_MAX).collect();
        told.push(format!("duplicate field {path:?}"));
    }

    fn check_depth<E: de::Error>(&self) -> Result<(), E> {
        if self.depth < DEPTH_MAX {
            return Ok(());
        }
        Err(E::custom(format!("nested deeper than {DEPTH_MAX} levels")))
    }
}

impl<'de> DeserializeSeed<'de> for &Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Node<'_> {
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
        while let Some(value) = access.next_element_seed(&self.below(Step::Index(list.len())))? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut map = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let value = access.next_value_seed(&self.below(Step::Member(&name)))?;
            match map.get_mut(&name) {
                None => drop(map.insert(name, value)),
                Some(known) => {
                    self.tell_duplicate(&name);
                    *known = value;
                }
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
    fn long_paths_and_many_duplicates_cost_little() {
        let name = "x".repeat(1 << 20);
        let list = vec!["0"; 500_000].join(",");
        let twice = vec!["\"a\":1"; 200_000].join(",");
        let body = format!("{{\"{name}\":[{{{twice}}},{list}]}}");
        let (_, duplicates) = decode_json(body.as_bytes()).expect("is JSON");
        assert_eq!(duplicates.len(), DUPLICATES_MAX);
        assert!(duplicates.iter().all(|it| it.len() < 2 * PATH_CHARS_MAX));
    }

    /// The runtime's threads have two megabytes, of which callers use some.
    #[test]
    fn deep_bodies_need_little_stack() {
        let read = || {
            for (open, close) in [("{\"a\":", "}"), ("[", "]")] {
                let depth = DEPTH_MAX - 1;
                let body = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                decode_json(body.as_bytes()).expect("is JSON");
                let deeper = open.repeat(100_000);
                decode_json(deeper.as_bytes()).expect_err("is too deep");
            }
        };
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        let ended = thread.spawn(read).expect("a thread").join();
        ended.expect("no panic");
    }

    #[test]
    fn refuses_what_is_no_json_or_too_deep() {
        for body in ["", "{", "{} {}", "x", &"[".repeat(200)] {
            assert_eq!(decode_json(body.as_bytes()).expect_err("refused").code, 400);
        }
    }
}
