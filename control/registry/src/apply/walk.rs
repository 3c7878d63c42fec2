//! What the walks over typed values share: faults, the choice of a form, the steps to the elements of lists.
//! Rules: structured-merge-diff's `typed` package.

use super::element::{Datum, Element};
use super::schema::{Atom, List, Map, Relation, Scalar, Type};
use serde_json::Value;
use std::fmt;

/// What does not fit its type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// The place: `.spec.containers[name="web"]`.
    pub path: String,
    /// What is wrong.
    pub text: String,
}

impl Fault {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Fault {
            path: String::new(),
            text: text.into(),
        }
    }

    pub(super) fn under(mut self, step: &impl fmt::Display) -> Self {
        self.path = format!("{step}{}", self.path);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => out.write_str(&self.text),
            path => write!(out, "{path}: {}", self.text),
        }
    }
}

impl std::error::Error for Fault {}

/// The form as which a value is walked over.
pub(super) enum Form<'s> {
    Map(&'s Map, Relation),
    Scalar(Scalar),
    List(&'s List, Relation),
}

/// The form of an atom; maps come before scalars, scalars before lists.
pub(super) fn form<'s>(atom: &Atom<'s>) -> Result<Form<'s>, Fault> {
    if let (Some(map), Some(relation)) = (atom.map, atom.map_relation()) {
        return Ok(Form::Map(map, relation));
    }
    if let Some(scalar) = atom.scalar {
        return Ok(Form::Scalar(scalar));
    }
    if let (Some(list), Some(relation)) = (atom.list, atom.list_relation()) {
        return Ok(Form::List(list, relation));
    }
    Err(Fault::new("schema error: no form of the type is known"))
}

pub(super) fn resolve(r#type: Option<Type<'_>>) -> Result<Atom<'_>, Fault> {
    let atom = r#type.and_then(Type::atom);
    atom.ok_or_else(|| Fault::new("field not declared in schema"))
}

/// The step to an element of a list that is a set or a map.
pub(super) fn step_to(atom: &Atom<'_>, list: &List, item: &Value) -> Result<Element, Fault> {
    if atom.list_relation() != Some(Relation::Associative) {
        return Err(Fault::new("invalid indexing of non-associative list"));
    }
    if list.keys.is_empty() {
        return match item {
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Ok(Element::Value(Datum(item.clone())))
            }
            Value::Object(_) => Err(Fault::new(
                "associative list without keys has an element that's a map type",
            )),
            Value::Array(_) => Err(Fault::new(
                "not supported: associative list with lists as elements",
            )),
            Value::Null => Err(Fault::new(
                "associative list without keys has an element that's an explicit null",
            )),
        };
    }
    let Value::Object(members) = item else {
        let what = if item.is_null() {
            "a null element"
        } else {
            "non-map elements"
        };
        return Err(Fault::new(format!(
            "associative list with keys may not have {what}"
        )));
    };
    let fields = atom
        .element()
        .and_then(Type::atom)
        .and_then(|atom| atom.map);
    let value_of = |key: &String| {
        let default = || fields?.fields.get(key)?.default.clone();
        let value = members.get(key).cloned().or_else(default)?;
        Some((key.clone(), value))
    };
    let key: Vec<(String, Value)> = list.keys.iter().filter_map(value_of).collect();
    if key.is_empty() {
        return Err(Fault::new(format!(
            "associative list with keys has an element that omits all key fields {:?} (and doesn't have default values for any key fields)",
            list.keys
        )));
    }
    Ok(Element::key(key))
}

/// Whether a value may stand as a scalar.
pub(super) fn check_scalar(scalar: Scalar, value: &Value) -> Result<(), Fault> {
    let (fits, expected) = match (scalar, value) {
        (_, Value::Null) => return Ok(()),
        (Scalar::Numeric, value) => (value.is_number(), "numeric (int or float)"),
        (Scalar::Text, value) => (value.is_string(), "string"),
        (Scalar::Boolean, value) => (value.is_boolean(), "boolean"),
        (Scalar::Untyped, value) => (!value.is_array() && !value.is_object(), "any scalar"),
    };
    match fits {
        true => Ok(()),
        false => Err(Fault::new(format!(
            "expected {expected}, got {}",
            word(value)
        ))),
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
        other => other.to_string(),
    }
}

/// The elements of a list; none for null and for what is no list.
pub(super) fn items(value: Option<&Value>) -> &[Value] {
    value
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The members of a map; None for null and for what is no map.
pub(super) fn members(value: Option<&Value>) -> Option<&serde_json::Map<String, Value>> {
    value.and_then(Value::as_object)
}
