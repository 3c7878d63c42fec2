//! Values without members, in the form in which Kubernetes writes them. The faults' texts are those of Go's JSON and time
//! packages and of apimachinery's types.

use super::{Alternative, Shape};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use objects::{Quantity, Timestamp};
use serde_json::{Number, Value};

/// Why a leaf is refused.
pub(super) enum Fault {
    /// The JSON type is wrong; Go's word for what came.
    Type(String),
    /// A finished text, as types with a decoder of their own give it.
    Text(String),
}

/// Checks a leaf and brings it into its canonical form. Shapes with members are none of its business.
pub(super) fn conform(shape: &Shape, value: &mut Value) -> Result<(), Fault> {
    match shape {
        Shape::Text if value.is_string() => Ok(()),
        Shape::Bool if value.is_boolean() => Ok(()),
        Shape::Double if value.is_number() => Ok(()),
        Shape::Int32 => whole_number(value, i64::from(i32::MIN)..=i64::from(i32::MAX)),
        Shape::Int64 => whole_number(value, i64::MIN..=i64::MAX),
        Shape::Bytes => bytes(value),
        Shape::Quantity => quantity(value),
        Shape::IntOrString => int_or_string(value),
        Shape::Time => time(value, |time| time.to_string(), "2006-01-02T15:04:05Z07:00"),
        Shape::MicroTime => time(
            value,
            Timestamp::to_micro_time,
            "2006-01-02T15:04:05.000000Z07:00",
        ),
        Shape::Raw | Shape::FieldsV1 | Shape::Json => Ok(()),
        Shape::Duration if value.is_string() => Ok(()),
        _ => Err(Fault::Type(go_word(value).to_owned())),
    }
}

/// Go's word for the JSON type of a value.
pub(super) fn go_word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether Go would leave the value out, were it no pointer.
pub(super) fn is_zero(shape: &Shape, value: &Value) -> bool {
    match (shape, value) {
        (
            Shape::Struct(_)
            | Shape::Either(..)
            | Shape::Quantity
            | Shape::Raw
            | Shape::FieldsV1
            | Shape::Json
            | Shape::Duration,
            _,
        ) => false,
        (_, Value::Bool(value)) => !value,
        (_, Value::Number(number)) => number.as_f64() == Some(0.0),
        (_, Value::String(text)) => text.is_empty(),
        (_, Value::Array(list)) => list.is_empty(),
        (_, Value::Object(map)) => map.is_empty(),
        (_, Value::Null) => true,
    }
}

/// What Go makes of a null within a list or a map.
pub(super) fn zero(shape: &Shape) -> Value {
    match shape {
        Shape::Text | Shape::Bytes => Value::String(String::new()),
        Shape::Quantity => Value::String("0".to_owned()),
        Shape::Bool => Value::Bool(false),
        Shape::Int32 | Shape::Int64 | Shape::Double | Shape::IntOrString => Value::Number(0.into()),
        Shape::List(_) | Shape::WrappedList(_) => Value::Array(Vec::new()),
        Shape::Map(_) | Shape::Struct(_) => Value::Object(serde_json::Map::new()),
        Shape::Duration => Value::String("0s".to_owned()),
        Shape::Either(_, Alternative::Bool) => Value::Bool(false),
        Shape::Time
        | Shape::MicroTime
        | Shape::Raw
        | Shape::FieldsV1
        | Shape::Json
        | Shape::Either(..) => Value::Null,
    }
}

fn whole_number(value: &Value, range: std::ops::RangeInclusive<i64>) -> Result<(), Fault> {
    match value {
        Value::Number(number) if number.as_i64().is_some_and(|n| range.contains(&n)) => Ok(()),
        Value::Number(number) => Err(Fault::Type(format!("number {number}"))),
        other => Err(Fault::Type(go_word(other).to_owned())),
    }
}

fn bytes(value: &Value) -> Result<(), Fault> {
    let Value::String(text) = value else {
        return Err(Fault::Type(go_word(value).to_owned()));
    };
    let at = match STANDARD.decode(text) {
        Ok(_) => return Ok(()),
        Err(base64::DecodeError::InvalidByte(at, _)) => at,
        Err(base64::DecodeError::InvalidLastSymbol { offset, .. }) => offset,
        Err(_) => text.len() / 4 * 4,
    };
    Err(Fault::Text(format!(
        "illegal base64 data at input byte {at}"
    )))
}

fn quantity(value: &mut Value) -> Result<(), Fault> {
    let text = match &*value {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    let quantity = Quantity::parse(&text).map_err(|error| Fault::Text(error.to_string()))?;
    *value = Value::String(quantity.to_string());
    Ok(())
}

fn int_or_string(value: &Value) -> Result<(), Fault> {
    if value.is_string() {
        return Ok(());
    }
    let range = i64::from(i32::MIN)..=i64::from(i32::MAX);
    whole_number(value, range).map_err(|fault| match fault {
        Fault::Type(word) => Fault::Text(format!(
            "json: cannot unmarshal {word} into Go value of type int32"
        )),
        text => text,
    })
}

fn time(value: &mut Value, write: fn(Timestamp) -> String, layout: &str) -> Result<(), Fault> {
    let Value::String(text) = value else {
        return Err(Fault::Text(format!(
            "json: cannot unmarshal {} into Go value of type string",
            go_word(value)
        )));
    };
    let Some(time) = Timestamp::parse(text) else {
        return Err(Fault::Text(format!(
            "parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""
        )));
    };
    *text = write(time);
    Ok(())
}

/// A number as JSON; numbers that JSON cannot write become null.
pub(super) fn double(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}
