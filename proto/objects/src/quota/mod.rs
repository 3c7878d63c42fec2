//! What objects cost under ResourceQuotas: which quota counts an object, and for how much. Who admits a write and who keeps
//! the quota's status must count alike. Rules and names: Kubernetes' "Resource quotas" and its quota evaluators.

pub mod pod;
mod scope;
mod usage;

pub use usage::{is_counted_pod, missing, usage};

use crate::{GroupResource, Object, Quantity, Timestamp};
use scope::Scope;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Amounts by the name of what they are of: `pods`, `requests.cpu`, `count/deployments.apps`.
pub type Amounts = BTreeMap<String, Quantity>;

/// A quota as it counts.
pub struct Quota {
    /// What its spec allows at most.
    pub hard: Amounts,
    scopes: Vec<Scope>,
}

impl Quota {
    /// Reads a ResourceQuota.
    pub fn of(object: &Object) -> Self {
        let spec = object.body.get("spec").and_then(Value::as_object);
        Quota {
            hard: amounts(spec.and_then(|spec| spec.get("hard"))),
            scopes: spec.map(Scope::all_of).unwrap_or_default(),
        }
    }

    /// Whether an object of `resource` lies in the quota's scopes.
    pub fn covers(&self, resource: &GroupResource, object: &Object) -> bool {
        self.scopes
            .iter()
            .all(|scope| scope.covers(resource, object))
    }

    /// What the object costs of what this quota limits; nothing when it is out of scope.
    pub fn cost(&self, resource: &GroupResource, object: &Object, now: Timestamp) -> Amounts {
        if !self.covers(resource, object) {
            return Amounts::new();
        }
        let mut cost = usage(resource, object, now);
        cost.retain(|name, _| self.hard.contains_key(name));
        cost
    }

    /// What these objects cost together: every limited name, those of which nothing is used too.
    pub fn used<'a>(
        &self,
        objects: impl IntoIterator<Item = (&'a GroupResource, &'a Object)>,
        now: Timestamp,
    ) -> Amounts {
        let nothing = self.hard.keys().map(|name| (name.clone(), Quantity::ZERO));
        let mut used: Amounts = nothing.collect();
        for (resource, object) in objects {
            add(&mut used, &self.cost(resource, object, now));
        }
        used
    }

    /// Whether the quota limits anything of which objects of this resource may use some.
    pub fn limits(&self, resource: &GroupResource) -> bool {
        self.hard.keys().any(|name| usage::may_cost(resource, name))
    }
}

/// Reads a map of amounts; what is no amount is left out.
pub fn amounts(value: Option<&Value>) -> Amounts {
    let members = value.and_then(Value::as_object).into_iter().flatten();
    members
        .filter_map(|(name, value)| Some((name.clone(), quantity(value)?)))
        .collect()
}

/// The amounts as a JSON map, in order of their names.
pub fn to_value(amounts: &Amounts) -> Value {
    let members = amounts
        .iter()
        .map(|(name, amount)| (name.clone(), Value::String(amount.to_string())));
    Value::Object(members.collect::<Map<_, _>>())
}

/// Adds each of `more`.
pub fn add(amounts: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = amounts.entry(name.clone()).or_default();
        *sum = sum.plus(*amount);
    }
}

/// The amounts as Kubernetes writes them in a refusal: `cpu=1,memory=1Gi`.
pub fn shown(amounts: &Amounts) -> String {
    let shown: Vec<String> = amounts
        .iter()
        .map(|(name, amount)| format!("{name}={amount}"))
        .collect();
    shown.join(",")
}

fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
