//! Checks of a cluster's behaviour, one a conformance behaviour of Kubernetes and under its test's name, against any cluster.
//!
//! The names are Kubernetes'; the checks are our own. They ask what needs no container to run: objects, watches, controllers, admission.
//! A behaviour that the cluster does not serve at all is told apart from one that it gets wrong.

mod checks;
mod context;
mod lifecycle;
mod report;
mod run;

pub use checks::all;
pub use context::{Context, Failure};
pub use report::{Differences, Expected, table};
pub use run::{Check, Outcome, Report, Result, Selection, run};
