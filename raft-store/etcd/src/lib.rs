//! etcd's v3 API over the store: etcdctl, etcd's clients and benchmarks and a real kube-apiserver can use a member as they
//! would one of etcd.
//!
//! It translates and never decides: what a request does is said by `mvcc`, who leads and who is a member by `raft-store`.
//! The rules, the errors' codes and their texts are etcd's, since its clients parse them. Users and roles are not kept: who may
//! speak is decided by certificate, by whoever gives [`serve`] its TLS settings.
//!
//! ```text
//! TLS ── front ─┬─ kv, lease ── RaftStore: read index, propose
//!               ├─ watch ────── RaftStore: hub, history     (a stream's task reads no faster than its client)
//!               ├─ lock, election ─ RaftStore: keys under leases, in line
//!               ├─ cluster, maintenance, auth
//!               └─ /health, /metrics and the like, by plain HTTP
//! ```

mod accept;
mod auth;
mod bolt;
mod clock;
mod cluster;
mod error;
mod from_proto;
mod front;
mod header;
mod kv;
mod leader;
mod lease;
mod maintenance;
mod metrics;
mod queue;
mod serve;
mod to_proto;
mod watch;

pub use metrics::{Numbers, family};
pub use serve::{ServeError, serve};

/// The version of etcd whose API this is; kube-apiserver asks for progress of watches from 3.5.13 on.
pub const API_VERSION: &str = "3.5.21";
