//! Lines of rights, quotas, classes, requests, admission and flow control.

use super::{AGE, Column, ColumnKind, NAME, number, shown, text, wide};
use serde_json::{Value, json};

/// What shows its name and when it was made.
pub const CREATED_AT: &[Column] = &[
    NAME,
    Column {
        name: "Created At",
        kind: ColumnKind::Date,
        priority: 0,
        description: "When the object was created.",
        cell: |object, _| json!(text::at(object, "/metadata/creationTimestamp")),
    },
];

/// The columns of bindings of roles.
pub const ROLE_BINDINGS: &[Column] = &[
    NAME,
    shown("Role", "What is granted.", |binding, _| {
        let kind = text::at(binding, "/roleRef/kind");
        json!(format!("{kind}/{}", text::at(binding, "/roleRef/name")))
    }),
    AGE,
    wide("Users", "The users.", |binding, _| {
        json!(subjects(binding, "User").join(", "))
    }),
    wide("Groups", "The groups.", |binding, _| {
        json!(subjects(binding, "Group").join(", "))
    }),
    wide("ServiceAccounts", "The service accounts.", |binding, _| {
        json!(subjects(binding, "ServiceAccount").join(", "))
    }),
];

fn subjects(binding: &Value, kind: &str) -> Vec<String> {
    let of_kind = text::list(binding, "/subjects")
        .iter()
        .filter(|subject| text::at(subject, "/kind") == kind);
    of_kind
        .map(|subject| match kind {
            "ServiceAccount" => {
                let namespace = text::at(subject, "/namespace");
                format!("{namespace}/{}", text::at(subject, "/name"))
            }
            _ => text::at(subject, "/name").to_owned(),
        })
        .collect()
}

/// The columns of resource quotas.
pub const RESOURCE_QUOTAS: &[Column] = &[
    NAME,
    shown(
        "Request",
        "What is used, and may be, of requests and counts.",
        |quota, _| json!(usage(quota, false)),
    ),
    shown(
        "Limit",
        "What is used, and may be, of limits.",
        |quota, _| json!(usage(quota, true)),
    ),
    AGE,
];

fn usage(quota: &Value, limits: bool) -> String {
    let hard = quota.pointer("/status/hard").and_then(Value::as_object);
    let used = quota.pointer("/status/used");
    let mut parts: Vec<String> = hard
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("limits") == limits)
        .map(|(name, hard)| {
            let used = used.and_then(|used| used.get(name)).and_then(Value::as_str);
            let hard = hard.as_str().unwrap_or_default();
            format!("{name}: {}/{hard}", used.unwrap_or("0"))
        })
        .collect();
    parts.sort();
    parts.join(", ")
}

/// The columns of priority classes.
pub const PRIORITY_CLASSES: &[Column] = &[
    NAME,
    number("Value", "The priority.", |class, _| {
        json!(text::number(class, "/value"))
    }),
    shown(
        "Global-Default",
        "Whether pods without a class have it.",
        |class, _| json!(class.get("globalDefault") == Some(&json!(true))),
    ),
    shown(
        "PreemptionPolicy",
        "Whether its pods drive out others.",
        |class, _| json!(text::at(class, "/preemptionPolicy")),
    ),
    AGE,
];

/// The columns of runtime classes.
pub const RUNTIME_CLASSES: &[Column] = &[
    NAME,
    shown("Handler", "What runs its pods.", |class, _| {
        json!(text::at(class, "/handler"))
    }),
    AGE,
];

/// The columns of signing requests.
pub const SIGNING_REQUESTS: &[Column] = &[
    NAME,
    AGE,
    shown("SignerName", "Who shall sign.", |request, _| {
        json!(text::at(request, "/spec/signerName"))
    }),
    shown("Requestor", "Who asked.", |request, _| {
        json!(text::at(request, "/spec/username"))
    }),
    shown("RequestedDuration", "For how long.", |request, _| {
        json!(match text::number(request, "/spec/expirationSeconds") {
            0 => text::NONE.to_owned(),
            seconds => text::human(std::time::Duration::from_secs(seconds.unsigned_abs())),
        })
    }),
    shown("Condition", "How far it came.", |request, _| {
        json!(signing_state(request))
    }),
];

fn signing_state(request: &Value) -> String {
    let kinds: Vec<&str> = text::list(request, "/status/conditions")
        .iter()
        .map(|condition| text::at(condition, "/type"))
        .collect();
    let mut state = match () {
        () if kinds.contains(&"Denied") => "Denied".to_owned(),
        () if kinds.contains(&"Approved") => "Approved".to_owned(),
        () => "Pending".to_owned(),
    };
    if kinds.contains(&"Failed") {
        state.push_str(",Failed");
    }
    if !text::at(request, "/status/certificate").is_empty() {
        state.push_str(",Issued");
    }
    state
}

