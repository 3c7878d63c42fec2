//! What the server serves, as documents, out of the table and of what the servers behind API services tell. Never lists anything
//! by hand.
//! Formats: apidiscovery.k8s.io v2 and v2beta1 (aggregated) and meta/v1 `APIResourceList` (plain).

use crate::aggregation::{ApiServices, Told};
use crate::{Registry, ResourceDef, SubresourceDef, Verb};
use objects::GroupVersionKind;
use serde_json::{Value, json};

/// In which version an aggregated document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregatedVersion {
    /// `apidiscovery.k8s.io/v2`
    V2,
    /// `apidiscovery.k8s.io/v2beta1`
    V2Beta1,
}

impl AggregatedVersion {
    fn api_version(self) -> &'static str {
        match self {
            AggregatedVersion::V2 => "apidiscovery.k8s.io/v2",
            AggregatedVersion::V2Beta1 => "apidiscovery.k8s.io/v2beta1",
        }
    }
}

/// `GET /api` with everything of the core group.
pub fn aggregated_core(registry: &Registry, version: AggregatedVersion) -> Value {
    aggregated(registry, &ApiServices::default(), version, |group| {
        group.is_empty()
    })
}

/// `GET /apis` with everything of the other groups.
pub fn aggregated_groups(
    registry: &Registry,
    services: &ApiServices,
    version: AggregatedVersion,
) -> Value {
    aggregated(registry, services, version, |group| !group.is_empty())
}

