//! A ClusterRole with an aggregation rule has the rules of all roles that the rule selects.
//!
//! Never touches another role. Semantics: Kubernetes' ClusterRole aggregation controller: sources in the order of their names,
//! each rule once.

use crate::controller::{Asked, Change, Controller, World};
use crate::plan::{Action, Plan, Precondition};
use objects::{GroupResource, LabelSelector, Object, ObjectError, ObjectKey};
use serde_json::{Value, json};
use std::sync::Arc;

fn cluster_roles() -> GroupResource {
    GroupResource::new("rbac.authorization.k8s.io", "clusterroles")
}

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The role.
    pub role: Arc<Object>,
    /// Every role of the cluster, by name.
    pub all: Vec<Arc<Object>>,
}

/// Writes the gathered rules if they are not those that the role has.
pub fn reconcile(input: &Input) -> Plan {
    let role = &input.role;
    let Some(selectors) = selectors(role) else {
        return Plan::nothing();
    };
    let mut rules: Vec<Value> = Vec::new();
    for source in &input.all {
        let is_other = source.metadata.name != role.metadata.name;
        let labels = &source.metadata.labels;
        if !is_other || !selectors.iter().any(|selector| selector.matches(labels)) {
            continue;
        }
        let of_source = source.body.get("rules").and_then(Value::as_array);
        for rule in of_source.into_iter().flatten() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    let known = role.body.get("rules").and_then(Value::as_array);
    if known.map(Vec::as_slice).unwrap_or_default() == rules {
        return Plan::nothing();
    }
    Plan::of(vec![Action::Patch {
        key: ObjectKey::new(cluster_roles(), None, &role.metadata.name),
        precondition: Precondition {
            uid: Some(role.metadata.uid.clone()),
            resource_version: Some(role.metadata.resource_version.clone()),
        },
        merge: json!({ "rules": rules }),
        subresource: None,
    }])
}

/// The selectors of an aggregation rule; None without one. One that cannot be read selects nothing.
fn selectors(role: &Object) -> Option<Vec<LabelSelector>> {
    let rule = role.body.get("aggregationRule")?;
    let selectors = rule.get("clusterRoleSelectors").and_then(Value::as_array);
    let read = |selector| LabelSelector::from_value(selector).ok();
    Some(selectors.into_iter().flatten().filter_map(read).collect())
}

/// Runs [`reconcile`] for every role.
pub struct ClusterRoleController;

impl Controller for ClusterRoleController {
    fn name(&self) -> &'static str {
        "clusterrole"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        if change.key.resource != cluster_roles() {
            return Vec::new();
        }
        // Which roles gather is in the roles themselves; there are few.
        world.keys(&cluster_roles(), None, &|_| true)
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(role) = asked.world.get(asked.key) else {
            return Ok(Plan::nothing());
        };
        if !role.body.contains_key("aggregationRule") {
            return Ok(Plan::nothing());
        }
        let all = asked.world.list(&cluster_roles(), None, &|_| true);
        Ok(reconcile(&Input { role, all }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str, labels: Value, body: Value) -> Arc<Object> {
        let mut value = body;
        value["kind"] = json!("ClusterRole");
        value["apiVersion"] = json!("rbac.authorization.k8s.io/v1");
        value["metadata"] =
            json!({"name": name, "uid": name, "resourceVersion": "1", "labels": labels});
        Arc::new(Object::from_value(value).expect("a role"))
    }

    #[test]
    fn gathers_what_is_selected_in_order_once() {
        let pods = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        let nodes = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]});
        let gathers = json!({"aggregationRule": {"clusterRoleSelectors": [
            {"matchLabels": {"to": "x"}}, {"matchLabels": {"to": "y"}},
        ]}, "rules": [nodes]});
        let all = vec![
            role("a", json!({"to": "x"}), json!({"rules": [pods, nodes]})),
            role("b", json!({"to": "y"}), json!({"rules": [nodes, pods]})),
            role(
                "c",
                json!({"to": "z"}),
                json!({"rules": [{"verbs": ["*"]}]}),
            ),
            role("x", json!({"to": "x"}), gathers.clone()),
        ];
        let plan = reconcile(&Input {
            role: all[3].clone(),
            all: all.clone(),
        });
        let [Action::Patch { merge, .. }] = &plan.actions[..] else {
            panic!("one patch: {plan}");
        };
        assert_eq!(*merge, json!({"rules": [pods, nodes]}));
        let mut done = gathers;
        done["rules"] = merge["rules"].clone();
        let role = role("x", json!({}), done);
        assert!(reconcile(&Input { role, all }).is_nothing());
    }
}
