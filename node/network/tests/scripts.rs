//! The pure parts as scripts: what is asked, four dashes, what comes of it.
//! `UPDATE_EXPECT=1` writes what comes of it now.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::str::FromStr;

use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::{Name, RecordType};
use network::dns::answer::{Action, answer, encode_udp, payload_max};
use network::dns::{DnsEndpoint, DnsPort, DnsRecord, DnsTarget, Zone};
use network::nft::{self, Table};
use network::policy::{self, AddressRange, Allowed, Direction, Isolation, PortRange};
use network::services::{NodeFacts, TABLE, render};
use network::{HostPort, Protocol, Service, ServicePort};

/// Runs every block of the script at `path` through `run` and compares the outputs with those written there.
fn check(path: &str, mut run: impl FnMut(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(path);
    let script = std::fs::read_to_string(&path).expect("the script is there");
    let mut output = String::new();
    for block in script
        .split("\n\n")
        .filter(|block| !block.trim().is_empty())
    {
        let input = block
            .trim_matches('\n')
            .lines()
            .take_while(|line| *line != "----")
            .collect::<Vec<_>>()
            .join("\n");
        if input.lines().all(|line| line.starts_with('#')) {
            output += &format!("{input}\n\n");
        } else {
            output += &format!("{input}\n----\n{}\n\n", run(&input).trim_end());
        }
    }
    expect_test::expect_file![path].assert_eq(&format!("{}\n", output.trim_end()));
}

fn facts() -> NodeFacts {
    NodeFacts {
        pod_cidr: "10.244.1.0/24".parse().expect("a network"),
        cluster_cidr: "10.244.0.0/16".parse().expect("a network"),
        service_cidr: "10.96.0.0/16".parse().expect("a network"),
        bridge: "trireme0".into(),
        vxlan: "trireme-vx".into(),
        dns: Some((
            Ipv4Addr::new(10, 96, 0, 10),
            SocketAddrV4::new(Ipv4Addr::new(10, 244, 1, 1), 53),
        )),
    }
}

/// `web 10.96.0.5 tcp/80 node=30080 external=... affinity=600 local=external endpoints=a,b`
fn service(words: &[&str]) -> Service {
    let mut service = Service {
        key: words[0].into(),
        cluster_ip: words[1].parse().expect("an address"),
        external_ips: vec![],
        ports: vec![port(words[2])],
        affinity_s: None,
        internal_local: false,
        external_local: false,
    };
    for word in &words[3..] {
        let (key, value) = word.split_once('=').expect("key=value");
        match key {
            "node" => service.ports[0].node_port = Some(value.parse().expect("a port")),
            "external" => {
                service.external_ips = value
                    .split(',')
                    .map(|ip| ip.parse().expect("an address"))
                    .collect()
            }
            "affinity" => service.affinity_s = Some(value.parse().expect("seconds")),
            "local" => {
                (service.internal_local, service.external_local) =
                    (value == "internal", value == "external")
            }
            "endpoints" => {
                let port = &mut service.ports[0];
                port.endpoints = value
                    .split(',')
                    .map(|at| at.parse().expect("ip:port"))
                    .collect();
                port.local_endpoints = port.endpoints.clone();
                let pods = facts().pod_cidr;
                port.local_endpoints.retain(|at| pods.contains(at.ip()));
            }
            _ => panic!("unknown word {word}"),
        }
    }
    service
}

fn protocol(text: &str) -> Protocol {
    match text {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => Protocol::Sctp,
    }
}

fn port(text: &str) -> ServicePort {
    let (transport, number) = text.split_once('/').expect("protocol/port");
    let port = number.parse().expect("a port");
    ServicePort {
        protocol: protocol(transport),
        port,
        node_port: None,
        endpoints: vec![],
        local_endpoints: vec![],
    }
}

#[test]
fn services_become_one_table_and_a_change_only_its_difference() {
    let mut present: Option<Table> = None;
    check("services.txt", |input| {
        let (mut services, mut host_ports) = (vec![], vec![]);
        for line in input.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[0] {
                "service" => services.push(service(&words[1..])),
                "host-port" => {
                    let ServicePort { protocol, port, .. } = port(words[1]);
                    let target = words[2].parse().expect("ip:port");
                    host_ports.push(HostPort {
                        host_ip: None,
                        protocol,
                        host_port: port,
                        target,
                    });
                }
                "sync" | "#" => {}
                _ => panic!("unknown line {line}"),
            }
        }
        let table = render(&facts(), &services, &host_ports);
        let script = match &present {
            Some(old) if *old == table => "nothing".into(),
            None => nft::replace(TABLE, &table),
            Some(old) => nft::diff(TABLE, old, &table),
        };
        present = Some(table);
        script
    });
}

