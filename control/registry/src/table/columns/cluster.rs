//! Lines of nodes, namespaces, leases, service accounts and events.

use super::{AGE, Column, ColumnKind, NAME, number, shown, text, wide};
use objects::Timestamp;
use serde_json::{Value, json};

const ROLE_LABEL: &str = "node-role.kubernetes.io/";
const LEGACY_ROLE_LABEL: &str = "kubernetes.io/role";

/// The columns of nodes.
pub const NODES: &[Column] = &[
    NAME,
    shown("Status", "Whether the node takes pods.", |node, _| {
        json!(node_status(node))
    }),
    shown("Roles", "What the node is for.", |node, _| {
        json!(roles(node))
    }),
    AGE,
    shown("Version", "The agent's version.", |node, _| {
        json!(text::at(node, "/status/nodeInfo/kubeletVersion"))
    }),
    wide("Internal-IP", "Where the cluster reaches it.", |node, _| {
        json!(address(node, "InternalIP"))
    }),
    wide("External-IP", "Where the world reaches it.", |node, _| {
        json!(address(node, "ExternalIP"))
    }),
    wide("OS-Image", "The operating system.", |node, _| {
        json!(info(node, "osImage"))
    }),
    wide("Kernel-Version", "The kernel.", |node, _| {
        json!(info(node, "kernelVersion"))
    }),
    wide(
        "Container-Runtime",
        "What runs the containers.",
        |node, _| json!(info(node, "containerRuntimeVersion")),
    ),
];

fn node_status(node: &Value) -> String {
    let ready = text::list(node, "/status/conditions")
        .iter()
        .find(|condition| text::at(condition, "/type") == "Ready")
        .map(|condition| text::at(condition, "/status"));
    let mut status = match ready {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(node: &Value) -> String {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_LABEL) {
            Some(role) => Some(role),
            None => value.as_str().filter(|_| key == LEGACY_ROLE_LABEL),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    text::or_none(&roles.join(",")).to_owned()
}

fn address<'a>(node: &'a Value, kind: &str) -> &'a str {
    text::list(node, "/status/addresses")
        .iter()
        .find(|address| text::at(address, "/type") == kind)
        .map_or(text::NONE, |address| text::at(address, "/address"))
}

fn info<'a>(node: &'a Value, member: &str) -> &'a str {
    match text::at(node, &format!("/status/nodeInfo/{member}")) {
        "" => text::UNKNOWN,
        info => info,
    }
}

/// The columns of namespaces.
pub const NAMESPACES: &[Column] = &[
    NAME,
    shown(
        "Status",
        "Whether the namespace takes new objects.",
        |namespace, _| json!(text::at(namespace, "/status/phase")),
    ),
    AGE,
];

/// The columns of leases.
pub const LEASES: &[Column] = &[
    NAME,
    shown("Holder", "Who holds the lease.", |lease, _| {
        json!(text::at(lease, "/spec/holderIdentity"))
    }),
    AGE,
];

/// The columns of service accounts.
pub const SERVICE_ACCOUNTS: &[Column] = &[
    NAME,
    number("Secrets", "How many secrets it names.", |account, _| {
        json!(text::list(account, "/secrets").len())
    }),
    AGE,
];

/// The columns of events.
pub const EVENTS: &[Column] = &[
    shown("Last Seen", "When it was last seen.", |event, now| {
        json!(last_seen(event, now))
    }),
    shown("Type", "Normal or Warning.", |event, _| {
        json!(text::at(event, "/type"))
    }),
    shown("Reason", "Why, in one word.", |event, _| {
        json!(text::at(event, "/reason"))
    }),
    shown("Object", "What it is about.", |event, _| {
        let about = event
            .get("involvedObject")
            .or_else(|| event.get("regarding"));
        let about = about.unwrap_or(&Value::Null);
        let kind = text::at(about, "/kind").to_lowercase();
        let name = text::at(about, "/name");
        json!(if name.is_empty() {
            kind
        } else {
            format!("{kind}/{name}")
        })
    }),
    wide("Subobject", "Which part of it.", |event, _| {
        json!(first_of(
            event,
            &["/involvedObject/fieldPath", "/regarding/fieldPath"]
        ))
    }),
    wide("Source", "Who tells.", |event, _| json!(source(event))),
    shown("Message", "What happened.", |event, _| {
        json!(first_of(event, &["/message", "/note"]).trim())
    }),
    wide("First Seen", "When it was first seen.", |event, now| {
        let time = first_of(
            event,
            &["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"],
        );
        json!(text::age_of(time, now))
    }),
    wide("Count", "How often it was seen.", |event, _| {
        json!(first_number(event).to_string())
    }),
    Column {
        priority: 1,
        kind: ColumnKind::Name,
        ..NAME
    },
];

fn last_seen(event: &Value, now: Timestamp) -> String {
    let times = [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/deprecatedLastTimestamp",
        "/firstTimestamp",
        "/deprecatedFirstTimestamp",
        "/eventTime",
    ];
    text::age_of(first_of(event, &times), now)
}

fn first_of<'a>(event: &'a Value, pointers: &[&str]) -> &'a str {
    pointers
        .iter()
        .map(|pointer| text::at(event, pointer))
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

fn first_number(event: &Value) -> i64 {
    let counts =
        ["/series/count", "/count", "/deprecatedCount"].map(|pointer| text::number(event, pointer));
    counts.into_iter().find(|count| *count > 0).unwrap_or(1)
}

fn source(event: &Value) -> String {
    let components = [
        "/source/component",
        "/deprecatedSource/component",
        "/reportingComponent",
        "/reportingController",
    ];
    let component = first_of(event, &components);
    match first_of(event, &["/source/host", "/deprecatedSource/host"]) {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}
