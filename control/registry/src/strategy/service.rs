//! Services: an address of their own for pods that a selector finds. Rules: Kubernetes' core/v1 defaults and validation and
//! its registry/core/service.

use super::edit::{
    Members, default, default_text, map_at, maps_in, read_list, read_map, read_maps, read_number,
    read_text,
};
use super::service_address::{
    ADDRESS_POOL, NODE_PORT_FIRST, NODE_PORT_LAST, NODE_PORT_POOL, free_address, free_node_port,
    is_usable,
};
use super::{Claim, Context, Strategy, Taken};
use crate::Faults;
use ipnet::Ipv4Net;
use objects::{Object, names};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The services' strategy.
pub struct Services;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

impl Strategy for Services {
    fn default_fields(&self, object: &mut Object) {
        let Some(spec) = map_at(&mut object.body, "spec") else {
            return;
        };
        default_text(spec, "type", "ClusterIP");
        default_text(spec, "sessionAffinity", "None");
        for port in maps_in(spec, "ports") {
            default_text(port, "protocol", "TCP");
            let number = port.get("port").cloned().unwrap_or_default();
            if port
                .get("targetPort")
                .is_none_or(|target| *target == json!(0) || *target == json!(""))
            {
                port.insert("targetPort".to_owned(), number);
            }
        }
        let kind = read_text(spec, "type").to_owned();
        if kind != "ExternalName" {
            default_text(spec, "internalTrafficPolicy", "Cluster");
            default_text(spec, "ipFamilyPolicy", "SingleStack");
            default(spec, "ipFamilies", json!(["IPv4"]));
        }
        if exposes_nodes(&kind) {
            default_text(spec, "externalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            default(spec, "allocateLoadBalancerNodePorts", true);
        }
        if read_text(spec, "sessionAffinity") == "ClientIP" {
            default(
                spec,
                "sessionAffinityConfig",
                json!({"clientIP": {"timeoutSeconds": 10800}}),
            );
        }
    }

    fn prepare_create(&self, object: &mut Object, _context: &Context<'_>) {
        object
            .body
            .insert("status".to_owned(), json!({"loadBalancer": {}}));
        if let Some(spec) = map_at(&mut object.body, "spec") {
            align_addresses(spec);
        }
    }

    fn prepare_update(&self, object: &mut Object, old: &Object, _context: &Context<'_>) {
        let (Some(spec), Some(old)) = (
            map_at(&mut object.body, "spec"),
            read_map(&old.body, "spec"),
        ) else {
            return;
        };
        keep_allocated(spec, old);
        align_addresses(spec);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let Some(spec) = read_map(&object.body, "spec") else {
            return;
        };
        let kind = read_text(spec, "type");
        if !TYPES.contains(&kind) {
            faults.unsupported("spec.type", kind, &TYPES);
        }
        check_ports(spec, kind, faults);
        check_selector(spec, faults);
        let affinity = read_text(spec, "sessionAffinity");
        if !matches!(affinity, "None" | "ClientIP") {
            faults.unsupported("spec.sessionAffinity", affinity, &["ClientIP", "None"]);
        }
        let external = read_text(spec, "externalName");
        match kind {
            "ExternalName" if external.is_empty() => faults.required("spec.externalName", ""),
            "ExternalName" => {
                let name = external.strip_suffix('.').unwrap_or(external);
                faults.invalid_texts(
                    "spec.externalName",
                    external,
                    &names::dns1123_subdomain(name),
                );
                if !cluster_ip(spec).is_empty() {
                    faults.forbidden(
                        "spec.clusterIPs[0]",
                        "may not be set for services of type ExternalName",
                    );
                }
            }
            _ => {}
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        let address = |object: &Object| {
            read_map(&object.body, "spec").map(|spec| {
                (
                    cluster_ip(spec).to_owned(),
                    read_text(spec, "type") == "ExternalName",
                )
            })
        };
        let (Some((new, to_external)), Some((old, from_external))) =
            (address(object), address(old))
        else {
            return;
        };
        if !old.is_empty() && new != old && !to_external && !from_external {
            faults.invalid(
                "spec.clusterIPs[0]",
                &json!([new]),
                "may not change once set",
            );
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1035_label(name)
    }

    fn pools(&self) -> &'static [&'static str] {
        &[ADDRESS_POOL, NODE_PORT_POOL]
    }

    fn allocate(
        &self,
        object: &mut Object,
        taken: &dyn Taken,
        context: &Context<'_>,
        faults: &mut Faults,
    ) {
        let Some(spec) = map_at(&mut object.body, "spec") else {
            return;
        };
        let kind = read_text(spec, "type").to_owned();
        if kind != "ExternalName" {
            allocate_address(spec, taken, context, faults);
        }
        let wants_ports = kind == "NodePort"
            || (kind == "LoadBalancer"
                && spec.get("allocateLoadBalancerNodePorts") != Some(&json!(false)));
        if wants_ports {
            allocate_node_ports(spec, taken, context.seed, faults);
        }
    }

    fn claims(&self, object: &Object) -> Vec<Claim> {
        let Some(spec) = read_map(&object.body, "spec") else {
            return Vec::new();
        };
        let mut claims = Vec::new();
        let address = cluster_ip(spec);
        if !matches!(address, "" | "None") && read_text(spec, "type") != "ExternalName" {
            let field = "spec.clusterIPs[0]".to_owned();
            claims.push(Claim {
                pool: ADDRESS_POOL,
                value: address.to_owned(),
                field,
            });
        }
        let mut seen = BTreeSet::new();
        for (index, port) in read_maps(spec, "ports") {
            let number = read_number(port, "nodePort").unwrap_or(0);
            // TCP and UDP of one service may share a node port.
            if number != 0 && seen.insert(number) {
                let field = format!("spec.ports[{index}].nodePort");
                claims.push(Claim {
                    pool: NODE_PORT_POOL,
                    value: number.to_string(),
                    field,
                });
            }
        }
        claims
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}

fn exposes_nodes(kind: &str) -> bool {
    matches!(kind, "NodePort" | "LoadBalancer")
}

/// The first of `clusterIPs`, or `clusterIP`.
fn cluster_ip(spec: &Members) -> &str {
    let list = read_list(spec, "clusterIPs")
        .first()
        .and_then(Value::as_str);
    match read_text(spec, "clusterIP") {
        "" => list.unwrap_or_default(),
        address => address,
    }
}

/// Makes `clusterIP` and `clusterIPs` say the same.
fn align_addresses(spec: &mut Members) {
    let address = cluster_ip(spec).to_owned();
    if !address.is_empty() {
        spec.insert("clusterIP".to_owned(), json!(address));
        spec.insert("clusterIPs".to_owned(), json!([address]));
    }
}

/// A client that does not tell address and node ports keeps those that the service has.
fn keep_allocated(spec: &mut Members, old: &Members) {
    let (kind, old_kind) = (read_text(spec, "type").to_owned(), read_text(old, "type"));
    if kind == "ExternalName" {
        for name in [
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
        ] {
            if spec.get(name) == old.get(name) {
                spec.shift_remove(name);
            }
        }
    } else if old_kind != "ExternalName" {
        // A changed clusterIP beside the old clusterIPs counts as the client's wish.
        if cluster_ip(spec).is_empty() {
            default_text(spec, "clusterIP", cluster_ip(old));
        }
    }
    let same = |port: &Members, other: &Members| {
        port.get("port") == other.get("port") && port.get("protocol") == other.get("protocol")
    };
    for port in maps_in(spec, "ports") {
        let before = read_maps(old, "ports")
            .map(|(_, old)| old)
            .find(|old| same(port, old));
        let before = before.and_then(|before| read_number(before, "nodePort"));
        let number = read_number(port, "nodePort").unwrap_or(0);
        match (exposes_nodes(&kind), before) {
            (true, Some(before)) if number == 0 => {
                drop(port.insert("nodePort".to_owned(), json!(before)))
            }
            (false, Some(before)) if number == before => drop(port.shift_remove("nodePort")),
            _ => {}
        }
    }
    if !exposes_nodes(&kind)
        && spec.get("externalTrafficPolicy") == old.get("externalTrafficPolicy")
    {
        spec.shift_remove("externalTrafficPolicy");
    }
}

fn allocate_address(
    spec: &mut Members,
    taken: &dyn Taken,
    context: &Context<'_>,
    faults: &mut Faults,
) {
    let field = "spec.clusterIPs[0]";
    let Ok(network) = context.service_cidr.parse::<Ipv4Net>() else {
        return faults.invalid_text(
            field,
            context.service_cidr,
            "the cluster's service network is no IPv4 network",
        );
    };
    let given = cluster_ip(spec).to_owned();
    match given.as_str() {
        "None" => {}
        "" => match free_address(&network, taken, context.seed) {
            Some(address) => {
                spec.insert("clusterIP".to_owned(), json!(address));
                align_addresses(spec);
            }
            None => faults.invalid_text(field, "", "failed to allocate IP: range is full"),
        },
        text => match text.parse::<IpAddr>() {
            Err(_) => {
                let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                faults.invalid_text(field, text, detail);
            }
            Ok(address) if !matches!(address, IpAddr::V4(address) if is_usable(&network, address)) =>
            {
                let detail = format!(
                    "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is {network}"
                );
                faults.invalid(field, &json!([text]), &detail);
            }
            Ok(_) => {}
        },
    }
}

fn allocate_node_ports(spec: &mut Members, taken: &dyn Taken, seed: u64, faults: &mut Faults) {
    let mut own: Vec<u16> = Vec::new();
    for (index, port) in maps_in(spec, "ports").enumerate() {
        let field = format!("spec.ports[{index}].nodePort");
        let number = read_number(port, "nodePort").unwrap_or(0);
        let valid = u16::try_from(number)
            .ok()
            .filter(|port| (NODE_PORT_FIRST..=NODE_PORT_LAST).contains(port));
        match (number, valid) {
            (0, _) => match free_node_port(taken, &own, seed) {
                Some(free) => {
                    own.push(free);
                    port.insert("nodePort".to_owned(), json!(free));
                }
                None => faults.invalid(
                    field,
                    &json!(0),
                    "failed to allocate a nodePort: range is full",
                ),
            },
            (_, Some(valid)) => own.push(valid),
            (number, None) => {
                let detail = format!(
                    "provided port is not in the valid range. The range of valid ports is {NODE_PORT_FIRST}-{NODE_PORT_LAST}"
                );
                faults.invalid(field, &json!(number), &detail);
            }
        }
    }
}

fn check_ports(spec: &Members, kind: &str, faults: &mut Faults) {
    let ports = read_list(spec, "ports");
    if ports.is_empty() && kind != "ExternalName" && cluster_ip(spec) != "None" {
        faults.required("spec.ports", "");
    }
    let mut seen_names = BTreeSet::new();
    let mut seen_ports = BTreeSet::new();
    for (index, port) in read_maps(spec, "ports") {
        let field = format!("spec.ports[{index}]");
        let name = read_text(port, "name");
        if name.is_empty() && ports.len() > 1 {
            faults.required(format!("{field}.name"), "");
        } else if !name.is_empty() {
            faults.invalid_texts(format!("{field}.name"), name, &names::dns1123_label(name));
            if !seen_names.insert(name) {
                faults.duplicate(format!("{field}.name"), &json!(name));
            }
        }
        check_port(port, kind, &field, faults);
        let place = (read_text(port, "protocol"), read_number(port, "port"));
        if !seen_ports.insert(place) {
            faults.duplicate(&field, &json!({"port": place.1, "protocol": place.0}));
        }
    }
}

fn check_port(port: &Members, kind: &str, field: &str, faults: &mut Faults) {
    let number = read_number(port, "port").unwrap_or(0);
    for detail in names::port_number(number) {
        faults.invalid(format!("{field}.port"), &json!(number), &detail);
    }
    let protocol = read_text(port, "protocol");
    if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
        faults.unsupported(
            format!("{field}.protocol"),
            protocol,
            &["SCTP", "TCP", "UDP"],
        );
    }
    match port.get("targetPort") {
        Some(Value::String(name)) => {
            faults.invalid_texts(format!("{field}.targetPort"), name, &names::port_name(name));
        }
        Some(value) => {
            for detail in names::port_number(value.as_i64().unwrap_or_default()) {
                faults.invalid(format!("{field}.targetPort"), value, &detail);
            }
        }
        None => {}
    }
    let node_port = read_number(port, "nodePort").unwrap_or(0);
    if node_port != 0 && !exposes_nodes(kind) {
        let detail = format!("may not be used when `type` is '{kind}'");
        faults.forbidden(format!("{field}.nodePort"), &detail);
    }
}

fn check_selector(spec: &Members, faults: &mut Faults) {
    for (key, value) in read_map(spec, "selector").into_iter().flatten() {
        faults.invalid_texts("spec.selector", key, &names::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        faults.invalid_texts("spec.selector", value, &names::label_value(value));
    }
}