/// `in web pods=10.244.1.5 allow=10.0.0.0/8,10.244.2.7:tcp/80,tcp/90-99 allow=...`
fn isolation(words: &[&str]) -> Isolation {
    let mut isolation = Isolation {
        name: words[1].into(),
        direction: match words[0] {
            "in" => Direction::Ingress,
            _ => Direction::Egress,
        },
        pods: Default::default(),
        allowed: vec![],
    };
    for word in &words[2..] {
        match word.split_once('=').expect("key=value") {
            ("pods", pods) => {
                let pods = pods.split(',').map(|pod| pod.parse().expect("an address"));
                isolation.pods = pods.collect();
            }
            (_, allowed) => {
                let (peers, ports) = match allowed.split_once(':') {
                    Some((peers, ports)) => (peers, Some(ports)),
                    None => (allowed, None),
                };
                isolation.allowed.push(Allowed {
                    peers: peers.split(',').flat_map(block).collect(),
                    ports: ports.map(|ports| ports.split(',').map(port_range).collect()),
                });
            }
        }
    }
    isolation
}

/// `10.0.0.0/8!10.1.0.0/16!10.2.0.0/16`
fn block(text: &str) -> Vec<AddressRange> {
    let mut nets = text.split('!').map(|net| {
        net.parse()
            .or_else(|_| format!("{net}/32").parse())
            .expect("a network")
    });
    let block = nets.next().expect("a block");
    AddressRange::block(block, &nets.collect::<Vec<_>>())
}

fn port_range(text: &str) -> PortRange {
    let (transport, ports) = text.split_once('/').expect("protocol/ports");
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    PortRange {
        protocol: protocol(transport),
        first: first.parse().expect("a port"),
        last: last.parse().expect("a port"),
    }
}

#[test]
fn policies_become_one_table_and_a_change_only_its_difference() {
    let mut present: Option<Table> = None;
    check("policies.txt", |input| {
        let isolations: Vec<Isolation> = input
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| matches!(words[0], "in" | "out"))
            .map(|words| isolation(&words))
            .collect();
        let table = policy::render(&isolations);
        let script = match &present {
            Some(old) if *old == table => "nothing".into(),
            None => nft::replace(policy::TABLE, &table),
            Some(old) => nft::diff(policy::TABLE, old, &table),
        };
        present = Some(table);
        script
    });
}

