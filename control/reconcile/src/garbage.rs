//! The garbage collector: deletes objects whose owners are all gone, and ends foreground and orphan deletions.
//!
//! Never deletes an object that has an owner left, and never one without owner references. Whether an owner exists is a fact
//! of the input, looked up by uid: a namesake of an owner is no owner. Semantics: Kubernetes' garbage collection.

use crate::controller::{Asked, Change, Controller, World};
use crate::plan::{Action, Plan, Precondition, Propagation};
use objects::{Object, ObjectError, ObjectKey, OwnerReference, Timestamp, Uid};
use serde_json::json;
use std::collections::BTreeSet;

/// The finalizer of an object whose dependents must go before it.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object whose dependents must be let go before it goes.
pub const ORPHAN: &str = "orphan";

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// Where the object is.
    pub key: ObjectKey,
    /// The object.
    pub object: Object,
    /// What became of each of its owners, in the order of its owner references.
    pub owners: Vec<OwnerState>,
    /// The objects that name it as an owner, by its uid.
    pub dependents: Vec<Dependent>,
    /// See [`ancestors`].
    pub ancestors: BTreeSet<Uid>,
}

/// Of a chain of owners longer than this, no circle is found.
const ANCESTORS_MAX: usize = 1000;

/// An object's owners, their owners, and so on. An object that is among its own dependents' ancestors stands in a circle.
pub fn ancestors(object: &Object, owners_of: impl Fn(&Uid) -> Vec<Uid>) -> BTreeSet<Uid> {
    let references = object.metadata.owner_references.iter();
    let mut next: Vec<Uid> = references.map(|owner| owner.uid.clone()).collect();
    let mut found = BTreeSet::new();
    while let Some(uid) = next.pop() {
        if found.len() >= ANCESTORS_MAX {
            break;
        }
        if !found.contains(&uid) {
            next.extend(owners_of(&uid));
            found.insert(uid);
        }
    }
    found
}

/// What became of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerState {
    /// It is there.
    Present,
    /// It is there and waits for its dependents to go: it is being deleted and has the finalizer [`FOREGROUND`].
    WaitsForDependents,
    /// No object with that uid is where the reference says.
    Absent,
}

/// An object that names ours as an owner.
pub struct Dependent {
    /// Where it is.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: Uid,
    /// Its revision.
    pub resource_version: String,
    /// Whether its deletion was asked already.
    pub is_deleting: bool,
    /// All its owner references.
    pub owner_references: Vec<OwnerReference>,
}

/// Returns what must happen to the object, or to its dependents for its sake.
pub fn reconcile(input: &Input, _now: Timestamp) -> Plan {
    let metadata = &input.object.metadata;
    if !metadata.is_deleting() {
        return Plan::of(collect(input).into_iter().collect());
    }
    let has = |name: &str| {
        metadata
            .finalizers
            .iter()
            .any(|finalizer| finalizer == name)
    };
    if has(ORPHAN) {
        Plan::of(orphan(input))
    } else if has(FOREGROUND) {
        Plan::of(foreground(input))
    } else {
        Plan::nothing()
    }
}

/// Deletes the object if no owner wants it any more; else drops the references to owners that are gone or going.
fn collect(input: &Input) -> Option<Action> {
    let metadata = &input.object.metadata;
    let of_state = |state| {
        let pairs = metadata.owner_references.iter().zip(&input.owners);
        pairs
            .filter(move |(_, its)| **its == state)
            .map(|(owner, _)| &owner.uid)
    };
    let gone: BTreeSet<&Uid> = of_state(OwnerState::Absent).collect();
    let going: BTreeSet<&Uid> = of_state(OwnerState::WaitsForDependents).collect();
    if gone.is_empty() && going.is_empty() {
        return None;
    }
    let precondition = Precondition::unchanged(&metadata.uid.0, &metadata.resource_version);
    if of_state(OwnerState::Present).next().is_some() {
        let keep = |uid: &Uid| !gone.contains(uid) && !going.contains(uid);
        return Some(set_owners(
            &input.key,
            precondition,
            &metadata.owner_references,
            keep,
        ));
    }
    let propagation = if !going.is_empty() && !input.dependents.is_empty() {
        Propagation::Foreground // The whole tree goes leaves first.
    } else if metadata
        .finalizers
        .iter()
        .any(|finalizer| finalizer == ORPHAN)
    {
        Propagation::Orphan
    } else {
        Propagation::Background
    };
    Some(Action::Delete {
        key: input.key.clone(),
        precondition,
        grace_seconds: None,
        propagation: Some(propagation),
    })
}

/// Lets the dependents go, then drops the finalizer.
fn orphan(input: &Input) -> Vec<Action> {
    let uid = &input.object.metadata.uid;
    let mut actions: Vec<Action> = input
        .dependents
        .iter()
        .map(|dependent| without_owner(dependent, uid))
        .collect();
    actions.push(drop_finalizer(input, ORPHAN));
    actions
}

