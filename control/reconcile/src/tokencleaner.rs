//! Deletes bootstrap tokens whose time is over. Never touches another secret, nor a token without an end.
//! Semantics: Kubernetes' token cleaner.

use crate::controller::{Asked, Change, Controller, World};
use crate::plan::{Action, Plan, Precondition};
use k8s_openapi::api::core::v1::Secret;
use objects::{GroupResource, Object, ObjectError, ObjectKey, Timestamp};
use std::sync::Arc;

const NAMESPACE: &str = "kube-system";
const NAME_PREFIX: &str = "bootstrap-token-";
const TYPE: &str = "bootstrap.kubernetes.io/token";

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The secret.
    pub secret: Arc<Object>,
}

/// Deletes the token when its time is over, else looks again then.
pub fn reconcile(input: &Input, now: Timestamp) -> Plan {
    let metadata = &input.secret.metadata;
    let Some(ends) = ends(&input.secret).filter(|_| !metadata.is_deleting()) else {
        return Plan::nothing();
    };
    if now < ends {
        return Plan {
            wake_at: Some(ends),
            ..Plan::nothing()
        };
    }
    let secrets = GroupResource::new("", "secrets");
    Plan::of(vec![Action::Delete {
        key: ObjectKey::new(secrets, Some(NAMESPACE), &metadata.name),
        // Given a longer time in between, it stays.
        precondition: Precondition::unchanged(&metadata.uid.0, &metadata.resource_version),
        grace_seconds: None,
        propagation: None,
    }])
}

/// When a token ends; None for one that does not, and for what is none.
fn ends(secret: &Object) -> Option<Timestamp> {
    let secret: Secret = secret.view().ok()?;
    if secret.type_.as_deref() != Some(TYPE) {
        return None;
    }
    let ends = secret.data?.remove("expiration")?.0;
    Timestamp::parse(std::str::from_utf8(&ends).ok()?)
}

/// Runs [`reconcile`] for every bootstrap token.
pub struct TokenCleanerController;

impl Controller for TokenCleanerController {
    fn name(&self) -> &'static str {
        "token-cleaner"
    }

    fn keys_for(&self, change: &Change<'_>, _: &dyn World) -> Vec<ObjectKey> {
        let key = change.key;
        let is_token = change.is_of("", "secrets")
            && key.namespace.as_deref() == Some(NAMESPACE)
            && key.name.starts_with(NAME_PREFIX);
        match is_token && change.after.is_some() {
            true => vec![key.clone()],
            false => Vec::new(),
        }
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let secret = asked.world.get(asked.key);
        Ok(secret.map_or_else(Plan::nothing, |secret| {
            reconcile(&Input { secret }, asked.now)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn plan(kind: &str, data: Value, now: i64) -> Plan {
        let secret = json!({
            "kind": "Secret", "apiVersion": "v1", "type": kind, "data": data,
            "metadata": {"name": "bootstrap-token-abcdef", "namespace": NAMESPACE, "uid": "u", "resourceVersion": "3"},
        });
        let secret = Arc::new(Object::from_value(secret).expect("a secret"));
        reconcile(&Input { secret }, Timestamp::from_unix(now))
    }

    #[test]
    fn only_a_token_that_ended_goes() {
        let ends = Timestamp::from_unix(1_000_000);
        assert_eq!(ends.to_string(), "1970-01-12T13:46:40Z");
        let data = json!({"expiration": "MTk3MC0wMS0xMlQxMzo0Njo0MFo="});
        let early = plan(TYPE, data.clone(), 999_999);
        assert_eq!((early.actions.len(), early.wake_at), (0, Some(ends)));
        let late = plan(TYPE, data.clone(), 1_000_000);
        assert!(
            matches!(&late.actions[..], [Action::Delete { .. }]),
            "{late}"
        );
        assert!(plan("Opaque", data, 2_000_000).is_nothing());
        assert!(plan(TYPE, json!({}), 2_000_000).is_nothing());
    }
}
