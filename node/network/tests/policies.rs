//! Network policies on the real kernel.

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use network::policy::{AddressRange, Allowed, Direction, Isolation, PortRange};
use network::{PodNet, Protocol, Service, ServicePort};
use support::{
    TestNode, Underlay, World, ask_udp, call, command, ip, serve_tcp, serve_udp, udp_client,
};

fn pod(node: &TestNode, name: &str) -> PodNet {
    let pod = node.attach(name);
    serve_tcp(&pod.netns_path, 80, name);
    serve_tcp(&pod.netns_path, 81, name);
    serve_udp(&pod.netns_path, 53, name);
    pod
}

fn isolation(direction: Direction, pods: &[&PodNet], allowed: Vec<Allowed>) -> Isolation {
    Isolation {
        name: "a1".into(),
        direction,
        pods: pods.iter().map(|pod| pod.ip).collect(),
        allowed,
    }
}

fn from(peers: &[&PodNet], ports: Option<Vec<PortRange>>) -> Allowed {
    Allowed {
        peers: peers.iter().map(|pod| pod.ip.into()).collect(),
        ports,
    }
}

fn sync(node: &TestNode, isolations: Vec<Isolation>) {
    node.run(|network| network.sync_policies(isolations));
}

/// Which of `clients` reach the server's port.
fn reach(clients: &[&PodNet], server: &PodNet, port: u16) -> Vec<bool> {
    std::thread::scope(|scope| {
        let calls: Vec<_> = clients
            .iter()
            .map(|client| {
                let to = SocketAddrV4::new(server.ip, port);
                scope.spawn(move || call(&client.netns_path, to).is_ok())
            })
            .collect();
        calls
            .into_iter()
            .map(|call| call.join().expect("a call does not panic"))
            .collect()
    })
}

/// `a` and `b` on the first node, `c` on the second.
fn pods(world: &World) -> [PodNet; 3] {
    let [first, second] = &world.nodes[..] else {
        panic!("two nodes")
    };
    [pod(first, "a"), pod(first, "b"), pod(second, "c")]
}

#[test]
fn only_named_peers_and_ports_come_in_beside_the_node_and_the_pod_itself() {
    for underlay in [Underlay::Bridged, Underlay::Routed] {
        let world = World::open(underlay, |_| ());
        let [a, b, c] = pods(&world);
        let all = [&a, &b, &c];
        let node = &world.nodes[0];
        assert_eq!(reach(&all, &a, 80), [true, true, true]);

        sync(node, vec![isolation(Direction::Ingress, &[&a], vec![])]);
        assert_eq!(reach(&all, &a, 80), [true, false, false], "default deny");
        let to = SocketAddrV4::new(a.ip, 80);
        assert!(call(&node.namespace, to).is_ok(), "probes come in");
        assert_eq!(reach(&[&a], &c, 80), [true], "answers come in");
        assert_eq!(reach(&[&c], &b, 80), [true], "b is not selected");

        let port_80 = vec![PortRange::one(Protocol::Tcp, 80)];
        let rules = vec![from(&[&c], Some(port_80))];
        sync(node, vec![isolation(Direction::Ingress, &[&a], rules)]);
        assert_eq!(reach(&all, &a, 80), [true, false, true]);
        assert_eq!(reach(&all, &a, 81), [true, false, false]);

        let range = PortRange {
            protocol: Protocol::Tcp,
            first: 75,
            last: 81,
        };
        let block = AddressRange::block(
            "10.244.0.0/16".parse().expect("a network"),
            &[format!("{}/32", b.ip).parse().expect("a network")],
        );
        let rules = vec![Allowed {
            peers: block,
            ports: Some(vec![range]),
        }];
        sync(node, vec![isolation(Direction::Ingress, &[&a], rules)]);
        assert_eq!(reach(&all, &a, 81), [true, false, true]);
        let socket = udp_client(&c.netns_path);
        let dns = SocketAddrV4::new(a.ip, 53);
        assert!(ask_udp(&socket, dns).is_err(), "UDP is not allowed");

        sync(node, vec![]);
        assert_eq!(reach(&all, &a, 80), [true, true, true]);
        assert!(ask_udp(&socket, dns).is_ok());
    }
}

