//! Values of an evaluation. JSON is read in place; what an expression makes is shared.

use crate::Error;
use crate::access::Step;
use crate::library;
use crate::shape::{ListKind, Shape};
use kube_cel::cel::Value as Cel;
use kube_cel::cel::objects::{Key, OptionalValue};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// A value.
#[derive(Clone)]
pub enum Val<'a> {
    /// A list or an object in JSON.
    Json(&'a Json, &'a Shape),
    /// A list that an expression made.
    List(Rc<Vec<Val<'a>>>),
    /// A map that an expression made.
    Map(Rc<BTreeMap<Key, Val<'a>>>),
    /// A value or none.
    Optional(Option<Rc<Val<'a>>>),
    /// A scalar, or what only the library's functions know.
    Cel(Cel),
    /// A type, by name.
    Type(String),
    /// A question about who may do what.
    Access(Rc<Step>),
    /// `variables`.
    Composed,
}

/// One element or pair of something that can be walked.
pub enum Item<'a> {
    /// Of a list: where and what.
    At(i64, Val<'a>),
    /// Of a map: key and value.
    Pair(Key, Val<'a>),
}

impl<'a> Val<'a> {
    /// JSON as its shape reads it. A text that is not what its shape says stays a text.
    pub fn of_json(json: &'a Json, shape: &'a Shape) -> Val<'a> {
        match (json, shape) {
            (Json::Null, _) => Val::Cel(Cel::Null),
            (Json::Bool(value), _) => Val::bool(*value),
            (Json::Number(number), Shape::Double) => {
                Val::Cel(Cel::Float(number.as_f64().unwrap_or(f64::NAN)))
            }
            (Json::Number(number), _) => Val::of_number(number),
            (Json::String(text), Shape::Timestamp) => read_as("timestamp", &time_text(text)),
            (Json::String(text), Shape::Duration) => read_as("duration", text),
            (Json::String(text), Shape::Bytes) => read_as("base64.decode", text),
            (Json::String(text), _) => Val::string(text.clone()),
            (json, shape) => Val::Json(json, shape),
        }
    }

    fn of_number(number: &serde_json::Number) -> Val<'a> {
        let value = match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Cel::Int(value),
            (None, Some(value)) => Cel::UInt(value),
            (None, None) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        };
        Val::Cel(value)
    }

    /// True or false.
    pub fn bool(value: bool) -> Val<'a> {
        Val::Cel(Cel::Bool(value))
    }

    /// A whole number.
    pub fn int(value: i64) -> Val<'a> {
        Val::Cel(Cel::Int(value))
    }

    /// A text.
    pub fn string(value: String) -> Val<'a> {
        Val::Cel(Cel::String(Arc::new(value)))
    }

    /// A list.
    pub fn list(values: Vec<Val<'a>>) -> Val<'a> {
        Val::List(Rc::new(values))
    }

    /// An optional value.
    pub fn some(value: Val<'a>) -> Val<'a> {
        Val::Optional(Some(Rc::new(value)))
    }

    /// An optional value that is absent.
    pub fn none() -> Val<'a> {
        Val::Optional(None)
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Val::Cel(Cel::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The truth, if it is one.
    pub fn truth(&self) -> Option<bool> {
        match self {
            Val::Cel(Cel::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    /// Elements of a list or pairs of a map.
    pub fn items(&self) -> Option<Vec<Item<'a>>> {
        Some(match self {
            Val::Json(Json::Array(values), shape) => {
                let of = element_shape(shape);
                let values = values.iter().map(|value| Val::of_json(value, of));
                values
                    .zip(0..)
                    .map(|(value, at)| Item::At(at, value))
                    .collect()
            }
            Val::Json(Json::Object(fields), shape) => {
                let pairs = fields.iter().filter_map(|(name, value)| {
                    let (key, of) = member_shape(shape, name)?;
                    Some(Item::Pair(Key::from(key), Val::of_json(value, of)))
                });
                pairs.collect()
            }
            Val::List(values) => {
                let values = values.iter().cloned().zip(0..);
                values.map(|(value, at)| Item::At(at, value)).collect()
            }
            Val::Map(pairs) => {
                let pairs = pairs.iter();
                pairs
                    .map(|(key, value)| Item::Pair(key.clone(), value.clone()))
                    .collect()
            }
            _ => return None,
        })
    }

    /// The elements, if it is a list.
    pub fn elements(&self) -> Option<Vec<Val<'a>>> {
        match self {
            Val::Json(Json::Array(_), _) | Val::List(_) => {}
            _ => return None,
        }
        let items = self.items()?.into_iter();
        Some(
            items
                .map(|item| match item {
                    Item::At(_, value) | Item::Pair(_, value) => value,
                })
                .collect(),
        )
    }

    /// The element of a list at an index.
    pub fn element(&self, at: usize) -> Option<Val<'a>> {
        match self {
            Val::Json(Json::Array(values), shape) => {
                Some(Val::of_json(values.get(at)?, element_shape(shape)))
            }
            Val::List(values) => values.get(at).cloned(),
            _ => None,
        }
    }

    /// How many elements, pairs, letters or bytes.
    pub fn size(&self) -> Option<i64> {
        let size = match self {
            Val::Json(Json::Array(values), _) => values.len(),
            Val::Json(Json::Object(_), _) => self.items()?.len(),
            Val::List(values) => values.len(),
            Val::Map(pairs) => pairs.len(),
            Val::Cel(Cel::String(text)) => text.chars().count(),
            Val::Cel(Cel::Bytes(bytes)) => bytes.len(),
            _ => return None,
        };
        i64::try_from(size).ok()
    }

    /// The member of an object or map.
    pub fn member(&self, key: &Key) -> Option<Val<'a>> {
        match (self, key) {
            (Val::Json(Json::Object(fields), shape), Key::String(name)) => {
                member(fields, shape, name)
            }
            (Val::Map(pairs), key) => pairs
                .get(key)
                .or_else(|| pairs.get(&other_sign(key)?))
                .cloned(),
            _ => None,
        }
    }

    /// Whether members can be asked for.
    pub fn has_members(&self) -> bool {
        matches!(self, Val::Json(Json::Object(_), _) | Val::Map(_))
    }

    /// How lists of it compare and add up.
    pub fn list_kind(&self) -> &ListKind {
        match self {
            Val::Json(_, Shape::List(_, kind)) => kind,
            _ => &ListKind::Atomic,
        }
    }

    /// About how many letters it has when written; what handing it on costs. Stops counting at `most`.
    pub fn letters(&self, most: u64) -> u64 {
        match self {
            Val::Json(json, _) => json_letters(json, most),
            Val::List(values) => sum(
                values.iter().map(|value| move |most| value.letters(most)),
                most,
            ),
            Val::Map(pairs) => sum(
                pairs.values().map(|value| move |most| value.letters(most)),
                most,
            ),
            Val::Optional(Some(value)) => value.letters(most),
            Val::Cel(Cel::String(text)) => text.len() as u64,
            Val::Cel(Cel::Bytes(bytes)) => bytes.len() as u64,
            _ => 1,
        }
    }

    /// The name of its type.
    pub fn type_name(&self) -> String {
        let name = match self {
            Val::Json(Json::Array(_), _) | Val::List(_) => "list",
            Val::Json(..) | Val::Map(_) | Val::Composed => "map",
            Val::Optional(_) => "optional_type",
            Val::Type(_) => "type",
            Val::Access(_) => "kubernetes.authorization.Authorizer",
            Val::Cel(Cel::Null) => "null_type",
            Val::Cel(Cel::Float(_)) => "double",
            Val::Cel(Cel::Timestamp(_)) => "google.protobuf.Timestamp",
            Val::Cel(Cel::Duration(_)) => "google.protobuf.Duration",
            Val::Cel(Cel::Opaque(value)) => value.runtime_type_name(),
            Val::Cel(value) => return value.type_of().to_string(),
        };
        name.to_owned()
    }

    /// As the library's functions take it.
    pub fn to_cel(&self) -> Result<Cel, Error> {
        Ok(match self {
            Val::Cel(value) => value.clone(),
            Val::Optional(None) => Cel::Opaque(Arc::new(OptionalValue::none())),
            Val::Optional(Some(value)) => Cel::Opaque(Arc::new(OptionalValue::of(value.to_cel()?))),
            Val::Type(name) => Cel::from(name.as_str()),
            Val::Access(_) | Val::Composed => return Err(Error::no_overload()),
            composite => match composite.items().unwrap_or_default() {
                items if composite.has_members() => {
                    let pairs = items.into_iter().filter_map(|item| match item {
                        Item::Pair(key, value) => Some(value.to_cel().map(|value| (key, value))),
                        Item::At(..) => None,
                    });
                    let pairs: std::collections::HashMap<Key, Cel> =
                        pairs.collect::<Result<_, _>>()?;
                    Cel::from(pairs)
                }
                items => {
                    let values = items.into_iter().map(|item| match item {
                        Item::At(_, value) | Item::Pair(_, value) => value.to_cel(),
                    });
                    Cel::List(Arc::new(values.collect::<Result<_, _>>()?))
                }
            },
        })
    }

    /// What the library's functions answer.
    pub fn of_cel(value: Cel) -> Val<'a> {
        match value {
            Cel::List(values) => Val::list(values.iter().cloned().map(Val::of_cel).collect()),
            Cel::Map(map) => {
                let pairs = map.map.iter();
                Val::Map(Rc::new(
                    pairs
                        .map(|(key, value)| (key.clone(), Val::of_cel(value.clone())))
                        .collect(),
                ))
            }
            Cel::Opaque(opaque) => match opaque.downcast_ref::<OptionalValue>() {
                Some(optional) => Val::Optional(
                    optional
                        .value()
                        .map(|value| Rc::new(Val::of_cel(value.clone()))),
                ),
                None => Val::Cel(Cel::Opaque(opaque)),
            },
            scalar => Val::Cel(scalar),
        }
    }

    /// As JSON; an absent optional value is null.
    pub fn to_json(&self) -> Result<Json, Error> {
        Ok(match self {
            Val::Json(json, _) => (*json).clone(),
            Val::Optional(None) => Json::Null,
            Val::Optional(Some(value)) => value.to_json()?,
            Val::List(values) => values
                .iter()
                .map(Val::to_json)
                .collect::<Result<Vec<_>, _>>()?
                .into(),
            Val::Map(pairs) => {
                let pairs = pairs
                    .iter()
                    .map(|(key, value)| Ok((key.to_string(), value.to_json()?)));
                Json::Object(pairs.collect::<Result<_, Error>>()?)
            }
            Val::Cel(value @ (Cel::Duration(_) | Cel::Timestamp(_))) => {
                Json::from(crate::call::time_text(value)?)
            }
            Val::Type(name) => Json::from(name.as_str()),
            Val::Cel(Cel::Null) => Json::Null,
            Val::Cel(Cel::Bool(value)) => Json::from(*value),
            Val::Cel(Cel::Int(value)) => Json::from(*value),
            Val::Cel(Cel::UInt(value)) => Json::from(*value),
            Val::Cel(Cel::Float(value)) => Json::from(*value),
            Val::Cel(Cel::String(value)) => Json::from(value.as_str()),
            Val::Cel(value @ Cel::Bytes(_)) => {
                let text = library::call("encode", Some("base64"), None, vec![value.clone()])?;
                Val::of_cel(text).to_json()?
            }
            Val::Cel(_) | Val::Access(_) | Val::Composed => {
                return Err(Error::no_json(&self.type_name()));
            }
        })
    }
}

