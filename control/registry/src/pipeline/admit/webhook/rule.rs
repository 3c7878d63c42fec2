//! Which requests a webhook is asked about. Rules: Kubernetes' `RuleWithOperations`, namespace and object selectors, and
//! `matchPolicy`.

use super::hook::Hook;
use crate::pipeline::admit::Attributes;
use crate::strategy::edit::{self, Members};
use crate::{Registry, ResourceDef};
use objects::{LabelSelector, Object};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Operations on resources.
pub struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
}

impl Rule {
    /// Reads a rule.
    pub fn of(rule: &Members) -> Self {
        let texts = |name: &str| edit::read_texts(rule, name).map(str::to_owned).collect();
        Rule {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources"),
            scope: edit::read_text(rule, "scope").to_owned(),
        }
    }

    /// Whether it holds for an operation on a resource or subresource, named as this row names it.
    pub fn holds(&self, operation: &str, row: &ResourceDef, subresource: &str) -> bool {
        let names = |list: &[String], name: &str| list.iter().any(|any| any == "*" || any == name);
        let scoped = match self.scope.as_str() {
            "Namespaced" => row.namespaced,
            "Cluster" => !row.namespaced,
            _ => true,
        };
        scoped
            && names(&self.operations, operation)
            && names(&self.groups, &row.group)
            && names(&self.versions, &row.version)
            && self.resources.iter().any(|pattern| {
                let (resource, part) = pattern.split_once('/').unwrap_or((pattern, ""));
                (resource == "*" || resource == row.resource)
                    && (part == "*" || part == subresource)
            })
    }
}

/// The row under which the webhook is asked about the request; None when it is not.
pub fn matched(
    hook: &Hook,
    registry: &Registry,
    asked: &Attributes<'_>,
) -> Option<Arc<ResourceDef>> {
    let row = &asked.target.resource;
    let part = asked.target.subresource_name();
    let holds = |row: &ResourceDef| {
        let operation = asked.operation.as_str();
        hook.rules
            .iter()
            .any(|rule| rule.holds(operation, row, part))
    };
    if holds(row) {
        return Some(row.clone());
    }
    let stored = row.storage_resource();
    let mut others = registry
        .iter()
        .filter(|other| hook.equivalent && other.storage_resource() == stored);
    others.find(|other| holds(other)).cloned()
}

/// Whether the selectors hold; `namespace` are the labels of the namespace where the object lies, if it lies in one.
pub fn selected(
    hook: &Hook,
    object: Option<&Object>,
    old: Option<&Object>,
    namespace: Option<&BTreeMap<String, String>>,
) -> bool {
    let holds = |selector: &Option<LabelSelector>, labels: &BTreeMap<String, String>| {
        selector
            .as_ref()
            .is_some_and(|selector| selector.matches(labels))
    };
    if namespace.is_some_and(|labels| !holds(&hook.namespaces, labels)) {
        return false;
    }
    let mut objects = [object, old].into_iter().flatten();
    hook.objects.as_ref().is_some_and(LabelSelector::is_empty)
        || objects.any(|object| holds(&hook.objects, &object.metadata.labels))
}
