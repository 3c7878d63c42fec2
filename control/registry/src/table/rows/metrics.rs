//! The rows of metrics: what nodes and pods use now. The nodes' agents are asked for it; nothing is stored.

use super::columns;
use super::{PLAIN, Row};
use crate::Verb;

/// What a kind lacks that can only be read, at one moment.
const ALL_BUT_READ: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

const METRICS: Row = Row {
    version: "metrics.k8s.io/v1beta1",
    without: ALL_BUT_READ,
    columns: columns::USAGES,
    computed: true,
    ..PLAIN
};

/// The rows.
pub const ROWS: &[Row] = &[
    Row {
        resource: "nodes",
        kind: "NodeMetrics",
        namespaced: false,
        ..METRICS
    },
    Row {
        resource: "pods",
        kind: "PodMetrics",
        ..METRICS
    },
];
