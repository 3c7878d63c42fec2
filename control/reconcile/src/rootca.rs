//! Every active namespace has a ConfigMap `kube-root-ca.crt` with the cluster's CA, by which pods verify the API.
//!
//! Semantics: Kubernetes' root CA publisher: what somebody changes or deletes is put back.

use crate::controller::{Asked, Change, Controller, World};
use crate::plan::{Action, Plan, Precondition};
use objects::{GroupResource, GroupVersionKind, Object, ObjectError, ObjectKey, ObjectMeta};
use serde_json::{Value, json};
use std::sync::Arc;

/// The config map's name.
pub const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input<'a> {
    /// The namespace.
    pub namespace: Arc<Object>,
    /// Its config map, if it has one.
    pub published: Option<Arc<Object>>,
    /// The CA's certificate as PEM.
    pub ca_pem: &'a str,
}

/// Creates the config map, or puts its data right.
pub fn reconcile(input: &Input<'_>) -> Plan {
    let namespace = &input.namespace;
    let phase = namespace
        .body
        .get("status")
        .and_then(|status| status.get("phase"));
    if namespace.metadata.is_deleting() || phase.and_then(Value::as_str) == Some("Terminating") {
        return Plan::nothing();
    }
    let data = json!({ KEY: input.ca_pem });
    let name = &namespace.metadata.name;
    let Some(published) = &input.published else {
        let Value::Object(body) = json!({ "data": data }) else {
            return Plan::nothing();
        };
        return Plan::of(vec![Action::Create(Object {
            types: GroupVersionKind::new("", "v1", "ConfigMap"),
            metadata: ObjectMeta {
                name: NAME.to_owned(),
                namespace: Some(name.clone()),
                ..ObjectMeta::default()
            },
            body,
        })]);
    };
    if published.body.get("data") == Some(&data) || published.metadata.is_deleting() {
        return Plan::nothing();
    }
    // What else was put in goes: null takes a member away.
    let mut merge = data;
    let known = published.body.get("data").and_then(Value::as_object);
    for key in known.into_iter().flat_map(|known| known.keys()) {
        if key != KEY {
            merge[key.as_str()] = Value::Null;
        }
    }
    Plan::of(vec![Action::Patch {
        key: config_map(name),
        precondition: Precondition {
            uid: Some(published.metadata.uid.clone()),
            resource_version: Some(published.metadata.resource_version.clone()),
        },
        merge: json!({ "data": merge }),
        subresource: None,
    }])
}

fn config_map(namespace: &str) -> ObjectKey {
    ObjectKey::new(GroupResource::new("", "configmaps"), Some(namespace), NAME)
}

/// Runs [`reconcile`] for every namespace.
pub struct RootCaController {
    ca_pem: String,
}

impl RootCaController {
    /// Publishes this CA.
    pub fn new(ca_pem: &str) -> Self {
        RootCaController {
            ca_pem: ca_pem.to_owned(),
        }
    }
}

impl Controller for RootCaController {
    fn name(&self) -> &'static str {
        "rootca"
    }

    fn keys_for(&self, change: &Change<'_>, _world: &dyn World) -> Vec<ObjectKey> {
        if change.is_of("", "namespaces") {
            return vec![change.key.clone()];
        }
        let is_published = change.is_of("", "configmaps") && change.key.name == NAME;
        let namespace = change.key.namespace.as_deref().filter(|_| is_published);
        namespace
            .map(|name| ObjectKey::new(GroupResource::new("", "namespaces"), None, name))
            .into_iter()
            .collect()
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(namespace) = asked.world.get(asked.key) else {
            return Ok(Plan::nothing());
        };
        let published = asked.world.get(&config_map(&asked.key.name));
        Ok(reconcile(&Input {
            namespace,
            published,
            ca_pem: &self.ca_pem,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Arc<Object> {
        Arc::new(Object::from_value(value).expect("an object"))
    }

    fn plan(phase: &str, data: Option<Value>) -> Plan {
        let namespace = object(json!({
            "kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "a"}, "status": {"phase": phase},
        }));
        let published = data.map(|data| {
            object(json!({
                "kind": "ConfigMap", "apiVersion": "v1", "data": data,
                "metadata": {"name": NAME, "namespace": "a", "uid": "u", "resourceVersion": "7"},
            }))
        });
        reconcile(&Input {
            namespace,
            published,
            ca_pem: "CA",
        })
    }

    #[test]
    fn publishes_and_puts_right() {
        assert!(matches!(
            &plan("Active", None).actions[..],
            [Action::Create(_)]
        ));
        assert!(plan("Terminating", None).is_nothing());
        assert!(plan("Active", Some(json!({"ca.crt": "CA"}))).is_nothing());
        let mended = plan("Active", Some(json!({"ca.crt": "other", "x": "y"})));
        let [Action::Patch { merge, .. }] = &mended.actions[..] else {
            panic!("one patch: {mended}");
        };
        assert_eq!(*merge, json!({"data": {"ca.crt": "CA", "x": null}}));
    }
}
