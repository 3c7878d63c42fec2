//! Every active namespace has a ServiceAccount `default`.
//!
//! Never changes one that is there. Semantics: Kubernetes' service account controller.

use crate::plan::{Action, Plan};
use crate::view::Viewed;
use k8s_openapi::api::core::v1::Namespace;
use objects::{GroupVersionKind, Object, ObjectMeta, Timestamp};
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
