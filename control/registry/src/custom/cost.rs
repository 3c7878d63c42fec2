//! What the rules of a definition may cost at most, for each and for all together, before the definition is taken. Limits, sizes and
//! words: Kubernetes' apiextensions/v1 validation. What limits nothing may be as large as a request.

use super::rules;
use super::schema::Schema;
use crate::Faults;
use cel::Extent;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one expression may cost by estimate.
const RULE_UNITS_MAX: u64 = 10_000_000;
/// What all expressions of a schema may cost together.
const SCHEMA_UNITS_MAX: u64 = 100_000_000;
const REQUEST_BYTES_MAX: u64 = 3 << 20;
/// Letters of one sign in UTF-8, at most.
const SIGN_BYTES_MAX: u64 = 4;

/// Refuses a schema whose rules may cost too much.
pub fn check(source: &Value, field: &str, faults: &mut Faults) {
    let mut costs = Costs { faults, total: 0 };
    costs.schema(source, field, Some(1), true);
    let total = costs.total;
    if total > SCHEMA_UNITS_MAX {
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        faults.forbidden(field, &told(what, total, SCHEMA_UNITS_MAX));
    }
}

struct Costs<'a> {
    faults: &'a mut Faults,
    total: u64,
}

impl Costs<'_> {
    /// `count` is how many values of the schema an object may have; None where nothing limits it.
    fn schema(&mut self, source: &Value, field: &str, count: Option<u64>, is_root: bool) {
        self.rules(source, field, count, is_root);
        let Some(members) = source.as_object() else {
            return;
        };
        let below = |limit: &str| {
            let most = members.get(limit).and_then(Value::as_u64);
            count
                .zip(most)
                .map(|(count, most)| count.saturating_mul(most))
        };
        let properties = members.get("properties").and_then(Value::as_object);
        for (name, of) in properties.into_iter().flatten() {
            self.schema(of, &format!("{field}.properties[{name}]"), count, false);
        }
        for (name, limit) in [
            ("items", "maxItems"),
            ("additionalProperties", "maxProperties"),
        ] {
            if let Some(of) = members.get(name).filter(|of| of.is_object()) {
                self.schema(of, &format!("{field}.{name}"), below(limit), false);
            }
        }
    }

    fn rules(&mut self, source: &Value, field: &str, count: Option<u64>, is_root: bool) {
        let Some(validations) = source.get("x-kubernetes-validations") else {
            return;
        };
        let schema = Schema::read(source);
        let shape = match is_root {
            true => rules::root_shape(&schema),
            false => schema.shape(),
        };
        let (compiled, _) = rules::compile(Some(validations), &shape);
        let sized = sized(source);
        let most = REQUEST_BYTES_MAX / (sized.least + 1);
        let count = count.unwrap_or(most);
        for (at, member, program) in compiled.programs() {
            let cost = cel::cost(
                program,
                &[("self", &sized.extent), ("oldSelf", &sized.extent)],
            );
            let cost = cost.saturating_mul(count);
            if cost > RULE_UNITS_MAX {
                let what = match member {
                    "rule" => "estimated rule cost",
                    _ => "estimated messageExpression cost",
                };
                let place = format!("{field}.x-kubernetes-validations[{at}].{member}");
                self.faults
                    .forbidden(place, &told(what, cost, RULE_UNITS_MAX));
            }
            if member == "rule" {
                self.total = self.total.saturating_add(cost);
            }
        }
    }
}

fn told(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        factor if factor > 100.0 => "more than 100x".to_owned(),
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// How large the values of a schema may be, and how many bytes the least takes.
struct Sized {
    extent: Extent,
    least: u64,
}

fn sized(source: &Value) -> Sized {
    let number = |name: &str| source.get(name).and_then(Value::as_u64);
    let plain = |most: u64, least: u64| Sized {
        extent: Extent {
            most,
            ..Extent::default()
        },
        least,
    };
    match source.get("type").and_then(Value::as_str) {
        Some("string") => plain(letters(source), 2),
        Some("boolean") => plain(1, 4),
        Some("integer" | "number") => plain(1, 1),
        Some("array") => {
            let items = source.get("items").map(sized);
            let least = items.as_ref().map_or(1, |items| items.least);
            let most = number("maxItems").unwrap_or((REQUEST_BYTES_MAX - 2) / (least + 1));
            let extent = Extent {
                most,
                items: items.map(|items| Arc::new(items.extent)),
                is_list: true,
                ..Extent::default()
            };
            Sized { extent, least: 2 }
        }
        Some("object") => match source
            .get("additionalProperties")
            .filter(|of| of.is_object())
        {
            Some(of) => {
                let values = sized(of);
                let most = (REQUEST_BYTES_MAX - 2) / (values.least + 6);
                let extent = Extent {
                    most: number("maxProperties").unwrap_or(most),
                    items: Some(Arc::new(values.extent)),
                    ..Extent::default()
                };
                Sized { extent, least: 2 }
            }
            None => object(source),
        },
        _ => plain(1, 1),
    }
}

fn object(source: &Value) -> Sized {
    let required = super::schema::texts(source.get("required"));
    let mut least = 2;
    let mut fields = BTreeMap::new();
    let properties = source.get("properties").and_then(Value::as_object);
    for (name, of) in properties.into_iter().flatten() {
        let field = sized(of);
        if required.contains(name) && of.get("default").is_none() {
            least += name.len() as u64 + field.least + 4;
        }
        if let Some(name) = cel::escape(name) {
            fields.insert(name, field.extent);
        }
    }
    let extent = Extent {
        most: 1,
        fields,
        ..Extent::default()
    };
    Sized { extent, least }
}

/// The most bytes of a text.
fn letters(source: &Value) -> u64 {
    let format = source.get("format").and_then(Value::as_str);
    let limit = source.get("maxLength").and_then(Value::as_u64);
    match (format, limit) {
        (Some("byte"), Some(limit)) => limit,
        (Some("duration"), _) => 32,
        (Some("date"), _) => 12,
        (Some("date-time"), _) => 32,
        (_, Some(limit)) => limit.saturating_mul(SIGN_BYTES_MAX),
        (_, None) => {
            let values = source.get("enum").and_then(Value::as_array);
            let lengths = values.into_iter().flatten().filter_map(Value::as_str);
            let longest = lengths.map(|text| text.len() as u64).max();
            longest.unwrap_or(REQUEST_BYTES_MAX - 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(items: Value, rule: &str) -> Vec<String> {
        let schema = json!({"type": "object", "properties": {"spec": {
            "type": "object", "properties": {"names": items},
            "x-kubernetes-validations": [{"rule": rule}],
        }}});
        let mut faults = Faults::default();
        check(&schema, "s", &mut faults);
        let causes = faults.into_causes().into_iter();
        causes
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect()
    }

    const TWICE: &str = "self.names.all(a, self.names.all(b, a == b))";

    #[test]
    fn what_is_unlimited_costs_too_much() {
        let names = json!({"type": "array", "items": {"type": "string"}});
        let told = refused(names, TWICE);
        let words = "Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
        assert_eq!(
            told[0],
            format!("s.properties[spec].x-kubernetes-validations[0].rule: {words}")
        );
        assert!(told[1].starts_with("s: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget"), "{told:?}");
    }

    #[test]
    fn limits_make_it_cheap() {
        let names =
            json!({"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 20}});
        assert!(refused(names, TWICE).is_empty());
        let one = json!({"type": "array", "items": {"type": "string"}});
        assert!(refused(one, "self.names.size() < 5").is_empty());
    }
}
