//! Any change of services, committed as a difference, leaves the table that they would have made at once; and nft would
//! accept every step, since nothing is removed while something leads to it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use network::nft::{Chain, Set, Table, diff};
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
        node_address: Ipv4Addr::new(192, 168, 0, 1),
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
        endpoints in endpoints(),
        external in prop::option::of(1..4_u8),
        affinity_s in prop::option::of(Just(600)),
        (internal_local, external_local) in any::<(bool, bool)>(),
    ) -> Service {
        Service {
            key: format!("a/{n}"),
            cluster_ip: Ipv4Addr::new(10, 96, 0, n),
            external_ips: external.map(|ip| Ipv4Addr::new(203, 0, 113, ip)).into_iter().collect(),
            ports: vec![ServicePort { protocol, port: 80, node_port, endpoints }],
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
