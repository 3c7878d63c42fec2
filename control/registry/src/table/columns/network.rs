//! Lines of what leads traffic: endpoints, ingresses, policies, networks.

use super::{AGE, Column, NAME, shown, text};
use serde_json::{Value, json};

/// The columns of endpoints.
pub const ENDPOINTS: &[Column] = &[
    NAME,
    shown("Endpoints", "The addresses that answer.", |endpoints, _| {
        json!(text::first_three(&addresses(endpoints), text::NONE))
    }),
    AGE,
];

fn addresses(endpoints: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for subset in text::list(endpoints, "/subsets") {
        let ips = text::list(subset, "/addresses")
            .iter()
            .map(|address| text::at(address, "/ip"));
        let ports = text::list(subset, "/ports");
        for ip in ips {
            if ports.is_empty() {
                found.push(ip.to_owned());
            }
            let host = if ip.contains(':') {
                format!("[{ip}]")
            } else {
                ip.to_owned()
            };
            found.extend(
                ports
                    .iter()
                    .map(|port| format!("{host}:{}", text::number(port, "/port"))),
            );
        }
    }
    found
}

/// The columns of ingresses.
pub const INGRESSES: &[Column] = &[
    NAME,
    shown("Class", "Who serves it.", |ingress, _| {
        let class = text::at(ingress, "/spec/ingressClassName");
        let annotation = "/metadata/annotations/kubernetes.io~1ingress.class";
        let class = if class.is_empty() {
            text::at(ingress, annotation)
        } else {
            class
        };
        json!(text::or_none(class))
    }),
    shown(
        "Hosts",
        "The hosts whose requests it takes.",
        |ingress, _| {
            let hosts: Vec<String> = text::list(ingress, "/spec/rules")
                .iter()
                .map(|rule| text::at(rule, "/host").to_owned())
                .filter(|host| !host.is_empty())
                .collect();
            json!(text::first_three(&hosts, "*"))
        },
    ),
    shown("Address", "Where it is reached.", |ingress, _| {
        let places = text::list(ingress, "/status/loadBalancer/ingress").iter();
        let places: Vec<&str> = places
            .map(|place| match text::at(place, "/ip") {
                "" => text::at(place, "/hostname"),
                ip => ip,
            })
            .collect();
        json!(places.join(","))
    }),
    shown("Ports", "Its ports.", |ingress, _| {
        let secure = !text::list(ingress, "/spec/tls").is_empty();
        json!(if secure { "80, 443" } else { "80" })
    }),
    AGE,
];

/// The columns of ingress classes.
pub const INGRESS_CLASSES: &[Column] = &[
    NAME,
    shown(
        "Controller",
        "Who serves ingresses of the class.",
        |class, _| json!(text::at(class, "/spec/controller")),
    ),
    shown("Parameters", "What the controller reads.", |class, _| {
        let Some(parameters) = class.pointer("/spec/parameters") else {
            return json!(text::NONE);
        };
        let (kind, name) = (text::at(parameters, "/kind"), text::at(parameters, "/name"));
        json!(match text::at(parameters, "/apiGroup") {
            "" => format!("{kind}/{name}"),
            group => format!("{kind}.{group}/{name}"),
        })
    }),
    AGE,
];

/// The columns of network policies.
pub const NETWORK_POLICIES: &[Column] = &[
    NAME,
    shown("Pod-Selector", "Whose traffic it is about.", |policy, _| {
        json!(text::selector(policy.pointer("/spec/podSelector")))
    }),
    AGE,
];

/// The columns of service networks.
pub const SERVICE_CIDRS: &[Column] = &[
    NAME,
    shown("CIDRs", "The networks.", |network, _| {
        let cidrs = text::list(network, "/spec/cidrs")
            .iter()
            .filter_map(Value::as_str);
        json!(cidrs.collect::<Vec<_>>().join(","))
    }),
    AGE,
];

/// The columns of addresses in use.
pub const IP_ADDRESSES: &[Column] = &[
    NAME,
    shown("ParentRef", "Who has the address.", |address, _| {
        let parts = ["resource", "namespace", "name"]
            .map(|part| text::at(address, &format!("/spec/parentRef/{part}")));
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        json!(parts.join("/"))
    }),
    AGE,
];
