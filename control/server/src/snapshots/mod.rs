//! Scheduled snapshots: saved by whoever leads, kept in a folder or a bucket, verified, and deleted when they are old.
//!
//! What is wanted and how it goes stands in the store, outside of what the API serves, so that it survives the masters:
//!
//! ```text
//! /trireme/snapshots/schedules/NAME    what is wanted; an S3 secret in it is locked for the masters
//! /trireme/snapshots/requests/NAME     somebody wants a run now
//! /trireme/snapshots/states/NAME       the run that goes on, the last one, the last good one
//! /trireme/snapshots/saved/NAME        one record a snapshot that exists
//! ```
//!
//! A run is claimed by a transaction under the leader's term and ended by another: of two masters that both believe to lead, one
//! is refused. A run that its master did not end is begun anew by the next leader; both write the same name, whole or not at all.

pub mod plan;
mod records;
mod run;
pub mod s3;
#[cfg(test)]
mod s3_tests;
mod scheduler;
mod settings;
mod target;

pub use run::Runner as SnapshotRunner;
pub use scheduler::{Counters, Scheduler};
pub use settings::Settings;
