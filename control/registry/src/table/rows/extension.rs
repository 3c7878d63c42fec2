//! What extends the API: admission webhooks and policies.

use super::{CLUSTER_WIDE, Row, STATUS};
use crate::strategy;
use crate::table::columns;

const ADMISSION: Row = Row {
    version: "admissionregistration.k8s.io/v1",
    ..CLUSTER_WIDE
};

/// The rows.
pub const ROWS: &[Row] = &[
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
