//! Who may, in which order, how: rights, priorities, leases, certificates.

use super::{CLUSTER_WIDE, FIELDS, PLAIN, Row, STATUS, Sub};
use crate::strategy;
use crate::table::columns;

const RBAC: Row = Row {
    version: "rbac.authorization.k8s.io/v1",
    ..PLAIN
};
const FLOW: Row = Row {
    version: "flowcontrol.apiserver.k8s.io/v1",
    ..CLUSTER_WIDE
};

/// The rows.
pub const ROWS: &[Row] = &[
    Row {
        version: "coordination.k8s.io/v1",
        resource: "leases",
        kind: "Lease",
        columns: columns::LEASES,
        strategy: &strategy::Leases,
        ..PLAIN
    },
    Row {
        resource: "roles",
        kind: "Role",
        columns: columns::CREATED_AT,
        strategy: &strategy::Roles,
        ..RBAC
    },
    Row {
        resource: "clusterroles",
        kind: "ClusterRole",
        namespaced: false,
        columns: columns::CREATED_AT,
        strategy: &strategy::Roles,
        ..RBAC
    },
    Row {
        resource: "rolebindings",
        kind: "RoleBinding",
        columns: columns::ROLE_BINDINGS,
        strategy: &strategy::RoleBindings,
        ..RBAC
    },
    Row {
        resource: "clusterrolebindings",
        kind: "ClusterRoleBinding",
        namespaced: false,
        columns: columns::ROLE_BINDINGS,
        strategy: &strategy::RoleBindings,
        ..RBAC
    },
    Row {
        version: "scheduling.k8s.io/v1",
        resource: "priorityclasses",
        kind: "PriorityClass",
        columns: columns::PRIORITY_CLASSES,
        strategy: &strategy::PriorityClasses,
        short_names: &["pc"],
        ..CLUSTER_WIDE
    },
    Row {
        version: "node.k8s.io/v1",
        resource: "runtimeclasses",
        kind: "RuntimeClass",
        columns: columns::RUNTIME_CLASSES,
        strategy: &strategy::RuntimeClasses,
        ..CLUSTER_WIDE
    },
    Row {
        version: "certificates.k8s.io/v1",
        resource: "certificatesigningrequests",
        kind: "CertificateSigningRequest",
        columns: columns::SIGNING_REQUESTS,
        strategy: &strategy::SigningRequests,
        short_names: &["csr"],
        subresources: &[Sub("approval", "", "", FIELDS), STATUS],
        field_selectors: &["spec.signerName"],
        ..CLUSTER_WIDE
    },
    Row {
        resource: "flowschemas",
        kind: "FlowSchema",
        columns: columns::FLOW_SCHEMAS,
        strategy: &strategy::FlowSchemas,
        subresources: &[STATUS],
        ..FLOW
    },
    Row {
        resource: "prioritylevelconfigurations",
        kind: "PriorityLevelConfiguration",
        columns: columns::PRIORITY_LEVELS,
        strategy: &strategy::PriorityLevels,
        subresources: &[STATUS],
        ..FLOW
    },
];
