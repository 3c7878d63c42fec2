//! A new node takes no pods before it has said that it is ready. Rule: Kubernetes' TaintNodesByCondition plugin; the node
//! lifecycle controller takes the taint away.

use super::Attributes;
use crate::strategy::edit;
use objects::Object;
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Taints a new node.
pub fn mutate(asked: &Attributes<'_>, object: &mut Object) {
    if !asked.creates("", "nodes") {
        return;
    }
    let Some(spec) = edit::map_at(&mut object.body, "spec") else {
        return; // Validation tells.
    };
    let taints = spec
        .entry("taints")
        .or_insert_with(|| Value::Array(Vec::new()));
    if taints.is_null() {
        *taints = Value::Array(Vec::new());
    }
    let taint = json!({"key": NOT_READY, "effect": "NoSchedule"});
    if let Value::Array(taints) = taints
        && !taints.contains(&taint)
    {
        taints.push(taint);
    }
}
