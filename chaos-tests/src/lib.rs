//! Faults on real clusters, histories and the checkers that judge them.
//!
//! A run starts real members in network namespaces of their own, lets processes use them through the etcd v3 API, breaks members
//! meanwhile, and writes all of it into a history. Only afterwards the checkers read the history and say whether the store kept
//! what it promises. The harness never repairs an answer and never repeats a request; what it could not do it says.

pub mod bench;
pub mod check;
pub mod clock;
pub mod cluster;
pub mod doctor;
pub mod faketime;
pub mod history;
pub mod injector;
pub mod kernel;
mod machines;
pub mod nemesis;
pub mod planted;
pub mod report;
pub mod results;
pub mod run;
pub mod selftest;
pub mod synth;
pub mod testbed;
pub mod tunswitch;
pub mod workload;
