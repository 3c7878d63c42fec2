//! The pod's state machine, pure: desired, observed and now to one step.
//!
//! ```text
//!            ┌ sandbox ─▶ volumes ─▶ init, one by one ─▶ containers ─▶ probes ┐
//! Pending ───┘                                                                ├─▶ Running ─▶ Succeeded | Failed ─▶ sandbox away
//! deletionTimestamp, at any time: stop all ─▶ final status ─▶ sandbox away ─▶ delete from the API
//! ```
//! [`step`] looks at everything anew each time and keeps nothing: what it must remember is in the observed containers, in
//! the pod's last status, or in the tallies that the caller holds for it. It never asks a clock, a file or the network.
//! The rules are the kubelet's, as Kubernetes documents the pod's life cycle; words that users read are the kubelet's too.

mod action;
pub mod conditions;
mod desired;
pub mod env;
pub mod eviction;
mod images;
mod observed;
pub mod probe;
mod record;
mod resize;
pub mod resources;
mod restart;
mod status;
mod step;

pub use action::{Action, Step, StopReason};
pub use desired::{ContainerView, Desired, DesiredError, RestartPolicy, Role};
pub use images::PullPolicy;
pub use observed::{
    Amount, Container, ContainerState, Ended, Exit, Observed, Pull, PullState, ResizeFailure, Room,
    Sandbox, StartFailure, Volumes,
};
pub use probe::{ProbeKind, Tally};
pub use record::Record;
pub use resize::allocated;
pub use status::status_patch;
pub use step::step;
