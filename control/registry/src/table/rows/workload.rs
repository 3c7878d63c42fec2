//! What runs pods: apps, batch, autoscaling, policy.

use super::{ALL, PLAIN, Row, SCALE, STATUS};
use crate::strategy;
use crate::table::columns;
use crate::table::versions::AUTOSCALERS_V2;

const APPS: Row = Row {
    version: "apps/v1",
    ..PLAIN
};

/// The rows.
pub const ROWS: &[Row] = &[
    Row {
        resource: "podtemplates",
        kind: "PodTemplate",
        columns: columns::POD_TEMPLATES,
        strategy: &strategy::PodTemplates,
        ..PLAIN
    },
    Row {
        resource: "replicationcontrollers",
        kind: "ReplicationController",
        columns: columns::REPLICA_SETS,
        strategy: &strategy::ReplicationControllers,
        short_names: &["rc"],
        categories: ALL,
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
        resource: "statefulsets",
        kind: "StatefulSet",
        columns: columns::STATEFUL_SETS,
        strategy: &strategy::StatefulSets,
        short_names: &["sts"],
        categories: ALL,
        subresources: &[SCALE, STATUS],
        ..APPS
    },
    Row {
        resource: "daemonsets",
        kind: "DaemonSet",
        columns: columns::DAEMON_SETS,
        strategy: &strategy::DaemonSets,
        short_names: &["ds"],
        categories: ALL,
        subresources: &[STATUS],
        ..APPS
    },
    Row {
        resource: "controllerrevisions",
        kind: "ControllerRevision",
        columns: columns::CONTROLLER_REVISIONS,
        strategy: &strategy::ControllerRevisions,
        ..APPS
    },
    Row {
        version: "batch/v1",
        resource: "jobs",
        kind: "Job",
        columns: columns::JOBS,
        strategy: &strategy::Jobs,
        categories: ALL,
        subresources: &[STATUS],
        field_selectors: &["status.successful"],
        ..PLAIN
    },
    Row {
        version: "batch/v1",
        resource: "cronjobs",
        kind: "CronJob",
        columns: columns::CRON_JOBS,
        strategy: &strategy::CronJobs,
        short_names: &["cj"],
        categories: ALL,
        subresources: &[STATUS],
        ..PLAIN
    },
    Row {
        version: "autoscaling/v2",
        resource: "horizontalpodautoscalers",
        kind: "HorizontalPodAutoscaler",
        columns: columns::AUTOSCALERS,
        strategy: &strategy::Autoscalers,
        short_names: &["hpa"],
        categories: ALL,
        subresources: &[STATUS],
        ..PLAIN
    },
    Row {
        version: "autoscaling/v1",
        resource: "horizontalpodautoscalers",
        kind: "HorizontalPodAutoscaler",
        columns: columns::AUTOSCALERS,
        strategy: &strategy::Autoscalers,
        short_names: &["hpa"],
        categories: ALL,
        subresources: &[STATUS],
        stored_as: Some(&AUTOSCALERS_V2),
        ..PLAIN
    },
    Row {
        version: "policy/v1",
        resource: "poddisruptionbudgets",
        kind: "PodDisruptionBudget",
        columns: columns::DISRUPTION_BUDGETS,
        strategy: &strategy::DisruptionBudgets,
        short_names: &["pdb"],
        subresources: &[STATUS],
        ..PLAIN
    },
];
