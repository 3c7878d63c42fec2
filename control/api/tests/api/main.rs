//! The API server over TLS on loopback, as its clients see it: the rules of the wire, the real kubectl, and a node.

mod access;
mod aggregate;
mod browser;
mod contract;
mod custom;
mod fair;
mod kubectl;
mod node;
mod past;
mod pki;
mod policies;
mod proxy;
mod rig;
mod watch;
mod webhooks;
mod wire;
