//! A client of the API server for `ctl`, the node agents and the tests.
//!
//! It knows all masters: a request goes to the one that answered last, and to the next when that one cannot be reached. A
//! write whose outcome is unknown is never sent twice; the caller is told so with [`Error::is_ambiguous`].

mod config;
mod error;
mod exec;
mod forward;
mod http;
mod identity;
mod join;
pub mod pem;
mod reflect;
mod relay;
mod socket;
mod tls;
mod watch;

pub use config::{Config, ConfigError, Kubeconfig};
pub use error::Error;
pub use exec::{ExecInput, ExecOutput, ExecReceiver, ExecSender};
pub use forward::{ForwardReceiver, ForwardSender};
pub use http::{Client, Deadline, PatchKind, Payload, encode_segment};
pub use identity::Identity;
pub use join::{JoinToken, join};
pub use reflect::{Change, Reflected, reflect};
pub use watch::{WatchEvent, WatchKind, WatchStream};
