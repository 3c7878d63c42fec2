//! Nodes as network namespaces on one machine, joined through a router namespace, and small servers and clients inside.
//! Needs root and the commands `ip` and `nft`; fails with what is missing.

#![allow(dead_code, reason = "each test file uses a part")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use network::{Config, Network, Node, PodNet, PodUid, netns};
use nix::sched::{CloneFlags, setns};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long a client in a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Two nodes and what lies between them.
pub struct World {
    pub dir: TempDir,
    pub router: PathBuf,
    pub nodes: Vec<TestNode>,
}

/// A node: a namespace, a runtime for what runs there, and its network once opened.
pub struct TestNode {
    pub namespace: PathBuf,
    pub runtime: Runtime,
    pub config: Config,
    network: Option<Network>,
}

/// How the nodes are joined.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Underlay {
    /// One subnet: node `n` is 192.168.0.`n`, the router .254.
    Bridged,
    /// A subnet a node: node `n` is 192.168.`n`.`n`, the router .254 in each.
    Routed,
}

impl World {
    /// Two nodes, not opened yet.
    pub fn new(underlay: Underlay) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces: run it as root"
        );
        let dir = tempfile::tempdir().expect("a temporary directory");
        let router = dir.path().join("router");
        make_namespace(&router);
        ip(&router, "link set lo up");
        if underlay == Underlay::Bridged {
            ip(&router, "link add br0 type bridge");
            ip(&router, "link set br0 up");
            ip(&router, "address add 192.168.0.254/24 dev br0");
        }
        inside(&router, || {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("as root")
        });
        let nodes = (1..=2).map(|n| join(&dir, &router, n, underlay)).collect();
        Self { dir, router, nodes }
    }

    /// Opens all nodes and tells each about the others.
    pub fn open(underlay: Underlay, adjust: impl Fn(&mut Config)) -> Self {
        let mut world = Self::new(underlay);
        for node in &mut world.nodes {
            adjust(&mut node.config);
            node.open();
        }
        let all: Vec<Node> = world.nodes.iter().map(TestNode::as_peer).collect();
        for (n, node) in world.nodes.iter().enumerate() {
            let peers: Vec<Node> = all
                .iter()
                .enumerate()
                .filter(|(m, _)| *m != n)
                .map(|(_, peer)| peer.clone())
                .collect();
            node.run(|network| async move { network.sync_peers(&peers).await.map(drop) });
        }
        world
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(network) = node.network.take() {
                node.enter();
                if let Err(error) = node.runtime.block_on(network.teardown()) {
                    eprintln!("teardown: {error}");
                }
            }
        }
        for namespace in self
            .nodes
            .iter()
            .map(|node| &node.namespace)
            .chain([&self.router])
        {
            netns::remove(namespace).expect("the namespace can be removed");
        }
    }
}

fn join(dir: &TempDir, router: &Path, n: u8, underlay: Underlay) -> TestNode {
    let namespace = dir.path().join(format!("node-{n}"));
    make_namespace(&namespace);
    let path = namespace.display();
    ip(
        router,
        &format!("link add to-{n} mtu 1500 type veth peer name eth0 mtu 1500 netns {path}"),
    );
    ip(router, &format!("link set to-{n} up"));
    let (address, gateway) = match underlay {
        Underlay::Bridged => {
            ip(router, &format!("link set to-{n} master br0"));
            (Ipv4Addr::new(192, 168, 0, n), "192.168.0.254".to_owned())
        }
        Underlay::Routed => {
            ip(
                router,
                &format!("address add 192.168.{n}.254/24 dev to-{n}"),
            );
            (Ipv4Addr::new(192, 168, n, n), format!("192.168.{n}.254"))
        }
    };
    ip(&namespace, "link set lo up");
    ip(&namespace, "link set eth0 up");
    ip(&namespace, &format!("address add {address}/24 dev eth0"));
    ip(&namespace, &format!("route add default via {gateway}"));
    let cidr = format!("10.244.{n}.0/24").parse().expect("a network");
    let mut config = Config::new(format!("node-{n}"), address, cidr);
    config.state_dir = dir.path().join(format!("state-{n}"));
    config.netns_dir = dir.path().join(format!("netns-{n}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    TestNode {
        namespace,
        runtime,
        config,
        network: None,
    }
}

impl TestNode {
    /// Puts this thread into the node's namespace.
    pub fn enter(&self) {
        let namespace = File::open(&self.namespace).expect("the node's namespace");
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("as root");
    }

    /// Opens the network, as a starting agent does.
    pub fn open(&mut self) {
        self.enter();
        self.network = Some(
            self.runtime
                .block_on(Network::open(self.config.clone()))
                .expect("the network opens"),
        );
    }

    /// Forgets the network without a word, as a killed agent does.
    pub fn kill(&mut self) {
        self.enter();
        drop(self.network.take());
    }

    /// Removes all that the network made.
    pub fn teardown(&mut self) {
        self.enter();
        let network = self.network.take().expect("the network is open");
        self.runtime
            .block_on(network.teardown())
            .expect("the network can be removed");
    }

    /// Runs something with the network, in the node's namespace.
    pub fn run<'a, T, F: Future<Output = Result<T, network::Error>>>(
        &'a self,
        work: impl FnOnce(&'a Network) -> F,
    ) -> T {
        self.enter();
        let network = self.network.as_ref().expect("the network is open");
        self.runtime
            .block_on(work(network))
            .expect("the network does it")
    }

    /// Attaches a pod.
    pub fn attach(&self, name: &str) -> PodNet {
        let uid = uid(name);
        self.run(|network| async move { network.attach_pod(&uid).await })
    }

    /// Waits for something on another thread while the node's tasks (its DNS server) go on.
    pub fn serve_while<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.enter();
        self.runtime.block_on(async {
            tokio::task::spawn_blocking(work)
                .await
                .expect("the work does not panic")
        })
    }

    fn as_peer(&self) -> Node {
        let Config {
            node_name,
            node_address,
            pod_cidr,
            ..
        } = &self.config;
        Node {
            name: node_name.clone(),
            address: *node_address,
            pod_cidr: *pod_cidr,
        }
    }
}

