//! The core group: what pods need and what they are.

use super::{FIELDS, PLAIN, Row, STATUS, Sub};
use crate::table::columns;
use crate::{Verb, strategy};

const ALL_BUT_CREATE: &[Verb] = &[
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

/// What may be asked of whatever is behind a proxy.
const PROXIED: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::Get,
    Verb::Patch,
    Verb::Update,
];

/// The rows.
pub const ROWS: &[Row] = &[
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
        subresources: &[Sub("proxy", "v1", "NodeProxyOptions", PROXIED), STATUS],
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
            Sub("ephemeralcontainers", "", "", FIELDS),
            Sub("eviction", "policy/v1", "Eviction", &[Verb::Create]),
            Sub("exec", "v1", "PodExecOptions", &[Verb::Create, Verb::Get]),
            Sub("log", "", "", &[Verb::Get]),
            Sub(
                "portforward",
                "v1",
                "PodPortForwardOptions",
                &[Verb::Create, Verb::Get],
            ),
            Sub("proxy", "v1", "PodProxyOptions", PROXIED),
            Sub("resize", "", "", FIELDS),
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
        resource: "bindings",
        kind: "Binding",
        without: ALL_BUT_CREATE,
        ..PLAIN
    },
    Row {
        resource: "services",
        kind: "Service",
        columns: columns::SERVICES,
        strategy: &strategy::Services,
        short_names: &["svc"],
        categories: &["all"],
        subresources: &[Sub("proxy", "v1", "ServiceProxyOptions", PROXIED), STATUS],
        field_selectors: &["spec.clusterIP", "spec.type"],
        ..PLAIN
    },
    Row {
        resource: "endpoints",
        kind: "Endpoints",
        columns: columns::ENDPOINTS,
        strategy: &strategy::Endpoints,
        short_names: &["ep"],
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
        subresources: &[Sub(
            "token",
            "authentication.k8s.io/v1",
            "TokenRequest",
            &[Verb::Create],
        )],
        ..PLAIN
    },
    Row {
        resource: "limitranges",
        kind: "LimitRange",
        columns: columns::CREATED_AT,
        strategy: &strategy::LimitRanges,
        short_names: &["limits"],
        ..PLAIN
    },
    Row {
        resource: "resourcequotas",
        kind: "ResourceQuota",
        columns: columns::RESOURCE_QUOTAS,
        strategy: &strategy::ResourceQuotas,
        short_names: &["quota"],
        subresources: &[STATUS],
        ..PLAIN
    },
];
