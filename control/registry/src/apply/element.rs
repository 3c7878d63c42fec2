//! The steps of a path into an object, as FieldsV1 names them: a member, a list's element by key or by value, an index.
//! Orders and texts are those of structured-merge-diff, since they show in stored objects and in conflicts.

use serde_json::{Map, Number, Value};
use std::cmp::Ordering;
use std::fmt;

/// One step of a path. The order of the variants is the order in which sets are written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// `f:name`: a member of a map.
    Field(String),
    /// `k:{"name":"web"}`: the element of a list whose key members have these values; sorted by name.
    Key(Vec<(String, Datum)>),
    /// `v:"web"`: the element of a list that is this scalar.
    Value(Datum),
    /// `i:0`: an element by its place.
    Index(i64),
}

/// Why a step cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElementError {
    /// Steps of a newer kind are passed over.
    #[error("unknown path element type")]
    Unknown,
    /// It is no step at all.
    #[error("path element {0:?} is malformed: expected f:NAME, k:{{…}}, v:VALUE or i:INDEX")]
    Malformed(String),
}

impl Element {
    /// The member `name`.
    pub fn field(name: &str) -> Self {
        Element::Field(name.to_owned())
    }

    /// The element with these key members.
    pub fn key(members: impl IntoIterator<Item = (String, Value)>) -> Self {
        let mut members: Vec<(String, Datum)> = members
            .into_iter()
            .map(|(name, value)| (name, Datum(value)))
            .collect();
        members.sort();
        Element::Key(members)
    }

    /// Reads a step as FieldsV1 writes it.
    pub fn parse(text: &str) -> Result<Self, ElementError> {
        let malformed = || ElementError::Malformed(text.to_owned());
        let (kind, rest) = text.split_once(':').ok_or_else(malformed)?;
        match kind {
            "f" => Ok(Element::field(rest)),
            "v" => {
                let value = serde_json::from_str(rest).map_err(|_| malformed())?;
                Ok(Element::Value(Datum(value)))
            }
            "k" => {
                let members: Map<String, Value> =
                    serde_json::from_str(rest).map_err(|_| malformed())?;
                Ok(Element::key(members))
            }
            "i" => Ok(Element::Index(rest.parse().map_err(|_| malformed())?)),
            _ if kind.len() == 1 => Err(ElementError::Unknown),
            _ => Err(malformed()),
        }
    }

    /// The step as FieldsV1 writes it.
    pub fn encode(&self) -> String {
        match self {
            Element::Field(name) => format!("f:{name}"),
            Element::Key(members) => {
                let members: Vec<String> = members
                    .iter()
                    .map(|(name, value)| {
                        format!("{}:{}", go_json(&name.as_str().into()), go_json(&value.0))
                    })
                    .collect();
                format!("k:{{{}}}", members.join(","))
            }
            Element::Value(value) => format!("v:{}", go_json(&value.0)),
            Element::Index(index) => format!("i:{index}"),
        }
    }
}

/// JSON as Go's encoder writes it, which keeps the text safe within HTML.
fn go_json(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains(['<', '>', '&']) {
        return text;
    }
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

impl fmt::Display for Element {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(out, ".{name}"),
            Element::Key(members) => {
                let members: Vec<String> = members
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                write!(out, "[{}]", members.join(","))
            }
            Element::Value(value) => write!(out, "[={value}]"),
            Element::Index(index) => write!(out, "[{index}]"),
        }
    }
}

/// A path from an object's root.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<Element>);

impl Path {
    /// A path of members.
    pub fn fields(names: &[&str]) -> Self {
        Path(names.iter().map(|name| Element::field(name)).collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| element.fmt(out))
    }
}

/// A JSON value with an order over all types: numbers, texts, booleans, lists, maps, null. Numbers are compared as numbers.
#[derive(Clone, Debug)]
pub struct Datum(pub Value);

impl Ord for Datum {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for Datum {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Datum {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Datum {}

impl fmt::Display for Datum {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// Whether two values say the same; members of maps have no order, and 1 is 1.0.
pub fn equal(one: &Value, other: &Value) -> bool {
    compare(one, other) == Ordering::Equal
}

fn compare(one: &Value, other: &Value) -> Ordering {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => numbers(one, other),
        (Value::String(one), Value::String(other)) => one.cmp(other),
        (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
        (Value::Array(one), Value::Array(other)) => {
            let pairs = one
                .iter()
                .zip(other)
                .map(|(one, other)| compare(one, other));
            first_difference(pairs).unwrap_or_else(|| one.len().cmp(&other.len()))
        }
        (Value::Object(one), Value::Object(other)) => maps(one, other),
        _ => rank(one).cmp(&rank(other)),
    }
}

fn maps(one: &Map<String, Value>, other: &Map<String, Value>) -> Ordering {
    let (mut left, mut right): (Vec<_>, Vec<_>) = (one.iter().collect(), other.iter().collect());
    left.sort_by_key(|(name, _)| *name);
    right.sort_by_key(|(name, _)| *name);
    let pairs = left.iter().zip(&right).map(|(one, other)| {
        let names = one.0.cmp(other.0);
        names.then_with(|| compare(one.1, other.1))
    });
    first_difference(pairs).unwrap_or_else(|| left.len().cmp(&right.len()))
}

fn first_difference(mut pairs: impl Iterator<Item = Ordering>) -> Option<Ordering> {
    pairs.find(|order| order.is_ne())
}

fn numbers(one: &Number, other: &Number) -> Ordering {
    match (whole(one), whole(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        _ => {
            let [one, other] = [one, other].map(|number| number.as_f64().unwrap_or(0.0));
            one.total_cmp(&other)
        }
    }
}

fn whole(number: &Number) -> Option<i128> {
    let signed = number.as_i64().map(i128::from);
    signed.or_else(|| number.as_u64().map(i128::from))
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}
