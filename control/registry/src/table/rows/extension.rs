//! What extends the API: definitions of custom kinds, admission webhooks and policies.

use super::{CLUSTER_WIDE, Row, STATUS};
use crate::custom::Definitions;
use crate::strategy;
use crate::table::columns;

const ADMISSION: Row = Row {
    version: "admissionregistration.k8s.io/v1",
    ..CLUSTER_WIDE
};

/// The rows.
pub const ROWS: &[Row] = &[
    Row {
        version: "apiextensions.k8s.io/v1",
        resource: "customresourcedefinitions",
        kind: "CustomResourceDefinition",
        short_names: &["crd", "crds"],
        categories: &["api-extensions"],
        columns: columns::CREATED_AT,
        strategy: &Definitions,
        subresources: &[STATUS],
        ..CLUSTER_WIDE
    },
    Row {
        resource: "validatingwebhookconfigurations",
        kind: "ValidatingWebhookConfiguration",
        columns: columns::WEBHOOKS,
        strategy: &strategy::Webhooks,
        ..ADMISSION
    },
    Row {
        resource: "mutatingwebhookconfigurations",
        kind: "MutatingWebhookConfiguration",
        columns: columns::WEBHOOKS,
        strategy: &strategy::Webhooks,
        ..ADMISSION
    },
    Row {
        resource: "validatingadmissionpolicies",
        kind: "ValidatingAdmissionPolicy",
        columns: columns::ADMISSION_POLICIES,
        strategy: &strategy::AdmissionPolicies,
        subresources: &[STATUS],
        ..ADMISSION
    },
    Row {
        resource: "validatingadmissionpolicybindings",
        kind: "ValidatingAdmissionPolicyBinding",
        columns: columns::ADMISSION_BINDINGS,
        strategy: &strategy::AdmissionBindings,
        ..ADMISSION
    },
];
