//! Whether a daemon's pod belongs on a node: node selector, required affinity and taints, as the scheduler will see them.
//! Never asks for room: that is the scheduler's part. Semantics: Kubernetes' `NodeShouldRunDaemonPod`.

use crate::view;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

/// Whether a pod of the template is to be started on the node.
pub fn should_run(template: &Value, node: &Node) -> bool {
    matches(template, node) && tolerates(template, node, &["NoSchedule", "NoExecute"])
}

/// Whether one that is there may stay.
pub fn may_stay(template: &Value, node: &Node) -> bool {
    matches(template, node) && tolerates(template, node, &["NoExecute"])
}

/// Makes a pod's spec one for this node alone.
pub fn bind(spec: &mut Value, node: &str) {
    let only = json!([{ "key": "metadata.name", "operator": "In", "values": [node] }]);
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let slot = &mut spec["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"];
    match slot {
        Value::Array(terms) if !terms.is_empty() => {
            for term in terms {
                term["matchFields"] = only.clone();
            }
        }
        slot => *slot = json!([{ "matchFields": only }]),
    }
}

fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    view::label(&node.metadata, key)
}

fn matches(template: &Value, node: &Node) -> bool {
    let spec = &template["spec"];
    let mut selector = spec["nodeSelector"].as_object().into_iter().flatten();
    let selected = selector.all(|(key, value)| label(node, key) == value.as_str());
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = &spec["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"];
    let terms = terms.as_array();
    selected && terms.is_none_or(|terms| terms.iter().any(|term| term_matches(term, node)))
}

/// An empty term matches no node.
fn term_matches(term: &Value, node: &Node) -> bool {
    let list = |name: &str| term[name].as_array().map_or(&[][..], Vec::as_slice);
    let (labels, fields) = (list("matchExpressions"), list("matchFields"));
    let field = |key: &str| (key == "metadata.name").then(|| view::name(&node.metadata));
    let key = |wanted: &'_ Value| wanted["key"].as_str().unwrap_or_default().to_owned();
    !(labels.is_empty() && fields.is_empty())
        && labels
            .iter()
            .all(|wanted| holds(wanted, label(node, &key(wanted))))
        && fields
            .iter()
            .all(|wanted| holds(wanted, field(&key(wanted))))
}

fn holds(wanted: &Value, value: Option<&str>) -> bool {
    let values = wanted["values"].as_array().map_or(&[][..], Vec::as_slice);
    let listed = || value.is_some_and(|value| values.iter().any(|wanted| wanted == value));
    let numbers = || {
        let bound = values.first()?.as_str()?.parse::<i64>().ok()?;
        Some((value?.parse::<i64>().ok()?, bound))
    };
    match wanted["operator"].as_str() {
        Some("In") => listed(),
        Some("NotIn") => !listed(),
        Some("Exists") => value.is_some(),
        Some("DoesNotExist") => value.is_none(),
        Some("Gt") => numbers().is_some_and(|(value, bound)| value > bound),
        Some("Lt") => numbers().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

fn tolerates(template: &Value, node: &Node, effects: &[&str]) -> bool {
    let tolerations = template["spec"]["tolerations"].as_array();
    let tolerations = tolerations.map_or(&[][..], Vec::as_slice);
    let taints = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten());
    let mut counted = taints.filter(|taint| effects.contains(&taint.effect.as_str()));
    counted.all(|taint| {
        tolerations.iter().any(|toleration| {
            let text = |name: &str| toleration[name].as_str().unwrap_or_default();
            let effect = text("effect").is_empty() || text("effect") == taint.effect;
            let any_key = text("key").is_empty() && text("operator") == "Exists";
            let value = taint.value.as_deref().unwrap_or_default();
            let same = text("operator") == "Exists" || text("value") == value;
            effect && (any_key || (text("key") == taint.key && same))
        })
    })
}
