//! Client libraries as people use them, against three masters of which one is lost.
//!
//! The libraries know one address, as they do behind any load balancer: here it is [`Balancer`]'s. Where Python's and Node's packages
//! come from is in `packages`.

mod balancer;
mod operated;
mod packages;
mod rig;

pub use balancer::Balancer;
pub use operated::{Kind, define_gadgets, survive};
pub use packages::{node, python};
pub use rig::{IMAGE, Rig, Script};