#[test]
fn what_goes_out_is_judged_by_the_endpoint_behind_a_service() {
    let world = World::open(Underlay::Bridged, |_| ());
    let [a, b, c] = pods(&world);
    let node = &world.nodes[0];
    serve_tcp(&world.router, 8080, "outside");
    let web = SocketAddrV4::new([10, 96, 0, 5].into(), 8000);
    let service = Service {
        key: "shop/web".into(),
        cluster_ip: *web.ip(),
        external_ips: vec![],
        ports: vec![ServicePort {
            protocol: Protocol::Tcp,
            port: web.port(),
            node_port: None,
            endpoints: vec![SocketAddrV4::new(c.ip, 80)],
            local_endpoints: vec![],
        }],
        affinity_s: None,
        internal_local: false,
        external_local: false,
    };
    node.run(|network| network.sync_services(vec![service]));
    let outside = SocketAddrV4::new([192, 168, 0, 254].into(), 8080);
    let reached = || {
        [
            call(&a.netns_path, web).is_ok(),
            reach(&[&a], &b, 80)[0],
            call(&a.netns_path, outside).is_ok(),
        ]
    };
    assert_eq!(reached(), [true, true, true]);

    sync(node, vec![isolation(Direction::Egress, &[&a], vec![])]);
    assert_eq!(reached(), [false, false, false]);
    assert_eq!(reach(&[&a], &a, 80), [true], "itself");
    assert_eq!(reach(&[&b, &c], &a, 80), [true, true], "answers go out");
    serve_tcp(&node.namespace, 8081, "node");
    let own_node = SocketAddrV4::new(node.config.node_address, 8081);
    assert!(call(&a.netns_path, own_node).is_ok(), "its node");

    let rules = vec![from(&[&c], None)];
    sync(node, vec![isolation(Direction::Egress, &[&a], rules)]);
    assert_eq!(reached(), [true, false, false]);
}

/// A pod that knows its neighbour's hardware address could pass by the node's rules.
#[test]
fn no_frame_passes_from_pod_to_pod_around_the_rules() {
    let world = World::open(Underlay::Bridged, |_| ());
    let [a, b, _] = pods(&world);
    let link = ip(&b.netns_path, "-o link show dev eth0");
    let mac = link
        .split("link/ether ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .expect("a link has a hardware address");
    ip(&a.netns_path, &format!("route add {} dev eth0", b.ip));
    ip(
        &a.netns_path,
        &format!("neighbour add {} lladdr {mac} dev eth0", b.ip),
    );
    sync(
        &world.nodes[0],
        vec![isolation(Direction::Ingress, &[&b], vec![])],
    );
    assert_eq!(reach(&[&a], &b, 80), [false]);
}

#[test]
fn rules_outlive_the_agent_and_come_back_when_flushed() {
    let mut world = World::open(Underlay::Bridged, |_| ());
    let [a, b, _] = pods(&world);
    let denied = vec![isolation(Direction::Ingress, &[&a], vec![])];
    sync(&world.nodes[0], denied.clone());
    let node = &mut world.nodes[0];
    node.kill();
    node.open();
    assert_eq!(reach(&[&b], &a, 80), [false]);
    sync(node, denied);
    assert_eq!(reach(&[&b], &a, 80), [false]);
    command(&node.namespace, "nft", "delete table ip trireme-policy");
    assert_eq!(reach(&[&b], &a, 80), [true]);
    node.run(|network| network.repair());
    assert_eq!(reach(&[&b], &a, 80), [false]);
}

#[test]
fn the_kernel_takes_every_change_among_thousands_of_peers() {
    let mut world = World::new(Underlay::Bridged);
    let node = &mut world.nodes[0];
    node.open();
    // Every other address, so that no two become one range; the last one changes.
    let peers = |changed: u8| -> Vec<AddressRange> {
        let spread = (0..5000_u32).map(|n| std::net::Ipv4Addr::from(0x0af4_1000 + 2 * n));
        let last = [10, 245, 0, changed].into();
        spread.chain([last]).map(AddressRange::from).collect()
    };
    let isolations = |changed: u8| {
        [Direction::Ingress, Direction::Egress].map(|direction| Isolation {
            name: "many".into(),
            direction,
            pods: BTreeSet::from([[10, 244, 1, 5].into(), [10, 244, 1, changed].into()]),
            allowed: vec![
                Allowed {
                    peers: peers(changed),
                    ports: Some(vec![PortRange::one(Protocol::Tcp, 80)]),
                },
                Allowed {
                    peers: vec![AddressRange::ALL],
                    ports: Some(vec![PortRange::one(Protocol::Udp, u16::from(changed))]),
                },
            ],
        })
    };
    let time = |changed: u8| {
        let start = Instant::now();
        sync(node, isolations(changed).to_vec());
        start.elapsed()
    };
    let first = time(10);
    let changes: Vec<Duration> = (11..15).map(time).collect();
    println!("5,001 peers in both directions: first {first:?}, one changed {changes:?}");
    let rules = command(&node.namespace, "nft", "list table ip trireme-policy");
    assert!(rules.contains("10.245.0.14 . tcp . 80") && !rules.contains("10.245.0.13"));
    assert!(rules.contains("udp . 14") && rules.contains("10.244.1.14 : goto in/many"));
}
