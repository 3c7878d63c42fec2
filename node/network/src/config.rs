//! What a node's network needs to be told, and the ids that its callers use.
//! Never reads files or the environment: the agent fills these in.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::Ipv4Net;

/// The longest name that the kernel takes for a link.
const LINK_NAME_LEN_MAX: usize = 15;

/// Everything that [`crate::Network::open`] needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name; only for logs.
    pub node_name: String,
    /// The address by which the other nodes reach this one. The uplink is the link that carries it.
    pub node_address: Ipv4Addr,
    /// The addresses of this node's pods; the first usable one is the gateway.
    pub pod_cidr: Ipv4Net,
    /// The addresses of all pods. Traffic from a pod to any other address is masqueraded.
    pub cluster_cidr: Ipv4Net,
    /// The addresses of services. What no rule translates is refused.
    pub service_cidr: Ipv4Net,
    /// Where leases are kept over restarts.
    pub state_dir: PathBuf,
    /// Where named network namespaces are bound, usually `/var/run/netns`.
    pub netns_dir: PathBuf,
    /// The bridge that pods hang on.
    pub bridge: String,
    /// The VXLAN link that is made when a peer is not on the uplink's subnet.
    pub vxlan: String,
    /// The VXLAN network identifier; equal on all nodes.
    pub vxlan_vni: u32,
    /// The UDP port of VXLAN; equal on all nodes.
    pub vxlan_port: u16,
    /// When VXLAN is used.
    pub overlay: OverlayMode,
    /// The uplink's name, where the address does not tell it.
    pub uplink: Option<String>,
    /// The pods' MTU; without it the uplink's less the room for VXLAN.
    pub mtu: Option<u32>,
    /// The DNS server for pods; none if the cluster brings its own.
    pub dns: Option<DnsConfig>,
}

impl Config {
    /// A configuration with the usual names; the arguments have no default that would be right.
    pub fn new(node_name: impl Into<String>, node_address: Ipv4Addr, pod_cidr: Ipv4Net) -> Self {
        Self {
            node_name: node_name.into(),
            node_address,
            pod_cidr,
            cluster_cidr: net(Ipv4Addr::new(10, 244, 0, 0), 16),
            service_cidr: net(Ipv4Addr::new(10, 96, 0, 0), 16),
            state_dir: PathBuf::from("/var/lib/trireme/network"),
            netns_dir: PathBuf::from("/var/run/netns"),
            bridge: "trireme0".into(),
            vxlan: "trireme-vx".into(),
            vxlan_vni: 1,
            vxlan_port: 4789,
            overlay: OverlayMode::Auto,
            uplink: None,
            mtu: None,
            dns: None,
        }
    }

    /// The address of the bridge: the pods' gateway and DNS server.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.pod_cidr.network()).wrapping_add(1))
    }

    /// Refuses what could not work, saying which field and why.
    pub fn validate(&self) -> Result<(), String> {
        for (field, name) in [("bridge", &self.bridge), ("vxlan", &self.vxlan)] {
            if name.is_empty()
                || name.len() > LINK_NAME_LEN_MAX
                || !name.chars().all(is_link_name_char)
            {
                return Err(format!(
                    "{field}: {name:?} is not a link name: 1 to {LINK_NAME_LEN_MAX} letters, digits, '-', '_' or '.'"
                ));
            }
        }
        if self.pod_cidr.prefix_len() > 29 {
            return Err(format!(
                "pod_cidr: {} holds too few addresses; give /29 or wider",
                self.pod_cidr
            ));
        }
        if !self.cluster_cidr.contains(&self.pod_cidr) {
            return Err(format!(
                "pod_cidr: {} is not inside cluster_cidr {}",
                self.pod_cidr, self.cluster_cidr
            ));
        }
        if self.service_cidr.contains(&self.pod_cidr) || self.pod_cidr.contains(&self.service_cidr)
        {
            return Err(format!(
                "service_cidr: {} overlaps pod_cidr {}",
                self.service_cidr, self.pod_cidr
            ));
        }
        Ok(())
    }
}

fn is_link_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn net(address: Ipv4Addr, prefix_len: u8) -> Ipv4Net {
    Ipv4Net::new(address, prefix_len).expect("a constant prefix length is at most 32")
}

/// When pods of other nodes are reached through VXLAN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverlayMode {
    /// A plain route where the peer is on the uplink's subnet, VXLAN elsewhere.
    #[default]
    Auto,
    /// Always VXLAN, for networks that drop pods' addresses between neighbours (most clouds).
    Vxlan,
}

/// The DNS server that answers pods.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// The cluster's domain, `cluster.local`.
    pub domain: String,
    /// The port on the gateway address, usually 53.
    pub port: u16,
    /// The address of the cluster's DNS service, redirected to this node's server.
    pub service_ip: Option<Ipv4Addr>,
    /// Who is asked for names outside the cluster, in this order.
    pub upstreams: Vec<SocketAddr>,
}

/// A pod's UID. It becomes part of file names, hence [`PodUid::parse`].
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct PodUid(String);

impl PodUid {
    /// Takes what is safe as part of a file name: 1 to 64 letters, digits and dashes.
    pub fn parse(uid: impl Into<String>) -> Result<Self, String> {
        let uid = uid.into();
        let fits = (1..=64).contains(&uid.len());
        if fits && uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            Ok(Self(uid))
        } else {
            Err(format!(
                "{uid:?} is not a pod UID: 1 to 64 letters, digits or dashes"
            ))
        }
    }

    /// The UID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the host's end of the pod's veth pair: a hash, since a UID is longer than a link's name may be.
    pub fn host_link(&self) -> String {
        let hash = self
            .0
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        format!("tri{:012x}", hash & 0xffff_ffff_ffff)
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_cannot_leave_its_directory() {
        assert!(PodUid::parse("../../etc").is_err());
        assert!(PodUid::parse("").is_err());
        let uid = PodUid::parse("1b4e28ba-2fa1-11d2-883f-0016d3cca427").expect("a UUID is a UID");
        assert_eq!(uid.host_link().len(), 15);
    }

    #[test]
    fn overlapping_ranges_are_refused() {
        let mut config = Config::new(
            "a",
            Ipv4Addr::new(10, 0, 0, 1),
            "10.244.1.0/24".parse().expect("a network"),
        );
        assert_eq!(config.validate(), Ok(()));
        config.service_cidr = "10.244.0.0/16".parse().expect("a network");
        assert!(config.validate().is_err());
    }
}
