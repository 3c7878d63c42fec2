//! Services and host ports as one nftables table.
//!
//! [`render`] is pure: the whole desired table from the whole desired state; [`crate::nft::diff`] finds what one change
//! touches. The shape is that of kube-proxy's nftables mode: verdict maps from (address, protocol, port) to a chain a
//! service port, which picks an endpoint at random. What is addressed to a service and was not translated is refused at
//! once. It never drops established connections.

mod render;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

pub use render::render;

/// The name of our table in the family `ip`.
pub const TABLE: &str = "trireme";

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// A service with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `namespace/name`; only for logs.
    pub key: String,
    /// Its address inside the cluster.
    pub cluster_ip: Ipv4Addr,
    /// Addresses outside the cluster that lead here: `externalIPs` and those of a load balancer.
    pub external_ips: Vec<Ipv4Addr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `sessionAffinity: ClientIP` with its timeout in seconds.
    pub affinity_s: Option<u32>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`: only endpoints here, and the client's address stays visible.
    pub external_local: bool,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The transport.
    pub protocol: Protocol,
    /// The port on the service's addresses.
    pub port: u16,
    /// The port on every node.
    pub node_port: Option<u16>,
    /// Those endpoints that shall get traffic.
    pub endpoints: Vec<SocketAddrV4>,
    /// Those endpoints on this node that shall get traffic where the service's policy is `Local`.
    pub local_endpoints: Vec<SocketAddrV4>,
}

impl ServicePort {
    /// The endpoints for clients in the cluster or outside of it.
    fn endpoints_of(&self, local: bool) -> &[SocketAddrV4] {
        if local {
            &self.local_endpoints
        } else {
            &self.endpoints
        }
    }

    /// All that may get traffic, without doubles and in one order, so that the same endpoints make the same rules.
    fn all_endpoints(&self) -> Vec<SocketAddrV4> {
        sorted(&[&self.endpoints[..], &self.local_endpoints].concat())
    }
}

fn sorted(endpoints: &[SocketAddrV4]) -> Vec<SocketAddrV4> {
    let mut endpoints = endpoints.to_vec();
    endpoints.sort();
    endpoints.dedup();
    endpoints
}

/// A container's port on this node's addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// Only on this address; on all of them without.
    pub host_ip: Option<Ipv4Addr>,
    /// The transport.
    pub protocol: Protocol,
    /// The port on the node.
    pub host_port: u16,
    /// The pod's address and the container's port.
    pub target: SocketAddrV4,
}

/// What the table needs to know of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// The addresses of this node's pods.
    pub pod_cidr: Ipv4Net,
    /// The addresses of all pods.
    pub cluster_cidr: Ipv4Net,
    /// The addresses of services.
    pub service_cidr: Ipv4Net,
    /// The pods' bridge.
    pub bridge: String,
    /// The VXLAN link.
    pub vxlan: String,
    /// The DNS service's address and our server that answers for it.
    pub dns: Option<(Ipv4Addr, SocketAddrV4)>,
}

/// The UDP endpoints that clients may be bound to by connection tracking: address to endpoints. A port on all of the
/// node's addresses has the address 0.0.0.0.
pub fn udp_endpoints(
    services: &[Service],
    host_ports: &[HostPort],
) -> BTreeMap<SocketAddrV4, Vec<SocketAddrV4>> {
    let mut endpoints = BTreeMap::new();
    for service in services {
        for port in service
            .ports
            .iter()
            .filter(|port| port.protocol == Protocol::Udp)
        {
            let addresses = service.external_ips.iter().chain([&service.cluster_ip]);
            let at_addresses = addresses.map(|ip| SocketAddrV4::new(*ip, port.port));
            let at_node = port
                .node_port
                .map(|port| SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
            endpoints.extend(
                at_addresses
                    .chain(at_node)
                    .map(|at| (at, port.all_endpoints())),
            );
        }
    }
    for host_port in host_ports
        .iter()
        .filter(|host_port| host_port.protocol == Protocol::Udp)
    {
        let ip = host_port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
        endpoints.insert(
            SocketAddrV4::new(ip, host_port.host_port),
            vec![host_port.target],
        );
    }
    endpoints
}
