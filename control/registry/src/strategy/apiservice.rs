//! API services: which server answers for a group and version. Rules: kube-aggregator's defaults and validation of
//! apiregistration.k8s.io/v1. Nothing is called here.

use super::Strategy;
use super::check::named;
use super::edit::{Members, default, existing_map, map_at, read_map, read_number, read_text};
use crate::Faults;
use objects::{Object, names};
use serde_json::{Value, json};

/// The strategy of API services.
pub struct ApiServices;

const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1_000;
const PORT: i64 = 443;

impl Strategy for ApiServices {
    fn default_fields(&self, object: &mut Object) {
        let spec = map_at(&mut object.body, "spec");
        if let Some(service) = spec.and_then(|spec| existing_map(spec, "service")) {
            default(service, "port", PORT);
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let nothing = Members::new();
        let spec = read_map(&object.body, "spec").unwrap_or(&nothing);
        check_name(object, spec, faults);
        priority(spec, "groupPriorityMinimum", GROUP_PRIORITY_MAX, faults);
        priority(spec, "versionPriority", VERSION_PRIORITY_MAX, faults);
        let has_bundle = !read_text(spec, "caBundle").is_empty();
        let skips = spec.get("insecureSkipTLSVerify") == Some(&json!(true));
        match read_map(spec, "service") {
            None if has_bundle => {
                faults.forbidden("spec.caBundle", "local APIServices may not have a caBundle")
            }
            None if skips => faults.forbidden(
                "spec.insecureSkipTLSVerify",
                "local APIServices may not have insecureSkipTLSVerify",
            ),
            None => {}
            Some(service) => {
                for name in ["namespace", "name"] {
                    named(service, name, "spec.service", names::dns1123_label, faults);
                }
                let port = read_number(service, "port").unwrap_or(PORT);
                for detail in names::port_number(port) {
                    faults.invalid("spec.service.port", &json!(port), &detail);
                }
                if has_bundle && skips {
                    faults.invalid(
                        "spec.insecureSkipTLSVerify",
                        &json!(true),
                        "may not be true if caBundle is present",
                    );
                }
            }
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    /// The core group's ends with the dot; what else is wrong with a name, the spec tells.
    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }
}

/// The name tells version and group; the core group's ends with the dot.
fn check_name(object: &Object, spec: &Members, faults: &mut Faults) {
    let (group, version) = (read_text(spec, "group"), read_text(spec, "version"));
    let name = object.metadata.name.as_str();
    let wanted = format!("{version}.{group}");
    if name != wanted {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        faults.invalid_text("metadata.name", name, &detail);
    }
    if group.is_empty() && version != "v1" {
        faults.required(
            "spec.group",
            "only v1 may have an empty group and it better be legacy kube",
        );
    } else if !group.is_empty() {
        faults.invalid_texts("spec.group", group, &names::dns1123_subdomain(group));
    }
    match version {
        "" => faults.required("spec.version", ""),
        version => faults.invalid_texts("spec.version", version, &names::dns1035_label(version)),
    }
}

fn priority(spec: &Members, name: &str, most: i64, faults: &mut Faults) {
    let number = read_number(spec, name).unwrap_or_default();
    if !(1..=most).contains(&number) {
        let detail = format!("must be positive and less than {most}");
        let shown = spec.get(name).cloned().unwrap_or(Value::from(0));
        faults.invalid(format!("spec.{name}"), &shown, &detail);
    }
}
