//! What a pod asks for and may use, over all its containers. Rules: Kubernetes' "Resources" of init and sidecar containers,
//! pod-level resources and overhead.

use super::{Amounts, add, amounts};
use crate::Quantity;
use serde_json::{Map, Value};

/// What containers ask for.
pub const REQUESTS: &str = "requests";
/// What containers may use.
pub const LIMITS: &str = "limits";

/// The pod's requests or limits, as `part` says. Init containers run before the others and so count only where they ask for
/// more; one that is restarted always runs beside them.
pub fn total(spec: &Map<String, Value>, part: &str) -> Amounts {
    let mut beside = Amounts::new();
    let mut highest = Amounts::new();
    for container in containers(spec, "initContainers") {
        let own = of_container(container, part);
        let mut while_it_runs = beside.clone();
        add(&mut while_it_runs, &own);
        if container.get("restartPolicy").and_then(Value::as_str) == Some("Always") {
            add(&mut beside, &own);
        }
        raise(&mut highest, while_it_runs);
    }
    let mut total = beside;
    for container in containers(spec, "containers") {
        add(&mut total, &of_container(container, part));
    }
    raise(&mut total, highest);
    // What is said of the pod as a whole stands for its containers.
    total.extend(amounts(
        spec.get("resources").and_then(|whole| whole.get(part)),
    ));
    for (name, amount) in amounts(spec.get("overhead")) {
        match total.get_mut(&name) {
            Some(sum) => *sum = sum.plus(amount),
            None if part == REQUESTS => drop(total.insert(name, amount)),
            None => {}
        }
    }
    total
}

/// One container's requests or limits.
pub fn of_container(container: &Map<String, Value>, part: &str) -> Amounts {
    amounts(container.get("resources").and_then(|all| all.get(part)))
}

/// The containers in one of the spec's lists.
pub fn containers<'a>(
    spec: &'a Map<String, Value>,
    list: &str,
) -> impl Iterator<Item = &'a Map<String, Value>> {
    let list = spec.get(list).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_object)
}

/// Whether no container asks for CPU or memory, nor is limited in them.
pub fn is_best_effort(spec: &Map<String, Value>) -> bool {
    [REQUESTS, LIMITS].iter().all(|part| {
        let total = total(spec, part);
        ["cpu", "memory"]
            .iter()
            .all(|name| total.get(*name).copied().is_none_or(Quantity::is_zero))
    })
}

fn raise(amounts: &mut Amounts, others: Amounts) {
    for (name, other) in others {
        let amount = amounts.entry(name).or_default();
        *amount = (*amount).max(other);
    }
}
