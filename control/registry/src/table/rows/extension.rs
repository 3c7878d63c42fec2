//! What extends the API: definitions of custom kinds, servers of other groups, admission webhooks and policies.

use super::{CLUSTER_WIDE, Row, STATUS};
use crate::custom::Definitions;
use crate::strategy;
use crate::table::columns;
use crate::table::versions::{MUTATING_BINDINGS_V1, MUTATING_POLICIES_V1};

const ADMISSION: Row = Row {
    version: "admissionregistration.k8s.io/v1",
    ..CLUSTER_WIDE
};

/// Policies that change objects, in the beta version.
const MUTATING_POLICIES: Row = Row {
    version: "admissionregistration.k8s.io/v1beta1",
    resource: "mutatingadmissionpolicies",
    kind: "MutatingAdmissionPolicy",
    columns: columns::MUTATING_POLICIES,
    strategy: &strategy::MutatingPolicies,
    stored_as: Some(&MUTATING_POLICIES_V1),
    ..CLUSTER_WIDE
};

/// Their bindings, in the beta version.
const MUTATING_BINDINGS: Row = Row {
    version: "admissionregistration.k8s.io/v1beta1",
    resource: "mutatingadmissionpolicybindings",
    kind: "MutatingAdmissionPolicyBinding",
    columns: columns::ADMISSION_BINDINGS,
    strategy: &strategy::MutatingBindings,
    stored_as: Some(&MUTATING_BINDINGS_V1),
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
        version: "apiregistration.k8s.io/v1",
        resource: "apiservices",
        kind: "APIService",
        categories: &["api-extensions"],
        columns: columns::API_SERVICES,
        strategy: &strategy::ApiServices,
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
    Row {
        version: "admissionregistration.k8s.io/v1",
        stored_as: None,
        ..MUTATING_POLICIES
    },
    Row {
        version: "admissionregistration.k8s.io/v1",
        stored_as: None,
        ..MUTATING_BINDINGS
    },
    MUTATING_POLICIES,
    MUTATING_BINDINGS,
];
