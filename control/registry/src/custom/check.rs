//! Whether a custom object keeps to its schema, in Kubernetes' words. What an update leaves as it was is not judged again.

use super::format;
use super::schema::{Additional, Schema};
use crate::Faults;
use cel::ListKind;
use serde_json::{Map, Value};

/// Judges a whole object; `old` is what it was before an update.
pub fn object(schema: &Schema, value: &Value, old: Option<&Value>, faults: &mut Faults) {
    let mut judge = Judge { faults };
    judge.value(schema, value, old, "");
}

/// Judges a value, such as a default.
pub fn value(schema: &Schema, value: &Value, path: &str, faults: &mut Faults) {
    let mut judge = Judge { faults };
    judge.value(schema, value, None, path);
}

struct Judge<'a> {
    faults: &'a mut Faults,
}

impl Judge<'_> {
    fn value(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, path: &str) {
        if old == Some(value) {
            return;
        }
        if value.is_null() && schema.nullable {
            return;
        }
        if !self.is_of_type(schema, value, path) {
            return;
        }
        self.limits(schema, value, path);
        match value {
            Value::Object(members) => self.members(schema, members, old, path),
            Value::Array(values) => self.elements(schema, values, old, path),
            _ => {}
        }
        self.junctions(schema, value, path);
    }

    fn is_of_type(&mut self, schema: &Schema, value: &Value, path: &str) -> bool {
        let found = type_of(value);
        let fits = match schema.kind.as_str() {
            _ if schema.int_or_string => matches!(found, "integer" | "string"),
            "" => true,
            "number" => matches!(found, "integer" | "number"),
            "integer" => {
                found == "integer" || value.as_f64().is_some_and(|number| number.fract() == 0.0)
            }
            kind => kind == found,
        };
        if !fits {
            let wanted = match schema.int_or_string {
                true => "integer,string",
                false => schema.kind.as_str(),
            };
            let told = format!("{path} in body must be of type {wanted}: {found:?}");
            self.faults.invalid_type(shown_path(path), found, &told);
        }
        fits
    }

    fn limits(&mut self, schema: &Schema, value: &Value, path: &str) {
        let limits = &schema.limits;
        let place = shown_path(path);
        let mut wrong = |told: String| {
            self.faults
                .invalid(place, value, &format!("{path} in body {told}"))
        };
        if let Some(number) = value.as_f64() {
            match limits.minimum {
                Some((least, true)) if number <= least => {
                    wrong(format!("should be greater than {least}"))
                }
                Some((least, false)) if number < least => {
                    wrong(format!("should be greater than or equal to {least}"));
                }
                _ => {}
            }
            match limits.maximum {
                Some((most, true)) if number >= most => {
                    wrong(format!("should be less than {most}"))
                }
                Some((most, false)) if number > most => {
                    wrong(format!("should be less than or equal to {most}"))
                }
                _ => {}
            }
            if let Some(factor) = limits.multiple_of
                && factor > 0.0
                && (number / factor).fract().abs() > 1e-9
            {
                wrong(format!("should be a multiple of {factor}"));
            }
            if !format::fits_number(&limits.format, number) {
                wrong(format!("must be of type {}: {value}", limits.format));
            }
        }
        if let Some(text) = value.as_str() {
            let letters = text.chars().count() as u64;
            if let Some(least) = limits.length.min.filter(|least| letters < *least) {
                wrong(format!("should be at least {least} chars long"));
            }
            if let Some((pattern, Some(regex))) = &limits.pattern
                && !regex.is_match(text)
            {
                wrong(format!("should match '{pattern}'"));
            }
            if !format::fits(&limits.format, text) {
                wrong(format!("must be of type {}: {text:?}", limits.format));
            }
            if let Some(most) = limits.length.max.filter(|most| letters > *most) {
                self.faults
                    .too_long(place, usize::try_from(most).unwrap_or(usize::MAX));
            }
        }
        if !limits.one_of_values.is_empty() && !limits.one_of_values.contains(value) {
            let known: Vec<String> = limits.one_of_values.iter().map(plain).collect();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            self.faults.unsupported(place, &plain(value), &known);
        }
    }

    fn members(
        &mut self,
        schema: &Schema,
        members: &Map<String, Value>,
        old: Option<&Value>,
        path: &str,
    ) {
        let limits = &schema.limits;
        for name in &limits.required {
            if !members.contains_key(name) {
                self.faults.required(join(path, name), "");
            }
        }
        let count = members.len() as u64;
        self.count(
            count,
            limits.members.min,
            limits.members.max,
            "properties",
            path,
            members.clone().into(),
        );
        for (name, value) in members {
            let of = match (schema.properties.get(name), &schema.additional) {
                (Some(of), _) => of,
                (None, Additional::Of(of)) => of,
                (None, _) => continue,
            };
            let old = old.and_then(|old| old.get(name));
            self.value(of, value, old, &join(path, name));
        }
    }

    fn elements(&mut self, schema: &Schema, values: &[Value], old: Option<&Value>, path: &str) {
        let limits = &schema.limits;
        let count = values.len() as u64;
        self.count(
            count,
            limits.items.min,
            limits.items.max,
            "items",
            path,
            values.into(),
        );
        if limits.unique && has_double(values) {
            let told = format!("{path} in body shouldn't contain duplicates");
            self.faults.invalid(shown_path(path), &values.into(), &told);
        }
        for (at, value) in values.iter().enumerate() {
            if values[..at]
                .iter()
                .any(|before| same_element(&schema.list, before, value))
            {
                self.faults
                    .duplicate(format!("{path}[{at}]"), &key_of(&schema.list, value));
            }
        }
        let Some(items) = &schema.items else {
            return;
        };
        for (at, value) in values.iter().enumerate() {
            let old = old
                .and_then(Value::as_array)
                .and_then(|old| match &schema.list {
                    // Only elements of such lists are the same ones as before.
                    ListKind::Map(_) => old
                        .iter()
                        .find(|before| same_element(&schema.list, before, value)),
                    _ => None,
                });
            self.value(items, value, old, &format!("{path}[{at}]"));
        }
    }

    fn count(
        &mut self,
        count: u64,
        min: Option<u64>,
        max: Option<u64>,
        word: &str,
        path: &str,
        value: Value,
    ) {
        if let Some(most) = max.filter(|most| count > *most) {
            self.faults.too_many(shown_path(path), count, most);
        }
        if let Some(least) = min.filter(|least| count < *least) {
            let told = format!("{path} in body should have at least {least} {word}");
            self.faults.invalid(shown_path(path), &value, &told);
        }
    }

    fn junctions(&mut self, schema: &Schema, value: &Value, path: &str) {
        let limits = &schema.limits;
        let place = shown_path(path);
        for each in &limits.all_of {
            self.value(each, value, None, path);
        }
        let holding = |schemas: &[Schema]| schemas.iter().filter(|each| holds(each, value)).count();
        if !limits.any_of.is_empty() && holding(&limits.any_of) == 0 {
            let told = format!("{path:?} must validate at least one schema (anyOf)");
            self.faults.invalid_text(place, "", &told);
        }
        if !limits.one_of.is_empty() {
            let told = match holding(&limits.one_of) {
                1 => None,
                0 => Some("Found none valid".to_owned()),
                several => Some(format!("Found {several} valid alternatives")),
            };
            if let Some(told) = told {
                let told =
                    format!("{path:?} must validate one and only one schema (oneOf). {told}");
                self.faults.invalid_text(place, "", &told);
            }
        }
        if let Some(not) = &limits.not
            && holds(not, value)
        {
            self.faults.invalid_text(
                place,
                "",
                &format!("{path:?} must not validate the schema (not)"),
            );
        }
    }
}

fn holds(schema: &Schema, value: &Value) -> bool {
    let mut faults = Faults::default();
    let mut judge = Judge {
        faults: &mut faults,
    };
    judge.value(schema, value, None, "");
    faults.is_empty()
}

fn has_double(values: &[Value]) -> bool {
    values
        .iter()
        .enumerate()
        .any(|(at, value)| values[..at].contains(value))
}

/// Whether two elements are the same one of a set or of a list with keys.
pub fn same_element(list: &ListKind, one: &Value, other: &Value) -> bool {
    match list {
        ListKind::Atomic => false,
        ListKind::Set => one == other,
        ListKind::Map(_) => key_of(list, one) == key_of(list, other),
    }
}

fn key_of(list: &ListKind, value: &Value) -> Value {
    match list {
        ListKind::Map(keys) => {
            let members = keys
                .iter()
                .filter_map(|key| Some((key.clone(), value.get(key)?.clone())));
            Value::Object(members.collect())
        }
        _ => value.clone(),
    }
}

/// The word for a value's type in messages.
pub fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn shown_path(path: &str) -> &str {
    match path {
        "" => "<nil>",
        path => path,
    }
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}
