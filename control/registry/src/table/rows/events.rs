//! Events, in both of their groups; one form is stored.

use super::{PLAIN, Row};
use crate::strategy;
use crate::table::columns;
use crate::table::versions::CORE_EVENTS;

/// The rows.
pub const ROWS: &[Row] = &[
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
        version: "events.k8s.io/v1",
        resource: "events",
        kind: "Event",
        columns: columns::EVENTS,
        strategy: &strategy::RegardingEvents,
        short_names: &["ev"],
        field_selectors: &[
            "reason",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reportingController",
            "type",
        ],
        stored_as: Some(&CORE_EVENTS),
        ..PLAIN
    },
];
