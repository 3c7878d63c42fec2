//! Storage classes and what CSI drivers tell of themselves. Rules: Kubernetes' storage/v1 defaults and validation.

use super::Strategy;
use super::check::{choice, frozen, named, one_of};
use super::edit::{
    Members, default, default_text, map_at, read_list, read_map, read_maps, read_text, read_texts,
};
use crate::Faults;
use objects::{Object, names};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The storage classes' strategy.
pub struct StorageClasses;

impl Strategy for StorageClasses {
    fn default_fields(&self, object: &mut Object) {
        default_text(&mut object.body, "reclaimPolicy", "Delete");
        default_text(&mut object.body, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let class = &object.body;
        named(class, "provisioner", "", lower_case, faults);
        choice(class, "reclaimPolicy", "", &["Delete", "Retain"], faults);
        let modes = ["Immediate", "WaitForFirstConsumer"];
        choice(class, "volumeBindingMode", "", &modes, faults);
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        let fixed = [
            "parameters",
            "provisioner",
            "reclaimPolicy",
            "volumeBindingMode",
        ];
        for path in fixed
            .iter()
            .filter(|path| object.body.get(**path) != old.body.get(**path))
        {
            faults.forbidden(path, &format!("updates to {path} are forbidden."));
        }
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}

fn lower_case(name: &str) -> Vec<String> {
    names::qualified_name(&name.to_lowercase())
}

/// The CSI drivers' strategy.
pub struct CsiDrivers;

const GROUP_POLICIES: [&str; 3] = ["File", "None", "ReadWriteOnceWithFSType"];

impl Strategy for CsiDrivers {
    fn default_fields(&self, object: &mut Object) {
        let Some(spec) = map_at(&mut object.body, "spec") else {
            return;
        };
        default(spec, "attachRequired", true);
        default_text(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        for name in [
            "podInfoOnMount",
            "requiresRepublish",
            "seLinuxMount",
            "storageCapacity",
        ] {
            default(spec, name, false);
        }
        if read_list(spec, "volumeLifecycleModes").is_empty() {
            spec.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let Some(spec) = read_map(&object.body, "spec") else {
            return;
        };
        one_of(spec, "fsGroupPolicy", "spec", &GROUP_POLICIES, faults);
        for mode in read_texts(spec, "volumeLifecycleModes") {
            if !matches!(mode, "Persistent" | "Ephemeral") {
                faults.unsupported(
                    "spec.volumeLifecycleModes",
                    mode,
                    &["Ephemeral", "Persistent"],
                );
            }
        }
        let mut audiences = BTreeSet::new();
        for (index, request) in read_maps(spec, "tokenRequests") {
            let audience = read_text(request, "audience");
            if !audiences.insert(audience) {
                let field = format!("spec.tokenRequests[{index}].audience");
                faults.duplicate(field, &Value::from(audience));
            }
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        frozen(
            object,
            old,
            &["spec.attachRequired", "spec.volumeLifecycleModes"],
            faults,
        );
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}

/// The CSI nodes' strategy.
pub struct CsiNodes;

impl Strategy for CsiNodes {
    fn validate(&self, object: &Object, faults: &mut Faults) {
        let mut seen = BTreeSet::new();
        let drivers = read_map(&object.body, "spec").map(|spec| read_maps(spec, "drivers"));
        for (index, driver) in drivers.into_iter().flatten() {
            let field = format!("spec.drivers[{index}]");
            let name = named(driver, "name", &field, names::dns1123_subdomain, faults);
            if !seen.insert(name) {
                faults.duplicate(format!("{field}.name"), &Value::from(name));
            }
            named(driver, "nodeID", &field, |_| Vec::new(), faults);
        }
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}

/// The strategy of storage capacities.
pub struct CsiCapacities;

impl Strategy for CsiCapacities {
    fn validate(&self, object: &Object, faults: &mut Faults) {
        named(
            &object.body,
            "storageClassName",
            "",
            names::dns1123_subdomain,
            faults,
        );
        super::check::selector(&object.body, "nodeTopology", "", faults);
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        frozen(object, old, &["nodeTopology", "storageClassName"], faults);
    }
}

/// The strategy of volume attachments.
pub struct Attachments;

impl Strategy for Attachments {
    fn validate(&self, object: &Object, faults: &mut Faults) {
        let nothing = Members::new();
        let spec = read_map(&object.body, "spec").unwrap_or(&nothing);
        named(spec, "attacher", "spec", lower_case, faults);
        named(spec, "nodeName", "spec", names::dns1123_subdomain, faults);
        let source = read_map(spec, "source").unwrap_or(&nothing);
        let volume = !read_text(source, "persistentVolumeName").is_empty();
        if volume == source.contains_key("inlineVolumeSpec") {
            let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            faults.required("spec.source", detail);
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        frozen(object, old, &["spec"], faults);
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}

/// The strategy of volume attributes classes.
pub struct AttributeClasses;

impl Strategy for AttributeClasses {
    fn validate(&self, object: &Object, faults: &mut Faults) {
        named(&object.body, "driverName", "", lower_case, faults);
        if read_map(&object.body, "parameters").is_none_or(|parameters| parameters.is_empty()) {
            faults.required("parameters", "must contain at least one key/value pair");
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        frozen(object, old, &["driverName", "parameters"], faults);
    }
}
