//! The pods' network of one node: links, addresses, routes to the other nodes, services, host ports and DNS.
//!
//! The crate works on the network namespace of the thread that calls it, and takes every name and path as an argument, so
//! that many nodes fit on one machine. It never reads API objects (the agent translates them), never runs `ip` or
//! `iptables`, and never touches a link, route or nftables table that it did not make; the sysctls that it sets are
//! listed in [`sysctl`]. Only IPv4 is spoken.
//!
//! Everything that decides is a pure function to a desired state; the difference to the present state is then executed:
//! [`ipam`], [`overlay::plan`], [`services::render`] and [`policy::render`] with [`nft::diff`], [`dns::zone`].
//! [`Network`] joins them.

pub mod config;
pub mod conntrack;
pub mod dns;
pub mod ipam;
mod kernel;
pub mod netns;
mod network;
pub mod nft;
pub mod overlay;
pub mod pod;
pub mod policy;
pub mod resolv;
pub mod services;
pub mod sysctl;

pub use config::{Config, DnsConfig, OverlayMode, PodUid};
pub use network::{Error, Network};
pub use overlay::Node;
pub use pod::PodNet;
pub use services::{HostPort, Protocol, Service, ServicePort};
