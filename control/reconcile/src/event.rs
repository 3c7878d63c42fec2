//! Forgets Events that nobody repeated for an hour, so that news never fills the store.
//! Never touches anything else. Semantics: kube-apiserver's `--event-ttl`, whose default is one hour.

use crate::controller::{Asked, Change, Controller, World};
use crate::{Action, Plan, Precondition, Viewed};
use k8s_openapi::api::core::v1::Event;
use objects::{GroupResource, ObjectError, ObjectKey, Timestamp};
use std::time::Duration;

/// How long an Event is kept after it was last told.
pub const TTL: Duration = Duration::from_secs(3600);

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The Event.
    pub event: Viewed<Event>,
}

/// Deletes the Event when its time is over, else looks again then.
pub fn reconcile(input: &Input, now: Timestamp) -> Plan {
    let event = &input.event;
    let view = &event.view;
    let told = view
        .last_timestamp
        .as_ref()
        .or(view.first_timestamp.as_ref())
        .map(|time| Timestamp(time.0));
    let told = told
        .or(event.object.metadata.creation_timestamp)
        .unwrap_or(now);
    let ends = told.plus(TTL);
    if now < ends {
        return Plan {
            wake_at: Some(ends),
            ..Plan::nothing()
        };
    }
    Plan::of(vec![Action::Delete {
        key: event.key(events()),
        // Told again in between, it stays.
        precondition: Precondition::unchanged(
            &event.uid().0,
            &event.object.metadata.resource_version,
        ),
        grace_seconds: None,
        propagation: None,
    }])
}

/// Runs [`reconcile`] for every Event.
pub struct EventController;

impl Controller for EventController {
    fn name(&self) -> &'static str {
        "event"
    }

    fn keys_for(&self, change: &Change<'_>, _world: &dyn World) -> Vec<ObjectKey> {
        let is_told = change.is_of("", "events") && change.after.is_some();
        if is_told {
            vec![change.key.clone()]
        } else {
            Vec::new()
        }
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let event = asked.object::<Event>()?;
        Ok(event.map_or_else(Plan::nothing, |event| {
            reconcile(&Input { event }, asked.now)
        }))
    }
}

fn events() -> GroupResource {
    GroupResource::new("", "events")
}

#[cfg(test)]
mod tests {
    use super::*;
    use objects::Object;
    use serde_json::json;

    #[test]
    fn an_event_goes_an_hour_after_it_was_last_told() {
        let object = Object::from_value(json!({
            "kind": "Event", "apiVersion": "v1",
            "metadata": {"name": "a", "namespace": "x", "uid": "u", "resourceVersion": "7"},
            "involvedObject": {}, "lastTimestamp": "2026-01-01T10:00:00Z",
        }));
        let input = Input {
            event: Viewed::new(object.expect("an object")).expect("an Event"),
        };
        let at = |text: &str| Timestamp::parse(text).expect("a time");
        let early = reconcile(&input, at("2026-01-01T10:59:59Z"));
        assert_eq!(early.to_string(), "wake at 2026-01-01T11:00:00Z\n");
        assert_eq!(
            reconcile(&input, at("2026-01-01T11:00:00Z")).to_string(),
            "delete events x/a\n"
        );
    }
}
