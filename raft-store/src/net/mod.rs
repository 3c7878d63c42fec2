//! How members talk: gRPC over TLS, a connection for each purpose, a deadline on every call.

pub(crate) mod client;
mod guard;
mod io;
mod peers;
pub(crate) mod server;
mod traffic;
mod transport;
pub(crate) mod wire;

pub(crate) use guard::Incoming;
pub(crate) use io::{PeerIo, accept};
pub use io::{Tls, TlsError};
pub(crate) use peers::{MESSAGE_BYTES_MAX, Peers};
pub use traffic::PeerFigures;
pub use transport::{Answers, Pipe, Purpose, Transport, TransportError};
