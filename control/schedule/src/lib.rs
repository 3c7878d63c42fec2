//! The scheduler: which node a pod goes to, or why to none.
//!
//! Pure: it decides over a [`Snapshot`] that whoever runs it keeps up to date, and the same snapshot, pod and seed give the
//! same decision. It never binds, never reads a store or a clock, and never evicts. Filters, scores and messages are those
//! of Kubernetes' default scheduler.

mod affinity;
mod decide;
mod filter;
mod interpod;
mod needs;
mod resources;
mod score;
mod snapshot;
mod spread;

pub use decide::{Decision, decide, decide_batch, explain, is_pending};
pub use resources::Resources;
pub use snapshot::{NodeState, Snapshot};
