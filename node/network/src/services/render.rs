//! The desired table, from services, host ports and the node's facts. Pure.
//!
//! ```text
//! prerouting, output -> services -> service_ips[address . protocol . port] -> svc/... or ext/... -> an endpoint
//!                                -> node -> node_ports[protocol . port]    -> ext/...            -> an endpoint
//!                                        -> host_ports[protocol . port]                          -> a pod
//! forward, input, output: refuse what is for a service and was not translated
//! postrouting: masquerade what came in by a node, a pod that met itself, and pods that leave the cluster
//! ```

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{HostPort, NodeFacts, Protocol, Service, ServicePort, sorted};
use crate::nft::Table;

/// Marks packets that came in from outside; kube-proxy's bit, so that other software leaves it alone.
const MASQUERADE: &str = "0x4000";

/// How many clients one endpoint's affinity remembers; the kernel forgets none before its time, so more go anywhere.
const AFFINITY_CLIENTS_MAX: u32 = 65_535;

const PORT_ON_ADDRESS: &str = "ip daddr . meta l4proto . th dport";
const PORT: &str = "meta l4proto . th dport";

/// The whole table for this node.
pub fn render(facts: &NodeFacts, services: &[Service], host_ports: &[HostPort]) -> Table {
    let mut table = frame(facts);
    for service in services {
        for port in &service.ports {
            add_port(&mut table, facts, service, port);
        }
    }
    for host_port in host_ports {
        add_host_port(&mut table, facts, host_port);
    }
    if let Some((service_ip, server)) = facts.dns {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let chain = format!("dns/{protocol}");
            table.chain(&chain, vec![dnat(protocol, server)]);
            table.element(
                "service_ips",
                format!("{service_ip} . {protocol} . 53"),
                format!("goto {chain}"),
            );
        }
    }
    table
}

/// What is there with no service at all.
fn frame(facts: &NodeFacts) -> Table {
    let mut table = Table::default();
    table.set(
        "map",
        "service_ips",
        "type ipv4_addr . inet_proto . inet_service : verdict;",
    );
    table.set(
        "map",
        "node_ports",
        "type inet_proto . inet_service : verdict;",
    );
    table.set(
        "map",
        "host_ports",
        "type inet_proto . inet_service : ipv4_addr . inet_service;",
    );
    table.set(
        "map",
        "host_ports_at",
        "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service;",
    );
    table.set(
        "set",
        "refused_ips",
        "type ipv4_addr . inet_proto . inet_service;",
    );
    table.set(
        "set",
        "refused_node_ports",
        "type inet_proto . inet_service;",
    );
    table.set("set", "hairpin", "type ipv4_addr . ipv4_addr;");
    table.chain(
        "services",
        vec![
            format!("{PORT_ON_ADDRESS} vmap @service_ips"),
            "fib daddr type local ip daddr != 127.0.0.0/8 jump node".into(),
        ],
    );
    table.chain(
        "node",
        vec![
            format!("{PORT} vmap @node_ports"),
            format!(
                "meta l4proto {{ tcp, udp, sctp }} dnat ip to {PORT_ON_ADDRESS} map @host_ports_at"
            ),
            format!("meta l4proto {{ tcp, udp, sctp }} dnat ip to {PORT} map @host_ports"),
        ],
    );
    table.base_chain(
        "prerouting",
        "type nat hook prerouting priority -100; policy accept;",
        vec!["jump services".into()],
    );
    table.base_chain(
        "output",
        "type nat hook output priority -100; policy accept;",
        vec!["jump services".into()],
    );
    for (chain, hook) in [("refuse_forward", "forward"), ("refuse_output", "output")] {
        let base = format!("type filter hook {hook} priority 0; policy accept;");
        table.base_chain(chain, &base, refuse_services(facts));
    }
    table.base_chain(
        "refuse_input",
        "type filter hook input priority 0; policy accept;",
        refuse_node_ports(),
    );
    table.base_chain(
        "postrouting",
        "type nat hook postrouting priority 100; policy accept;",
        masquerade(facts),
    );
    table
}

fn refuse_services(facts: &NodeFacts) -> Vec<String> {
    let cidr = facts.service_cidr.trunc();
    vec![
        format!("ip daddr {cidr} meta l4proto tcp reject with tcp reset"),
        format!("ip daddr {cidr} reject with icmp type port-unreachable"),
        format!("{PORT_ON_ADDRESS} @refused_ips reject with icmp type port-unreachable"),
    ]
}

fn refuse_node_ports() -> Vec<String> {
    vec![
        "ct status dnat return".into(),
        format!("{PORT_ON_ADDRESS} @refused_ips reject with icmp type port-unreachable"),
        format!("{PORT} @refused_node_ports meta l4proto tcp reject with tcp reset"),
        format!("{PORT} @refused_node_ports reject with icmp type port-unreachable"),
    ]
}

fn masquerade(facts: &NodeFacts) -> Vec<String> {
    let NodeFacts {
        pod_cidr,
        cluster_cidr,
        bridge,
        vxlan,
        ..
    } = facts;
    vec![
        format!(
            "meta mark & {MASQUERADE} != 0 meta mark set meta mark xor {MASQUERADE} masquerade"
        ),
        "ip saddr . ip daddr @hairpin masquerade".into(),
        // A peer would answer a node's own address outside the tunnel, where it is taken for a stray.
        format!(
            "oifname \"{vxlan}\" ip saddr != {} masquerade",
            cluster_cidr.trunc()
        ),
        format!(
            "ip saddr {} ip daddr != {} ip daddr != 224.0.0.0/4 oifname != {{ \"lo\", \"{bridge}\" }} masquerade",
            pod_cidr.trunc(),
            cluster_cidr.trunc()
        ),
    ]
}

