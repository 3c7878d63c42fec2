//! NetworkPolicies, ServiceCIDRs and IPAddresses. Rules: Kubernetes' networking/v1 defaults and validation.

use super::Strategy;
use super::check::{frozen, named, one_of, port, selector};
use super::edit::{
    Members, default_text, map_at, maps_in, read_list, read_map, read_maps, read_number, read_texts,
};
use crate::Faults;
use ipnet::IpNet;
use objects::{Object, names};
use serde_json::{Value, json};
use std::net::IpAddr;

/// The network policies' strategy.
pub struct NetworkPolicies;

/// The two ways: the member with the rules, the member with the peers, the policy type.
const WAYS: [(&str, &str, &str); 2] = [("ingress", "from", "Ingress"), ("egress", "to", "Egress")];
const NO_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

impl Strategy for NetworkPolicies {
    fn default_fields(&self, object: &mut Object) {
        let Some(spec) = map_at(&mut object.body, "spec") else {
            return;
        };
        map_at(spec, "podSelector");
        for (rules, _, _) in WAYS {
            for rule in maps_in(spec, rules) {
                for port in maps_in(rule, "ports") {
                    default_text(port, "protocol", "TCP");
                }
            }
        }
        if read_list(spec, "policyTypes").is_empty() {
            let types = if read_list(spec, "egress").is_empty() {
                json!(["Ingress"])
            } else {
                json!(["Ingress", "Egress"])
            };
            spec.insert("policyTypes".to_owned(), types);
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let Some(spec) = read_map(&object.body, "spec") else {
            return;
        };
        selector(spec, "podSelector", "spec", faults);
        for (index, kind) in read_texts(spec, "policyTypes").enumerate() {
            if !WAYS.iter().any(|(_, _, known)| *known == kind) {
                faults.unsupported(
                    format!("spec.policyTypes[{index}]"),
                    kind,
                    &["Egress", "Ingress"],
                );
            }
        }
        for (rules, peers, _) in WAYS {
            for (index, rule) in read_maps(spec, rules) {
                check_rule(rule, peers, &format!("spec.{rules}[{index}]"), faults);
            }
        }
    }

    fn has_generation(&self) -> bool {
        true
    }
}

fn check_rule(rule: &Members, peers: &str, field: &str, faults: &mut Faults) {
    for (index, entry) in read_maps(rule, "ports") {
        let field = format!("{field}.ports[{index}]");
        one_of(entry, "protocol", &field, &["SCTP", "TCP", "UDP"], faults);
        if let Some(value) = entry.get("port") {
            port(value, &format!("{field}.port"), faults);
        }
        let last = read_number(entry, "endPort");
        let first = read_number(entry, "port");
        if let Some(last) = last.filter(|last| first.is_none_or(|first| *last < first)) {
            let detail = "must be greater than or equal to `port`";
            faults.invalid(format!("{field}.endPort"), &Value::from(last), detail);
        }
    }
    for (index, peer) in read_maps(rule, peers) {
        let field = format!("{field}.{peers}[{index}]");
        let selects = peer.contains_key("podSelector") || peer.contains_key("namespaceSelector");
        for name in ["podSelector", "namespaceSelector"] {
            selector(peer, name, &field, faults);
        }
        match read_map(peer, "ipBlock") {
            Some(_) if selects => {
                faults.forbidden(&field, "may not specify both ipBlock and another peer");
            }
            Some(block) => check_block(block, &format!("{field}.ipBlock"), faults),
            None if selects => {}
            None => faults.required(&field, "must specify a peer"),
        }
    }
}

fn check_block(block: &Members, field: &str, faults: &mut Faults) {
    let text = block
        .get("cidr")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let Ok(network) = text.parse::<IpNet>() else {
        return faults.invalid_text(format!("{field}.cidr"), text, NO_CIDR);
    };
    for (index, text) in read_texts(block, "except").enumerate() {
        let field = format!("{field}.except[{index}]");
        match text.parse::<IpNet>() {
            Err(_) => faults.invalid_text(field, text, NO_CIDR),
            Ok(except) if !network.contains(&except) || network == except => {
                faults.invalid_text(field, text, "must be a strict subset of `cidr`");
            }
            Ok(_) => {}
        }
    }
}

/// The service networks' strategy.
pub struct ServiceCidrs;

impl Strategy for ServiceCidrs {
    fn validate(&self, object: &Object, faults: &mut Faults) {
        let networks = read_map(&object.body, "spec").map(|spec| read_texts(spec, "cidrs"));
        let mut count = 0;
        for (index, text) in networks.into_iter().flatten().enumerate() {
            count += 1;
            if text.parse::<IpNet>().is_err() {
                faults.invalid_text(format!("spec.cidrs[{index}]"), text, NO_CIDR);
            }
        }
        if !(1..=2).contains(&count) {
            faults.invalid(
                "spec.cidrs",
                &json!(count),
                "must be one network, or one of each IP family",
            );
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        frozen(object, old, &["spec.cidrs"], faults);
    }

    fn has_generation(&self) -> bool {
        true
    }
}

/// The strategy of addresses in use.
pub struct IpAddresses;

impl Strategy for IpAddresses {
    fn validate(&self, object: &Object, faults: &mut Faults) {
        let parent = read_map(&object.body, "spec").and_then(|spec| read_map(spec, "parentRef"));
        match parent {
            None => faults.required("spec.parentRef", ""),
            Some(parent) => {
                for name in ["resource", "name"] {
                    named(parent, name, "spec.parentRef", names::path_segment, faults);
                }
            }
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        frozen(object, old, &["spec.parentRef"], faults);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        match name.parse::<IpAddr>() {
            Ok(address) if address.to_string() == name => Vec::new(),
            _ => vec!["must be a valid IP address in canonical form".to_owned()],
        }
    }
}
