//! What `kubectl get` prints of an object, cell by cell. Headings, order and words: Kubernetes' `printersinternal.go`.

mod batch;
mod cluster;
mod metrics;
mod network;
mod pod;
mod policy;
mod storage;
mod text;
mod workload;

pub use batch::{
    AUTOSCALERS, CONTROLLER_REVISIONS, CRON_JOBS, DAEMON_SETS, DISRUPTION_BUDGETS, JOBS,
    POD_TEMPLATES, STATEFUL_SETS,
};
pub use cluster::{EVENTS, LEASES, NAMESPACES, NODES, SERVICE_ACCOUNTS};
pub use metrics::USAGES;
pub use network::{
    ENDPOINTS, INGRESS_CLASSES, INGRESSES, IP_ADDRESSES, NETWORK_POLICIES, SERVICE_CIDRS,
};
pub use pod::PODS;
pub use policy::{
    ADMISSION_BINDINGS, ADMISSION_POLICIES, API_SERVICES, CREATED_AT, FLOW_SCHEMAS,
    MUTATING_POLICIES, PRIORITY_CLASSES, PRIORITY_LEVELS, RESOURCE_QUOTAS, ROLE_BINDINGS,
    RUNTIME_CLASSES, SIGNING_REQUESTS, WEBHOOKS,
};
pub use storage::{
    ATTACHMENTS, ATTRIBUTE_CLASSES, CLAIMS, CSI_CAPACITIES, CSI_DRIVERS, CSI_NODES, DEVICE_CLAIMS,
    DEVICE_SLICES, STORAGE_CLASSES, VOLUMES,
};
pub use text::age_of as text_age;
pub use workload::{CONFIG_MAPS, DEPLOYMENTS, ENDPOINT_SLICES, REPLICA_SETS, SECRETS, SERVICES};

use objects::Timestamp;
use serde_json::{Value, json};

/// A column of a kind's table.
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// The type of the cells.
    pub kind: ColumnKind,
    /// 0 is always shown, more only with `-o wide`.
    pub priority: u8,
    /// What it shows, for `kubectl` and people.
    pub description: &'static str,
    /// The cell of an object, given the present.
    pub cell: fn(&Value, Timestamp) -> Value,
}

/// The type of a column's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// A text.
    Text,
    /// The object's name, a text with the format `name`.
    Name,
    /// A time, a text with the format `date`.
    Date,
    /// A whole number.
    Integer,
}

/// What every kind shows unless it says otherwise: name and age.
pub const PLAIN: &[Column] = &[NAME, AGE];

/// The name.
const NAME: Column = Column {
    name: "Name",
    kind: ColumnKind::Name,
    priority: 0,
    description: "Name must be unique within a namespace.",
    cell: |object, _| json!(text::at(object, "/metadata/name")),
};

/// How long ago the object was created.
const AGE: Column = Column {
    name: "Age",
    kind: ColumnKind::Text,
    priority: 0,
    description: "The time since the object was created.",
    cell: |object, now| json!(text::age(object, "/metadata/creationTimestamp", now)),
};

/// A column of texts that is always shown.
const fn shown(
    name: &'static str,
    description: &'static str,
    cell: fn(&Value, Timestamp) -> Value,
) -> Column {
    Column {
        name,
        kind: ColumnKind::Text,
        priority: 0,
        description,
        cell,
    }
}

/// A column of texts that is shown with `-o wide`.
const fn wide(
    name: &'static str,
    description: &'static str,
    cell: fn(&Value, Timestamp) -> Value,
) -> Column {
    Column {
        name,
        kind: ColumnKind::Text,
        priority: 1,
        description,
        cell,
    }
}

/// A column of whole numbers that is always shown.
const fn number(
    name: &'static str,
    description: &'static str,
    cell: fn(&Value, Timestamp) -> Value,
) -> Column {
    Column {
        name,
        kind: ColumnKind::Integer,
        priority: 0,
        description,
        cell,
    }
}