/// `cluster-ip shop/web 10.96.0.5 http/tcp/80`, `headless shop/db db-0=10.244.1.5,-=10.244.2.6 pg/tcp/5432`,
/// `external shop/old www.example.org`
fn record(words: &[&str]) -> DnsRecord {
    let (namespace, name) = words[1].split_once('/').expect("namespace/name");
    let ports = || -> Vec<DnsPort> {
        let port = |word: &&str| {
            let mut parts = word.split('/');
            let mut part = || parts.next().expect("name/protocol/port");
            DnsPort {
                name: part().to_owned(),
                protocol: protocol(part()),
                port: part().parse().expect("a port"),
            }
        };
        words
            .get(3..)
            .unwrap_or_default()
            .iter()
            .map(port)
            .collect()
    };
    let target = match words[0] {
        "cluster-ip" => DnsTarget::ClusterIp {
            ip: words[2].parse().expect("an address"),
            ports: ports(),
        },
        "external" => DnsTarget::ExternalName(words[2].into()),
        "headless" => {
            let endpoints = words
                .get(2)
                .into_iter()
                .flat_map(|word| word.split(','))
                .map(|word| {
                    let (hostname, ip) = word.split_once('=').expect("hostname=ip");
                    let hostname = (hostname != "-").then(|| hostname.to_owned());
                    DnsEndpoint {
                        ip: ip.parse().expect("an address"),
                        hostname,
                        ports: ports(),
                    }
                });
            DnsTarget::Headless {
                endpoints: endpoints.collect(),
            }
        }
        _ => panic!("unknown record {words:?}"),
    };
    DnsRecord {
        namespace: namespace.into(),
        name: name.into(),
        target,
    }
}

fn ask(zone: &Zone, words: &[&str]) -> String {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    let kind = RecordType::from_str(words[1]).expect("a record type");
    question.add_query(Query::query(
        Name::from_ascii(format!("{}.", words[2])).expect("a name"),
        kind,
    ));
    if words.contains(&"edns") {
        let mut edns = Edns::new();
        edns.set_max_payload(4096);
        question.set_edns(edns);
    }
    let action = answer(zone, &question.to_vec().expect("a question"), 0);
    match action {
        Action::Reply(reply) => {
            let bytes = encode_udp(&reply, payload_max(&question));
            assert_eq!(bytes[..2], question.metadata.id.to_be_bytes());
            show(&Message::from_vec(&bytes).expect("an answer"))
        }
        Action::Forward(_) => "forward\n".into(),
        Action::Chase {
            reply,
            target,
            kind,
        } => format!("{}then ask upstream: {kind} {target}\n", show(&reply)),
        Action::Ignore => "ignore\n".into(),
    }
}

fn show(message: &Message) -> String {
    let flags = message.metadata.flags();
    let truncated = if message.metadata.truncation {
        " truncated"
    } else {
        ""
    };
    let mut text = format!(
        "{:?} [{flags}]{truncated}\n",
        message.metadata.response_code
    );
    let sections = [
        ("answer", &message.answers),
        ("authority", &message.authorities),
        ("additional", &message.additionals),
    ];
    for (section, records) in sections {
        for record in records {
            text += &format!("{section}: {record}\n");
        }
    }
    text
}

#[test]
fn dns_answers_as_the_specification_says() {
    let mut zone = Zone::default();
    check("dns.txt", |input| {
        let lines: Vec<Vec<&str>> = input
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        if lines[0][0] == "zone" {
            let records: Vec<DnsRecord> = lines[1..].iter().map(|words| record(words)).collect();
            let own =
                ["10.244.0.0/16", "10.96.0.0/16"].map(|range| range.parse().expect("a network"));
            zone = Zone::build("cluster.local", own.to_vec(), &records);
            return "ok".into();
        }
        lines
            .iter()
            .map(|words| ask(&zone, words))
            .collect::<String>()
    });
}

#[test]
fn garbage_is_refused_or_ignored_and_never_answered_for_ever() {
    let zone = Zone::build("cluster.local", vec![], &[]);
    assert!(matches!(answer(&zone, b"", 0), Action::Ignore));
    assert!(matches!(
        answer(&zone, &[1, 2, 0x80, 0, 0], 0),
        Action::Ignore
    ));
    assert!(matches!(
        answer(&zone, &[1, 2, 1, 0, 9, 9, 9], 0),
        Action::Reply(_)
    ));
    let mut reply = Message::query();
    reply.metadata.message_type = hickory_proto::op::MessageType::Response;
    assert!(matches!(
        answer(&zone, &reply.to_vec().expect("a message"), 0),
        Action::Ignore
    ));
}
