//! The pods of this node: one worker for each, told by the API's list and watch what is wanted.
//!
//! Nothing is ended because the API cannot be reached: only a complete list ends the pods that it does not hold.

mod end;
mod execute;
mod grpc;
mod hooks;
pub mod known;
pub mod manager;
mod observe;
mod probes;
mod pull;
mod references;
pub mod spec;
pub mod tokens;
mod volumes;
mod worker;
