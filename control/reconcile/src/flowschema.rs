//! A FlowSchema says in its status whether its priority level is missing.
//!
//! Never touches a level. Semantics: Kubernetes' condition `Dangling`.

use crate::controller::{Asked, Change, Controller, World};
use crate::plan::{Action, Plan, Precondition};
use objects::{GroupResource, Object, ObjectError, ObjectKey, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const DANGLING: &str = "Dangling";

fn schemas() -> GroupResource {
    GroupResource::new(GROUP, "flowschemas")
}

fn levels() -> GroupResource {
    GroupResource::new(GROUP, "prioritylevelconfigurations")
}

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The schema.
    pub schema: Arc<Object>,
    /// Whether its level is there.
    pub has_level: bool,
}

/// Writes the condition if it does not say what is.
pub fn reconcile(input: &Input, now: Timestamp) -> Plan {
    let schema = &input.schema;
    let (status, reason, message) = match input.has_level {
        true => ("False", "Found", "the priority level exists".to_owned()),
        false => (
            "True",
            "NotFound",
            format!("there is no priority level {:?}", level_of(schema)),
        ),
    };
    let known = schema.body.get("status");
    let known = known.and_then(|status| status.get("conditions")?.as_array());
    let known = known.map(Vec::as_slice).unwrap_or_default();
    let is_it = |condition: &&Value| condition["type"] == DANGLING;
    let said = known.iter().find(is_it);
    if said.is_some_and(|said| said["status"] == status && said["message"] == *message) {
        return Plan::nothing();
    }
    let changed = match said {
        Some(said) if said["status"] == status => said["lastTransitionTime"].clone(),
        _ => json!(now),
    };
    let mut conditions: Vec<Value> = known.iter().filter(|it| !is_it(it)).cloned().collect();
    conditions.push(json!({
        "type": DANGLING, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": changed,
    }));
    Plan::of(vec![Action::Patch {
        key: ObjectKey::new(schemas(), None, &schema.metadata.name),
        precondition: Precondition {
            uid: Some(schema.metadata.uid.clone()),
            resource_version: Some(schema.metadata.resource_version.clone()),
        },
        merge: json!({"status": {"conditions": conditions}}),
        subresource: Some("status"),
    }])
}

fn level_of(schema: &Object) -> &str {
    let spec = schema.body.get("spec");
    let name = spec.and_then(|spec| spec.pointer("/priorityLevelConfiguration/name")?.as_str());
    name.unwrap_or_default()
}

/// Runs [`reconcile`] for every schema.
pub struct FlowSchemaController;

impl Controller for FlowSchemaController {
    fn name(&self) -> &'static str {
        "flowschema"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        match &change.key.resource {
            resource if *resource == schemas() => vec![change.key.clone()],
            // Which level each has is in the schemas themselves; there are few. A level's content matters to none.
            resource
                if *resource == levels() && change.before.is_some() != change.after.is_some() =>
            {
                world.keys(&schemas(), None, &|_| true)
            }
            _ => Vec::new(),
        }
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(schema) = asked.world.get(asked.key) else {
            return Ok(Plan::nothing());
        };
        let level = ObjectKey::new(levels(), None, level_of(&schema));
        let has_level = asked.world.get(&level).is_some();
        Ok(reconcile(&Input { schema, has_level }, asked.now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(status: Value) -> Arc<Object> {
        Arc::new(
            Object::from_value(json!({
                "kind": "FlowSchema", "apiVersion": format!("{GROUP}/v1"),
                "metadata": {"name": "s", "uid": "s", "resourceVersion": "1"},
                "spec": {"priorityLevelConfiguration": {"name": "l"}}, "status": status,
            }))
            .expect("a schema"),
        )
    }

    fn patched(status: Value, has_level: bool, now: i64) -> Option<Value> {
        let schema = schema(status);
        let plan = reconcile(&Input { schema, has_level }, Timestamp::from_unix(now));
        match &plan.actions[..] {
            [] => None,
            [Action::Patch { merge, .. }] => Some(merge["status"].clone()),
            _ => panic!("one patch at most: {plan}"),
        }
    }

    #[test]
    fn says_whether_the_level_is_missing_and_since_when() {
        let missing = patched(json!({}), false, 1).expect("it is said");
        assert_eq!(missing["conditions"][0]["status"], "True");
        assert_eq!(patched(missing.clone(), false, 2), None);
        let found = patched(missing, true, 3).expect("it is said");
        assert_eq!(
            found["conditions"],
            json!([{
                "type": "Dangling", "status": "False", "reason": "Found", "message": "the priority level exists",
                "lastTransitionTime": Timestamp::from_unix(3),
            }])
        );
        assert_eq!(patched(found, true, 4), None);
    }
}
