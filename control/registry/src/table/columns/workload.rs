//! Lines of workloads, services and what pods read.

use super::{AGE, Column, NAME, number, shown, text, wide};
use serde_json::{Value, json};

/// The columns of deployments.
pub const DEPLOYMENTS: &[Column] = &[
    NAME,
    shown(
        "Ready",
        "Number of the pod with ready state",
        |object, _| {
            let ready = text::number(object, "/status/readyReplicas");
            json!(format!(
                "{ready}/{}",
                text::number(object, "/spec/replicas")
            ))
        },
    ),
    number("Up-to-date", "Pods of the newest template.", |object, _| {
        json!(text::number(object, "/status/updatedReplicas"))
    }),
    number(
        "Available",
        "Pods that have been ready for minReadySeconds.",
        |object, _| json!(text::number(object, "/status/availableReplicas")),
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// The columns of replica sets.
pub const REPLICA_SETS: &[Column] = &[
    NAME,
    number("Desired", "Pods that there shall be.", |object, _| {
        json!(text::number(object, "/spec/replicas"))
    }),
    number("Current", "Pods that there are.", |object, _| {
        json!(text::number(object, "/status/replicas"))
    }),
    number("Ready", "Pods that are ready.", |object, _| {
        json!(text::number(object, "/status/readyReplicas"))
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Shown with `-o wide` of whatever has a template.
pub const CONTAINERS: Column = wide(
    "Containers",
    "Names of each container in the template.",
    |object, _| {
        json!(text::joined(
            text::list(object, "/spec/template/spec/containers"),
            "name"
        ))
    },
);
/// Shown with `-o wide` of whatever has a template.
pub const IMAGES: Column = wide(
    "Images",
    "Images referenced by each container in the template.",
    |object, _| {
        json!(text::joined(
            text::list(object, "/spec/template/spec/containers"),
            "image"
        ))
    },
);
/// Shown with `-o wide` of whatever has a template.
pub const SELECTOR: Column = wide("Selector", "Which pods count.", |object, _| {
    json!(text::selector(object.pointer("/spec/selector")))
});

/// The columns of services.
pub const SERVICES: &[Column] = &[
    NAME,
    shown("Type", "How the service is exposed.", |service, _| {
        json!(text::at(service, "/spec/type"))
    }),
    shown("Cluster-IP", "The service's address.", |service, _| {
        let first = text::at(service, "/spec/clusterIPs/0");
        let address = if first.is_empty() {
            text::at(service, "/spec/clusterIP")
        } else {
            first
        };
        json!(text::or_none(address))
    }),
    shown(
        "External-IP",
        "Where the service is reached from outside.",
        |service, _| json!(external_address(service)),
    ),
    shown("Port(s)", "The service's ports.", |service, _| {
        json!(ports(service))
    }),
    AGE,
    wide("Selector", "Which pods answer.", |service, _| {
        json!(text::labels(service.pointer("/spec/selector")))
    }),
];

fn external_address(service: &Value) -> String {
    let mut addresses: Vec<&str> = text::list(service, "/spec/externalIPs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    match text::at(service, "/spec/type") {
        "ExternalName" => return text::or_none(text::at(service, "/spec/externalName")).to_owned(),
        "LoadBalancer" => {
            for ingress in text::list(service, "/status/loadBalancer/ingress") {
                let host = text::at(ingress, "/hostname");
                addresses.push(if host.is_empty() {
                    text::at(ingress, "/ip")
                } else {
                    host
                });
            }
            if addresses.is_empty() {
                return "<pending>".to_owned();
            }
        }
        _ => {}
    }
    text::or_none(&addresses.join(",")).to_owned()
}

fn ports(service: &Value) -> String {
    let ports: Vec<String> = text::list(service, "/spec/ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (text::number(port, "/port"), text::at(port, "/protocol"));
            match text::number(port, "/nodePort") {
                0 => format!("{number}/{protocol}"),
                node_port => format!("{number}:{node_port}/{protocol}"),
            }
        })
        .collect();
    text::or_none(&ports.join(",")).to_owned()
}

/// The columns of endpoint slices.
pub const ENDPOINT_SLICES: &[Column] = &[
    NAME,
    shown(
        "AddressType",
        "What kind of addresses it holds.",
        |slice, _| json!(text::at(slice, "/addressType")),
    ),
    shown("Ports", "The ports of every endpoint.", |slice, _| {
        let ports: Vec<String> = text::list(slice, "/ports")
            .iter()
            .map(|port| match text::number(port, "/port") {
                0 => "*".to_owned(),
                number => number.to_string(),
            })
            .collect();
        json!(text::first_three(&ports, "<unset>"))
    }),
    shown("Endpoints", "The addresses.", |slice, _| {
        let addresses: Vec<String> = text::list(slice, "/endpoints")
            .iter()
            .flat_map(|endpoint| text::list(endpoint, "/addresses"))
            .filter_map(|address| address.as_str().map(str::to_owned))
            .collect();
        json!(text::first_three(&addresses, "<unset>"))
    }),
    AGE,
];

/// The columns of secrets.
pub const SECRETS: &[Column] = &[
    NAME,
    shown("Type", "What the secret is for.", |secret, _| {
        json!(text::at(secret, "/type"))
    }),
    number("Data", "How many values it holds.", |secret, _| {
        json!(text::count(secret, "/data"))
    }),
    AGE,
];

/// The columns of config maps.
pub const CONFIG_MAPS: &[Column] = &[
    NAME,
    number("Data", "How many values it holds.", |map, _| {
        json!(text::count(map, "/data") + text::count(map, "/binaryData"))
    }),
    AGE,
];
