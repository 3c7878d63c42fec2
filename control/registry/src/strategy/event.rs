//! Events: what happened to an object, told in its namespace. Rules: Kubernetes' core/v1 validation and field selectors.

use super::edit::{default, map_at, read_map, read_text};
use super::{Strategy, field_text};
use crate::Faults;
use objects::Object;
use serde_json::Value;

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