/// `GET /api`, plain: `address` is where the client reached the server, `host:port`.
pub fn core_versions(registry: &Registry, address: &str) -> Value {
    let versions = registry.groups().remove("").unwrap_or_default();
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `GET /apis`, plain.
pub fn group_list(registry: &Registry, services: &ApiServices) -> Value {
    let groups: Vec<Value> = services
        .groups(registry)
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_entry(group, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/G`, plain; None when nothing of the group is served.
pub fn group(registry: &Registry, services: &ApiServices, group: &str) -> Option<Value> {
    let groups = services.groups(registry).into_iter();
    let (_, versions) = groups.into_iter().find(|(name, _)| name == group)?;
    let mut entry = json!({"kind": "APIGroup", "apiVersion": "v1"});
    let members = group_entry(group, &versions);
    let entry_map = entry.as_object_mut().expect("made as a map above");
    entry_map.extend(members.as_object().cloned().unwrap_or_default());
    Some(entry)
}

/// `GET /api/v1` or `/apis/G/V`, plain; None when nothing of the version is served.
pub fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let rows: Vec<_> = registry.of_version(group, version).collect();
    let first = rows.first()?;
    let resources: Vec<Value> = rows.iter().flat_map(|row| plain_resources(row)).collect();
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": first.api_version(),
        "resources": resources,
    }))
}

fn aggregated(
    registry: &Registry,
    services: &ApiServices,
    version: AggregatedVersion,
    wanted: fn(&str) -> bool,
) -> Value {
    let items: Vec<Value> = services
        .groups(registry)
        .iter()
        .filter(|(group, _)| wanted(group))
        .map(|(group, versions)| aggregated_group(registry, services, group, versions))
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": version.api_version(),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_group(
    registry: &Registry,
    services: &ApiServices,
    group: &str,
    versions: &[String],
) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            let (resources, is_current) = match services.remote(group, version) {
                None => {
                    let rows = registry.of_version(group, version);
                    (rows.map(|row| aggregated_resource(row)).collect(), true)
                }
                Some(service) => match services.told(group, version) {
                    None => (Vec::new(), false),
                    Some(told) => {
                        let resources = told_resources(told, group, version);
                        (resources, told.is_current && service.is_available)
                    }
                },
            };
            let freshness = if is_current { "Current" } else { "Stale" };
            json!({"version": version, "resources": resources, "freshness": freshness})
        })
        .collect();
    let metadata = if group.is_empty() {
        json!({})
    } else {
        json!({"name": group})
    };
    json!({"metadata": metadata, "versions": versions})
}

/// The resources of another server, which tells a subresource as a resource of the name `RESOURCE/SUBRESOURCE`.
fn told_resources(told: &Told, group: &str, version: &str) -> Vec<Value> {
    fn name(entry: &Value) -> &str {
        entry["name"].as_str().unwrap_or_default()
    }
    let kind = |entry: &Value| {
        let own = |member: &str, default: &str| {
            let text = entry[member].as_str().filter(|text| !text.is_empty());
            text.unwrap_or(default).to_owned()
        };
        json!({"group": own("group", group), "version": own("version", version), "kind": own("kind", "")})
    };
    let mains = told
        .resources
        .iter()
        .filter(|entry| !name(entry).contains('/'));
    let resources = mains.map(|main| {
        let mut entry = json!({
            "resource": name(main),
            "responseKind": kind(main),
            "scope": if main["namespaced"] == true { "Namespaced" } else { "Cluster" },
            "singularResource": main["singularName"].as_str().unwrap_or_default(),
            "verbs": main["verbs"],
        });
        for member in ["shortNames", "categories"] {
            if main[member]
                .as_array()
                .is_some_and(|words| !words.is_empty())
            {
                entry[member] = main[member].clone();
            }
        }
        let below = told.resources.iter().filter_map(|other| {
            let part = name(other).strip_prefix(name(main))?.strip_prefix('/')?;
            Some(json!({"subresource": part, "responseKind": kind(other), "verbs": other["verbs"]}))
        });
        let below: Vec<Value> = below.collect();
        if !below.is_empty() {
            entry["subresources"] = Value::Array(below);
        }
        entry
    });
    resources.collect()
}

fn aggregated_resource(row: &ResourceDef) -> Value {
    let mut entry = json!({
        "resource": row.resource,
        "responseKind": response_kind(&row.kind()),
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": verbs(&row.verbs),
    });
    set_unless_empty(&mut entry, "shortNames", &row.short_names);
    set_unless_empty(&mut entry, "categories", &row.categories);
    let subresources: Vec<Value> = row
        .subresources
        .iter()
        .map(aggregated_subresource)
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = Value::Array(subresources);
    }
    entry
}

fn aggregated_subresource(subresource: &SubresourceDef) -> Value {
    json!({
        "subresource": subresource.name,
        "responseKind": response_kind(&subresource.kind),
        "verbs": verbs(&subresource.verbs),
    })
}

fn plain_resources(row: &ResourceDef) -> Vec<Value> {
    let mut main = json!({
        "name": row.resource,
        "singularName": row.singular,
        "namespaced": row.namespaced,
        "kind": row.kind,
        "verbs": verbs(&row.verbs),
    });
    set_unless_empty(&mut main, "shortNames", &row.short_names);
    set_unless_empty(&mut main, "categories", &row.categories);
    let mut entries = vec![main];
    for subresource in &row.subresources {
        let mut entry = json!({
            "name": format!("{}/{}", row.resource, subresource.name),
            "singularName": "",
            "namespaced": row.namespaced,
            "kind": subresource.kind.kind,
            "verbs": verbs(&subresource.verbs),
        });
        if subresource.kind.group != row.group || subresource.kind.version != row.version {
            entry["group"] = json!(subresource.kind.group);
            entry["version"] = json!(subresource.kind.version);
        }
        entries.push(entry);
    }
    entries
}

fn group_entry(group: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"name": group, "versions": versions, "preferredVersion": preferred})
}

fn response_kind(kind: &GroupVersionKind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn verbs(verbs: &[Verb]) -> Vec<&'static str> {
    let mut words: Vec<&str> = verbs.iter().map(|verb| verb.as_str()).collect();
    words.sort_unstable();
    words
}

fn set_unless_empty(entry: &mut Value, name: &str, words: &[String]) {
    if !words.is_empty() {
        entry[name] = json!(words);
    }
}
