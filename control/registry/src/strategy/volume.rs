//! PersistentVolumes and their claims. Rules: Kubernetes' core/v1 defaults and validation.

use super::check::{frozen, named, one_of, selector};
use super::edit::{
    Members, default, default_text, existing_map, map_at, read_list, read_map, read_text,
    read_texts,
};
use super::{Context, Strategy};
use crate::Faults;
use objects::{Object, Quantity, names};
use serde_json::{Value, json};

const ACCESS_MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
/// Members of a volume's spec that are no source.
const NO_SOURCES: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// The persistent volumes' strategy.
pub struct Volumes;

impl Strategy for Volumes {
    fn default_fields(&self, object: &mut Object) {
        let Some(spec) = map_at(&mut object.body, "spec") else {
            return;
        };
        default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
        default_text(spec, "volumeMode", "Filesystem");
        if let Some(path) = existing_map(spec, "hostPath") {
            default(path, "type", "");
        }
    }

    fn prepare_create(&self, object: &mut Object, _context: &Context<'_>) {
        let status = json!({"phase": "Pending"});
        object.body.insert("status".to_owned(), status);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let nothing = Members::new();
        let spec = read_map(&object.body, "spec").unwrap_or(&nothing);
        check_access(spec, "spec", faults);
        match read_map(spec, "capacity").map(|capacity| capacity.get("storage")) {
            None => faults.required("spec.capacity", ""),
            Some(storage) => check_size(storage, "spec.capacity", faults),
        }
        let policies = ["Delete", "Recycle", "Retain"];
        one_of(
            spec,
            "persistentVolumeReclaimPolicy",
            "spec",
            &policies,
            faults,
        );
        one_of(spec, "volumeMode", "spec", &VOLUME_MODES, faults);
        let sources: Vec<&String> = sources(spec).collect();
        match sources[..] {
            [] => faults.required("spec", "must specify a volume type"),
            [_] => {}
            [_, second, ..] => {
                let detail = "may not specify more than 1 volume type";
                faults.forbidden(format!("spec.{second}"), detail);
            }
        }
        if spec.contains_key("local") && !spec.contains_key("nodeAffinity") {
            faults.required("spec.nodeAffinity", "Local volume requires node affinity");
        }
        check_class(spec, "spec", faults);
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        let source = |object: &Object| {
            let spec = read_map(&object.body, "spec").cloned().unwrap_or_default();
            let kept =
                sources(&spec).filter_map(|name| Some((name.clone(), spec.get(name)?.clone())));
            kept.collect::<Members>()
        };
        if source(object) != source(old) {
            faults.forbidden(
                "spec.persistentvolumesource",
                "spec.persistentvolumesource is immutable after creation",
            );
        }
        frozen(object, old, &["spec.volumeMode"], faults);
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}

fn sources(spec: &Members) -> impl Iterator<Item = &String> {
    spec.keys()
        .filter(|name| !NO_SOURCES.contains(&name.as_str()))
}

/// The claims' strategy.
pub struct Claims;

impl Strategy for Claims {
    fn default_fields(&self, object: &mut Object) {
        default_claim(&mut object.body);
    }

    fn prepare_create(&self, object: &mut Object, _context: &Context<'_>) {
        let status = json!({"phase": "Pending"});
        object.body.insert("status".to_owned(), status);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate_claim_spec(read_map(&object.body, "spec"), "spec", faults);
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        let volume = super::field_value(&old.body, "spec.volumeName").and_then(Value::as_str);
        let bound = volume.is_some_and(|volume| !volume.is_empty());
        if fixed(object, bound) != fixed(old, bound) {
            let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
            faults.forbidden("spec", detail);
        }
        let size = |object: &Object| {
            let at = super::field_value(&object.body, "spec.resources.requests")?.get("storage")?;
            serde_json::from_value::<Quantity>(at.clone()).ok()
        };
        if let Some((new, old)) = size(object).zip(size(old))
            && new < old
        {
            let detail = "field can not be less than previous value";
            faults.forbidden("spec.resources.requests.storage", detail);
        }
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}

/// A claim's spec without what an update may change. The volume may be named once.
fn fixed(claim: &Object, bound: bool) -> Members {
    let mut spec = read_map(&claim.body, "spec").cloned().unwrap_or_default();
    spec.shift_remove("volumeAttributesClassName");
    if bound {
        if let Some(resources) = existing_map(&mut spec, "resources") {
            resources.shift_remove("requests");
        }
    } else {
        spec.shift_remove("volumeName");
    }
    spec
}

/// Fills in a claim, or the template of one.
pub fn default_claim(claim: &mut Members) {
    if let Some(spec) = map_at(claim, "spec") {
        default_text(spec, "volumeMode", "Filesystem");
        map_at(spec, "resources");
    }
    if let Some(status) = map_at(claim, "status") {
        default_text(status, "phase", "Pending");
    }
}

/// Checks the spec of a claim, or of the template of one.
pub fn validate_claim_spec(spec: Option<&Members>, field: &str, faults: &mut Faults) {
    let nothing = Members::new();
    let spec = spec.unwrap_or(&nothing);
    check_access(spec, field, faults);
    selector(spec, "selector", field, faults);
    let requests =
        read_map(spec, "resources").and_then(|resources| read_map(resources, "requests"));
    let size = requests.and_then(|requests| requests.get("storage"));
    match size {
        None => faults.required(format!("{field}.resources[storage]"), ""),
        Some(_) => check_size(size, &format!("{field}.resources"), faults),
    }
    check_class(spec, field, faults);
    one_of(spec, "volumeMode", field, &VOLUME_MODES, faults);
    if let Some(source) = read_map(spec, "dataSource") {
        for name in ["kind", "name"] {
            named(
                source,
                name,
                &format!("{field}.dataSource"),
                names::path_segment,
                faults,
            );
        }
    }
}

fn check_access(spec: &Members, field: &str, faults: &mut Faults) {
    let field = format!("{field}.accessModes");
    if read_list(spec, "accessModes").is_empty() {
        faults.required(&field, "at least 1 access mode is required");
    }
    let mut alone = false;
    for mode in read_texts(spec, "accessModes") {
        alone |= mode == "ReadWriteOncePod";
        if !ACCESS_MODES.contains(&mode) {
            faults.unsupported(&field, mode, &ACCESS_MODES);
        }
    }
    if alone && read_list(spec, "accessModes").len() > 1 {
        let detail = "may not use ReadWriteOncePod with other access modes";
        faults.forbidden(&field, detail);
    }
}

fn check_size(size: Option<&Value>, field: &str, faults: &mut Faults) {
    let field = format!("{field}[storage]");
    let Some(size) = size else {
        return faults.unsupported(field, "", &["storage"]);
    };
    match serde_json::from_value::<Quantity>(size.clone()) {
        Ok(amount) if amount.is_negative() || amount.is_zero() => {
            faults.invalid(field, size, "must be greater than zero");
        }
        Ok(_) => {}
        Err(error) => faults.invalid(field, size, &error.to_string()),
    }
}

fn check_class(spec: &Members, field: &str, faults: &mut Faults) {
    for name in ["storageClassName", "volumeAttributesClassName"] {
        let class = read_text(spec, name);
        if !class.is_empty() {
            faults.invalid_texts(
                format!("{field}.{name}"),
                class,
                &names::dns1123_subdomain(class),
            );
        }
    }
}
