//! What the API speaks, pure: the object envelope and its metadata, kinds and resources, keys, `Status`, typed ids.
//!
//! Never asks a clock, a file or the network. The rules are Kubernetes' API conventions; where a module follows another
//! document it names it.

pub mod cluster;
mod gvk;
mod ids;
mod key;
mod meta;
mod object;
mod status;
mod time;

pub use gvk::{GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use ids::{NodeName, Revision, Term, Uid};
pub use key::{ObjectKey, REGISTRY_ROOT, namespace_prefix, resource_prefix, store_key};
pub use meta::{ObjectMeta, OwnerReference};
pub use object::{Object, ObjectError, object_view, splice_revision};
pub use status::{Cause, Reason, Status, StatusDetails};
pub use time::Timestamp;