/// Deletes the dependents that no other owner has; when none that blocks is left, drops the finalizer.
fn foreground(input: &Input) -> Vec<Action> {
    let uid = &input.object.metadata.uid;
    let blocks = |dependent: &&Dependent| {
        let mut references = dependent.owner_references.iter();
        // In a circle each would wait for the next for ever.
        let in_circle = dependent.is_deleting && input.ancestors.contains(&dependent.uid);
        let blocking =
            |owner: &OwnerReference| owner.uid == *uid && owner.block_owner_deletion == Some(true);
        !in_circle && references.any(blocking)
    };
    let mut actions: Vec<Action> = input
        .dependents
        .iter()
        .filter(|dependent| !dependent.is_deleting)
        .filter(|dependent| {
            dependent
                .owner_references
                .iter()
                .all(|owner| owner.uid == *uid)
        })
        .map(|dependent| Action::Delete {
            key: dependent.key.clone(),
            precondition: Precondition::uid(&dependent.uid.0),
            grace_seconds: None,
            propagation: Some(Propagation::Foreground),
        })
        .collect();
    let shared = input
        .dependents
        .iter()
        .filter(|dependent| !dependent.is_deleting)
        .filter(|dependent| {
            dependent
                .owner_references
                .iter()
                .any(|owner| owner.uid != *uid)
        });
    actions.extend(shared.map(|dependent| without_owner(dependent, uid)));
    if !input.dependents.iter().any(|dependent| blocks(&dependent)) {
        actions.push(drop_finalizer(input, FOREGROUND));
    }
    actions
}

fn without_owner(dependent: &Dependent, uid: &Uid) -> Action {
    let precondition = Precondition::unchanged(&dependent.uid.0, &dependent.resource_version);
    set_owners(
        &dependent.key,
        precondition,
        &dependent.owner_references,
        |owner| owner != uid,
    )
}

fn set_owners(
    key: &ObjectKey,
    precondition: Precondition,
    owners: &[OwnerReference],
    keep: impl Fn(&Uid) -> bool,
) -> Action {
    let kept: Vec<&OwnerReference> = owners.iter().filter(|owner| keep(&owner.uid)).collect();
    Action::Patch {
        key: key.clone(),
        precondition,
        merge: json!({ "metadata": { "ownerReferences": kept } }),
        subresource: None,
    }
}

fn drop_finalizer(input: &Input, name: &str) -> Action {
    let metadata = &input.object.metadata;
    let others: Vec<&String> = metadata
        .finalizers
        .iter()
        .filter(|finalizer| *finalizer != name)
        .collect();
    Action::Patch {
        key: input.key.clone(),
        precondition: Precondition::unchanged(&metadata.uid.0, &metadata.resource_version),
        merge: json!({ "metadata": { "finalizers": others } }),
        subresource: None,
    }
}

/// Runs [`reconcile`] for every object that owns or is owned.
pub struct GarbageController;

impl Controller for GarbageController {
    fn name(&self) -> &'static str {
        "garbage"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        let mut keys = Vec::new();
        if change
            .after
            .is_some_and(|record| record.deleting || !record.owners.is_empty())
        {
            keys.push(change.key.clone());
        }
        if let Some(gone) = change.before.filter(|_| change.after.is_none()) {
            keys.extend(world.owned_by(&gone.uid));
        }
        // An owner that waits for its dependents may be done now.
        let owners = change
            .latest()
            .into_iter()
            .flat_map(|record| &record.owners);
        let waiting = owners.filter_map(|(uid, _)| world.key_of(uid));
        keys.extend(waiting.filter(|key| world.record(key).is_some_and(|record| record.deleting)));
        keys
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(object) = asked.world.get(asked.key) else {
            return Ok(Plan::nothing());
        };
        let owners = object
            .metadata
            .owner_references
            .iter()
            .map(|owner| owner_state(asked.world, &owner.uid))
            .collect();
        let dependent = |key: ObjectKey| {
            let found = asked.world.get(&key)?;
            Some(Dependent {
                uid: found.metadata.uid.clone(),
                resource_version: found.metadata.resource_version.clone(),
                is_deleting: found.metadata.is_deleting(),
                owner_references: found.metadata.owner_references.clone(),
                key,
            })
        };
        let dependents = asked
            .world
            .owned_by(&object.metadata.uid)
            .into_iter()
            .filter_map(dependent)
            .collect();
        let owners_of = |uid: &Uid| {
            let owner = asked
                .world
                .key_of(uid)
                .and_then(|key| asked.world.get(&key));
            let references = owner.iter().flat_map(|it| &it.metadata.owner_references);
            references.map(|owner| owner.uid.clone()).collect()
        };
        let input = Input {
            key: asked.key.clone(),
            ancestors: ancestors(&object, owners_of),
            object: Object::clone(&object),
            owners,
            dependents,
        };
        Ok(reconcile(&input, asked.now))
    }
}

fn owner_state(world: &dyn World, uid: &Uid) -> OwnerState {
    let Some(owner) = world.key_of(uid).and_then(|key| world.get(&key)) else {
        return OwnerState::Absent;
    };
    let waits = owner.metadata.is_deleting()
        && owner
            .metadata
            .finalizers
            .iter()
            .any(|finalizer| finalizer == FOREGROUND);
    if waits {
        OwnerState::WaitsForDependents
    } else {
        OwnerState::Present
    }
}
