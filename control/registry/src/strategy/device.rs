//! Claims of devices, their templates, and what drivers offer. Rules: Kubernetes' resource/v1 validation, as far as it needs
//! no knowledge of devices.

use super::Strategy;
use super::check::{frozen, named};
use super::edit::{Members, read_map, read_text};
use crate::Faults;
use objects::{Object, names};

/// The strategy of device claims and their templates: a spec never changes.
pub struct DeviceClaims;

impl Strategy for DeviceClaims {
    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        frozen(object, old, &["spec"], faults);
    }
}

/// The strategy of device slices.
pub struct DeviceSlices;

impl Strategy for DeviceSlices {
    fn validate(&self, object: &Object, faults: &mut Faults) {
        let nothing = Members::new();
        let spec = read_map(&object.body, "spec").unwrap_or(&nothing);
        named(spec, "driver", "spec", names::dns1123_subdomain, faults);
        let pool = read_map(spec, "pool").unwrap_or(&nothing);
        if read_text(pool, "name").is_empty() {
            faults.required("spec.pool.name", "");
        }
        let places = [
            "nodeName",
            "nodeSelector",
            "allNodes",
            "perDeviceNodeSelection",
        ];
        let count = places
            .iter()
            .filter(|place| spec.contains_key(**place))
            .count();
        if count != 1 {
            let detail = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
            faults.invalid("spec", &serde_json::Value::Object(spec.clone()), detail);
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        let fixed = ["spec.driver", "spec.nodeName", "spec.pool.name"];
        frozen(object, old, &fixed, faults);
    }

    fn has_generation(&self) -> bool {
        true
    }
}
