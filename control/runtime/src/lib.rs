//! Runs the controllers and the scheduler, on the leader only: the cache of all objects, the queue of keys, the driver that
//! turns a plan into writes, and the fence that keeps an old leader's writes out.
//!
//! Never decides anything: decisions are `reconcile`'s and `schedule`'s. Everything here is written once for all controllers.

mod cache;
mod driver;
mod execute;
mod explain;
mod leadership;
mod queue;
mod record;
mod scheduler;
#[cfg(test)]
mod testing;
mod world;

pub use cache::Cache;
pub use explain::explain;
pub use leadership::Runtime;
