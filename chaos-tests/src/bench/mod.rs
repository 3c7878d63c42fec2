//! Measurements on a cluster of this machine.

pub mod failover;
