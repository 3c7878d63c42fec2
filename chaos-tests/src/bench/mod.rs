//! Measurements on this machine: of a cluster, and of the checkers.

pub mod api;
pub mod check;
pub mod failover;