/// A key as the language allows it.
pub fn key_of(value: &Val<'_>) -> Result<Key, Error> {
    match value {
        Val::Cel(Cel::Int(value)) => Ok(Key::Int(*value)),
        Val::Cel(Cel::UInt(value)) => Ok(Key::Uint(*value)),
        Val::Cel(Cel::Bool(value)) => Ok(Key::Bool(*value)),
        Val::Cel(Cel::String(value)) => Ok(Key::String(value.clone())),
        Val::Cel(Cel::Float(value)) if value.fract() == 0.0 && value.abs() < 9e15 => {
            #[expect(clippy::cast_possible_truncation, reason = "whole and small enough")]
            let whole = *value as i64;
            Ok(Key::Int(whole))
        }
        _ => Err(Error::Other("unsupported key type".into())),
    }
}

fn other_sign(key: &Key) -> Option<Key> {
    match key {
        Key::Int(value) => Some(Key::Uint(u64::try_from(*value).ok()?)),
        Key::Uint(value) => Some(Key::Int(i64::try_from(*value).ok()?)),
        Key::Bool(_) | Key::String(_) => None,
    }
}

fn member<'a>(
    fields: &'a serde_json::Map<String, Json>,
    shape: &'a Shape,
    name: &str,
) -> Option<Val<'a>> {
    match shape {
        Shape::Object(known) => {
            let by_json = || known.values().find(|field| field.name == name);
            let field = known.get(name).or_else(by_json)?;
            Some(Val::of_json(fields.get(&field.name)?, &field.shape))
        }
        Shape::Map(of) => Some(Val::of_json(fields.get(name)?, of)),
        _ => Some(Val::of_json(fields.get(name)?, &crate::shape::ANY)),
    }
}

