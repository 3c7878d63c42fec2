//! What a packet pays for many services, and how long an endpoint's change takes to become a rule, on the real kernel.
//!
//! `cargo bench -p trireme-network --bench services` as root. Every sample of the first part is the first packet of a new
//! UDP flow and its answer; the numbers of services are measured in turn, so that the machine's mood meets them all.

#[path = "../tests/support/mod.rs"]
mod support;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use network::{Protocol, Service, ServicePort};
use support::{TestNode, Underlay, World, ask_udp, serve_udp, udp_client};

const COUNTS: [u32; 3] = [10, 1_000, 10_000];
const ROUNDS: usize = 3;
const FLOWS: usize = 300;
const CHANGES: u8 = 10;

fn main() {
    let mut world = World::new(Underlay::Bridged);
    let node = &mut world.nodes[0];
    node.open();
    let (server, client) = (node.attach("server"), node.attach("client"));
    serve_udp(&server.netns_path, 53, "server");
    node.run(|network| network.sync_host_ports(vec![]));

    let mut flows = [const { vec![] }; COUNTS.len()];
    let mut changes = [const { vec![] }; COUNTS.len()];
    for _ in 0..ROUNDS {
        for (n, count) in COUNTS.into_iter().enumerate() {
            sync(node, &services(count, server.ip, 0));
            let last = SocketAddrV4::new(cluster_ip(count - 1), 53);
            for _ in 0..FLOWS {
                let socket = udp_client(&client.netns_path);
                let start = Instant::now();
                ask_udp(&socket, last).expect("the service answers");
                flows[n].push(start.elapsed());
            }
            for changed in 1..=CHANGES {
                let services = services(count, server.ip, changed);
                changes[n].push(sync(node, &services));
            }
        }
    }
    for (n, count) in COUNTS.into_iter().enumerate() {
        let (p50, p99) = percentiles(&mut flows[n]);
        let ratio = p50.as_secs_f64() / percentiles(&mut flows[0]).0.as_secs_f64();
        println!(
            "{count:6} services: first packet p50 {p50:?}, p99 {p99:?}, {ratio:.2} times that of 10"
        );
    }
    for (n, count) in COUNTS.into_iter().enumerate() {
        let (p50, p99) = percentiles(&mut changes[n]);
        println!("{count:6} services: endpoint changed to rule in force p50 {p50:?}, p99 {p99:?}");
    }
}

fn cluster_ip(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 1, 0)) + n)
}

/// All lead to the server; the first has one endpoint more, which changes.
fn services(count: u32, server: Ipv4Addr, changed: u8) -> Vec<Service> {
    let service = |n| {
        let mut endpoints = vec![SocketAddrV4::new(server, 53)];
        if n == 0 {
            endpoints.push(SocketAddrV4::new([10, 244, 2, changed].into(), 53));
        }
        Service {
            key: format!("bench/{n}"),
            cluster_ip: cluster_ip(n),
            external_ips: vec![],
            ports: vec![ServicePort {
                protocol: Protocol::Udp,
                port: 53,
                node_port: None,
                endpoints,
                local_endpoints: vec![],
            }],
            affinity_s: None,
            internal_local: false,
            external_local: false,
        }
    };
    (0..count).map(service).collect()
}

fn sync(node: &TestNode, services: &[Service]) -> Duration {
    let start = Instant::now();
    node.run(|network| network.sync_services(services.to_vec()));
    start.elapsed()
}

fn percentiles(samples: &mut [Duration]) -> (Duration, Duration) {
    samples.sort();
    (
        samples[samples.len() / 2],
        samples[samples.len() * 99 / 100],
    )
}
