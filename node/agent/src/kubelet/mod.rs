//! The kubelet's HTTP API: what masters ask of a node. All but `/healthz` needs a certificate of the cluster's CA with the
//! group `system:masters`.

mod answer;
mod images;
mod logs;
mod metrics;
mod pods;
mod ports;
mod query;
mod server;
mod streams;
mod summary;

pub use server::{bind, serve};
