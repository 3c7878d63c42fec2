//! Network policies of this node's pods as one nftables table of their own.
//!
//! [`render`] is pure: the whole desired table from all isolations. What pods send is judged where they live, and what
//! they receive where they live, both after the translation of services. The node itself reaches its pods and is reached
//! by them always; answers follow their question by connection tracking; a pod always reaches itself.
//!
//! A packet meets one look-up for who is isolated and two for what is allowed, however many policies there are:
//! [`boxes`] makes one set of the union of all that they allow.

mod boxes;
mod render;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::Protocol;

pub use boxes::{Boxes, boxes};
pub use render::render;

/// The name of the table in the family `ip`.
pub const TABLE: &str = "trireme-policy";

/// Which way a packet goes, as the isolated pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

/// Pods of this node to which the same policies apply in one direction. What is not allowed is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// Tells isolations of one direction apart, and stays while the same policies apply. Letters and digits only.
    pub name: String,
    /// The direction.
    pub direction: Direction,
    /// The pods' addresses.
    pub pods: BTreeSet<Ipv4Addr>,
    /// What may pass: whatever one of these allows.
    pub allowed: Vec<Allowed>,
}

/// Peers and what may pass between them and the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The addresses at the other end.
    pub peers: Vec<AddressRange>,
    /// The ports at the receiver; none for everything, also what has no ports.
    pub ports: Option<Vec<PortRange>>,
}

/// Addresses from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    /// The first.
    pub first: Ipv4Addr,
    /// The last, not before the first.
    pub last: Ipv4Addr,
}

impl AddressRange {
    /// Every address.
    pub const ALL: AddressRange = AddressRange {
        first: Ipv4Addr::UNSPECIFIED,
        last: Ipv4Addr::BROADCAST,
    };

    /// A block of addresses without some blocks inside it: an IP block with its exceptions.
    pub fn block(block: Ipv4Net, except: &[Ipv4Net]) -> Vec<AddressRange> {
        let except: Vec<AddressRange> = except.iter().copied().map(AddressRange::from).collect();
        boxes::without(&[block.into()], &boxes::union(except))
    }
}

impl From<Ipv4Addr> for AddressRange {
    fn from(address: Ipv4Addr) -> Self {
        Self {
            first: address,
            last: address,
        }
    }
}

impl From<Ipv4Net> for AddressRange {
    fn from(net: Ipv4Net) -> Self {
        Self {
            first: net.network(),
            last: net.broadcast(),
        }
    }
}

/// Ports of one transport from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// The transport.
    pub protocol: Protocol,
    /// The first.
    pub first: u16,
    /// The last, not before the first.
    pub last: u16,
}

impl PortRange {
    /// All ports of a transport.
    pub fn all(protocol: Protocol) -> Self {
        Self {
            protocol,
            first: 0,
            last: u16::MAX,
        }
    }

    /// One port.
    pub fn one(protocol: Protocol, port: u16) -> Self {
        Self {
            protocol,
            first: port,
            last: port,
        }
    }
}
