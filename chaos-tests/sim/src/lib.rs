//! The store simulated: all members on one thread, its clock paused, every delay and every fault drawn from one seed.
//!
//! The members are real ones ([`raft_store::RaftStore`]); only the disk below ([`disk`]), the network between (`switch`) and
//! the wall clock are not. A judge sees every write, message and answer, and asks the invariants at each step. First the world is
//! broken in all ways that it knows; then it heals, and the members must make progress.
//!
//! The same seed gives the same trace, byte for byte, as long as the code is the same.

mod archives;
pub mod batch;
mod clients;
pub mod disk;
mod entropy;
mod facts;
mod faults;
pub mod invariants;
mod judge;
mod run;
#[cfg(test)]
mod stories;
mod switch;
mod watchers;
mod world;

pub use judge::Violation;
/// The environment variable that chooses a bug to plant, as for a real member.
pub const PLANT_VARIABLE: &str = "TRIREME_PLANTED_BUG";
/// Whether this build has bugs to plant.
pub const CAN_PLANT: bool = cfg!(feature = "planted-bugs");

pub use run::{Options, Outcome, run};
