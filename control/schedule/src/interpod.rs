//! Affinity and anti-affinity between pods, counted once for a decision. Semantics: core/v1 `PodAffinityTerm`, as Kubernetes'
//! `InterPodAffinity`.

use crate::snapshot::{NodeState, Placed, Snapshot};
use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};
use objects::LabelSelector;
use objects::selector::{Operator, Requirement};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// One term, read.
#[derive(Clone, Debug)]
pub struct Term {
    key: String,
    /// None when there is none or it cannot be read: it takes no pod.
    selector: Option<LabelSelector>,
    /// The namespaces named; with neither names nor selector, that of the pod which has the term.
    namespaces: BTreeSet<String>,
    namespace_selector: Option<LabelSelector>,
}

/// Labels of namespaces, by name.
pub type Namespaces = HashMap<String, BTreeMap<String, String>>;

/// How many pods of a kind each domain has, by the domain's label.
type Domains<'a> = HashMap<&'a str, i64>;

/// What the other pods mean for one pod.
#[derive(Default)]
pub struct InterPod<'a> {
    /// For each required affinity term: its key, and the pods that match all of them.
    near: Vec<(String, Domains<'a>)>,
    /// Whether the pod may be the first of its kind: it matches its own terms, and nobody else does.
    is_first: bool,
    /// For each required anti-affinity term: its key, and the pods that match it.
    away: Vec<(String, Domains<'a>)>,
    /// Domains from which pods that are there already keep the pod away.
    repelled: HashSet<(String, &'a str)>,
    /// Preferred terms, anti-affinity with a negative weight.
    preferred: Vec<(i64, String, Domains<'a>)>,
}

/// Why a node is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A required affinity finds no friend.
    Affinity,
    /// A required anti-affinity finds an enemy.
    AntiAffinity,
    /// Somebody there does not want the pod.
    Existing,
}

impl<'a> InterPod<'a> {
    /// Counts what the pod's terms, and those of the pods that are there, ask.
    pub fn of(pod: &Pod, snapshot: &'a Snapshot) -> Self {
        let me = Identity::of(pod);
        let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
        let near = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
        let away = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        let required = |terms: Option<&Vec<PodAffinityTerm>>| read(terms, &me);
        let near_terms = required(near.and_then(|near| {
            near.required_during_scheduling_ignored_during_execution
                .as_ref()
        }));
        let near_preferred = near.and_then(|near| {
            near.preferred_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let away_preferred = away.and_then(|away| {
            away.preferred_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let domains = snapshot.namespaces();
        let mut inter = InterPod {
            repelled: repelled(&me, snapshot),
            ..InterPod::default()
        };
        for term in &near_terms {
            let matches_all = |other: &Placed| {
                near_terms
                    .iter()
                    .all(|term| term.takes(&other.identity(), domains))
            };
            inter
                .near
                .push((term.key.clone(), count(snapshot, &term.key, &matches_all)));
        }
        inter.is_first = inter.near.iter().all(|(_, domains)| domains.is_empty())
            && near_terms.iter().all(|term| term.takes(&me, domains));
        for term in anti_terms(pod) {
            let matches = |other: &Placed| term.takes(&other.identity(), domains);
            let counted = count(snapshot, &term.key, &matches);
            inter.away.push((term.key, counted));
        }
        inter.prefer(near_preferred, 1, &me, snapshot);
        inter.prefer(away_preferred, -1, &me, snapshot);
        inter
    }

    fn prefer(
        &mut self,
        terms: Option<&Vec<WeightedPodAffinityTerm>>,
        sign: i64,
        me: &Identity<'_>,
        snapshot: &'a Snapshot,
    ) {
        for weighted in terms.into_iter().flatten() {
            let term = Term::read(&weighted.pod_affinity_term, me);
            let matches = |other: &Placed| term.takes(&other.identity(), snapshot.namespaces());
            let counted = count(snapshot, &term.key, &matches);
            self.preferred
                .push((sign * i64::from(weighted.weight), term.key, counted));
        }
    }

    /// Why the pod may not be on the node, if it may not.
    pub fn refusal(&self, node: &NodeState) -> Option<Refusal> {
        let domain = |key: &str| node.labels.get(key).map(String::as_str);
        let has_friends = self.near.iter().all(|(key, domains)| {
            domain(key).is_some_and(|domain| self.is_first || domains.contains_key(domain))
        });
        if !has_friends {
            return Some(Refusal::Affinity);
        }
        let has_enemies = self
            .away
            .iter()
            .any(|(key, domains)| domain(key).is_some_and(|domain| domains.contains_key(domain)));
        if has_enemies {
            return Some(Refusal::AntiAffinity);
        }
        let is_repelled = self
            .repelled
            .iter()
            .any(|(key, value)| domain(key) == Some(value));
        is_repelled.then_some(Refusal::Existing)
    }

    /// How much the pod would like the node's neighbours.
    pub fn liking(&self, node: &NodeState) -> i64 {
        let parts = self.preferred.iter().map(|(weight, key, domains)| {
            let domain = node.labels.get(key).map(String::as_str);
            weight
                * domain
                    .and_then(|domain| domains.get(domain))
                    .copied()
                    .unwrap_or(0)
        });
        parts.sum()
    }
}

/// What a term looks at in a pod.
pub struct Identity<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
}

impl<'a> Identity<'a> {
    fn of(pod: &'a Pod) -> Self {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        Identity {
            namespace: pod.metadata.namespace.as_deref().unwrap_or(""),
            labels: pod.metadata.labels.as_ref().unwrap_or(&NONE),
        }
    }
}

impl Term {
    fn read(term: &PodAffinityTerm, owner: &Identity<'_>) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(owner.namespace.to_owned());
        }
        let mut selector = term.label_selector.as_ref().and_then(selector_of);
        if let Some(selector) = &mut selector {
            let mut add = |keys: &Option<Vec<String>>, operator| {
                let pairs = keys
                    .iter()
                    .flatten()
                    .filter_map(|key| Some((key, owner.labels.get(key)?)));
                let read = pairs.filter_map(|(key, value)| {
                    Requirement::new(key, operator, [value.clone()]).ok()
                });
                selector.requirements.extend(read);
            };
            add(&term.match_label_keys, Operator::In);
            add(&term.mismatch_label_keys, Operator::NotIn);
        }
        Term {
            key: term.topology_key.clone(),
            selector,
            namespaces,
            namespace_selector: term.namespace_selector.as_ref().and_then(selector_of),
        }
    }

    fn takes(&self, pod: &Identity<'_>, namespaces: &Namespaces) -> bool {
        let Some(selector) = &self.selector else {
            return false;
        };
        let in_namespace = self.namespaces.contains(pod.namespace)
            || self.namespace_selector.as_ref().is_some_and(|wanted| {
                let labels = namespaces.get(pod.namespace);
                wanted.matches_with(|key| labels?.get(key).map(String::as_str))
            });
        in_namespace && selector.matches(pod.labels)
    }
}

fn selector_of(
    selector: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
) -> Option<LabelSelector> {
    LabelSelector::from_value(&serde_json::to_value(selector).ok()?).ok()
}

fn read(terms: Option<&Vec<PodAffinityTerm>>, owner: &Identity<'_>) -> Vec<Term> {
    let terms = terms.into_iter().flatten();
    terms.map(|term| Term::read(term, owner)).collect()
}

/// The pod's required anti-affinity terms: they hold for pods that come later too.
pub fn anti_terms(pod: &Pod) -> Vec<Term> {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let away = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let terms = away.and_then(|away| {
        away.required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    read(terms, &Identity::of(pod))
}

/// How many matching pods each domain of the key has; domains without any are left out.
fn count<'a>(snapshot: &'a Snapshot, key: &str, matches: &dyn Fn(&Placed) -> bool) -> Domains<'a> {
    let mut domains = Domains::new();
    for node in snapshot.nodes() {
        let Some(domain) = node.labels.get(key) else {
            continue;
        };
        let pods = node.pods.values().filter(|pod| matches(pod)).count();
        if pods > 0 {
            *domains.entry(domain).or_default() += i64::try_from(pods).unwrap_or(i64::MAX);
        }
    }
    domains
}

fn repelled<'a>(me: &Identity<'_>, snapshot: &'a Snapshot) -> HashSet<(String, &'a str)> {
    let mut repelled = HashSet::new();
    for node in snapshot.nodes().filter(|node| node.repelling > 0) {
        for term in node.pods.values().flat_map(|pod| &pod.anti_terms) {
            if term.takes(me, snapshot.namespaces())
                && let Some(domain) = node.labels.get(&term.key)
            {
                repelled.insert((term.key.clone(), domain.as_str()));
            }
        }
    }
    repelled
}
