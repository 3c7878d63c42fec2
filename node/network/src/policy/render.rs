//! The desired table, from all isolations. Pure.
//!
//! ```text
//! forward -> egress[source]       -> out/NAME: a peer in all/out/NAME or peer . protocol . port in ports/out/NAME, else drop
//! forward -> ingress[destination] -> in/NAME:  likewise, else drop
//! ```
//!
//! The two directions are two base chains: what the first accepts, the second still judges. Packets of the node itself
//! don't come by the forward hook.

use super::{AddressRange, Direction, Isolation, PortRange, boxes};
use crate::nft::Table;

/// The whole table for this node.
pub fn render(isolations: &[Isolation]) -> Table {
    let mut table = frame();
    for isolation in isolations {
        add(&mut table, isolation);
    }
    table
}

/// What is there with no policy at all.
fn frame() -> Table {
    let mut table = Table::default();
    table.set("set", "self", "type ipv4_addr . ipv4_addr;");
    for (map, address, priority) in [("egress", "saddr", 1), ("ingress", "daddr", 2)] {
        table.set("map", map, "type ipv4_addr : verdict;");
        table.base_chain(
            &format!("forward_{map}"),
            &format!("type filter hook forward priority {priority}; policy accept;"),
            vec![
                "ct state vmap { established : accept, related : accept }".into(),
                "ip saddr . ip daddr @self accept".into(),
                format!("ip {address} vmap @{map}"),
            ],
        );
    }
    table
}

fn add(table: &mut Table, isolation: &Isolation) {
    let (map, short, peer) = match isolation.direction {
        Direction::Ingress => ("ingress", "in", "saddr"),
        Direction::Egress => ("egress", "out", "daddr"),
    };
    let chain = format!("{short}/{}", isolation.name);
    for pod in &isolation.pods {
        table.element(map, pod.to_string(), format!("goto {chain}"));
        table.element("self", format!("{pod} . {pod}"), "");
    }
    let allowed = boxes(&isolation.allowed);
    let mut rules = vec![];
    if !allowed.all.is_empty() {
        let set = format!("all/{chain}");
        rules.push(format!("ip {peer} @{set} accept"));
        table.set("set", &set, "type ipv4_addr; flags interval;");
        for range in allowed.all {
            table.element(&set, addresses(range), "");
        }
    }
    if !allowed.ports.is_empty() {
        let set = format!("ports/{chain}");
        rules.push(format!("ip {peer} . meta l4proto . th dport @{set} accept"));
        table.set(
            "set",
            &set,
            "type ipv4_addr . inet_proto . inet_service; flags interval;",
        );
        for (range, port_range) in allowed.ports {
            let key = format!("{} . {}", addresses(range), ports(port_range));
            table.element(&set, key, "");
        }
    }
    rules.push("drop".into());
    table.chain(chain, rules);
}

fn addresses(range: AddressRange) -> String {
    let AddressRange { first, last } = range;
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

fn ports(range: PortRange) -> String {
    let PortRange {
        protocol,
        first,
        last,
    } = range;
    if first == last {
        format!("{protocol} . {first}")
    } else {
        format!("{protocol} . {first}-{last}")
    }
}
