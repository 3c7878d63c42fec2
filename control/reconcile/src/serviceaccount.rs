//! Every active namespace has a ServiceAccount `default`.
//!
//! Never changes one that is there. Semantics: Kubernetes' service account controller.

use crate::controller::{Asked, Change, Controller, World};
use crate::plan::{Action, Plan};
use crate::view::Viewed;
use k8s_openapi::api::core::v1::Namespace;
use objects::{
    GroupResource, GroupVersionKind, Object, ObjectError, ObjectKey, ObjectMeta, Timestamp,
};
use serde_json::Map;

/// The name of the account that pods run under which name none.
pub const DEFAULT: &str = "default";

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The namespace.
    pub namespace: Viewed<Namespace>,
    /// Whether it has a ServiceAccount [`DEFAULT`].
    pub has_default: bool,
}

/// Creates the account if it is missing.
pub fn reconcile(input: &Input, _now: Timestamp) -> Plan {
    let namespace = &input.namespace;
    let status = namespace.view.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    if input.has_default || namespace.is_deleting() || phase == Some("Terminating") {
        return Plan::nothing();
    }
    let account = Object {
        types: GroupVersionKind::new("", "v1", "ServiceAccount"),
        metadata: ObjectMeta {
            name: DEFAULT.to_owned(),
            namespace: Some(namespace.name().to_owned()),
            ..ObjectMeta::default()
        },
        body: Map::new(),
    };
    Plan::of(vec![Action::Create(account)])
}

/// Runs [`reconcile`] for every namespace.
pub struct ServiceAccountController;

impl Controller for ServiceAccountController {
    fn name(&self) -> &'static str {
        "serviceaccount"
    }

    fn keys_for(&self, change: &Change<'_>, _world: &dyn World) -> Vec<ObjectKey> {
        let namespaces = GroupResource::new("", "namespaces");
        if change.is_of("", "namespaces") {
            return vec![change.key.clone()];
        }
        let is_default = change.is_of("", "serviceaccounts")
            && change.key.name == DEFAULT
            && change.after.is_none();
        let namespace = change.key.namespace.as_deref().filter(|_| is_default);
        namespace
            .map(|name| ObjectKey::new(namespaces, None, name))
            .into_iter()
            .collect()
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(namespace) = asked.object::<Namespace>()? else {
            return Ok(Plan::nothing());
        };
        let account = ObjectKey::new(
            GroupResource::new("", "serviceaccounts"),
            Some(&asked.key.name),
            DEFAULT,
        );
        let has_default = asked.world.record(&account).is_some();
        Ok(reconcile(
            &Input {
                namespace,
                has_default,
            },
            asked.now,
        ))
    }
}