pub fn uid(name: &str) -> PodUid {
    PodUid::parse(name).expect("a test's UID")
}

fn make_namespace(path: &Path) {
    netns::create(path, || Ok::<(), ()>(()))
        .expect("a namespace can be made")
        .expect("nothing to prepare");
}

pub fn inside<T: Send>(namespace: &Path, work: impl FnOnce() -> T + Send) -> T {
    netns::inside(namespace, work).expect("the namespace can be entered")
}

/// Runs a command in a namespace and returns what it printed.
pub fn command(namespace: &Path, program: &str, arguments: &str) -> String {
    let output = inside(namespace, || {
        Command::new(program)
            .args(arguments.split_whitespace())
            .output()
            .unwrap_or_else(|error| {
                panic!("this test needs the command {program}: {error}");
            })
    });
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn ip(namespace: &Path, arguments: &str) -> String {
    command(namespace, "ip", arguments)
}

/// A TCP server that tells every client the server's name and the client's address. It ends with the test process.
pub fn serve_tcp(namespace: &Path, port: u16, name: &str) {
    let listener = inside(namespace, || {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("the port is free")
    });
    let name = name.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let Ok(peer) = stream.peer_addr() else {
                continue;
            };
            drop(write!(stream, "{name} {}", peer.ip()));
        }
    });
}

/// As [`serve_tcp`], by UDP.
pub fn serve_udp(namespace: &Path, port: u16, name: &str) {
    let socket = inside(namespace, || {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("the port is free")
    });
    let name = name.to_owned();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer));
        }
    });
}

/// What the server at `to` says to a client in `namespace`: its name and the client's address as it sees it.
pub fn call(namespace: &Path, to: SocketAddrV4) -> std::io::Result<(String, String)> {
    inside(namespace, || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(to), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (name, peer) = text
            .split_once(' ')
            .ok_or_else(|| std::io::Error::other("no greeting"))?;
        Ok((name.to_owned(), peer.to_owned()))
    })
}

/// A UDP client that keeps its port.
pub fn udp_client(namespace: &Path) -> UdpSocket {
    let socket = inside(namespace, || {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port is free")
    });
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout can be set");
    socket
}

/// One question and answer by UDP.
pub fn ask_udp(socket: &UdpSocket, to: SocketAddrV4) -> std::io::Result<String> {
    socket.send_to(b"who", to)?;
    let mut buffer = [0; 512];
    let (len, _) = socket.recv_from(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

/// How many bytes of `len` arrive from a server inside `from` at a client inside `to`.
pub fn transfer(from: &Path, at: SocketAddrV4, to: &Path, len: usize) -> usize {
    let listener = inside(from, || TcpListener::bind(at).expect("the port is free"));
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client comes");
        drop(stream.write_all(&vec![7; len]));
    });
    inside(to, || {
        let mut stream =
            TcpStream::connect_timeout(&SocketAddr::V4(at), PATIENCE).expect("the server answers");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        let mut bytes = vec![];
        stream.read_to_end(&mut bytes).unwrap_or(bytes.len())
    })
}
