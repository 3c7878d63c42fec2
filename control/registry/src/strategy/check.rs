//! Checks that strategies share: bounds, choices, fields that never change. Never knows a kind.
//! Words: apimachinery's `api/validation`.

use super::edit::{Members, read_text};
use super::field_value;
use crate::Faults;
use objects::{LabelSelector, Object, names};
use serde_json::Value;

/// What is said of a field that may not change.
pub const IMMUTABLE: &str = "field is immutable";

/// Checks a number's lower bound; `field` is that of the map.
pub fn at_least(members: &Members, name: &str, field: &str, least: i64, faults: &mut Faults) {
    if let Some(value) = members.get(name)
        && value.as_i64().is_some_and(|number| number < least)
    {
        let detail = match least {
            1 => "must be greater than 0".to_owned(),
            least => format!("must be greater than or equal to {least}"),
        };
        faults.invalid(below(field, name), value, &detail);
    }
}

/// Checks that a text is one of a few, if it is there.
pub fn one_of(members: &Members, name: &str, field: &str, known: &[&str], faults: &mut Faults) {
    let text = members.get(name).and_then(Value::as_str);
    if let Some(text) = text.filter(|text| !known.contains(text)) {
        faults.unsupported(below(field, name), text, known);
    }
}

/// Checks that a text is one of a few and there.
pub fn choice(members: &Members, name: &str, field: &str, known: &[&str], faults: &mut Faults) {
    match read_text(members, name) {
        "" => faults.required(below(field, name), ""),
        _ => one_of(members, name, field, known, faults),
    }
}

/// Checks that a text is there and names something; answers with it.
pub fn named<'a>(
    members: &'a Members,
    name: &str,
    field: &str,
    check: fn(&str) -> Vec<String>,
    faults: &mut Faults,
) -> &'a str {
    let text = read_text(members, name);
    match text {
        "" => faults.required(below(field, name), ""),
        text => faults.invalid_texts(below(field, name), text, &check(text)),
    }
    text
}

/// Checks that the members at these dotted paths are as they were.
pub fn frozen(object: &Object, old: &Object, paths: &[&str], faults: &mut Faults) {
    for path in paths {
        let (new, old) = (
            field_value(&object.body, path),
            field_value(&old.body, path),
        );
        if new != old {
            faults.invalid(path, &new.cloned().unwrap_or_default(), IMMUTABLE);
        }
    }
}

/// Checks a label selector, if it is there.
pub fn selector(members: &Members, name: &str, field: &str, faults: &mut Faults) {
    let Some(value) = members.get(name).filter(|value| !value.is_null()) else {
        return;
    };
    if let Err(error) = LabelSelector::from_value(value) {
        faults.invalid(below(field, name), value, &error.to_string());
    }
}

/// Checks a count or a percentage of at most 100, if it is there.
pub fn share(members: &Members, name: &str, field: &str, faults: &mut Faults) {
    let Some(value) = members.get(name) else {
        return;
    };
    let field = below(field, name);
    match percent(value) {
        None if value.is_string() => faults.invalid(&field, value, PERCENT),
        Some(percent) if percent > 100 => {
            faults.invalid(&field, value, "must not be greater than 100%");
        }
        _ if value.as_i64().is_some_and(|count| count < 0) => {
            faults.invalid(&field, value, "must be greater than or equal to 0");
        }
        _ => {}
    }
}

/// What a text must be that stands for a share.
pub const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

/// The number of a percentage.
pub fn percent(value: &Value) -> Option<i64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// Checks a protocol and a port that may be a number or a name.
pub fn port(value: &Value, field: &str, faults: &mut Faults) {
    match value {
        Value::String(name) => faults.invalid_texts(field, name, &names::port_name(name)),
        value => {
            for detail in names::port_number(value.as_i64().unwrap_or_default()) {
                faults.invalid(field, value, &detail);
            }
        }
    }
}

/// The path of a member; `field` is empty at the top.
pub fn below(field: &str, name: &str) -> String {
    match field {
        "" => name.to_owned(),
        field => format!("{field}.{name}"),
    }
}
