//! Operators on values: equality, order, arithmetic, membership, indexes. Numbers compare across types and never mix in arithmetic.

use crate::shape::ListKind;
use crate::value::{Item, Val, key_of};
use crate::{Budget, Error};
use kube_cel::cel::Value as Cel;
use kube_cel::cel::common::ast::operators as op;
use serde_json::Value as Json;
use std::cmp::Ordering;
use std::rc::Rc;

/// Names that stand for types.
pub const TYPES: [&str; 11] = [
    "bool",
    "bytes",
    "double",
    "duration",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
];

/// Whether an operator takes two values and is one of this file.
pub fn is_binary(operator: &str) -> bool {
    matches!(
        operator,
        op::EQUALS
            | op::NOT_EQUALS
            | op::LESS
            | op::LESS_EQUALS
            | op::GREATER
            | op::GREATER_EQUALS
            | op::ADD
            | op::SUBSTRACT
            | op::MULTIPLY
            | op::DIVIDE
            | op::MODULO
            | op::IN
    )
}

/// `one operator other`.
pub fn binary<'a>(
    operator: &str,
    one: &Val<'a>,
    other: &Val<'a>,
    budget: &mut Budget,
) -> Result<Val<'a>, Error> {
    match operator {
        op::EQUALS => equal(one, other, budget).map(Val::bool),
        op::NOT_EQUALS => equal(one, other, budget).map(|equal| Val::bool(!equal)),
        op::ADD => add(one, other, budget),
        op::IN => contains(other, one, budget).map(Val::bool),
        op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS => {
            budget.charge_letters(one.letters(u64::MAX).min(other.letters(u64::MAX)))?;
            let order = order(one, other).ok_or_else(Error::no_overload)?;
            Ok(Val::bool(match operator {
                op::LESS => order == Some(Ordering::Less),
                op::LESS_EQUALS => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                op::GREATER => order == Some(Ordering::Greater),
                _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            }))
        }
        _ => arithmetic(operator, one, other),
    }
}

/// `-value`.
pub fn negate<'a>(value: &Val<'a>) -> Result<Val<'a>, Error> {
    match value {
        Val::Cel(Cel::Int(value)) => value.checked_neg().map(Val::int).ok_or_else(overflow),
        Val::Cel(Cel::Float(value)) => Ok(Val::Cel(Cel::Float(-value))),
        _ => Err(Error::no_overload()),
    }
}

/// `operand[index]`.
pub fn index<'a>(operand: &Val<'a>, index: &Val<'a>) -> Result<Val<'a>, Error> {
    if let Val::Optional(inner) = operand {
        let found = inner.as_deref().map(|inner| optional_index(inner, index));
        return found.unwrap_or_else(|| Ok(Val::none()));
    }
    let key = key_of(index)?;
    if operand.has_members() {
        return operand.member(&key).ok_or_else(|| Error::no_key(&key));
    }
    let out_of_bounds = || Error::Other(format!("index out of bounds: {key}"));
    let at = match index {
        Val::Cel(Cel::Int(at)) => usize::try_from(*at).map_err(|_| out_of_bounds())?,
        Val::Cel(Cel::UInt(at)) => usize::try_from(*at).map_err(|_| out_of_bounds())?,
        _ => return Err(Error::no_overload()),
    };
    let found = match operand {
        Val::Json(Json::Array(_), _) | Val::List(_) => operand.element(at),
        _ => return Err(Error::no_overload()),
    };
    found.ok_or_else(out_of_bounds)
}

/// `operand[?index]`: what is not there is absent.
pub fn optional_index<'a>(operand: &Val<'a>, at: &Val<'a>) -> Result<Val<'a>, Error> {
    match operand {
        Val::Optional(None) => Ok(Val::none()),
        Val::Optional(Some(inner)) => optional_index(inner, at),
        operand => Ok(index(operand, at).map_or_else(|_| Val::none(), Val::some)),
    }
}

