//! The store: openraft over RocksDB, behind the `Store` trait of `mvcc`.
//!
//! One Raft group over everything. This crate moves bytes, threads and sockets; what a command means is said by `mvcc`.
//!
//! ```text
//! clients ─ propose ─ batches ─┐                         ┌─ state ─ tables (RocksDB) ─ range
//!         ─ read index ────────┼─ openraft ─ log (fsync) ┤
//! peers ── net (gRPC, TLS) ────┘                         └─ hub ─ watch
//! ```

pub mod archive;
mod clock;
mod config;
pub mod damage;
pub mod db;
mod figures;
mod histogram;
pub mod identity;
pub mod log;
mod membership;
pub mod metrics;
mod net;
mod planted;
pub mod recover;
pub mod runtime;
pub mod stages;
pub mod state;
mod steady;
mod store;
pub mod types;
mod work;

pub use config::{Config, Limits, OpenError, Timings};
pub use figures::Figures;
pub use histogram::{BOUNDS_US, Distribution};
pub use membership::MembershipError;
pub use net::{Answers, PeerFigures, Pipe, Purpose, Tls, TlsError, Transport, TransportError};
pub use steady::SteadyClock;
pub use store::{LeaseLife, LocalStatus, Parts, RaftStore};
pub use work::WorkDone;
