//! Services, node ports and host ports on the real kernel.

mod support;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use network::{HostPort, PodNet, Protocol, Service, ServicePort};
use support::{
    TestNode, Underlay, World, ask_udp, call, command, serve_tcp, serve_udp, udp_client,
};

const WEB: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 5);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 254);

fn service(endpoints: &[&PodNet]) -> Service {
    Service {
        key: "shop/web".into(),
        cluster_ip: WEB,
        external_ips: vec![],
        ports: vec![ServicePort {
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30080),
            endpoints: endpoints
                .iter()
                .map(|pod| SocketAddrV4::new(pod.ip, 8080))
                .collect(),
            local_endpoints: vec![],
        }],
        affinity_s: None,
        internal_local: false,
        external_local: false,
    }
}

fn sync(world: &World, services: &[Service]) {
    for node in &world.nodes {
        node.run(|network| network.sync_services(services.to_vec()));
    }
}

fn pod(node: &TestNode, name: &str) -> PodNet {
    let pod = node.attach(name);
    serve_tcp(&pod.netns_path, 8080, name);
    pod
}

/// The servers that answered `count` calls.
fn answers(namespace: &std::path::Path, to: SocketAddrV4, count: usize) -> BTreeSet<String> {
    (0..count)
        .map(|_| call(namespace, to).expect("the service answers").0)
        .collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_service_spreads_hairpins_follows_its_endpoints_and_refuses_without_any() {
    for underlay in [Underlay::Bridged, Underlay::Routed] {
        let world = World::open(underlay, |_| ());
        let (a, b, c) = (
            pod(&world.nodes[0], "a"),
            pod(&world.nodes[0], "b"),
            pod(&world.nodes[1], "c"),
        );
        let web = SocketAddrV4::new(WEB, 80);

        sync(&world, &[service(&[&a, &b, &c])]);
        for client in [&a, &b, &c] {
            assert_eq!(
                answers(&client.netns_path, web, 60),
                names(&["a", "b", "c"])
            );
        }
        for node in &world.nodes {
            assert_eq!(answers(&node.namespace, web, 60), names(&["a", "b", "c"]));
        }

        sync(&world, &[service(&[&a])]);
        for client in [&a, &b, &c] {
            assert_eq!(answers(&client.netns_path, web, 10), names(&["a"]));
        }
        let (_, seen) = call(&b.netns_path, web).expect("the service answers");
        assert_eq!(seen, b.ip.to_string(), "a neighbour keeps its address");

        sync(&world, &[service(&[])]);
        for client in [&a.netns_path, &c.netns_path, &world.nodes[0].namespace] {
            let start = Instant::now();
            let error = call(client, web).expect_err("nobody serves");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
            assert!(start.elapsed() < Duration::from_millis(500));
        }
    }
}

/// The API server's service has a node's address as its endpoint, and a new node has no pod yet.
#[test]
fn a_service_of_the_hosts_own_network_is_reached_from_everywhere() {
    for underlay in [Underlay::Bridged, Underlay::Routed] {
        let world = World::open(underlay, |_| ());
        let master = &world.nodes[0];
        serve_tcp(&master.namespace, 6443, "api");
        let mut api = service(&[]);
        api.ports[0].endpoints = vec![SocketAddrV4::new(master.config.node_address, 6443)];
        sync(&world, &[api]);
        let to = SocketAddrV4::new(WEB, 80);
        for node in &world.nodes {
            assert_eq!(
                call(&node.namespace, to).expect("the node reaches it").0,
                "api"
            );
            let pod = node.attach("client");
            assert_eq!(
                call(&pod.netns_path, to).expect("the pod reaches it").0,
                "api"
            );
        }
    }
}

/// Other software switches bridge netfilter on when it starts.
#[test]
fn services_work_again_once_bridge_netfilter_is_off_again() {
    let world = World::open(Underlay::Bridged, |_| ());
    let (a, b) = (pod(&world.nodes[0], "a"), pod(&world.nodes[0], "b"));
    sync(&world, &[service(&[&a, &b])]);
    let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    support::inside(&world.nodes[0].namespace, || {
        std::fs::write(switch, "1").expect("the kernel has br_netfilter")
    });
    world.nodes[0].run(|network| async move { network.keep_switches() });
    for client in [&a, &b] {
        assert_eq!(
            answers(&client.netns_path, SocketAddrV4::new(WEB, 80), 60),
            names(&["a", "b"])
        );
    }
}

#[test]
fn node_ports_answer_on_every_node_and_keep_the_client_if_local() {
    let world = World::open(Underlay::Bridged, |_| ());
    let a = pod(&world.nodes[0], "a");
    sync(&world, &[service(&[&a])]);
    for node in &world.nodes {
        let at = SocketAddrV4::new(node.config.node_address, 30080);
        assert_eq!(
            call(&world.router, at).expect("the node port answers").0,
            "a"
        );
        assert_eq!(
            call(&node.namespace, at)
                .expect("the node reaches itself")
                .0,
            "a"
        );
        assert_eq!(
            call(&a.netns_path, at).expect("the pod reaches itself").0,
            "a"
        );
    }

    let mut local = service(&[&a]);
    local.external_local = true;
    sync(&world, &[local.clone()]);
    local.ports[0].local_endpoints = vec![SocketAddrV4::new(a.ip, 8080)];
    world.nodes[0].run(|network| network.sync_services(vec![local]));
    let at = |n: usize| SocketAddrV4::new(world.nodes[n].config.node_address, 30080);
    assert_eq!(
        call(&world.router, at(0)).expect("a is here"),
        ("a".into(), ROUTER.to_string())
    );
    let error = call(&world.router, at(1)).expect_err("no endpoint is here");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);

    sync(&world, &[]);
    let error = call(&world.router, at(0)).expect_err("the service is gone");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_client_with_affinity_stays_where_it_is() {
    let world = World::open(Underlay::Bridged, |_| ());
    let (a, b, c) = (
        pod(&world.nodes[0], "a"),
        pod(&world.nodes[0], "b"),
        pod(&world.nodes[1], "c"),
    );
    let mut sticky = service(&[&a, &b, &c]);
    sticky.affinity_s = Some(600);
    sync(&world, &[sticky.clone()]);
    let web = SocketAddrV4::new(WEB, 80);
    let chosen = answers(&b.netns_path, web, 20);
    assert_eq!(chosen.len(), 1);

    // Another service's change must not make the client forget.
    let mut other = service(&[&a]);
    (other.cluster_ip, other.ports[0].node_port) = (Ipv4Addr::new(10, 96, 0, 6), None);
    sync(&world, &[sticky, other.clone()]);
    assert_eq!(answers(&b.netns_path, web, 20), chosen);
    sync(&world, &[other]);
    let rules = command(&world.nodes[0].namespace, "nft", "list table ip trireme");
    assert!(!rules.contains("aff/") && !rules.contains("ep/"), "{rules}");
}

#[test]
fn external_addresses_and_host_ports_lead_to_pods() {
    let world = World::open(Underlay::Bridged, |_| ());
    let (a, b) = (pod(&world.nodes[0], "a"), pod(&world.nodes[0], "b"));
    let mut web = service(&[&a]);
    web.external_ips = vec![Ipv4Addr::new(203, 0, 113, 9)];
    sync(&world, &[web]);
    let node = &world.nodes[0];
    let external = SocketAddrV4::new([203, 0, 113, 9].into(), 80);
    support::ip(&world.router, "route add 203.0.113.9 via 192.168.0.1");
    assert_eq!(
        call(&world.router, external)
            .expect("the external address answers")
            .0,
        "a"
    );

    let host_port = |port, host_ip: Option<Ipv4Addr>, pod: &PodNet| HostPort {
        host_ip,
        protocol: Protocol::Tcp,
        host_port: port,
        target: SocketAddrV4::new(pod.ip, 8080),
    };
    let wanted = vec![
        host_port(8081, None, &a),
        host_port(8082, Some(node.config.node_address), &b),
        host_port(8083, Some(Ipv4Addr::new(192, 0, 2, 1)), &b),
    ];
    node.run(|network| network.sync_host_ports(wanted));
    let at = |port| SocketAddrV4::new(node.config.node_address, port);
    assert_eq!(
        call(&world.router, at(8081)).expect("answers"),
        ("a".into(), ROUTER.to_string())
    );
    assert_eq!(call(&world.router, at(8082)).expect("answers").0, "b");
    assert_eq!(
        call(&a.netns_path, at(8081))
            .expect("the pod reaches itself")
            .0,
        "a"
    );
    assert_eq!(
        call(&node.namespace, at(8081))
            .expect("the node reaches it")
            .0,
        "a"
    );
    assert!(call(&world.router, at(8083)).is_err());
    node.run(|network| network.sync_host_ports(vec![]));
    assert!(call(&world.router, at(8081)).is_err());
}

#[test]
fn a_udp_client_is_moved_from_a_removed_endpoint() {
    let world = World::open(Underlay::Bridged, |_| ());
    let node = &world.nodes[0];
    let (a, b, client) = (node.attach("a"), node.attach("b"), node.attach("client"));
    serve_udp(&a.netns_path, 8080, "a");
    serve_udp(&b.netns_path, 8080, "b");
    let udp = |pod: &PodNet| {
        let mut udp = service(&[pod]);
        udp.ports[0].protocol = Protocol::Udp;
        udp
    };
    let socket = udp_client(&client.netns_path);
    let to = SocketAddrV4::new(WEB, 80);
    sync(&world, &[udp(&a)]);
    assert_eq!(
        ask_udp(&socket, to).expect("a answers"),
        format!("a {}", client.ip)
    );
    sync(&world, &[udp(&b)]);
    assert_eq!(
        ask_udp(&socket, to).expect("b answers"),
        format!("b {}", client.ip)
    );
}

#[test]
fn rules_outlive_the_agent_until_it_knows_better_and_come_back_when_flushed() {
    let mut world = World::open(Underlay::Bridged, |_| ());
    let a = pod(&world.nodes[0], "a");
    let web = SocketAddrV4::new(WEB, 80);
    sync(&world, &[service(&[&a])]);
    let node = &mut world.nodes[0];
    node.kill();
    node.open();
    assert!(
        call(&a.netns_path, web).is_ok(),
        "the old rules are in force"
    );
    node.run(|network| network.sync_services(vec![]));
    assert!(
        call(&a.netns_path, web).is_ok(),
        "host ports are not known yet"
    );
    node.run(|network| network.sync_host_ports(vec![]));
    assert!(call(&a.netns_path, web).is_err(), "now everything is known");

    let services = vec![service(&[&a])];
    node.run(|network| network.sync_services(services));
    command(&node.namespace, "nft", "flush ruleset");
    assert!(call(&a.netns_path, web).is_err());
    node.run(|network| network.repair());
    assert!(call(&a.netns_path, web).is_ok());
}

#[test]
fn a_change_among_a_thousand_services_is_quick_and_the_table_as_if_made_at_once() {
    let mut world = World::new(Underlay::Bridged);
    let node = &mut world.nodes[0];
    node.open();
    let many = |changed: u8| -> Vec<Service> {
        (0..1000_u32)
            .map(|n| {
                let mut service = service(&[]);
                service.cluster_ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 1, 0)) + n);
                let port = &mut service.ports[0];
                port.node_port = (n % 10 == 0).then_some(30000 + u16::try_from(n).expect("small"));
                let endpoint = |m| SocketAddrV4::new([10, 244, 2, m].into(), 8080);
                port.endpoints = (10..13).map(endpoint).collect();
                if n == 500 {
                    port.endpoints.push(endpoint(changed));
                }
                service
            })
            .collect()
    };
    let time = |services: Vec<Service>| {
        let start = Instant::now();
        node.run(|network| network.sync_services(services));
        start.elapsed()
    };
    let first = time(many(100));
    let nothing = time(many(100));
    let changes: Vec<Duration> = (101..106).map(|n| time(many(n))).collect();
    println!("1,000 services: first {first:?}, no change {nothing:?}, one changed {changes:?}");
    assert!(
        changes
            .iter()
            .all(|change| *change < Duration::from_secs(2)),
        "{changes:?}"
    );

    let grown = command(&node.namespace, "nft", "-s list table ip trireme");
    node.kill();
    node.open();
    node.run(|network| network.sync_host_ports(vec![]));
    node.run(|network| network.sync_services(many(105)));
    assert_eq!(
        lines(&command(&node.namespace, "nft", "-s list table ip trireme")),
        lines(&grown)
    );
}

/// nft lists a set's elements in the order of their hashes.
fn lines(table: &str) -> BTreeSet<String> {
    table
        .split(['\n', ','])
        .map(|line| {
            line.replace("elements = {", "")
                .replace('}', "")
                .trim()
                .to_owned()
        })
        .collect()
}
