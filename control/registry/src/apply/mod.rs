//! Server-side apply: who owns which fields of an object, and what an apply makes of it. Pure: no store, no clock, no kind.
//!
//! ```text
//!   element   a step of a path            schema    which lists are sets or maps, what is atomic
//!   set       fields as a tree, FieldsV1  typed     validation, the fields that a value names
//!   merge · compare · remove · reconcile  over two values or a value and a set
//!   update    owners after an update or an apply, conflicts, pruning
//!   managed   metadata.managedFields      tracker   what a write of an object makes of them
//!   builtin   the types of the built-in kinds
//! ```
//!
//! Rules: structured-merge-diff, whose published cases the tests run; above it apimachinery's `managedfields`.

pub mod builtin;
mod compare;
mod element;
mod managed;
mod merge;
mod reconcile;
mod remove;
pub mod schema;
mod set;
mod tracker;
mod typed;
mod update;
mod walk;

pub use compare::Comparison;
pub use element::{Datum, Element, ElementError, Path, equal};
pub use managed::{EntryError, Managed, Manager, Operation, same_but_times};
pub use set::{Node, Set};
pub use tracker::{Applied, Tracker};
pub use typed::Duplicates;
pub use update::{ApplyError, Conflict, Ignored, Managers, Owned, Typed, Versions, Writer};
pub use walk::Fault;

#[cfg(test)]
mod tests;
