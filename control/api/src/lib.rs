//! The API server: HTTP, verbs, watch, negotiation, authentication.
//!
//! Turns requests into calls of `registry::Pipeline` and its answers into HTTP; passes what is a node's on to the node.
//! Never knows Raft, never reads a file, never decides what an object may hold. The contract is what kubectl and the
//! client libraries were recorded to ask of a Kubernetes API server.

mod access;
mod aggregate;
mod answer;
mod audit;
mod auth;
mod body;
mod browser;
mod cluster;
mod documents;
mod flow;
mod handler;
mod history;
pub mod input;
mod list;
mod metrics;
mod negotiate;
mod options;
mod pace;
mod path;
mod present;
mod proxy;
mod query;
mod reviews;
mod server;
mod socket;
mod status;
mod tls;
mod tokens;
mod verbs;
mod watch;
mod webhooks;

pub use audit::{Audit, AuditError};
pub use auth::Peer;
pub use cluster::{Archive, Check, Cluster, PASSPHRASE_HEADER, Proof, SnapshotKeys};
pub use handler::{ApiConfig, ApiServer, Identities, ServedVersion};
pub use pace::Limits;
pub use server::serve;
pub use tls::{NodeClientTls, PemBundle, ServerTls, TlsError};
pub use tokens::{JwtError, Oidc, OidcConfig, OidcError, TokenKeys};
pub use webhooks::HttpsWebhooks;
