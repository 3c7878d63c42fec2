//! The rows of the built-in resources, a file a subject. Names, verbs and subresources: Kubernetes' own discovery documents.

mod access;
mod cluster;
mod core;
mod events;
mod extension;
mod metrics;
mod network;
mod storage;
mod workload;

use super::columns::{self, Column};
use super::{ResourceDef, StoredAs, SubresourceDef};
use crate::Verb;
use crate::strategy::{self, Strategy, StrategyRef};
use objects::{GroupVersion, GroupVersionKind};

/// What can be done with objects.
pub const ALL_VERBS: [Verb; 8] = [
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];
const FIELDS: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];

/// A row as it is written down.
struct Row {
    version: &'static str,
    resource: &'static str,
    kind: &'static str,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    without: &'static [Verb],
    subresources: &'static [Sub],
    columns: &'static [Column],
    strategy: &'static dyn Strategy,
    field_selectors: &'static [&'static str],
    stored_as: Option<&'static StoredAs>,
    computed: bool,
}

/// A subresource as it is written down; an empty kind is that of the row.
struct Sub(&'static str, &'static str, &'static str, &'static [Verb]);

const STATUS: Sub = Sub("status", "", "", FIELDS);
const SCALE: Sub = Sub("scale", "autoscaling/v1", "Scale", FIELDS);
const ALL: &[&str] = &["all"];

const PLAIN: Row = Row {
    version: "v1",
    resource: "",
    kind: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    without: &[],
    subresources: &[],
    columns: columns::PLAIN,
    strategy: &strategy::Plain,
    field_selectors: &[],
    stored_as: None,
    computed: false,
};

/// A row of a resource without namespaces.
const CLUSTER_WIDE: Row = Row {
    namespaced: false,
    ..PLAIN
};

/// The built-in rows.
pub fn builtin() -> impl Iterator<Item = ResourceDef> {
    let subjects = [
        core::ROWS,
        events::ROWS,
        workload::ROWS,
        network::ROWS,
        access::ROWS,
        cluster::ROWS,
        storage::ROWS,
        extension::ROWS,
        metrics::ROWS,
    ];
    subjects.into_iter().flatten().map(definition)
}

fn definition(row: &Row) -> ResourceDef {
    let GroupVersion { group, version } =
        GroupVersion::parse(row.version).expect("rows name well-formed versions");
    let own_kind = GroupVersionKind::new(&group, &version, row.kind);
    let subresources = row
        .subresources
        .iter()
        .map(|sub| subresource(sub, &own_kind))
        .collect();
    ResourceDef {
        resource: row.resource.to_owned(),
        singular: row.kind.to_ascii_lowercase(),
        kind: row.kind.to_owned(),
        list_kind: format!("{}List", row.kind),
        short_names: owned(row.short_names),
        categories: owned(row.categories),
        namespaced: row.namespaced,
        verbs: ALL_VERBS
            .into_iter()
            .filter(|verb| !row.without.contains(verb))
            .collect(),
        subresources,
        columns: row.columns,
        strategy: StrategyRef::Static(row.strategy),
        custom: None,
        field_selectors: owned(row.field_selectors),
        stored_as: row.stored_as,
        computed: row.computed,
        group,
        version,
    }
}

fn subresource(sub: &Sub, own_kind: &GroupVersionKind) -> SubresourceDef {
    let Sub(name, version, kind, verbs) = sub;
    let kind = match GroupVersion::parse(version) {
        Some(GroupVersion { group, version }) => GroupVersionKind::new(&group, &version, kind),
        None => own_kind.clone(),
    };
    SubresourceDef {
        name: (*name).to_owned(),
        kind,
        verbs: verbs.to_vec(),
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