/// Whether two values are the same; values of different types are not.
pub fn equal(one: &Val<'_>, other: &Val<'_>, budget: &mut Budget) -> Result<bool, Error> {
    budget.charge(1)?;
    if let (Some(mut ones), Some(others)) = (one.elements(), other.elements()) {
        return match (one.list_kind(), other.list_kind()) {
            (ListKind::Set, ListKind::Set) | (ListKind::Map(_), ListKind::Map(_)) => {
                // Each finds its like, and there are as many.
                let mut alike = ones.len() == others.len();
                while let (true, Some(one)) = (alike, ones.pop()) {
                    alike = has(&others, &one, budget)?;
                }
                Ok(alike)
            }
            _ => equal_lists(&ones, &others, budget),
        };
    }
    if one.has_members() && other.has_members() {
        return equal_maps(one, other, budget);
    }
    Ok(match (one, other) {
        (Val::Optional(None), Val::Optional(None)) => true,
        (Val::Optional(Some(one)), Val::Optional(Some(other))) => return equal(one, other, budget),
        (Val::Type(one), Val::Type(other)) => one == other,
        (Val::Cel(Cel::String(one)), Val::Cel(Cel::String(other))) => {
            budget.charge_letters(one.len().min(other.len()) as u64)?;
            one == other
        }
        (Val::Cel(one), Val::Cel(other)) => match (number(one), number(other)) {
            (Some(one), Some(other)) => one.order(other) == Some(Ordering::Equal),
            (None, None) => same_kind(one, other) && one == other,
            _ => false,
        },
        _ => false,
    })
}

