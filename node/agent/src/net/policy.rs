//! Network policies, namespaces and pods, reduced to what rules need, and the isolation of this node's pods that follows
//! from them. Pure.
//!
//! Semantics: k8s networking.k8s.io/v1 NetworkPolicy. Pods of the host's network are neither isolated nor chosen as peers, as
//! the API leaves it to the network. A selector that cannot be read isolates whom it might select and allows nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use network::Protocol;
use network::policy::{AddressRange, Allowed, Direction, Isolation, PortRange};
use objects::selector::LabelSelector;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::services::{self, Key};

/// What policies see of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// The object's UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    labels: BTreeMap<String, String>,
    ips: Vec<Ipv4Addr>,
    /// The named ports of its containers.
    ports: BTreeSet<(String, Protocol, u16)>,
}

/// The labels of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceFacts {
    name: String,
    labels: BTreeMap<String, String>,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFacts {
    namespace: String,
    /// None if it cannot be read.
    pods: Option<LabelSelector>,
    /// None where the policy does not isolate in this direction.
    ingress: Option<Vec<RuleFacts>>,
    egress: Option<Vec<RuleFacts>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct RuleFacts {
    /// None for everybody.
    peers: Option<Vec<PeerFacts>>,
    /// None for everything.
    ports: Option<Vec<PortFacts>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PeerFacts {
    Block(Vec<AddressRange>),
    /// Pods of namespaces; without a selector for them those of the policy's own.
    Pods {
        namespaces: Option<LabelSelector>,
        pods: LabelSelector,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PortFacts {
    Range(PortRange),
    Named(Protocol, String),
}

/// Reads a Pod; none for one that has ended or is on its node's own network.
pub fn pod(object: &Value) -> Option<PodFacts> {
    let (spec, status) = (&object["spec"], &object["status"]);
    if spec["hostNetwork"] == true || status["phase"] == "Succeeded" || status["phase"] == "Failed"
    {
        return None;
    }
    let restartable =
        list(&spec["initContainers"]).filter(|container| container["restartPolicy"] == "Always");
    let ports = list(&spec["containers"])
        .chain(restartable)
        .flat_map(|container| list(&container["ports"]))
        .filter_map(|port| {
            let name = port["name"].as_str()?.to_owned();
            let number = u16::try_from(port["containerPort"].as_u64()?).ok()?;
            Some((name, services::protocol(&port["protocol"]), number))
        });
    let ips = list(&status["podIPs"]).filter_map(|ip| ip["ip"].as_str()?.parse().ok());
    Some(PodFacts {
        uid: object["metadata"]["uid"].as_str()?.to_owned(),
        namespace: object["metadata"]["namespace"].as_str()?.to_owned(),
        labels: labels(object),
        ips: ips.collect(),
        ports: ports.collect(),
    })
}

/// Reads a Namespace.
pub fn namespace(object: &Value) -> Option<NamespaceFacts> {
    Some(NamespaceFacts {
        name: object["metadata"]["name"].as_str()?.to_owned(),
        labels: labels(object),
    })
}

/// Reads a NetworkPolicy.
pub fn policy(object: &Value) -> Option<PolicyFacts> {
    let spec = &object["spec"];
    let has_type = |name| list(&spec["policyTypes"]).any(|word| word == name);
    let defaulted = list(&spec["policyTypes"]).next().is_none();
    let rules = |direction: &str, peers: &str| {
        list(&spec[direction])
            .map(|rule| rule_facts(rule, peers))
            .collect::<Vec<_>>()
    };
    let with_egress = has_type("Egress") || (defaulted && list(&spec["egress"]).next().is_some());
    Some(PolicyFacts {
        namespace: object["metadata"]["namespace"].as_str()?.to_owned(),
        pods: LabelSelector::from_value(&spec["podSelector"]).ok(),
        ingress: (has_type("Ingress") || defaulted).then(|| rules("ingress", "from")),
        egress: with_egress.then(|| rules("egress", "to")),
    })
}

fn rule_facts(rule: &Value, peers: &str) -> RuleFacts {
    let has_any = |value: &Value| list(value).next().is_some();
    RuleFacts {
        peers: has_any(&rule[peers]).then(|| list(&rule[peers]).filter_map(peer).collect()),
        ports: has_any(&rule["ports"]).then(|| list(&rule["ports"]).filter_map(port).collect()),
    }
}

fn peer(peer: &Value) -> Option<PeerFacts> {
    if !peer["ipBlock"].is_null() {
        let net = |value: &Value| value.as_str()?.parse::<Ipv4Net>().ok();
        let except: Vec<Ipv4Net> = list(&peer["ipBlock"]["except"]).filter_map(net).collect();
        return Some(PeerFacts::Block(AddressRange::block(
            net(&peer["ipBlock"]["cidr"])?,
            &except,
        )));
    }
    let selector = |value: &Value| LabelSelector::from_value(value).ok();
    Some(PeerFacts::Pods {
        namespaces: match &peer["namespaceSelector"] {
            Value::Null => None,
            value => Some(selector(value)?),
        },
        // Nothing said selects every pod, as an empty selector does.
        pods: selector(&peer["podSelector"])?,
    })
}

fn port(port: &Value) -> Option<PortFacts> {
    let protocol = services::protocol(&port["protocol"]);
    let number = |value: &Value| u16::try_from(value.as_u64()?).ok();
    Some(match &port["port"] {
        Value::Null => PortFacts::Range(PortRange::all(protocol)),
        Value::String(name) => PortFacts::Named(protocol, name.clone()),
        value => {
            let first = number(value)?;
            let last = number(&port["endPort"]).unwrap_or(first).max(first);
            PortFacts::Range(PortRange {
                protocol,
                first,
                last,
            })
        }
    })
}

/// What the isolation follows from.
pub struct Known<'a> {
    /// All policies.
    pub policies: &'a BTreeMap<Key, PolicyFacts>,
    /// All namespaces.
    pub namespaces: &'a BTreeMap<Key, NamespaceFacts>,
    /// All pods of the cluster.
    pub pods: &'a BTreeMap<Key, PodFacts>,
    /// This node's pods with their addresses; without facts a pod of which nothing is known, which is closed.
    pub local: &'a [(Ipv4Addr, Option<PodFacts>)],
}

/// The isolation of this node's pods.
pub fn isolations(known: &Known<'_>) -> Vec<Isolation> {
    let mut found: BTreeMap<(Direction, String), Isolation> = BTreeMap::new();
    if known.policies.is_empty() {
        return vec![];
    }
    for (ip, pod) in known.local {
        for direction in [Direction::Ingress, Direction::Egress] {
            let Some((name, rules)) = isolation_of(known, pod.as_ref(), direction) else {
                continue;
            };
            found
                .entry((direction, name.clone()))
                .or_insert_with(|| Isolation {
                    name,
                    direction,
                    pods: BTreeSet::new(),
                    allowed: rules
                        .iter()
                        .flat_map(|(policy, rule)| {
                            allowed(known, policy, rule, direction, pod.as_ref())
                        })
                        .collect(),
                })
                .pods
                .insert(*ip);
        }
    }
    found.into_values().collect()
}

type Rules<'a> = Vec<(&'a PolicyFacts, &'a RuleFacts)>;

/// The name and rules of a pod's isolation; none if no policy isolates it.
fn isolation_of<'a>(
    known: &Known<'a>,
    pod: Option<&PodFacts>,
    direction: Direction,
) -> Option<(String, Rules<'a>)> {
    let Some(pod) = pod else {
        return Some(("closed".to_owned(), vec![]));
    };
    let mut name = Sha256::new();
    let (mut rules, mut isolated) = (vec![], false);
    for (key, policy) in known.policies {
        let own = match direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        let selects = || {
            policy.namespace == pod.namespace
                && policy
                    .pods
                    .as_ref()
                    .is_none_or(|selector| selector.matches(&pod.labels))
        };
        if let Some(own) = own.as_ref().filter(|_| selects()) {
            isolated = true;
            name.update(key);
            name.update([0]);
            rules.extend(own.iter().map(|rule| (policy, rule)));
        }
    }
    let is_named = |port: &PortFacts| matches!(port, PortFacts::Named(..));
    let by_name = rules
        .iter()
        .any(|(_, rule)| rule.ports.iter().flatten().any(is_named));
    if by_name && direction == Direction::Ingress {
        // What a name means is the receiver's affair, so pods share rules only where their names mean the same.
        name.update(format!("{:?}", pod.ports));
    }
    let name = hex::encode(&name.finalize()[..8]);
    isolated.then_some((name, rules))
}

fn allowed(
    known: &Known<'_>,
    policy: &PolicyFacts,
    rule: &RuleFacts,
    direction: Direction,
    subject: Option<&PodFacts>,
) -> Vec<Allowed> {
    let Some(ports) = &rule.ports else {
        return vec![Allowed {
            peers: peers(known, policy, rule, &|_| true),
            ports: None,
        }];
    };
    let numbered = ports.iter().filter_map(|port| match port {
        PortFacts::Range(range) => Some(*range),
        PortFacts::Named(..) => None,
    });
    let mut numbered: Vec<PortRange> = numbered.collect();
    let mut found = vec![];
    for port in ports {
        let PortFacts::Named(protocol, name) = port else {
            continue;
        };
        let numbers_of = |pod: &PodFacts| {
            let same = |(own, transport, _): &&(String, Protocol, u16)| {
                own == name && transport == protocol
            };
            let numbers = pod.ports.iter().filter(same).map(|(.., number)| *number);
            numbers.collect::<BTreeSet<u16>>()
        };
        match direction {
            Direction::Ingress => numbered.extend(
                subject
                    .into_iter()
                    .flat_map(numbers_of)
                    .map(|number| PortRange::one(*protocol, number)),
            ),
            Direction::Egress => {
                let numbers: BTreeSet<u16> = everybody(known)
                    .flat_map(|(pod, _)| numbers_of(pod))
                    .collect();
                found.extend(numbers.into_iter().map(|number| Allowed {
                    peers: peers_by_pod(known, policy, rule, &|pod| {
                        numbers_of(pod).contains(&number)
                    }),
                    ports: Some(vec![PortRange::one(*protocol, number)]),
                }));
            }
        }
    }
    found.push(Allowed {
        peers: peers(known, policy, rule, &|_| true),
        ports: Some(numbered),
    });
    found
}

/// All addresses that a rule names.
fn peers(
    known: &Known<'_>,
    policy: &PolicyFacts,
    rule: &RuleFacts,
    takes: &dyn Fn(&PodFacts) -> bool,
) -> Vec<AddressRange> {
    let Some(named) = &rule.peers else {
        return vec![AddressRange::ALL];
    };
    let blocks = named.iter().flat_map(|peer| match peer {
        PeerFacts::Block(ranges) => ranges.clone(),
        PeerFacts::Pods { .. } => vec![],
    });
    blocks
        .chain(peers_by_pod(known, policy, rule, takes))
        .collect()
}

/// The addresses of those pods that a rule names.
fn peers_by_pod(
    known: &Known<'_>,
    policy: &PolicyFacts,
    rule: &RuleFacts,
    takes: &dyn Fn(&PodFacts) -> bool,
) -> Vec<AddressRange> {
    let is_named = |pod: &PodFacts| match &rule.peers {
        None => true,
        Some(named) => named
            .iter()
            .any(|peer| selects_peer(known, policy, peer, pod)),
    };
    everybody(known)
        .filter(|(pod, _)| takes(pod) && is_named(pod))
        .flat_map(|(_, ips)| ips)
        .map(AddressRange::from)
        .collect()
}

fn selects_peer(known: &Known<'_>, policy: &PolicyFacts, peer: &PeerFacts, pod: &PodFacts) -> bool {
    let PeerFacts::Pods { namespaces, pods } = peer else {
        return false;
    };
    let in_namespace = match namespaces {
        None => pod.namespace == policy.namespace,
        Some(selector) => known
            .namespaces
            .get(&format!("/{}", pod.namespace))
            .is_some_and(|namespace| selector.matches(&namespace.labels)),
    };
    in_namespace && pods.matches(&pod.labels)
}

/// All pods with their addresses; this node knows its own before the API does.
fn everybody<'a>(known: &Known<'a>) -> impl Iterator<Item = (&'a PodFacts, Vec<Ipv4Addr>)> {
    let own = known
        .local
        .iter()
        .filter_map(|(ip, pod)| Some((pod.as_ref()?, vec![*ip])));
    let all = known.pods.values().map(|pod| (pod, pod.ips.clone()));
    own.chain(all)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object["metadata"]["labels"].as_object();
    labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests;
