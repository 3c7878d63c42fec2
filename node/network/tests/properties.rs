//! Any change of services, committed as a difference, leaves the table that they would have made at once; and nft would
//! accept every step, since nothing is removed while something leads to it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use network::nft::{Chain, Set, Table, diff};
use network::policy::{self, AddressRange, Allowed, Direction, Isolation, PortRange, boxes};
use network::services::{NodeFacts, render};
use network::{HostPort, Protocol, Service, ServicePort};
use proptest::prelude::*;

/// What nft does with a transaction, with its checks.
struct Interpreter {
    table: Table,
}

impl Interpreter {
    fn commit(&mut self, script: &str) {
        for line in script.lines() {
            let (command, rest) = line
                .split_once(" ip t ")
                .unwrap_or_else(|| panic!("not for the table: {line}"));
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            self.step(command, name, rest);
        }
        for target in self.references() {
            assert!(
                self.table.chains.contains_key(&target) || self.table.sets.contains_key(&target),
                "{target}"
            );
        }
    }

    fn step(&mut self, command: &str, name: &str, rest: &str) {
        match command {
            "add set" | "add map" => {
                let kind = if command == "add set" { "set" } else { "map" };
                let set = Set {
                    kind,
                    spec: braced(rest),
                    elements: BTreeMap::new(),
                };
                assert!(
                    self.table.sets.insert(name.into(), set).is_none(),
                    "{name} is there"
                );
            }
            "add chain" => {
                let base = (!rest.is_empty()).then(|| braced(rest));
                let chain = Chain {
                    base,
                    rules: vec![],
                };
                assert!(
                    self.table.chains.insert(name.into(), chain).is_none(),
                    "{name} is there"
                );
            }
            "add rule" => self
                .table
                .chains
                .get_mut(name)
                .expect("the chain is there")
                .rules
                .push(rest.into()),
            "flush chain" => self
                .table
                .chains
                .get_mut(name)
                .expect("the chain is there")
                .rules
                .clear(),
            "add element" => {
                for (key, value) in elements(rest) {
                    let set = self.table.sets.get_mut(name).expect("the set is there");
                    assert!(
                        set.elements.insert(key.clone(), value).is_none(),
                        "{key} is there"
                    );
                }
            }
            "delete element" => {
                for (key, value) in elements(rest) {
                    let set = self.table.sets.get_mut(name).expect("the set is there");
                    assert_eq!(set.elements.remove(&key), Some(value), "{key} is not there");
                }
            }
            "delete chain" => {
                assert!(
                    !self.references().contains(&name.to_owned()),
                    "{name} is in use"
                );
                assert!(
                    self.table
                        .chains
                        .remove(name)
                        .is_some_and(|chain| chain.rules.is_empty()),
                    "{name}"
                );
            }
            "delete set" | "delete map" => {
                assert!(
                    !self.references().contains(&name.to_owned()),
                    "{name} is in use"
                );
                assert!(
                    self.table.sets.remove(name).is_some(),
                    "{name} is not there"
                );
            }
            _ => panic!("unknown command {command}"),
        }
    }

    /// The names of chains and sets that rules and elements lead to.
    fn references(&self) -> Vec<String> {
        let rules = self
            .table
            .chains
            .values()
            .flat_map(|chain| chain.rules.iter());
        let values = self
            .table
            .sets
            .values()
            .flat_map(|set| set.elements.values());
        let mut references = vec![];
        for text in rules.chain(values) {
            let words: Vec<&str> = text.split([' ', ',']).collect();
            for pair in words.windows(2) {
                if matches!(pair[0], "goto" | "jump") {
                    references.push(pair[1].to_owned());
                }
            }
            references.extend(
                words
                    .iter()
                    .filter_map(|word| word.strip_prefix('@'))
                    .map(str::to_owned),
            );
        }
        references
    }
}

fn braced(text: &str) -> String {
    text.trim_start_matches("{ ")
        .trim_end_matches(" }")
        .to_owned()
}

