//! What containers ask for and may use: requests, limits, and the quality of service that follows from them.

use super::super::edit::{Members, map_at, maps_in, read_map, read_maps};
use crate::Faults;
use objects::{Quantity, names};
use serde_json::Value;

/// Resources that decide over the quality of service.
const COUNTED: [&str; 2] = ["cpu", "memory"];
/// Resources that need no domain in their name.
const NATIVE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// A limit without a request is also the request; only pods do this, templates do not.
pub fn default_requests(spec: &mut Members) {
    for list in ["containers", "initContainers"] {
        for container in maps_in(spec, list) {
            let Some(resources) = map_at(container, "resources") else {
                continue;
            };
            let Some(limits) = read_map(resources, "limits").cloned() else {
                continue;
            };
            let Some(requests) = map_at(resources, "requests") else {
                continue;
            };
            for (name, limit) in limits {
                requests.entry(name).or_insert(limit);
            }
        }
    }
}

/// `Guaranteed` when every container has equal requests and limits of CPU and memory, `BestEffort` when none has any,
/// `Burstable` otherwise.
pub fn quality_of_service(spec: &Members) -> &'static str {
    let containers: Vec<&Members> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| read_maps(spec, list))
        .map(|(_, container)| container)
        .collect();
    let amount = |container: &Members, kind: &str, name: &str| {
        let resources = read_map(container, "resources")?;
        let quantity = quantity(read_map(resources, kind)?.get(name)?)?;
        (!quantity.is_zero()).then_some(quantity)
    };
    let any = containers.iter().any(|container| {
        COUNTED.iter().any(|name| {
            amount(container, "requests", name)
                .or(amount(container, "limits", name))
                .is_some()
        })
    });
    if !any {
        return "BestEffort";
    }
    let guaranteed = containers.iter().all(|container| {
        COUNTED.iter().all(|name| {
            let limit = amount(container, "limits", name);
            limit.is_some() && amount(container, "requests", name).or(limit) == limit
        })
    });
    if guaranteed {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Checks names, amounts, and that no request is above its limit.
pub fn validate(container: &Members, field: &str, faults: &mut Faults) {
    let Some(resources) = read_map(container, "resources") else {
        return;
    };
    let field = format!("{field}.resources");
    for kind in ["limits", "requests"] {
        for (name, value) in read_map(resources, kind).into_iter().flatten() {
            check_amount(name, value, &format!("{field}.{kind}"), faults);
        }
    }
    for (name, value) in read_map(resources, "requests").into_iter().flatten() {
        let limit = read_map(resources, "limits")
            .and_then(|limits| limits.get(name))
            .and_then(quantity);
        let Some((request, limit)) = quantity(value).zip(limit) else {
            continue;
        };
        if request > limit {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            faults.invalid(format!("{field}.requests"), value, &detail);
        } else if request != limit && !NATIVE.contains(&name.as_str()) {
            let detail = format!("must be equal to {name} limit of {limit}");
            faults.invalid(format!("{field}.requests"), value, &detail);
        }
    }
}

fn check_amount(name: &str, value: &Value, field: &str, faults: &mut Faults) {
    let native = NATIVE.contains(&name) || name.starts_with("hugepages-");
    if !native {
        faults.invalid_texts(field, name, &names::qualified_name(name));
        if !name.contains('/') {
            faults.invalid_text(
                field,
                name,
                "must be a standard resource type or fully qualified",
            );
            faults.invalid_text(field, name, "must be a standard resource for containers");
        }
    }
    let field = format!("{field}[{name}]");
    match quantity(value) {
        None => faults.invalid(&field, value, &objects::quantity::QuantityError.to_string()),
        Some(quantity) if quantity.is_negative() => {
            faults.invalid(&field, value, "must be greater than or equal to 0");
        }
        Some(quantity) if !native && !quantity.is_whole() => {
            faults.invalid(&field, value, "must be an integer");
        }
        Some(_) => {}
    }
}

fn quantity(value: &Value) -> Option<Quantity> {
    serde_json::from_value(value.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quality_follows_requests_and_limits() {
        let cases = [
            (json!([{}]), "BestEffort"),
            (
                json!([{"resources": {"requests": {"cpu": "1"}}}]),
                "Burstable",
            ),
            (
                json!([{"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]),
                "Guaranteed",
            ),
            (
                json!([{"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}, {}]),
                "Burstable",
            ),
            (
                json!([{"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}}]),
                "Guaranteed",
            ),
            (
                json!([{"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}]),
                "Burstable",
            ),
        ];
        for (containers, quality) in cases {
            let spec = json!({"containers": containers});
            let spec = spec.as_object().expect("a map");
            assert_eq!(quality_of_service(spec), quality, "{spec:?}");
        }
    }
}