fn equal_lists(ones: &[Val<'_>], others: &[Val<'_>], budget: &mut Budget) -> Result<bool, Error> {
    if ones.len() != others.len() {
        return Ok(false);
    }
    for (one, other) in ones.iter().zip(others) {
        if !equal(one, other, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn equal_maps(one: &Val<'_>, other: &Val<'_>, budget: &mut Budget) -> Result<bool, Error> {
    if one.size() != other.size() {
        return Ok(false);
    }
    for item in one.items().unwrap_or_default() {
        let Item::Pair(key, value) = item else {
            return Ok(false);
        };
        match other.member(&key) {
            Some(found) if equal(&value, &found, budget)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Whether one of the values is the same.
pub fn has(values: &[Val<'_>], wanted: &Val<'_>, budget: &mut Budget) -> Result<bool, Error> {
    for value in values {
        if equal(value, wanted, budget)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn contains(place: &Val<'_>, wanted: &Val<'_>, budget: &mut Budget) -> Result<bool, Error> {
    match place.elements() {
        Some(values) => has(&values, wanted, budget),
        None if place.has_members() => Ok(place.member(&key_of(wanted)?).is_some()),
        None => Err(Error::no_overload()),
    }
}

/// How two values are ordered; None inside for numbers that have no order, None outside for values that cannot be compared.
#[expect(
    clippy::option_option,
    reason = "a number that is none is not a value that cannot be compared"
)]
fn order(one: &Val<'_>, other: &Val<'_>) -> Option<Option<Ordering>> {
    let (Val::Cel(one), Val::Cel(other)) = (one, other) else {
        return None;
    };
    match (number(one), number(other)) {
        (Some(one), Some(other)) => Some(one.order(other)),
        (None, None) if same_kind(one, other) => match (one, other) {
            (
                Cel::String(_)
                | Cel::Bytes(_)
                | Cel::Bool(_)
                | Cel::Timestamp(_)
                | Cel::Duration(_),
                _,
            ) => Some(one.partial_cmp(other)),
            _ => None,
        },
        _ => None,
    }
}

/// The order of two values for sorting.
pub fn sort_order(one: &Val<'_>, other: &Val<'_>) -> Result<Ordering, Error> {
    order(one, other).flatten().ok_or_else(Error::no_overload)
}

fn same_kind(one: &Cel, other: &Cel) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

#[derive(Clone, Copy)]
enum Number {
    Whole(i128),
    Floating(f64),
}

impl Number {
    #[expect(clippy::cast_precision_loss, reason = "as the language compares them")]
    fn order(self, other: Number) -> Option<Ordering> {
        match (self, other) {
            (Number::Whole(one), Number::Whole(other)) => Some(one.cmp(&other)),
            (Number::Whole(one), Number::Floating(other)) => (one as f64).partial_cmp(&other),
            (Number::Floating(one), Number::Whole(other)) => one.partial_cmp(&(other as f64)),
            (Number::Floating(one), Number::Floating(other)) => one.partial_cmp(&other),
        }
    }
}

fn number(value: &Cel) -> Option<Number> {
    match value {
        Cel::Int(value) => Some(Number::Whole(i128::from(*value))),
        Cel::UInt(value) => Some(Number::Whole(i128::from(*value))),
        Cel::Float(value) => Some(Number::Floating(*value)),
        _ => None,
    }
}

fn add<'a>(one: &Val<'a>, other: &Val<'a>, budget: &mut Budget) -> Result<Val<'a>, Error> {
    if let (Some(mut ones), Some(others)) = (one.elements(), other.elements()) {
        budget.charge((ones.len() + others.len()) as u64)?;
        match one.list_kind() {
            ListKind::Atomic => ones.extend(others),
            ListKind::Set => {
                for value in others {
                    if !has(&ones, &value, budget)? {
                        ones.push(value);
                    }
                }
            }
            ListKind::Map(keys) => {
                for value in others {
                    match same_element(&ones, &value, keys, budget)? {
                        Some(at) => ones[at] = value,
                        None => ones.push(value),
                    }
                }
            }
        }
        return Ok(Val::List(Rc::new(ones)));
    }
    if let (Some(one), Some(other)) = (one.text(), other.text()) {
        budget.charge_letters((one.len() + other.len()) as u64)?;
        return Ok(Val::string(format!("{one}{other}")));
    }
    arithmetic(op::ADD, one, other)
}

/// Where the element with the same keys is.
fn same_element(
    values: &[Val<'_>],
    wanted: &Val<'_>,
    keys: &[String],
    budget: &mut Budget,
) -> Result<Option<usize>, Error> {
    for (at, value) in values.iter().enumerate() {
        let mut same = true;
        for key in keys {
            let key = kube_cel::cel::objects::Key::from(key.as_str());
            same &= match (value.member(&key), wanted.member(&key)) {
                (Some(one), Some(other)) => equal(&one, &other, budget)?,
                (one, other) => one.is_none() && other.is_none(),
            };
        }
        if same {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn arithmetic<'a>(operator: &str, one: &Val<'a>, other: &Val<'a>) -> Result<Val<'a>, Error> {
    let (Val::Cel(one), Val::Cel(other)) = (one, other) else {
        return Err(Error::no_overload());
    };
    let answer = match (operator, one, other) {
        (op::DIVIDE, Cel::Int(_), Cel::Int(0)) | (op::DIVIDE, Cel::UInt(_), Cel::UInt(0)) => {
            return Err(Error::Other("division by zero".into()));
        }
        (op::MODULO, Cel::Int(_), Cel::Int(0)) | (op::MODULO, Cel::UInt(_), Cel::UInt(0)) => {
            return Err(Error::Other("modulus by zero".into()));
        }
        (op::MODULO, Cel::Float(_), _) => return Err(Error::no_overload()),
        (op::ADD, ..) => one.clone() + other.clone(),
        (op::SUBSTRACT, ..) => one.clone() - other.clone(),
        (op::MULTIPLY, ..) => one.clone() * other.clone(),
        (op::DIVIDE, ..) => one.clone() / other.clone(),
        (op::MODULO, ..) => one.clone() % other.clone(),
        _ => return Err(Error::no_overload()),
    };
    answer.map(Val::of_cel).map_err(|error| match error {
        kube_cel::cel::ExecutionError::Overflow(..) => overflow(),
        _ => Error::no_overload(),
    })
}

fn overflow() -> Error {
    Error::Other("integer overflow".into())
}