fn elements(text: &str) -> Vec<(String, String)> {
    let pair = |element: &str| {
        let (key, value) = element.split_once(" : ").unwrap_or((element, ""));
        (key.to_owned(), value.to_owned())
    };
    braced(text).split(", ").map(pair).collect()
}

fn facts() -> NodeFacts {
    NodeFacts {
        pod_cidr: "10.244.1.0/24".parse().expect("a network"),
        cluster_cidr: "10.244.0.0/16".parse().expect("a network"),
        service_cidr: "10.96.0.0/16".parse().expect("a network"),
        bridge: "trireme0".into(),
        vxlan: "trireme-vx".into(),
        dns: None,
    }
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![
        Just(Protocol::Tcp),
        Just(Protocol::Udp),
        Just(Protocol::Sctp)
    ]
}

fn endpoints() -> impl Strategy<Value = Vec<SocketAddrV4>> {
    let endpoint = (1..3_u8, 2..6_u8)
        .prop_map(|(node, pod)| SocketAddrV4::new([10, 244, node, pod].into(), 80));
    prop::collection::vec(endpoint, 0..4)
}

prop_compose! {
    fn service_at(n: u8)(
        protocol in protocol(),
        node_port in prop::option::of(30_000..30_004_u16),
        (endpoints, local_endpoints) in (endpoints(), endpoints()),
        external in prop::option::of(1..4_u8),
        affinity_s in prop::option::of(Just(600)),
        (internal_local, external_local) in any::<(bool, bool)>(),
    ) -> Service {
        Service {
            key: format!("a/{n}"),
            cluster_ip: Ipv4Addr::new(10, 96, 0, n),
            external_ips: external.map(|ip| Ipv4Addr::new(203, 0, 113, ip)).into_iter().collect(),
            ports: vec![ServicePort { protocol, port: 80, node_port, endpoints, local_endpoints }],
            affinity_s,
            internal_local,
            external_local,
        }
    }
}

fn services() -> impl Strategy<Value = Vec<Service>> {
    let service = |n| prop::option::of(service_at(n));
    (service(1), service(2), service(3), service(4))
        .prop_map(|(a, b, c, d)| [a, b, c, d].into_iter().flatten().collect())
}

prop_compose! {
    fn host_ports()(ports in prop::collection::vec((protocol(), 8080..8083_u16, 2..6_u8, any::<bool>()), 0..3)) -> Vec<HostPort> {
        ports.into_iter().map(|(protocol, host_port, pod, bound)| HostPort {
            host_ip: bound.then(|| Ipv4Addr::new(192, 168, 0, 1)),
            protocol,
            host_port,
            target: SocketAddrV4::new([10, 244, 1, pod].into(), 80),
        }).collect()
    }
}

prop_compose! {
    fn addresses()(first in 0..12_u8, len in 0..4_u8) -> AddressRange {
        AddressRange { first: [10, 244, 2, first].into(), last: [10, 244, 2, first + len].into() }
    }
}

fn peers() -> impl Strategy<Value = Vec<AddressRange>> {
    prop_oneof![
        9 => prop::collection::vec(addresses(), 0..4),
        1 => Just(vec![AddressRange::ALL]),
    ]
}

fn port_range() -> impl Strategy<Value = PortRange> {
    let some = (protocol(), 80..90_u16, 0..5_u16).prop_map(|(protocol, first, len)| PortRange {
        protocol,
        first,
        last: first + len,
    });
    prop_oneof![9 => some, 1 => protocol().prop_map(PortRange::all)]
}

prop_compose! {
    fn allowed()(peers in peers(), ports in prop::option::weighted(0.8, prop::collection::vec(port_range(), 0..3))) -> Allowed {
        Allowed { peers, ports }
    }
}

prop_compose! {
    fn isolation()(
        name in 0..3_u8,
        egress in any::<bool>(),
        pods in prop::collection::btree_set(2..6_u8, 1..3),
        allowed in prop::collection::vec(allowed(), 0..4),
    ) -> Isolation {
        Isolation {
            name: format!("g{name}"),
            direction: if egress { Direction::Egress } else { Direction::Ingress },
            pods: pods.into_iter().map(|pod| [10, 244, 1, pod].into()).collect(),
            allowed,
        }
    }
}

