//! Namespaces: held back from deletion by their spec's finalizers until the namespace controller has emptied them.
//! Rules: Kubernetes' registry/core/namespace.

use super::edit::{map_at, read_map, read_texts};
use super::{Context, Strategy};
use crate::Faults;
use objects::{Object, names};
use serde_json::{Value, json};

/// The namespaces' strategy.
pub struct Namespaces;

/// The finalizer that stands for a namespace's contents.
const CONTENTS: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

impl Strategy for Namespaces {
    fn default_fields(&self, object: &mut Object) {
        let name = object.metadata.name.clone();
        if !name.is_empty() {
            object.metadata.labels.insert(NAME_LABEL.to_owned(), name);
        }
        map_at(&mut object.body, "spec");
    }

    fn prepare_create(&self, object: &mut Object, _context: &Context<'_>) {
        let has_contents = read_map(&object.body, "spec").is_some_and(|spec| {
            read_texts(spec, "finalizers").any(|finalizer| finalizer == CONTENTS)
        });
        if let Some(spec) = map_at(&mut object.body, "spec").filter(|_| !has_contents) {
            let list = spec.entry("finalizers").or_insert_with(|| json!([]));
            if list.is_null() {
                *list = json!([]);
            }
            if let Value::Array(list) = list {
                list.push(json!(CONTENTS));
            }
        }
        object
            .body
            .insert("status".to_owned(), json!({"phase": "Active"}));
    }

    fn prepare_update(&self, object: &mut Object, old: &Object, _context: &Context<'_>) {
        let finalizers = read_map(&old.body, "spec")
            .and_then(|spec| spec.get("finalizers"))
            .cloned();
        if let Some(spec) = map_at(&mut object.body, "spec") {
            match finalizers {
                Some(finalizers) => drop(spec.insert("finalizers".to_owned(), finalizers)),
                None => drop(spec.shift_remove("finalizers")),
            }
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = read_map(&object.body, "spec");
        for finalizer in spec
            .into_iter()
            .flat_map(|spec| read_texts(spec, "finalizers"))
        {
            faults.invalid_texts(
                "spec.finalizers",
                finalizer,
                &names::qualified_name(finalizer),
            );
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_label(name)
    }

    fn is_held(&self, object: &Object) -> bool {
        let spec = read_map(&object.body, "spec");
        spec.is_some_and(|spec| read_texts(spec, "finalizers").next().is_some())
    }

    fn begin_delete(&self, object: &mut Object) {
        if let Some(status) = map_at(&mut object.body, "status") {
            status.insert("phase".to_owned(), json!("Terminating"));
        }
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}
