//! The rows of the built-in resources. Names, verbs and subresources: Kubernetes' own discovery documents.

use super::columns::{self, Column};
use super::{ResourceDef, SubresourceDef};
use crate::Verb;
use crate::strategy::{self, Strategy};
use objects::{GroupVersion, GroupVersionKind};

const ALL_VERBS: [Verb; 8] = [
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
}

/// A subresource as it is written down; an empty kind is that of the row.
struct Sub(&'static str, &'static str, &'static str, &'static [Verb]);

const STATUS: Sub = Sub("status", "", "", FIELDS);
const SCALE: Sub = Sub("scale", "autoscaling/v1", "Scale", FIELDS);

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
};

const ROWS: &[Row] = &[
    Row {
        resource: "namespaces",
        kind: "Namespace",
        columns: columns::NAMESPACES,
        strategy: &strategy::Namespaces,
        short_names: &["ns"],
        namespaced: false,
        without: &[Verb::DeleteCollection],
        subresources: &[Sub("finalize", "", "", &[Verb::Update]), STATUS],
        field_selectors: &["status.phase"],
        ..PLAIN
    },
    Row {
        resource: "nodes",
        kind: "Node",
        columns: columns::NODES,
        strategy: &strategy::Nodes,
        short_names: &["no"],
        namespaced: false,
        subresources: &[
            Sub(
                "proxy",
                "v1",
                "NodeProxyOptions",
                &[
                    Verb::Create,
                    Verb::Delete,
                    Verb::Get,
                    Verb::Patch,
                    Verb::Update,
                ],
            ),
            STATUS,
        ],
        field_selectors: &["spec.unschedulable"],
        ..PLAIN
    },
    Row {
        resource: "pods",
        kind: "Pod",
        columns: columns::PODS,
        strategy: &strategy::Pods,
        short_names: &["po"],
        categories: &["all"],
        subresources: &[
            Sub(
                "attach",
                "v1",
                "PodAttachOptions",
                &[Verb::Create, Verb::Get],
            ),
            Sub("binding", "v1", "Binding", &[Verb::Create]),
            Sub("exec", "v1", "PodExecOptions", &[Verb::Create, Verb::Get]),
            Sub("log", "", "", &[Verb::Get]),
            STATUS,
        ],
        field_selectors: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ..PLAIN
    },
    Row {
        resource: "services",
        kind: "Service",
        columns: columns::SERVICES,
        strategy: &strategy::Services,
        short_names: &["svc"],
        categories: &["all"],
        subresources: &[STATUS],
        field_selectors: &["spec.clusterIP", "spec.type"],
        ..PLAIN
    },
    Row {
        resource: "configmaps",
        kind: "ConfigMap",
        columns: columns::CONFIG_MAPS,
        strategy: &strategy::ConfigMaps,
        short_names: &["cm"],
        ..PLAIN
    },
    Row {
        resource: "secrets",
        kind: "Secret",
        columns: columns::SECRETS,
        strategy: &strategy::Secrets,
        field_selectors: &["type"],
        ..PLAIN
    },
    Row {
        resource: "serviceaccounts",
        kind: "ServiceAccount",
        columns: columns::SERVICE_ACCOUNTS,
        short_names: &["sa"],
        ..PLAIN
    },
    Row {
        resource: "events",
        kind: "Event",
        columns: columns::EVENTS,
        strategy: &strategy::Events,
        short_names: &["ev"],
        field_selectors: &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ..PLAIN
    },
    Row {
        version: "coordination.k8s.io/v1",
        resource: "leases",
        kind: "Lease",
        columns: columns::LEASES,
        strategy: &strategy::Leases,
        ..PLAIN
    },
    Row {
        version: "discovery.k8s.io/v1",
        resource: "endpointslices",
        kind: "EndpointSlice",
        columns: columns::ENDPOINT_SLICES,
        strategy: &strategy::EndpointSlices,
        ..PLAIN
    },
    Row {
        version: "apps/v1",
        resource: "replicasets",
        kind: "ReplicaSet",
        columns: columns::REPLICA_SETS,
        strategy: &strategy::ReplicaSets,
        short_names: &["rs"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        field_selectors: &["status.replicas"],
        ..PLAIN
    },
    Row {
        version: "apps/v1",
        resource: "deployments",
        kind: "Deployment",
        columns: columns::DEPLOYMENTS,
        strategy: &strategy::Deployments,
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        ..PLAIN
    },
];

/// The built-in rows.
pub fn builtin() -> impl Iterator<Item = ResourceDef> {
    ROWS.iter().map(definition)
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
        strategy: row.strategy,
        field_selectors: owned(row.field_selectors),
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
