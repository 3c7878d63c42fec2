//! One bridge in the root namespace, one network namespace a machine, joined by veth pairs; cut and healed with nftables.
//! Its names carry the harness' process id, so that several clusters run side by side, and what a killed harness left behind
//! can be told from what is in use. It only ever removes such names.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const TABLE: &str = "chaos";
/// Networks of clusters are 10.91.X.0/24.
const NETWORK: [u8; 2] = [10, 91];

static CLUSTERS: AtomicU32 = AtomicU32::new(0);

/// The network of one cluster.
pub struct Network {
    id: String,
    third: u8,
    machines: BTreeMap<String, Ipv4Addr>,
}

impl Network {
    /// A bridge with a free subnet.
    pub fn create() -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "network namespaces need root; run this as root"
        );
        sweep();
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}x{number}", std::process::id());
        let network = Network {
            id,
            third: free_network(number)?,
            machines: BTreeMap::new(),
        };
        let bridge = network.bridge();
        run("ip", &["link", "add", &bridge, "type", "bridge"])?;
        let address = format!("{}/24", network.host());
        run("ip", &["address", "add", &address, "dev", &bridge])?;
        run("ip", &["link", "set", &bridge, "up"])?;
        Ok(network)
    }

    /// A machine: a namespace with the address .`last`, a default route over the bridge and a loopback.
    pub fn add(&mut self, name: &str, last: u8) -> Result<Ipv4Addr> {
        ensure!(
            name.len() <= 4,
            "machine names have at most 4 letters here: {name}"
        );
        let address = self.address(last);
        let namespace = self.namespace(name);
        let outside = format!("cv{}{name}", self.id);
        run("ip", &["netns", "add", &namespace])?;
        self.machines.insert(name.to_owned(), address);
        let veth = [
            "link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &namespace,
        ];
        run("ip", &veth)?;
        run(
            "ip",
            &["link", "set", &outside, "master", &self.bridge(), "up"],
        )?;
        let with_mask = format!("{address}/24");
        let inside = |args: &[&str]| run("ip", &[&["-n", namespace.as_str()], args].concat());
        inside(&["address", "add", &with_mask, "dev", "eth0"])?;
        inside(&["link", "set", "lo", "up"])?;
        inside(&["link", "set", "eth0", "up"])?;
        inside(&["route", "add", "default", "via", &self.host().to_string()])?;
        Ok(address)
    }

    /// The harness' own address.
    pub fn host(&self) -> Ipv4Addr {
        self.address(254)
    }

    /// The namespace of a machine.
    pub fn namespace(&self, name: &str) -> String {
        format!("chaos-{}-{name}", self.id.replace('x', "-"))
    }

    /// Drops all packets between the two sides, in both directions, until [`Network::heal`].
    pub fn cut(&self, side: &[&str], others: &[&str]) -> Result<()> {
        let peers: Vec<String> = others
            .iter()
            .filter_map(|other| self.machines.get(*other))
            .map(Ipv4Addr::to_string)
            .collect();
        let peers = peers.join(", ");
        let rules = format!(
            "table inet {TABLE} {{\n\
             chain in {{ type filter hook input priority 0; policy accept;\n ip saddr {{ {peers} }} drop\n }}\n\
             chain out {{ type filter hook output priority 0; policy accept;\n ip daddr {{ {peers} }} drop\n }}\n\
             chain through {{ type filter hook forward priority 0; policy accept;\n ip saddr {{ {peers} }} drop\n ip daddr {{ {peers} }} drop\n }}\n\
             }}\n"
        );
        for name in side {
            self.inside(name, &["nft", "-f", "-"], Some(&rules))?;
        }
        Ok(())
    }

    /// Removes all that [`Network::cut`] made.
    pub fn heal(&self) -> Result<()> {
        for name in self.machines.keys() {
            let tables = self.inside(name, &["nft", "list", "tables"], None)?;
            if tables.contains(&format!("inet {TABLE}")) {
                self.inside(name, &["nft", "delete", "table", "inet", TABLE], None)?;
            }
        }
        Ok(())
    }

    fn inside(&self, name: &str, command: &[&str], input: Option<&str>) -> Result<String> {
        let net = format!("--net=/run/netns/{}", self.namespace(name));
        run_with_input("nsenter", &[&[net.as_str()], command].concat(), input)
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(NETWORK[0], NETWORK[1], self.third, last)
    }

    fn bridge(&self) -> String {
        format!("cb{}", self.id)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.machines.keys() {
            let namespace = self.namespace(name);
            if let Err(error) = run("ip", &["netns", "delete", &namespace]) {
                eprintln!("warning: the network namespace {namespace} stays: {error:#}");
            }
        }
        if let Err(error) = run("ip", &["link", "delete", &self.bridge()]) {
            eprintln!("warning: the bridge {} stays: {error:#}", self.bridge());
        }
    }
}

/// The third byte of a network 10.91.X.0/24 that nobody on this machine uses.
pub fn free_network(number: u32) -> Result<u8> {
    let used = run("ip", &["-4", "-o", "address"])? + &run("ip", &["-4", "route"])?;
    let first = (std::process::id().wrapping_add(number) % 256) as u8;
    (0..=255_u8)
        .map(|step| first.wrapping_add(step))
        .find(|third| !used.contains(&format!("{}.{}.{third}.", NETWORK[0], NETWORK[1])))
        .context("all networks 10.91.X.0/24 are in use on this machine; end other runs first")
}

/// Whether the process that put its id into a name is no more.
pub fn is_gone(pid: &str) -> bool {
    !pid.is_empty()
        && pid.bytes().all(|byte| byte.is_ascii_digit())
        && !Path::new("/proc").join(pid).exists()
}

/// Removes namespaces and bridges of harnesses that are no more. What cannot be removed is left to the next run.
pub fn sweep() {
    for namespace in names_in("/run/netns") {
        let pid = namespace
            .strip_prefix("chaos-")
            .and_then(|rest| rest.split('-').next());
        if pid.is_some_and(is_gone) {
            let _ = run("ip", &["netns", "delete", &namespace]);
        }
    }
    for link in names_in("/sys/class/net") {
        let pid = link
            .strip_prefix("cb")
            .and_then(|rest| rest.split_once('x'))
            .map(|(pid, _)| pid);
        if pid.is_some_and(is_gone) {
            let _ = run("ip", &["link", "delete", &link]);
        }
    }
}

fn names_in(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn run(program: &str, args: &[&str]) -> Result<String> {
    run_with_input(program, args, None)
}

/// Runs a command to its end; its output, or what it complained about.
pub fn run_with_input(program: &str, args: &[&str], input: Option<&str>) -> Result<String> {
    use std::io::Write;
    let shown = || format!("{program} {}", args.join(" "));
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}; is {program} installed?", shown()))?;
    let mut stdin = child.stdin.take().context("a piped child has a stdin")?;
    stdin
        .write_all(input.unwrap_or_default().as_bytes())
        .with_context(shown)?;
    drop(stdin);
    let output = child.wait_with_output().with_context(shown)?;
    if !output.status.success() {
        bail!(
            "{}: {}",
            shown(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
