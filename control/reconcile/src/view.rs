//! An object together with its typed view: the view is read, the object is what is written.

use crate::plan::{ObjectReference, Precondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use objects::{GroupResource, LabelSelector, Object, ObjectError, ObjectKey, Timestamp, Uid};
use serde::Deserialize;

/// An object and its typed view, of the same revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Viewed<T> {
    /// The object as it came: nothing that a client wrote is lost.
    pub object: Object,
    /// Its typed view, for reading only.
    pub view: T,
}

impl<T: for<'de> Deserialize<'de>> Viewed<T> {
    /// Parses the view. The error says which member has the wrong type.
    pub fn new(object: Object) -> Result<Self, ObjectError> {
        let view = object.view()?;
        Ok(Viewed { object, view })
    }
}

impl<T> Viewed<T> {
    /// The name.
    pub fn name(&self) -> &str {
        &self.object.metadata.name
    }

    /// The namespace, empty for a cluster-wide kind.
    pub fn namespace(&self) -> &str {
        self.object.metadata.namespace.as_deref().unwrap_or("")
    }

    /// The uid.
    pub fn uid(&self) -> &Uid {
        &self.object.metadata.uid
    }

    /// Whether deletion was asked.
    pub fn is_deleting(&self) -> bool {
        self.object.metadata.is_deleting()
    }

    /// A member of `spec` as it came.
    pub fn spec(&self, field: &str) -> Option<&serde_json::Value> {
        self.object.body.get("spec")?.get(field)
    }

    /// The selector in its spec; None when there is none, it cannot be read, or it is empty and so would select everything.
    pub fn selector(&self) -> Option<LabelSelector> {
        let selector = LabelSelector::from_value(self.spec("selector")?).ok()?;
        (!selector.is_empty()).then_some(selector)
    }

    /// Its key, given the resource that its kind belongs to.
    pub fn key(&self, resource: GroupResource) -> ObjectKey {
        ObjectKey {
            resource,
            namespace: self.object.metadata.namespace.clone(),
            name: self.object.metadata.name.clone(),
        }
    }

    /// That it is still in this state.
    pub fn unchanged(&self) -> Precondition {
        let metadata = &self.object.metadata;
        Precondition::unchanged(&metadata.uid.0, &metadata.resource_version)
    }

    /// For events about it.
    pub fn reference(&self) -> ObjectReference {
        let Object {
            types, metadata, ..
        } = &self.object;
        ObjectReference {
            api_version: types.api_version(),
            kind: types.kind.clone(),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
        }
    }
}

/// The uid in a view's metadata, empty when the object was never stored.
pub fn uid(metadata: &ObjectMeta) -> &str {
    metadata.uid.as_deref().unwrap_or("")
}

/// The name in a view's metadata.
pub fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or("")
}

/// The key of a viewed object.
pub fn key(resource: GroupResource, metadata: &ObjectMeta) -> ObjectKey {
    ObjectKey::new(resource, metadata.namespace.as_deref(), name(metadata))
}

/// That the viewed object is still in this state.
pub fn unchanged(metadata: &ObjectMeta) -> Precondition {
    Precondition::unchanged(
        uid(metadata),
        metadata.resource_version.as_deref().unwrap_or(""),
    )
}

/// When the viewed object was created, as far as known.
pub fn created(metadata: &ObjectMeta) -> Option<Timestamp> {
    metadata
        .creation_timestamp
        .as_ref()
        .map(|time| Timestamp(time.0))
}

/// A label of a viewed object.
pub fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// Whether the selector takes the viewed object.
pub fn matches(selector: &LabelSelector, metadata: &ObjectMeta) -> bool {
    let labels = metadata.labels.as_ref();
    selector.matches_with(|key| labels?.get(key).map(String::as_str))
}

/// An annotation of a viewed object.
pub fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The resources that the controllers write.
pub mod resources {
    use objects::GroupResource;

    macro_rules! resource {
        ($name:ident, $group:literal) => {
            #[doc = concat!("`", stringify!($name), "` of group \"", $group, "\".")]
            pub fn $name() -> GroupResource {
                GroupResource::new($group, stringify!($name))
            }
        };
    }

    resource!(pods, "");
    resource!(nodes, "");
    resource!(namespaces, "");
    resource!(services, "");
    resource!(serviceaccounts, "");
    resource!(replicationcontrollers, "");
    resource!(persistentvolumeclaims, "");
    resource!(persistentvolumes, "");
    resource!(resourcequotas, "");
    resource!(endpoints, "");
    resource!(deployments, "apps");
    resource!(statefulsets, "apps");
    resource!(daemonsets, "apps");
    resource!(controllerrevisions, "apps");
    resource!(horizontalpodautoscalers, "autoscaling");
    resource!(jobs, "batch");
    resource!(cronjobs, "batch");
    resource!(poddisruptionbudgets, "policy");
    resource!(replicasets, "apps");
    resource!(endpointslices, "discovery.k8s.io");
}
