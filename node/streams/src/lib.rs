//! Remote command streams and port-forward: the server side of what `kubectl exec`, `kubectl attach` and `kubectl
//! port-forward` speak once their HTTP request is upgraded.
//!
//! [`accept`] recognises the protocol and gives one [`RemoteCommand`] whatever it is:
//! WebSocket with `v5.channel.k8s.io` or `v4.channel.k8s.io` (kubectl from 1.30, the client libraries), and SPDY/3.1
//! with `v4.channel.k8s.io` (kubectl up to 1.29). [`forward`] is the same for ports.
//!
//! It never starts a process, never decides who may run one, and never reads the clock but for deadlines.
//! Everything is bounded: who does not read makes the other side wait.
//! The rules are Kubernetes' remote command protocol (k8s.io/apimachinery `remotecommand`), RFC 6455, and the SPDY/3.1
//! draft as far as spdystream, kubectl's SPDY library, follows it.

mod accept;
mod command;
mod drive;
pub mod forward;
pub mod input;
mod outcome;
mod spdy;
mod websocket;

pub use accept::{Error, Opening, Rejected, accept};
pub use command::{Gone, Output, RemoteCommand, Resizes, Size, Wants};
pub use outcome::Outcome;
