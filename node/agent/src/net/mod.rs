//! From the API's nodes, services and endpoint slices to what the node's network is told.

pub mod feed;
pub mod host_ports;
pub mod services;
