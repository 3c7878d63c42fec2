//! Node selector terms: whether a node's labels and name match. Semantics: core/v1 `NodeSelectorTerm`.

use crate::snapshot::NodeState;
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

/// Terms of which one must match.
pub struct NodeTerms<'a> {
    terms: &'a [NodeSelectorTerm],
}

impl<'a> NodeTerms<'a> {
    /// These terms.
    pub fn of(terms: &'a [NodeSelectorTerm]) -> Self {
        NodeTerms { terms }
    }

    /// Whether the node matches one of the terms. An empty term matches no node.
    pub fn matches(&self, node: &NodeState) -> bool {
        self.terms.iter().any(|term| term_matches(term, node))
    }
}

fn term_matches(term: &NodeSelectorTerm, node: &NodeState) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or(&[]);
    let fields = term.match_fields.as_deref().unwrap_or(&[]);
    if labels.is_empty() && fields.is_empty() {
        return false;
    }
    let field = |key: &str| (key == "metadata.name").then_some(node.name.0.as_str());
    let label = |key: &str| node.labels.get(key).map(String::as_str);
    labels
        .iter()
        .all(|wanted| holds(wanted, label(&wanted.key)))
        && fields
            .iter()
            .all(|wanted| holds(wanted, field(&wanted.key)))
}

fn holds(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or(&[]);
    let listed = || value.is_some_and(|value| values.iter().any(|wanted| wanted == value));
    let numbers = || {
        Some((
            value?.parse::<i64>().ok()?,
            values.first()?.parse::<i64>().ok()?,
        ))
    };
    match wanted.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}
