//! The controllers: pure functions from what is to a [`Plan`].
//!
//! One file a controller, each with an `Input` (all that the decision may depend on, taken from one snapshot) and
//! `reconcile(&Input, now) -> Plan`. Nothing here reads a store, a clock or randomness. Whoever executes a plan has no choice
//! left to make: every write carries its precondition, and children have names that follow from their owner, so that a plan
//! executed twice conflicts instead of doubling.
//!
//! Typed structs of k8s-openapi are read views; what is written is built as [`objects::Object`] or as a merge patch.

pub mod apiservice;
pub mod children;
pub mod clusterrole;
pub mod conditions;
pub mod controller;
pub mod cronjob;
pub mod customresource;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod endpointslicemirroring;
pub mod event;
pub mod flowschema;
pub mod garbage;
pub mod history;
pub mod horizontal;
pub mod ipaddress;
pub mod job;
pub mod names;
pub mod namespace;
pub mod nodeipam;
pub mod nodelifecycle;
pub mod owners;
pub mod plan;
pub mod podgc;
pub mod pods;
pub mod protection;
pub mod quota;
pub mod replicaset;
pub mod rootca;
pub mod scaled;
pub mod serviceaccount;
pub mod statefulset;
pub mod status;
pub mod tokencleaner;
pub mod tokensecret;
pub mod ttl;
pub mod view;

pub use plan::{Action, EventType, ObjectReference, Plan, Precondition, Propagation, StatusUpdate};
pub use view::Viewed;
