//! What the API speaks, pure: the object envelope and its metadata, kinds and resources, keys, selectors, quantities,
//! patches, `Status`, typed ids; and the names and secrets that its two sides must agree on.
//!
//! Never asks a clock, a file or the network. The rules are Kubernetes' API conventions; where a module follows another
//! document it names it.

pub mod cluster;
pub mod cron;
mod gvk;
pub mod identities;
mod ids;
mod key;
mod meta;
pub mod names;
mod object;
pub mod past;
pub mod patch;
pub mod quantity;
pub mod quota;
mod secret;
pub mod selector;
pub mod snapshots;
mod status;
mod time;

pub use gvk::{GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use ids::{NodeName, Revision, Term, Uid};
pub use key::{ObjectKey, REGISTRY_ROOT, namespace_prefix, resource_prefix, store_key};
pub use meta::{ObjectMeta, OwnerReference};
pub use object::{Object, ObjectError, object_view, splice_revision};
pub use quantity::Quantity;
pub use secret::Secret;
pub use selector::{FieldSelector, LabelSelector};
pub use status::{Cause, Reason, Status, StatusDetails};
pub use time::Timestamp;