/// As the agent makes them: no name twice, and no pod in two isolations of one direction.
fn isolations() -> impl Strategy<Value = Vec<Isolation>> {
    prop::collection::vec(isolation(), 0..4).prop_map(|list| {
        let mut kept: Vec<Isolation> = vec![];
        for isolation in list {
            let meets = |other: &Isolation| {
                other.direction == isolation.direction
                    && (other.name == isolation.name || !other.pods.is_disjoint(&isolation.pods))
            };
            if !kept.iter().any(meets) {
                kept.push(isolation);
            }
        }
        kept
    })
}

fn holds(range: &AddressRange, address: Ipv4Addr) -> bool {
    range.first <= address && address <= range.last
}

fn takes(range: &PortRange, protocol: Protocol, port: u16) -> bool {
    range.protocol == protocol && range.first <= port && port <= range.last
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn boxes_hold_what_is_allowed_once_and_nothing_else(allowed in prop::collection::vec(allowed(), 0..5)) {
        let boxes = boxes(&allowed);
        for host in 0..18_u8 {
            let address = Ipv4Addr::new(10, 244, 2, host);
            let in_all = boxes.all.iter().filter(|range| holds(range, address)).count();
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                for port in [0, 79, 80, 81, 84, 85, 89, 93, 94, u16::MAX] {
                    let found = in_all + boxes.ports.iter().filter(|(addresses, ports)| {
                        holds(addresses, address) && takes(ports, protocol, port)
                    }).count();
                    let wanted = allowed.iter().any(|allowed| {
                        allowed.peers.iter().any(|range| holds(range, address))
                            && allowed.ports.as_ref().is_none_or(|ports| {
                                ports.iter().any(|range| takes(range, protocol, port))
                            })
                    });
                    prop_assert_eq!(found, usize::from(wanted), "{} {} {}", address, protocol, port);
                }
            }
        }
    }

    #[test]
    fn a_block_is_its_addresses_less_the_exceptions(except in prop::collection::vec((0..64_u8, 26..=32_u8), 0..4)) {
        let net = |host: u8, len| ipnet::Ipv4Net::new([10, 0, 0, host].into(), len).expect("a length").trunc();
        let except: Vec<ipnet::Ipv4Net> = except.into_iter().map(|(host, len)| net(host, len)).collect();
        let block = net(0, 26);
        let ranges = AddressRange::block(block, &except);
        for host in 0..=255 {
            let address = Ipv4Addr::new(10, 0, 0, host);
            let wanted = block.contains(&address) && !except.iter().any(|net| net.contains(&address));
            prop_assert_eq!(ranges.iter().any(|range| holds(range, address)), wanted, "{}", address);
        }
    }

    #[test]
    fn differences_of_policies_add_up_to_the_whole(steps in prop::collection::vec(isolations(), 1..6)) {
        let mut interpreter = Interpreter { table: Table::default() };
        let mut present = Table::default();
        for isolations in steps {
            let wanted = policy::render(&isolations);
            interpreter.commit(&diff("t", &present, &wanted));
            prop_assert_eq!(&interpreter.table, &wanted);
            present = wanted;
        }
    }
}

proptest! {
    // A failure prints its input; nothing is written into the sources.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn differences_add_up_to_the_whole(steps in prop::collection::vec((services(), host_ports()), 1..6)) {
        let mut interpreter = Interpreter { table: Table::default() };
        let mut present = Table::default();
        for (services, host_ports) in steps {
            let wanted = render(&facts(), &services, &host_ports);
            interpreter.commit(&diff("t", &present, &wanted));
            prop_assert_eq!(&interpreter.table, &wanted);
            prop_assert_eq!(diff("t", &wanted, &wanted), "");
            present = wanted;
        }
    }
}
