//! Events: what happened to an object, told in its namespace. Rules: Kubernetes' core/v1 validation and field selectors.

use super::check::IMMUTABLE;
use super::edit::{default, map_at, read_map, read_text};
use super::{Strategy, field_text};
use crate::Faults;
use crate::table::core_event_path;
use objects::Object;
use serde_json::Value;
use std::collections::BTreeSet;

/// The events' strategy.
pub struct Events;

impl Strategy for Events {
    fn default_fields(&self, object: &mut Object) {
        map_at(&mut object.body, "involvedObject");
        map_at(&mut object.body, "source");
        for name in ["reportingComponent", "reportingInstance"] {
            default(&mut object.body, name, "");
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let involved = read_map(&object.body, "involvedObject");
        let about = involved
            .map(|involved| read_text(involved, "namespace"))
            .unwrap_or_default();
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        // Events of cluster-wide objects lie in `default`.
        let fits = if about.is_empty() {
            namespace == "default"
        } else {
            about == namespace
        };
        if !fits {
            faults.invalid_text(
                "involvedObject.namespace",
                about,
                "does not match event.namespace",
            );
        }
    }

    fn field_sources(&self, path: &str) -> Vec<String> {
        match path {
            "source" => vec![
                "source.component".to_owned(),
                "reportingComponent".to_owned(),
            ],
            path => vec![path.to_owned()],
        }
    }

    fn field(&self, object: &Value, path: &str) -> String {
        match path {
            "source" => match field_text(object, "source.component") {
                source if source.is_empty() => field_text(object, "reportingComponent"),
                source => source,
            },
            path => field_text(object, path),
        }
    }
}

/// The strategy of events of events.k8s.io/v1, which asks more of their writers. It sees the stored form.
pub struct RegardingEvents;

/// Bytes that a member may have.
const MEMBERS_MAX: [(&str, &str, usize); 4] = [
    ("reportingComponent", "reportingController", 253),
    ("reportingInstance", "reportingInstance", 128),
    ("action", "action", 128),
    ("reason", "reason", 128),
];
const NOTE_MAX: usize = 1024;

impl Strategy for RegardingEvents {
    fn default_fields(&self, object: &mut Object) {
        Events.default_fields(object);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        Events.validate(object, faults);
    }

    fn validate_new(&self, object: &Object, faults: &mut Faults) {
        let event = &object.body;
        if read_text(event, "eventTime").is_empty() {
            faults.required("eventTime", "");
        }
        for (member, field, bytes_max) in MEMBERS_MAX {
            let text = read_text(event, member);
            if text.is_empty() {
                faults.required(field, "");
            } else if text.len() > bytes_max {
                faults.too_long(field, bytes_max);
            }
        }
        if read_text(event, "message").len() > NOTE_MAX {
            faults.too_long("note", NOTE_MAX);
        }
        match read_text(event, "type") {
            "Normal" | "Warning" => {}
            other => faults.unsupported("type", other, &["Normal", "Warning"]),
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        // Only its series goes on; the fields are those of the stored form.
        let names = object.body.keys().chain(old.body.keys());
        let changed: BTreeSet<&String> = names
            .filter(|name| *name != "series" && object.body.get(*name) != old.body.get(*name))
            .collect();
        for name in changed {
            let shown = object.body.get(name).cloned().unwrap_or_default();
            faults.invalid(name, &shown, IMMUTABLE);
        }
    }

    fn field_sources(&self, path: &str) -> Vec<String> {
        vec![core_event_path(path)]
    }

    fn field(&self, object: &Value, path: &str) -> String {
        field_text(object, &core_event_path(path))
    }
}
