//! Owner references: making them, and deciding who may adopt or must release a child. Semantics: Kubernetes'
//! `ControllerRefManager`.

use crate::plan::{Action, ObjectReference};
use crate::view;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use objects::{GroupResource, LabelSelector};
use serde_json::{Value, json};

/// The reference by which a child names the controller that manages it.
pub fn controller_reference(owner: &ObjectReference) -> objects::OwnerReference {
    objects::OwnerReference {
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The owner that manages the object, if any.
pub fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
}

/// Whether the owner with this uid manages the object.
pub fn is_controlled_by(metadata: &ObjectMeta, uid: &str) -> bool {
    controller(metadata).is_some_and(|owner| owner.uid == uid)
}

/// What a child is to an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Its own already.
    Owned,
    /// Nobody's, and the selector matches: to be adopted.
    Adopt,
    /// Its own, but the selector matches no more: to be released.
    Release,
    /// Not its business.
    Foreign,
}

/// Decides what the child is to the owner. An owner that is being deleted neither adopts nor releases, and a child that is
/// being deleted is not adopted.
pub fn claim(
    child: &ObjectMeta,
    owner_uid: &str,
    owner_is_deleting: bool,
    wanted: &LabelSelector,
) -> Claim {
    let selected = view::matches(wanted, child);
    match controller(child) {
        Some(owner) if owner.uid == owner_uid && selected => Claim::Owned,
        Some(owner) if owner.uid == owner_uid && owner_is_deleting => Claim::Foreign,
        Some(owner) if owner.uid == owner_uid => Claim::Release,
        Some(_) => Claim::Foreign,
        None if selected && !owner_is_deleting && child.deletion_timestamp.is_none() => {
            Claim::Adopt
        }
        None => Claim::Foreign,
    }
}

/// Makes the child the owner's.
pub fn adopt(resource: GroupResource, child: &ObjectMeta, owner: &ObjectReference) -> Action {
    let mut owners = to_values(child.owner_references.iter().flatten());
    owners.push(to_value(&controller_reference(owner)));
    patch_owners(resource, child, owners)
}

/// Takes from the child the reference to the owner with this uid.
pub fn release(resource: GroupResource, child: &ObjectMeta, owner_uid: &str) -> Action {
    let others = child.owner_references.iter().flatten();
    let owners = to_values(others.filter(|owner| owner.uid != owner_uid));
    patch_owners(resource, child, owners)
}

fn patch_owners(resource: GroupResource, child: &ObjectMeta, owners: Vec<Value>) -> Action {
    Action::Patch {
        key: view::key(resource, child),
        precondition: view::unchanged(child),
        merge: json!({ "metadata": { "ownerReferences": owners } }),
        subresource: None,
    }
}

fn to_values<'a>(owners: impl Iterator<Item = &'a OwnerReference>) -> Vec<Value> {
    owners.map(to_value).collect()
}

fn to_value<T: serde::Serialize>(owner: &T) -> Value {
    serde_json::to_value(owner).expect("an owner reference is plain data")
}
