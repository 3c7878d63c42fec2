//! Where an object lies in the store.
//!
//! `/registry/<group or "core">/<resource>/<namespace>/<name>`, without the namespace for a cluster-wide kind. Names and
//! namespaces hold no slash, so that a prefix ending in one never reaches into a neighbour.

use crate::GroupResource;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The prefix of every object in the store.
pub const REGISTRY_ROOT: &str = "/registry/";

/// An object's place: resource, namespace (none for a cluster-wide kind), name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// The resource.
    pub resource: GroupResource,
    /// The namespace; None for a cluster-wide kind.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// The key of an object.
    pub fn new(resource: GroupResource, namespace: Option<&str>, name: &str) -> Self {
        ObjectKey {
            resource,
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        }
    }

    /// The key's bytes in the store.
    pub fn to_store_key(&self) -> String {
        store_key(&self.resource, self.namespace.as_deref(), &self.name)
    }

    /// The key back from the store's bytes; None when it is no object's key.
    pub fn from_store_key(key: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(key).ok()?.strip_prefix(REGISTRY_ROOT)?;
        let parts: Vec<&str> = text.split('/').collect();
        let (group, resource, namespace, name) = match parts[..] {
            [group, resource, name] => (group, resource, None, name),
            [group, resource, namespace, name] => (group, resource, Some(namespace), name),
            _ => return None,
        };
        let group = if group == "core" { "" } else { group };
        Some(ObjectKey::new(
            GroupResource::new(group, resource),
            namespace,
            name,
        ))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.resource, self.name),
            None => write!(f, "{} {}", self.resource, self.name),
        }
    }
}

/// The store key of one object.
pub fn store_key(resource: &GroupResource, namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{}{name}", namespace_prefix(resource, namespace)),
        None => format!("{}{name}", resource_prefix(resource)),
    }
}

/// The prefix of all objects of a resource, over all namespaces.
pub fn resource_prefix(resource: &GroupResource) -> String {
    let group = if resource.group.is_empty() {
        "core"
    } else {
        &resource.group
    };
    format!("{REGISTRY_ROOT}{group}/{}/", resource.resource)
}

/// The prefix of the objects of a resource in one namespace.
pub fn namespace_prefix(resource: &GroupResource, namespace: &str) -> String {
    format!("{}{namespace}/", resource_prefix(resource))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip() {
        let pods = GroupResource::new("", "pods");
        let key = ObjectKey::new(pods, Some("default"), "web-0");
        assert_eq!(key.to_store_key(), "/registry/core/pods/default/web-0");
        assert_eq!(
            ObjectKey::from_store_key(key.to_store_key().as_bytes()),
            Some(key)
        );
        let node = ObjectKey::new(GroupResource::new("", "nodes"), None, "n1");
        assert_eq!(
            ObjectKey::from_store_key(b"/registry/core/nodes/n1"),
            Some(node)
        );
        assert_eq!(ObjectKey::from_store_key(b"/other"), None);
    }
}
