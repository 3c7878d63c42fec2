//! The rows of reviews: who somebody is and what somebody may. They are answered and never stored.

use super::{PLAIN, Row};
use crate::Verb;

/// What a kind lacks that is only asked, never stored.
const ALL_BUT_CREATE: &[Verb] = &[
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

const REVIEW: Row = Row {
    namespaced: false,
    without: ALL_BUT_CREATE,
    ..PLAIN
};

/// The rows.
pub const ROWS: &[Row] = &[
    Row {
        version: "authentication.k8s.io/v1",
        resource: "tokenreviews",
        kind: "TokenReview",
        ..REVIEW
    },
    Row {
        version: "authentication.k8s.io/v1",
        resource: "selfsubjectreviews",
        kind: "SelfSubjectReview",
        ..REVIEW
    },
    Row {
        version: "authorization.k8s.io/v1",
        resource: "subjectaccessreviews",
        kind: "SubjectAccessReview",
        ..REVIEW
    },
    Row {
        version: "authorization.k8s.io/v1",
        resource: "selfsubjectaccessreviews",
        kind: "SelfSubjectAccessReview",
        ..REVIEW
    },
    Row {
        version: "authorization.k8s.io/v1",
        resource: "localsubjectaccessreviews",
        kind: "LocalSubjectAccessReview",
        namespaced: true,
        ..REVIEW
    },
    Row {
        version: "authorization.k8s.io/v1",
        resource: "selfsubjectrulesreviews",
        kind: "SelfSubjectRulesReview",
        ..REVIEW
    },
];