fn member_shape<'a>(shape: &'a Shape, name: &'a str) -> Option<(&'a str, &'a Shape)> {
    match shape {
        Shape::Object(known) => {
            let (escaped, field) = known.iter().find(|(_, field)| field.name == name)?;
            Some((escaped, &field.shape))
        }
        Shape::Map(of) => Some((name, of)),
        _ => Some((name, &crate::shape::ANY)),
    }
}

fn element_shape(shape: &Shape) -> &Shape {
    match shape {
        Shape::List(of, _) => of,
        _ => &crate::shape::ANY,
    }
}

/// A date alone is its midnight in UTC.
fn time_text(text: &str) -> String {
    match text.len() {
        10 => format!("{text}T00:00:00Z"),
        _ => text.to_owned(),
    }
}

fn read_as<'a>(function: &str, text: &str) -> Val<'a> {
    let read = match function.split_once('.') {
        Some((place, name)) => library::call(name, Some(place), None, vec![Cel::from(text)]),
        None => library::call(function, None, None, vec![Cel::from(text)]),
    };
    read.map_or_else(|_| Val::string(text.to_owned()), Val::Cel)
}

fn json_letters(json: &Json, most: u64) -> u64 {
    match json {
        Json::String(text) => text.len() as u64,
        Json::Array(values) => sum(
            values
                .iter()
                .map(|value| move |most| json_letters(value, most)),
            most,
        ),
        Json::Object(fields) => sum(
            fields
                .iter()
                .map(|(name, value)| move |most| name.len() as u64 + json_letters(value, most)),
            most,
        ),
        _ => 1,
    }
}

fn sum<F: Fn(u64) -> u64>(parts: impl Iterator<Item = F>, most: u64) -> u64 {
    let mut total = 1;
    for part in parts {
        if total >= most {
            break;
        }
        total += 1 + part(most - total);
    }
    total
}
