//! The Common Expression Language as Kubernetes uses it: rules of custom resources, conditions of webhooks, admission policies.
//!
//! An expression is compiled once ([`compile`]) and evaluated often ([`Evaluation`]). Parser and library functions are those of the
//! crate `kube-cel`; the evaluator is ours, since it must count what an expression costs, read JSON in place, and answer with
//! Kubernetes' messages. Pure: no clock, no files. The language: the published specification of CEL; what Kubernetes adds: its
//! reference of CEL in the API.

mod access;
mod budget;
mod call;
mod check;
mod compile;
mod cost;
mod eval;
mod inputs;
mod library;
mod macros;
mod operators;
mod shape;
mod value;

pub use access::{AccessQuery, Authorizer, Decision};
pub use budget::{Budget, CALL_UNITS_MAX, MATCH_CONDITIONS_UNITS_MAX, REQUEST_UNITS_MAX};
pub use compile::{CompileError, Environment, Program, compile};
pub use cost::{Extent, cost};
pub use eval::{Error, Evaluation};
pub use inputs::Inputs;
pub use shape::{ListKind, Shape, escape};
