//! The [`Store`](mvcc::Store) trait over an etcd (v3) that runs elsewhere, so that API server, controllers and scheduler run on the
//! etcd that somebody has already.
//!
//! What etcd has no notion of is refused: who wrote what when (history by author and time), and snapshots and members, which
//! are etcd's own affair. Leadership among the masters is a key under a lease; its create revision is the term, and every fenced
//! transaction compares it, so that two leaders never act.

mod announce;
mod from_etcd;
mod leadership;
mod leases;
mod store;
mod to_etcd;
mod watch;

pub use announce::Announced;
pub use leadership::LEADER_KEY;
pub use store::{Config, EtcdStore, OpenError, Tls};
