//! Groups, versions, kinds and resources, as Kubernetes' API conventions name them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A group and a version; the core group is the empty text. Its text is an object's `apiVersion`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupVersion {
    /// `apps`, or the empty text for core.
    pub group: String,
    /// `v1`.
    pub version: String,
}

impl GroupVersion {
    /// Reads an `apiVersion`: `v1` or `apps/v1`. None when it is empty or has more than one slash.
    pub fn parse(api_version: &str) -> Option<Self> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let well_formed =
            !version.is_empty() && !version.contains('/') && !api_version.starts_with('/');
        well_formed.then(|| GroupVersion {
            group: group.to_owned(),
            version: version.to_owned(),
        })
    }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.version)
        } else {
            write!(f, "{}/{}", self.group, self.version)
        }
    }
}

/// What an object says it is: `apiVersion` and `kind`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupVersionKind {
    /// The group, empty for core.
    pub group: String,
    /// The version.
    pub version: String,
    /// `Deployment`.
    pub kind: String,
}

impl GroupVersionKind {
    /// From the three words.
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        GroupVersionKind {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
        }
    }

    /// The `apiVersion` text.
    pub fn api_version(&self) -> String {
        GroupVersion {
            group: self.group.clone(),
            version: self.version.clone(),
        }
        .to_string()
    }
}

/// A resource within a group, whatever the version: `deployments.apps`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupResource {
    /// The group, empty for core.
    pub group: String,
    /// The plural: `deployments`.
    pub resource: String,
}

impl GroupResource {
    /// From group and plural.
    pub fn new(group: &str, resource: &str) -> Self {
        GroupResource {
            group: group.to_owned(),
            resource: resource.to_owned(),
        }
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.resource)
        } else {
            write!(f, "{}.{}", self.resource, self.group)
        }
    }
}

/// A resource as a path names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupVersionResource {
    /// The group, empty for core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The plural.
    pub resource: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_versions_round_trip() {
        for text in ["v1", "apps/v1", "discovery.k8s.io/v1"] {
            assert_eq!(
                GroupVersion::parse(text).expect("well formed").to_string(),
                text
            );
        }
        for text in ["", "/", "/v1", "a/b/c", "apps/"] {
            assert_eq!(GroupVersion::parse(text), None, "{text}");
        }
    }
}
