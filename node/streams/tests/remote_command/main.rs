//! Real clients against this crate's server side, each command a process of this machine.

mod kubectl;
mod support;
mod websocket;