/// The columns of API services.
pub const API_SERVICES: &[Column] = &[
    NAME,
    shown("Service", "Who answers.", |service, _| {
        json!(match service.pointer("/spec/service") {
            Some(place) if place.is_object() => {
                let namespace = text::at(place, "/namespace");
                format!("{namespace}/{}", text::at(place, "/name"))
            }
            _ => "Local".to_owned(),
        })
    }),
    shown("Available", "Whether it answers.", |service, _| {
        let conditions = text::list(service, "/status/conditions").iter();
        let mut conditions = conditions.filter(|it| text::at(it, "/type") == "Available");
        json!(match conditions.next() {
            None => "Unknown".to_owned(),
            Some(condition) => match (
                text::at(condition, "/status"),
                text::at(condition, "/reason")
            ) {
                ("True", _) => "True".to_owned(),
                (status, reason) => format!("{status} ({reason})"),
            },
        })
    }),
    AGE,
];

/// The columns of webhook configurations.
pub const WEBHOOKS: &[Column] = &[
    NAME,
    number("Webhooks", "How many it names.", |configuration, _| {
        json!(text::list(configuration, "/webhooks").len())
    }),
    AGE,
];

/// The columns of admission policies.
pub const ADMISSION_POLICIES: &[Column] = &[
    NAME,
    number("Validations", "How many rules it has.", |policy, _| {
        json!(text::list(policy, "/spec/validations").len())
    }),
    PARAM_KIND,
    AGE,
];

/// The columns of policies that change objects.
pub const MUTATING_POLICIES: &[Column] = &[
    NAME,
    number("Mutations", "How many changes it makes.", |policy, _| {
        json!(text::list(policy, "/spec/mutations").len())
    }),
    PARAM_KIND,
    AGE,
];

const PARAM_KIND: Column = shown(
    "ParamKind",
    "What it reads beside the object.",
    |policy, _| {
        let Some(kind) = policy.pointer("/spec/paramKind") else {
            return json!("<unset>");
        };
        json!(format!(
            "{}/{}",
            text::at(kind, "/apiVersion"),
            text::at(kind, "/kind")
        ))
    },
);

/// The columns of bindings of admission policies.
pub const ADMISSION_BINDINGS: &[Column] = &[
    NAME,
    shown("PolicyName", "The policy.", |binding, _| {
        json!(text::at(binding, "/spec/policyName"))
    }),
    shown("ParamRef", "What the policy reads.", |binding, _| {
        let Some(reference) = binding.pointer("/spec/paramRef") else {
            return json!("<unset>");
        };
        let (namespace, name) = (
            text::at(reference, "/namespace"),
            text::at(reference, "/name"),
        );
        json!(match (namespace, name) {
            (_, "") => text::selector(reference.get("selector")),
            ("", name) => name.to_owned(),
            (namespace, name) => format!("{namespace}/{name}"),
        })
    }),
    AGE,
];

/// The columns of flow schemas.
pub const FLOW_SCHEMAS: &[Column] = &[
    NAME,
    shown(
        "PriorityLevel",
        "The level of its requests.",
        |schema, _| json!(text::at(schema, "/spec/priorityLevelConfiguration/name")),
    ),
    number(
        "MatchingPrecedence",
        "The lowest is asked first.",
        |schema, _| json!(text::number(schema, "/spec/matchingPrecedence")),
    ),
    shown("DistinguisherMethod", "What makes a flow.", |schema, _| {
        json!(text::or_none(text::at(
            schema,
            "/spec/distinguisherMethod/type"
        )))
    }),
    AGE,
    shown("MissingPL", "Whether its level is missing.", |schema, _| {
        let conditions = text::list(schema, "/status/conditions").iter();
        let dangling = conditions.filter(|condition| text::at(condition, "/type") == "Dangling");
        let status = dangling
            .map(|condition| text::at(condition, "/status"))
            .next();
        json!(status.unwrap_or("?"))
    }),
];

/// The columns of priority levels.
pub const PRIORITY_LEVELS: &[Column] = &[
    NAME,
    shown("Type", "Whether it is limited.", |level, _| {
        json!(text::at(level, "/spec/type"))
    }),
    shown(
        "NominalConcurrencyShares",
        "Its share of the seats.",
        |level, _| {
            let part = match text::at(level, "/spec/type") {
                "Exempt" => "exempt",
                _ => "limited",
            };
            json!(amount(
                level,
                &format!("/spec/{part}/nominalConcurrencyShares")
            ))
        },
    ),
    shown("Queues", "How many queues it has.", |level, _| {
        json!(amount(level, "/spec/limited/limitResponse/queuing/queues"))
    }),
    shown("HandSize", "Among how many a flow is dealt.", |level, _| {
        json!(amount(
            level,
            "/spec/limited/limitResponse/queuing/handSize"
        ))
    }),
    shown(
        "QueueLengthLimit",
        "How many requests wait in a queue.",
        |level, _| {
            json!(amount(
                level,
                "/spec/limited/limitResponse/queuing/queueLengthLimit"
            ))
        },
    ),
    AGE,
];

fn amount(object: &Value, pointer: &str) -> String {
    object
        .pointer(pointer)
        .map_or(text::NONE.to_owned(), Value::to_string)
}
