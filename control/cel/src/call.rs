//! Calls of functions: those of optional values and of types are here, the others in the library. What a function may make is paid
//! before it is called.

use crate::eval::Scope;
use crate::library;
use crate::macros::ident;
use crate::value::Val;
use crate::{Error, Evaluation};
use kube_cel::cel::Value as Cel;
use kube_cel::cel::common::ast::CallExpr;

/// The most digits behind the point that `format` writes.
const PRECISION_MAX: u64 = 100;

/// What asking who may do what costs.
const CHECK_UNITS: u64 = 350_000;

impl<'a> Evaluation<'a, '_> {
    /// Calls a function.
    pub(crate) fn function(
        &mut self,
        call: &CallExpr,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Result<Val<'a>, Error> {
        let place = call.target.as_deref().and_then(ident);
        let place =
            place.filter(|name| library::PLACES.contains(name) && !self.is_variable(name, scope));
        let target = match (&call.target, place) {
            (Some(target), None) => Some(self.value(target, scope)?),
            _ => None,
        };
        let mut args = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            args.push(self.value(arg, scope)?);
        }
        let name = call.func_name.as_str();
        let own = match (place, &target) {
            (Some("optional"), _) => optional(name, &args),
            (Some(_), _) => None,
            (None, Some(Val::Access(step))) => {
                self.budget
                    .charge(if name == "check" { CHECK_UNITS } else { 1 })?;
                let answer = step.call(name, &args, self.inputs.access);
                Some(answer.unwrap_or_else(|| Err(Error::no_overload())))
            }
            (None, Some(Val::Optional(value))) => of_optional(value.as_deref(), name, &args),
            (None, target) => plain(name, target.as_ref(), &args),
        };
        match own {
            Some(answer) => answer,
            None => self.library(name, place, target, args),
        }
    }

    fn library(
        &mut self,
        name: &str,
        place: Option<&str>,
        target: Option<Val<'a>>,
        args: Vec<Val<'a>>,
    ) -> Result<Val<'a>, Error> {
        let all = target.iter().chain(&args);
        let letters: u64 = all.map(|value| value.letters(u64::MAX)).sum();
        self.budget.charge_letters(letters)?;
        self.charge_growth(name, target.as_ref(), &args)?;
        let target = target.map(|value| value.to_cel()).transpose()?;
        let args = args.iter().map(Val::to_cel).collect::<Result<_, _>>()?;
        library::call(name, place, target, args).map(Val::of_cel)
    }

    /// Pays for answers that may be far longer than what they are made of.
    fn charge_growth(
        &mut self,
        name: &str,
        target: Option<&Val<'a>>,
        args: &[Val<'a>],
    ) -> Result<(), Error> {
        let length = |value: Option<&Val<'a>>| value.map_or(0, |value| value.letters(u64::MAX));
        let count = |value: Option<&Val<'a>>| {
            let size = value.and_then(Val::size).unwrap_or(0);
            u64::try_from(size).unwrap_or(0)
        };
        let number = |value: Option<&Val<'a>>| match value {
            Some(Val::Cel(Cel::Int(value))) => u64::try_from(*value).unwrap_or(0),
            _ => 0,
        };
        match name {
            "replace" => self
                .budget
                .charge_letters((length(target) + 1).saturating_mul(length(args.get(1)) + 1)),
            "join" => self
                .budget
                .charge_letters((count(target) + 1).saturating_mul(length(args.first()) + 1)),
            "range" => self.budget.charge(number(args.first())),
            "matches" | "find" | "findAll" => self
                .budget
                .charge_letters((length(target) + 1).saturating_mul(length(args.first()) / 4 + 1)),
            "distinct" | "sort" => {
                let each = count(target);
                self.budget
                    .charge_letters(each.saturating_mul(length(target)))
            }
            "contains" | "equivalent" | "intersects" if target.is_none() => self
                .budget
                .charge(count(args.first()).saturating_mul(count(args.get(1)))),
            "format" => match target.and_then(Val::text).is_some_and(is_too_precise) {
                true => Err(Error::Other(format!(
                    "format: more than {PRECISION_MAX} digits were asked for"
                ))),
                false => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// Whether a text for `format` asks for more digits than may be.
fn is_too_precise(text: &str) -> bool {
    let mut digits = text.split("%.").skip(1).map(|rest| {
        let end = rest
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(rest.len());
        rest[..end].parse::<u64>().unwrap_or(match end {
            0 => 0,
            _ => u64::MAX,
        })
    });
    digits.any(|digits| digits > PRECISION_MAX)
}

/// A time as RFC 3339 with `Z`, a duration in seconds: `5400s`.
pub fn time_text(value: &Cel) -> Result<String, Error> {
    match value {
        Cel::Timestamp(time) => Ok(time.to_rfc3339().replace("+00:00", "Z")),
        Cel::Duration(duration) => {
            let (seconds, nanos) = (duration.num_seconds(), duration.subsec_nanos().abs());
            let fraction = format!("{nanos:09}");
            Ok(match fraction.trim_end_matches('0') {
                "" => format!("{seconds}s"),
                fraction => format!("{seconds}.{fraction}s"),
            })
        }
        _ => Err(Error::no_overload()),
    }
}

type Answer<'a> = Option<Result<Val<'a>, Error>>;

/// `optional.of(..)`.
fn optional<'a>(name: &str, args: &[Val<'a>]) -> Answer<'a> {
    Some(Ok(match (name, args) {
        ("none", []) => Val::none(),
        ("of", [value]) => Val::some(value.clone()),
        ("ofNonZeroValue", [value]) => match is_zero(value) {
            true => Val::none(),
            false => Val::some(value.clone()),
        },
        _ => return None,
    }))
}