fn add_port(table: &mut Table, facts: &NodeFacts, service: &Service, port: &ServicePort) {
    let ServicePort {
        protocol,
        port: number,
        node_port,
        ..
    } = port;
    let name = format!("{}/{protocol}/{number}", service.cluster_ip);
    let endpoints = port.all_endpoints();
    let internal = sorted(port.endpoints_of(service.internal_local));
    let external = sorted(port.endpoints_of(service.external_local));
    for endpoint in endpoints
        .iter()
        .filter(|endpoint| facts.pod_cidr.contains(endpoint.ip()))
    {
        add_hairpin(table, *endpoint.ip());
    }
    if let Some(timeout_s) = service.affinity_s {
        for endpoint in &endpoints {
            add_sticky_endpoint(table, &name, *protocol, *endpoint, timeout_s);
        }
    }
    let choose = |endpoints: &[SocketAddrV4]| {
        choose(&name, *protocol, endpoints, service.affinity_s.is_some())
    };
    if !internal.is_empty() {
        let chain = format!("svc/{name}");
        let key = format!("{} . {protocol} . {number}", service.cluster_ip);
        table.element("service_ips", key, format!("goto {chain}"));
        table.chain(chain, choose(&internal));
    }
    let keys = service
        .external_ips
        .iter()
        .map(|ip| format!("{ip} . {protocol} . {number}"));
    let node_key = node_port.map(|node_port| format!("{protocol} . {node_port}"));
    if external.is_empty() {
        keys.for_each(|key| table.element("refused_ips", key, ""));
        node_key
            .into_iter()
            .for_each(|key| table.element("refused_node_ports", key, ""));
    } else if node_key.is_some() || !service.external_ips.is_empty() {
        let chain = format!("ext/{name}");
        keys.for_each(|key| table.element("service_ips", key, format!("goto {chain}")));
        node_key
            .into_iter()
            .for_each(|key| table.element("node_ports", key, format!("goto {chain}")));
        let mut rules = vec![];
        if !service.external_local {
            rules.push(format!("meta mark set meta mark or {MASQUERADE}"));
        }
        rules.extend(choose(&external));
        table.chain(chain, rules);
    }
}

fn add_host_port(table: &mut Table, facts: &NodeFacts, host_port: &HostPort) {
    let HostPort {
        host_ip,
        protocol,
        host_port,
        target,
    } = host_port;
    let value = format!("{} . {}", target.ip(), target.port());
    match host_ip.filter(|ip| !ip.is_unspecified()) {
        Some(ip) => table.element(
            "host_ports_at",
            format!("{ip} . {protocol} . {host_port}"),
            value,
        ),
        None => table.element("host_ports", format!("{protocol} . {host_port}"), value),
    }
    if facts.pod_cidr.contains(target.ip()) {
        add_hairpin(table, *target.ip());
    }
}

/// A pod that reaches itself must see another source, or it would answer itself without the way back.
fn add_hairpin(table: &mut Table, ip: Ipv4Addr) {
    table.element("hairpin", format!("{ip} . {ip}"), "");
}

/// The rules that pick one of `endpoints`.
fn choose(name: &str, protocol: Protocol, endpoints: &[SocketAddrV4], sticky: bool) -> Vec<String> {
    let count = endpoints.len();
    if !sticky {
        if let [only] = endpoints {
            return vec![dnat(protocol, *only)];
        }
        let targets = endpoints
            .iter()
            .enumerate()
            .map(|(n, at)| format!("{n} : {} . {}", at.ip(), at.port()));
        let targets = targets.collect::<Vec<_>>().join(", ");
        return vec![format!(
            "meta l4proto {protocol} dnat ip to numgen random mod {count} map {{ {targets} }}"
        )];
    }
    let own = |at: &SocketAddrV4| format!("{name}/{}/{}", at.ip(), at.port());
    let mut rules: Vec<String> = endpoints
        .iter()
        .map(|at| format!("ip saddr @aff/{0} goto ep/{0}", own(at)))
        .collect();
    let targets = endpoints
        .iter()
        .enumerate()
        .map(|(n, at)| format!("{n} : goto ep/{}", own(at)));
    let targets = targets.collect::<Vec<_>>().join(", ");
    rules.push(format!("numgen random mod {count} vmap {{ {targets} }}"));
    rules
}

/// An endpoint that remembers its clients.
fn add_sticky_endpoint(
    table: &mut Table,
    name: &str,
    protocol: Protocol,
    endpoint: SocketAddrV4,
    timeout_s: u32,
) {
    let own = format!("{name}/{}/{}", endpoint.ip(), endpoint.port());
    table.set(
        "set",
        format!("aff/{own}"),
        format!("type ipv4_addr; size {AFFINITY_CLIENTS_MAX}; flags dynamic,timeout; timeout {timeout_s}s;"),
    );
    table.chain(
        format!("ep/{own}"),
        vec![
            format!("update @aff/{own} {{ ip saddr }}"),
            dnat(protocol, endpoint),
        ],
    );
}

fn dnat(protocol: Protocol, to: SocketAddrV4) -> String {
    format!("meta l4proto {protocol} dnat to {to}")
}
