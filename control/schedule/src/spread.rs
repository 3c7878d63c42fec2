//! Topology spread constraints: how many like pods each domain has, counted once for a decision.
//! Semantics: core/v1 `TopologySpreadConstraint`.

use crate::filter;
use crate::needs::Needs;
use crate::snapshot::{NodeState, Snapshot};
use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};
use objects::LabelSelector;
use std::collections::{BTreeMap, HashMap};

/// One constraint, with the like pods of every domain counted.
pub struct Spread<'a> {
    key: &'a str,
    skew_max: i64,
    /// Whether a node that breaks it is refused; else it only scores lower.
    pub is_required: bool,
    counts: HashMap<&'a str, i64>,
    least: i64,
    counts_itself: bool,
}

/// How a node stands to a constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has no label of the constraint's key.
    NoDomain,
    /// The pod would leave the domains within the allowed skew.
    Fits,
    /// It would not.
    TooMany,
}

impl<'a> Spread<'a> {
    /// The pod's constraints.
    pub fn all_of(pod: &'a Pod, needs: &Needs<'_>, snapshot: &'a Snapshot) -> Vec<Self> {
        let constraints = pod
            .spec
            .iter()
            .flat_map(|spec| spec.topology_spread_constraints.iter().flatten());
        constraints
            .map(|constraint| Spread::count(constraint, pod, needs, snapshot))
            .collect()
    }

    fn count(
        constraint: &'a TopologySpreadConstraint,
        pod: &'a Pod,
        needs: &Needs<'_>,
        snapshot: &'a Snapshot,
    ) -> Self {
        let key = constraint.topology_key.as_str();
        let like = Like::of(constraint, pod);
        let honors_affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
        let honors_taints = constraint.node_taints_policy.as_deref() == Some("Honor");
        let mut counts: HashMap<&str, i64> = HashMap::new();
        for node in snapshot.nodes() {
            let Some(domain) = node.labels.get(key) else {
                continue;
            };
            if (honors_affinity && !filter::matches_affinity(needs, node))
                || (honors_taints && filter::untolerated(needs, node).is_some())
            {
                continue;
            }
            let pods = node.pods.values().filter(|placed| {
                !placed.is_deleting
                    && placed.namespace == like.namespace
                    && like.matches(&placed.labels)
            });
            *counts.entry(domain).or_default() += i64::try_from(pods.count()).unwrap_or(i64::MAX);
        }
        let domains_min = constraint.min_domains.unwrap_or(1);
        let enough = i64::try_from(counts.len()).unwrap_or(i64::MAX) >= i64::from(domains_min);
        let least = counts.values().copied().min().filter(|_| enough);
        let own_labels = pod.metadata.labels.as_ref();
        Spread {
            key,
            skew_max: i64::from(constraint.max_skew),
            is_required: constraint.when_unsatisfiable == "DoNotSchedule",
            least: least.unwrap_or(0),
            counts_itself: own_labels.is_some_and(|labels| like.matches(labels)),
            counts,
        }
    }

    /// How the node stands to it.
    pub fn standing(&self, node: &NodeState) -> Standing {
        let Some(domain) = node.labels.get(self.key) else {
            return Standing::NoDomain;
        };
        let present = self.counts.get(domain.as_str()).copied().unwrap_or(0);
        if present + i64::from(self.counts_itself) - self.least > self.skew_max {
            Standing::TooMany
        } else {
            Standing::Fits
        }
    }

    /// The like pods in the node's domain; a node outside of every domain counts as the fullest and one more.
    pub fn present(&self, node: &NodeState) -> i64 {
        match node.labels.get(self.key) {
            Some(domain) => self.counts.get(domain.as_str()).copied().unwrap_or(0),
            None => self.counts.values().copied().max().unwrap_or(0) + 1,
        }
    }
}

/// Which pods are like the pod.
struct Like<'a> {
    namespace: &'a str,
    /// None when there is none or it cannot be read: no pod is like the pod.
    selector: Option<LabelSelector>,
    /// Labels whose values must be the pod's own: `matchLabelKeys`.
    same: Vec<(&'a str, &'a str)>,
}

impl<'a> Like<'a> {
    fn of(constraint: &'a TopologySpreadConstraint, pod: &'a Pod) -> Self {
        let own = |key: &'a String| {
            let value = pod.metadata.labels.as_ref()?.get(key)?;
            Some((key.as_str(), value.as_str()))
        };
        Like {
            namespace: pod.metadata.namespace.as_deref().unwrap_or(""),
            selector: constraint.label_selector.as_ref().and_then(|selector| {
                LabelSelector::from_value(&serde_json::to_value(selector).ok()?).ok()
            }),
            same: constraint
                .match_label_keys
                .iter()
                .flatten()
                .filter_map(own)
                .collect(),
        }
    }

    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let get = |key: &str| labels.get(key).map(String::as_str);
        self.selector
            .as_ref()
            .is_some_and(|selector| selector.matches(labels))
            && self.same.iter().all(|(key, value)| get(key) == Some(value))
    }
}
