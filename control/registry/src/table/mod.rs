//! The table: one row a resource, from which paths, discovery, printing and the pipeline all follow.
//! Holds data and lookups only. Names and columns: Kubernetes' own discovery documents and printers.

mod columns;
mod rows;
mod versions;

pub use columns::{Column, ColumnKind, PLAIN as PLAIN_COLUMNS, text_age};
pub use rows::ALL_VERBS;
pub use versions::{StoredAs, core_event_path, preference};

use crate::Verb;
use crate::custom::Custom;
use crate::strategy::StrategyRef;
use objects::{GroupResource, GroupVersion, GroupVersionKind};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A resource: everything that the server knows of a kind.
pub struct ResourceDef {
    /// The group, empty for core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The plural, as in paths.
    pub resource: String,
    /// The singular.
    pub singular: String,
    /// The kind.
    pub kind: String,
    /// The kind of a list of them.
    pub list_kind: String,
    /// What `kubectl get` takes for short.
    pub short_names: Vec<String>,
    /// `all` for what `kubectl get all` shows.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What can be done.
    pub verbs: Vec<Verb>,
    /// What lies below an object's path.
    pub subresources: Vec<SubresourceDef>,
    /// What `kubectl get` prints.
    pub columns: &'static [Column],
    /// Where the kind differs from others.
    pub strategy: StrategyRef,
    /// Fields that selectors may ask for, beside `metadata.name` and `metadata.namespace`.
    pub field_selectors: Vec<String>,
    /// Set when objects are stored in another row's version.
    pub stored_as: Option<&'static StoredAs>,
    /// Objects are made when they are asked for and never stored: what nodes measure.
    pub computed: bool,
    /// Set for a kind that a definition made.
    pub custom: Option<Arc<Custom>>,
}

/// What lies below an object's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubresourceDef {
    /// `status`.
    pub name: String,
    /// What is read and written there.
    pub kind: GroupVersionKind,
    /// What can be done there.
    pub verbs: Vec<Verb>,
}

impl ResourceDef {
    /// Group and plural.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.group, &self.resource)
    }

    /// Group and plural under which objects are stored; several rows may share them.
    pub fn storage_resource(&self) -> GroupResource {
        match self.stored_as {
            Some(stored) => GroupResource::new(stored.group, stored.resource),
            None => self.group_resource(),
        }
    }

    /// Whether each object belongs to this row, rather than to one of another version.
    fn is_stored_version(&self) -> bool {
        let custom = self.custom.as_ref();
        self.stored_as.is_none() && custom.is_none_or(|custom| custom.is_stored_by(self))
    }

    /// Group, version and kind.
    pub fn kind(&self) -> GroupVersionKind {
        GroupVersionKind::new(&self.group, &self.version, &self.kind)
    }

    /// The `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        self.group_version().to_string()
    }

    /// Group and version.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion {
            group: self.group.clone(),
            version: self.version.clone(),
        }
    }

    /// The subresource of a name.
    pub fn subresource(&self, name: &str) -> Option<&SubresourceDef> {
        self.subresources
            .iter()
            .find(|subresource| subresource.name == name)
    }

    /// Whether `verb` is served, on the resource itself or on a subresource.
    pub fn serves(&self, verb: Verb, subresource: Option<&str>) -> bool {
        match subresource {
            None => self.verbs.contains(&verb),
            Some(name) => self
                .subresource(name)
                .is_some_and(|found| found.verbs.contains(&verb)),
        }
    }
}

impl fmt::Debug for ResourceDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResourceDef({}/{})", self.api_version(), self.resource)
    }
}

/// All resources that are served.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    by_path: BTreeMap<(String, String, String), Arc<ResourceDef>>,
}

impl Registry {
    /// What every cluster serves.
    pub fn builtin() -> Self {
        let mut registry = Registry::default();
        for row in rows::builtin() {
            registry.insert(row);
        }
        registry
    }

    /// Adds a row, or puts it in the place of one of the same path.
    pub fn insert(&mut self, row: impl Into<Arc<ResourceDef>>) {
        let row = row.into();
        let path = (row.group.clone(), row.version.clone(), row.resource.clone());
        self.by_path.insert(path, row);
    }

    /// The row that a path names.
    pub fn find(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<ResourceDef>> {
        let path = (group.to_owned(), version.to_owned(), resource.to_owned());
        self.by_path.get(&path)
    }

    /// The row of a kind.
    pub fn by_kind(&self, kind: &GroupVersionKind) -> Option<&Arc<ResourceDef>> {
        self.iter().find(|row| {
            row.kind == kind.kind && row.group == kind.group && row.version == kind.version
        })
    }

    /// The row of a group's resource in the version that is stored.
    pub fn by_resource(&self, resource: &GroupResource) -> Option<&Arc<ResourceDef>> {
        self.stored()
            .find(|row| row.resource == resource.resource && row.group == resource.group)
    }

    /// The rows whose objects lie in the store in the row's own version: each object belongs to one of them.
    pub fn stored(&self) -> impl Iterator<Item = &Arc<ResourceDef>> {
        self.iter().filter(|row| {
            row.is_stored_version() && !row.computed && row.verbs.contains(&Verb::Get)
        })
    }

    /// The row that people mean by `pods`, `pod`, `po`, `deployments.apps` or `hpa.v1.autoscaling`; of several versions the
    /// preferred one.
    pub fn by_name(&self, name: &str) -> Option<&Arc<ResourceDef>> {
        let (name, place) = match name.split_once('.') {
            Some((name, place)) => (name, Some(place)),
            None => (name, None),
        };
        let name = name.to_ascii_lowercase();
        let called = |row: &&Arc<ResourceDef>| {
            row.resource == name || row.singular == name || row.short_names.contains(&name)
        };
        let placed = |row: &Arc<ResourceDef>, place: &str| {
            row.group == place || place == format!("{}.{}", row.version, row.group)
        };
        let found: Vec<_> = self
            .iter()
            .filter(|row| place.is_none_or(|place| placed(row, place)))
            .filter(called)
            .collect();
        let group = &found.first()?.group;
        let of_group = found.iter().filter(|row| row.group == *group);
        of_group
            .min_by(|one, other| versions::preference(&one.version, &other.version))
            .copied()
    }

    /// All rows, by group, version and plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ResourceDef>> {
        self.by_path.values()
    }

    /// The groups with their versions, the preferred one first; the core group, whose name is empty, comes first.
    pub fn groups(&self) -> BTreeMap<String, Vec<String>> {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in self.iter() {
            let versions = groups.entry(row.group.clone()).or_default();
            if !versions.contains(&row.version) {
                versions.push(row.version.clone());
            }
        }
        for versions in groups.values_mut() {
            versions.sort_by(|one, other| versions::preference(one, other));
        }
        groups
    }

    /// The rows of one group and version.
    pub fn of_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<ResourceDef>> {
        self.iter()
            .filter(move |row| row.group == group && row.version == version)
    }
}
