//! The DNS server that every node runs for its pods: the cluster's names from memory, all others from upstream.
//!
//! [`zone`], [`answer`](mod@answer) and [`cache`] are pure; [`server`] holds the sockets. The names are those of Kubernetes' "DNS-Based Service
//! Discovery" specification, version 1.1.0, answered as CoreDNS answers them. No zone is ever transferred or updated by
//! DNS; of others only what upstream said is remembered.

pub mod answer;
pub mod cache;
pub mod server;
pub mod zone;

pub use server::DnsHandle;
pub use zone::{DnsEndpoint, DnsPort, DnsRecord, DnsTarget, Zone};
