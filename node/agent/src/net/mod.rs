//! From the API's nodes, services, endpoint slices and network policies to what the node's network is told.

pub mod feed;
mod followed;
pub mod host_ports;
pub mod policies;
pub mod policy;
pub mod services;
