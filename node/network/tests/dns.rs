//! Pods ask the node's DNS server on the real kernel.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use network::dns::{DnsRecord, DnsTarget};
use network::resolv::{DnsPolicy, ResolvConf, resolv_conf};
use network::{Config, DnsConfig};
use support::{PATIENCE, Underlay, World, inside, udp_client};

const CLUSTER_DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const UPSTREAM: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 0, 254), 53);
const DEAD: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 0, 254), 54);

fn with_dns(config: &mut Config) {
    config.dns = Some(DnsConfig {
        domain: "cluster.local".into(),
        port: 53,
        service_ip: Some(CLUSTER_DNS),
        upstreams: vec![DEAD.into(), UPSTREAM.into()],
    });
}

/// An upstream that knows one address for every name.
fn serve_upstream(world: &World) {
    let socket = inside(&world.router, || {
        UdpSocket::bind(UPSTREAM).expect("the port is free")
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((len, client)) = socket.recv_from(&mut buffer) {
            let mut message = Message::from_vec(&buffer[..len])
                .expect("a question")
                .into_response();
            let name = message.queries[0].name().clone();
            message.add_answer(Record::from_rdata(
                name,
                60,
                RData::A(A::new(192, 0, 2, 80)),
            ));
            socket
                .send_to(&message.to_vec().expect("an answer"), client)
                .expect("sent");
        }
    });
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    Udp,
    Tcp,
}

fn lookup(
    namespace: PathBuf,
    server: Ipv4Addr,
    name: &str,
    transport: Transport,
) -> (ResponseCode, Vec<String>) {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(
        Name::from_str(name).expect("a name"),
        RecordType::A,
    ));
    let bytes = question.to_vec().expect("a question");
    let server = SocketAddr::from((server, 53));
    let answer = match transport {
        Transport::Udp => {
            let socket = udp_client(&namespace);
            socket.send_to(&bytes, server).expect("sent");
            let mut buffer = [0; 1500];
            let (len, from) = socket.recv_from(&mut buffer).expect("the server answers");
            assert_eq!(from, server);
            buffer[..len].to_vec()
        }
        Transport::Tcp => inside(&namespace, || {
            let mut stream =
                TcpStream::connect_timeout(&server, PATIENCE).expect("the server listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let len = u16::try_from(bytes.len()).expect("short");
            stream
                .write_all(&[&len.to_be_bytes(), bytes.as_slice()].concat())
                .expect("sent");
            let mut len = [0; 2];
            stream.read_exact(&mut len).expect("the server answers");
            let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
            stream.read_exact(&mut answer).expect("the server answers");
            answer
        }),
    };
    let answer = Message::from_vec(&answer).expect("an answer");
    assert_eq!(answer.metadata.id, question.metadata.id);
    (
        answer.metadata.response_code,
        answer
            .answers
            .iter()
            .map(|record| record.data.to_string())
            .collect(),
    )
}

#[test]
fn a_pod_asks_its_node_by_udp_and_tcp_under_either_address() {
    let world = World::open(Underlay::Bridged, with_dns);
    serve_upstream(&world);
    let node = &world.nodes[0];
    let pod = node.attach("a");
    let ip = Ipv4Addr::new(10, 96, 0, 5);
    node.run(|network| async move {
        let target = DnsTarget::ClusterIp { ip, ports: vec![] };
        network.update_dns(&[DnsRecord {
            namespace: "shop".into(),
            name: "web".into(),
            target,
        }]);
        Ok(())
    });
    let ask = |namespace: &PathBuf, server, name: &'static str, transport| {
        let namespace = namespace.clone();
        node.serve_while(move || lookup(namespace, server, name, transport))
    };
    for transport in [Transport::Udp, Transport::Tcp] {
        for server in [pod.gateway, CLUSTER_DNS] {
            for client in [&pod.netns_path, &node.namespace] {
                let found = ask(client, server, "web.shop.svc.cluster.local.", transport);
                assert_eq!(
                    found,
                    (ResponseCode::NoError, vec!["10.96.0.5".into()]),
                    "{server} {transport:?}"
                );
            }
        }
        let missing = ask(
            &pod.netns_path,
            CLUSTER_DNS,
            "none.shop.svc.cluster.local.",
            transport,
        );
        assert_eq!(missing, (ResponseCode::NXDomain, vec![]));
    }
    let outside = ask(
        &pod.netns_path,
        CLUSTER_DNS,
        "www.example.org.",
        Transport::Udp,
    );
    assert_eq!(outside, (ResponseCode::NoError, vec!["192.0.2.80".into()]));
    // This upstream has no TCP, so nobody can be asked; but what it said is remembered.
    let remembered = ask(
        &pod.netns_path,
        CLUSTER_DNS,
        "WWW.example.org.",
        Transport::Tcp,
    );
    assert_eq!(remembered, outside);
    let nobody = ask(
        &pod.netns_path,
        CLUSTER_DNS,
        "other.example.org.",
        Transport::Tcp,
    );
    assert_eq!(nobody, (ResponseCode::ServFail, vec![]));
}

/// The C library inside a pod, with the `resolv.conf` that the pod would have.
#[test]
fn the_c_library_finds_services_by_their_short_names() {
    let world = World::open(Underlay::Bridged, with_dns);
    serve_upstream(&world);
    let node = &world.nodes[0];
    let pod = node.attach("a");
    let ip = Ipv4Addr::new(10, 96, 0, 5);
    node.run(|network| async move {
        let record = |name: &str, target| DnsRecord {
            namespace: "shop".into(),
            name: name.into(),
            target,
        };
        let alias = DnsTarget::ExternalName("www.example.org".into());
        network.update_dns(&[
            record("web", DnsTarget::ClusterIp { ip, ports: vec![] }),
            record("old", alias),
        ]);
        Ok(())
    });
    let none = ResolvConf::default();
    let text = resolv_conf(
        DnsPolicy::ClusterFirst,
        "shop",
        "cluster.local",
        CLUSTER_DNS.into(),
        &none,
        &none,
    );
    let file = world.dir.path().join("resolv.conf");
    std::fs::write(&file, text).expect("written");
    let script = format!(
        "mount --bind {} /etc/resolv.conf && getent -s dns ahostsv4 $0",
        file.display()
    );
    let find = |name: &'static str| {
        let (namespace, script) = (pod.netns_path.clone(), script.clone());
        node.serve_while(move || {
            inside(&namespace, || {
                let output = Command::new("unshare")
                    .args(["-m", "sh", "-c", &script, name])
                    .output();
                let output = output.expect("this test needs the commands unshare and getent");
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                text.split_whitespace()
                    .next()
                    .unwrap_or("nothing")
                    .to_owned()
            })
        })
    };
    for name in [
        "web",
        "web.shop",
        "web.shop.svc",
        "web.shop.svc.cluster.local",
    ] {
        assert_eq!(find(name), "10.96.0.5", "{name}");
    }
    assert_eq!(find("none.shop.svc.cluster.local."), "nothing");
    assert_eq!(find("old"), "192.0.2.80");
    assert_eq!(find("www.example.org"), "192.0.2.80");
}
