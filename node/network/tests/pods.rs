//! Pods on two nodes reach each other, the outside and nothing else, on the real kernel.

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddrV4;

use network::{OverlayMode, PodNet};
use support::{Underlay, World, call, ip, serve_tcp, uid};

/// Every pod calls every pod, itself too, and each server sees the caller's own address.
fn everyone_reaches_everyone(world: &World) {
    let mut pods: Vec<(String, PodNet)> = vec![];
    for (n, node) in world.nodes.iter().enumerate() {
        for name in ["a", "b"] {
            let name = format!("{name}-{n}");
            let pod = node.attach(&name);
            serve_tcp(&pod.netns_path, 80, &name);
            pods.push((name, pod));
        }
    }
    for (client, from) in &pods {
        for (server, to) in &pods {
            let (name, peer) = call(&from.netns_path, SocketAddrV4::new(to.ip, 80))
                .unwrap_or_else(|error| panic!("{client} to {server}: {error}"));
            assert_eq!(
                (&name, &peer),
                (server, &from.ip.to_string()),
                "{client} to {server}"
            );
        }
    }
}

/// Full-sized packets arrive too.
fn much_arrives(world: &World) {
    const LEN: usize = 8 << 20;
    let (a, b) = (world.nodes[0].attach("a-0"), world.nodes[1].attach("a-1"));
    let start = std::time::Instant::now();
    assert_eq!(
        support::transfer(
            &a.netns_path,
            SocketAddrV4::new(a.ip, 81),
            &b.netns_path,
            LEN
        ),
        LEN
    );
    println!("{} MiB in {:?}, MTU {}", LEN >> 20, start.elapsed(), a.mtu);
}

/// A node's own processes reach every pod, also those of the other node.
fn nodes_reach_pods(world: &World) {
    for (n, node) in world.nodes.iter().enumerate() {
        let pod = node.attach(&format!("a-{n}"));
        for from in &world.nodes {
            let answer = call(&from.namespace, SocketAddrV4::new(pod.ip, 80))
                .expect("the node reaches the pod");
            assert_eq!(answer.0, format!("a-{n}"));
        }
    }
}

#[test]
fn by_plain_routes_on_one_subnet() {
    let world = World::open(Underlay::Bridged, |_| ());
    everyone_reaches_everyone(&world);
    nodes_reach_pods(&world);
    much_arrives(&world);
    assert!(
        ip(&world.nodes[0].namespace, "route").contains("10.244.2.0/24 via 192.168.0.2 dev eth0")
    );
    assert!(!ip(&world.nodes[0].namespace, "link").contains("trireme-vx"));
}

#[test]
fn by_vxlan_across_subnets() {
    let world = World::open(Underlay::Routed, |_| ());
    everyone_reaches_everyone(&world);
    nodes_reach_pods(&world);
    much_arrives(&world);
    assert!(
        ip(&world.nodes[0].namespace, "route")
            .contains("10.244.2.0/24 via 10.244.2.1 dev trireme-vx")
    );
}

#[test]
fn by_vxlan_where_it_is_asked_for_and_back() {
    let world = World::open(Underlay::Bridged, |config| {
        config.overlay = OverlayMode::Vxlan
    });
    everyone_reaches_everyone(&world);
    let node = &world.nodes[0];
    let none = node.run(|network| async move { network.sync_peers(&[]).await });
    assert!(none > 0);
    assert!(!ip(&node.namespace, "link").contains("trireme-vx"));
    assert!(!ip(&node.namespace, "route").contains("10.244.2.0"));
}

#[test]
fn a_second_sync_of_the_same_peers_changes_nothing() {
    for underlay in [Underlay::Bridged, Underlay::Routed] {
        let world = World::open(underlay, |_| ());
        let me = &world.nodes[0];
        let other = &world.nodes[1].config;
        let peer = network::Node {
            name: other.node_name.clone(),
            address: other.node_address,
            pod_cidr: other.pod_cidr,
        };
        assert_eq!(
            me.run(|network| async move { network.sync_peers(&[peer]).await }),
            0
        );
    }
}

#[test]
fn pods_leave_the_cluster_with_the_nodes_address() {
    let world = World::open(Underlay::Bridged, |_| ());
    serve_tcp(&world.router, 8080, "outside");
    let pod = world.nodes[0].attach("a");
    let to = SocketAddrV4::new([192, 168, 0, 254].into(), 8080);
    assert_eq!(
        call(&pod.netns_path, to).expect("the outside answers"),
        ("outside".into(), "192.168.0.1".into())
    );
}

#[test]
fn many_pods_come_and_go_side_by_side() {
    let mut world = World::new(Underlay::Bridged);
    let node = &mut world.nodes[0];
    node.open();
    let uids: Vec<_> = (0..30).map(|n| uid(&format!("pod-{n}"))).collect();
    let start = std::time::Instant::now();
    let pods = node.run(|network| {
        futures::future::try_join_all(uids.iter().map(|uid| network.attach_pod(uid)))
    });
    println!("30 pods attached in {:?}", start.elapsed());
    let addresses: BTreeSet<_> = pods.iter().map(|pod| pod.ip).collect();
    assert_eq!(addresses.len(), 30);
    let start = std::time::Instant::now();
    node.run(|network| {
        futures::future::try_join_all(uids.iter().map(|uid| network.detach_pod(uid)))
    });
    println!("30 pods detached in {:?}", start.elapsed());
    let links = ip(&node.namespace, "-br link");
    assert_eq!(
        links
            .lines()
            .filter(|link| link.starts_with("tri") && !link.starts_with("trireme0"))
            .count(),
        0,
        "{links}"
    );
}

#[test]
fn a_killed_agent_finds_its_pods_again_and_teardown_leaves_nothing() {
    let mut world = World::new(Underlay::Bridged);
    let before = (
        ip(&world.nodes[0].namespace, "-br link"),
        ip(&world.nodes[0].namespace, "route"),
    );
    let node = &mut world.nodes[0];
    node.open();
    let (first, second) = (node.attach("a"), node.attach("b"));
    assert_eq!(node.attach("a"), first);
    node.kill();
    node.open();
    assert_eq!(node.attach("a"), first);
    serve_tcp(&first.netns_path, 80, "a");
    let to_first = SocketAddrV4::new(first.ip, 80);
    assert_eq!(
        call(&second.netns_path, to_first).expect("still joined").0,
        "a"
    );

    let live = BTreeSet::from([uid("b")]);
    assert_eq!(
        node.run(|network| async move { network.retain_pods(&live).await }),
        [uid("a")]
    );
    assert!(!first.netns_path.exists());
    node.run(|network| async move { network.detach_pod(&uid("b")).await });
    node.run(|network| async move { network.detach_pod(&uid("b")).await });
    assert_ne!(node.attach("c").ip, first.ip);

    node.teardown();
    let after = (
        ip(&node.namespace, "-br link"),
        ip(&node.namespace, "route"),
    );
    assert_eq!(after, before);
    assert_eq!(support::command(&node.namespace, "nft", "list ruleset"), "");
    let left: Vec<_> = std::fs::read_dir(&node.config.netns_dir)
        .expect("the directory stays")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