fn is_zero(value: &Val<'_>) -> bool {
    match value {
        Val::Cel(value) => value.is_zero(),
        Val::Optional(value) => value.is_none(),
        value => value.size() == Some(0),
    }
}

/// Methods of optional values.
fn of_optional<'a>(value: Option<&Val<'a>>, name: &str, args: &[Val<'a>]) -> Answer<'a> {
    Some(match (name, value, args) {
        ("hasValue", value, []) => Ok(Val::bool(value.is_some())),
        ("value", Some(value), []) => Ok(value.clone()),
        ("value", None, []) => Err(Error::Other("optional.none() dereference".into())),
        ("orValue", Some(value), [_]) => Ok(value.clone()),
        ("orValue", None, [other]) => Ok(other.clone()),
        ("or", Some(value), [Val::Optional(_)]) => Ok(Val::some(value.clone())),
        ("or", None, [other @ Val::Optional(_)]) => Ok(other.clone()),
        _ => return None,
    })
}

/// What needs no library, or what it does not know of our values.
fn plain<'a>(name: &str, target: Option<&Val<'a>>, args: &[Val<'a>]) -> Answer<'a> {
    let on = target.or(args.first());
    Some(Ok(
        match (name, on, args.len() + usize::from(target.is_some())) {
            ("size", Some(value), 1) => {
                return Some(value.size().map(Val::int).ok_or_else(Error::no_overload));
            }
            ("type", Some(value), 1) => Val::Type(value.type_name()),
            ("dyn", Some(value), 1) => value.clone(),
            ("bool", Some(Val::Cel(Cel::Bool(value))), 1) => Val::bool(*value),
            ("bool", Some(value), 1) => match value.text() {
                Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Val::bool(true),
                Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Val::bool(false),
                _ => {
                    return Some(Err(Error::Other(
                        "type conversion error from string to bool".into(),
                    )));
                }
            },
            ("string", Some(Val::Cel(Cel::Bool(value))), 1) => Val::string(value.to_string()),
            ("string", Some(Val::Cel(Cel::Int(value))), 1) => Val::string(value.to_string()),
            ("string", Some(Val::Cel(value @ (Cel::Timestamp(_) | Cel::Duration(_)))), 1) => {
                return Some(time_text(value).map(Val::string));
            }
            _ => return None,
        },
    ))
}
