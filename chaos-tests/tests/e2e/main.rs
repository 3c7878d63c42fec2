//! The promises of the README, end to end: real masters and agents in network namespaces of this machine, real containers, and
//! the clients that people use.
//!
//! Each test is a story with a cluster of its own, and runs alone: a lock holds the others back. They need root, the release
//! programs in `TRIREME_BIN`, and the packages that `deploy/test` installs; where something is missing they fail and say
//! what. They read and change clusters only through `ctl`, `kubectl` and the API, as a person would.

mod access;
mod admission;
mod agent;
mod alter;
mod api;
mod autoscale;
mod bad_input;
mod browser;
mod bucket;
mod churn;
mod dashboard;
mod disaster;
mod etcd;
mod first_hour;
mod install;
mod kubectl;
mod manifests;
mod master;
mod past;
mod policies;
mod pressure;
mod registry;
mod site;
mod snapshots;
mod streams;
mod survivor;
mod told;
mod usage;
