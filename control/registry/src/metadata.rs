//! What is wrong with an object's metadata. Rules and words: apimachinery's `api/validation`.

use crate::{Faults, ResourceDef};
use objects::{Object, ObjectMeta, OwnerReference, names};
use serde_json::{Value, json};

/// Bytes that all annotations of an object may have together.
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;
/// Finalizers without a domain that Kubernetes knows.
const PLAIN_FINALIZERS: [&str; 4] = [
    "kubernetes",
    "orphan",
    "foregroundDeletion",
    crate::custom::CLEANUP,
];

/// Checks the metadata of an object that is to be stored.
pub fn validate(row: &ResourceDef, object: &Object, faults: &mut Faults) {
    let metadata = &object.metadata;
    if metadata.name.is_empty() {
        faults.required("metadata.name", "name or generateName is required");
    } else {
        faults.invalid_texts(
            "metadata.name",
            &metadata.name,
            &row.strategy.validate_name(&metadata.name),
        );
    }
    labels("metadata.labels", metadata.labels.iter(), faults);
    annotations(metadata, faults);
    owners(&metadata.owner_references, faults);
    for finalizer in &metadata.finalizers {
        faults.invalid_texts(
            "metadata.finalizers",
            finalizer,
            &names::qualified_name(finalizer),
        );
        let is_custom = row.custom.is_some(); // Of those Kubernetes asks less.
        if !is_custom && !finalizer.contains('/') && !PLAIN_FINALIZERS.contains(&finalizer.as_str())
        {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            faults.invalid_text("metadata.finalizers", finalizer, why);
        }
    }
}

/// Checks labels, wherever they are.
pub fn labels<'a>(
    field: &str,
    labels: impl Iterator<Item = (&'a String, &'a String)>,
    faults: &mut Faults,
) {
    for (key, value) in labels {
        faults.invalid_texts(field, key, &names::qualified_name(key));
        faults.invalid_texts(field, value, &names::label_value(value));
    }
}

/// Checks what an update does to the metadata.
pub fn validate_update(object: &Object, old: &Object, faults: &mut Faults) {
    let deleting = old.metadata.is_deleting();
    let added: Vec<&String> = object
        .metadata
        .finalizers
        .iter()
        .filter(|finalizer| !old.metadata.finalizers.contains(finalizer))
        .collect();
    if deleting && !added.is_empty() {
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
        );
        faults.forbidden("metadata.finalizers", &detail);
    }
}

fn annotations(metadata: &ObjectMeta, faults: &mut Faults) {
    let mut bytes = 0;
    for (key, value) in &metadata.annotations {
        faults.invalid_texts(
            "metadata.annotations",
            key,
            &names::qualified_name(&key.to_lowercase()),
        );
        bytes += key.len() + value.len();
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        faults.too_long("metadata.annotations", ANNOTATIONS_BYTES_MAX);
    }
}

fn owners(owners: &[OwnerReference], faults: &mut Faults) {
    let field = "metadata.ownerReferences";
    for owner in owners {
        for (name, value) in [
            ("apiVersion", &owner.api_version),
            ("kind", &owner.kind),
            ("name", &owner.name),
            ("uid", &owner.uid.0),
        ] {
            if value.is_empty() {
                faults.invalid_text(
                    format!("{field}.{name}"),
                    value,
                    &format!("{name} must not be empty"),
                );
            }
        }
    }
    let controllers: Vec<&str> = owners
        .iter()
        .filter(|owner| owner.controller == Some(true))
        .map(|owner| owner.name.as_str())
        .collect();
    if let [first, second, ..] = controllers[..] {
        let value: Value = json!(owners);
        let detail = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
        );
        faults.invalid(field, &value, &detail);
    }
}
