//! Ingresses and their classes: paths of hosts to services. Rules: Kubernetes' networking/v1 defaults and validation.

use super::Strategy;
use super::check::{choice, frozen, named};
use super::edit::{
    Members, default_text, existing_map, map_at, read_list, read_map, read_maps, read_number,
    read_text,
};
use crate::Faults;
use objects::{Object, names};
use serde_json::Value;
use std::net::IpAddr;

/// The ingresses' strategy.
pub struct Ingresses;

const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];

impl Strategy for Ingresses {
    fn validate(&self, object: &Object, faults: &mut Faults) {
        let nothing = Members::new();
        let spec = read_map(&object.body, "spec").unwrap_or(&nothing);
        let rules = read_list(spec, "rules");
        if rules.is_empty() && !spec.contains_key("defaultBackend") {
            let detail = "either `defaultBackend` or `rules` must be specified";
            faults.invalid("spec", &Value::Object(spec.clone()), detail);
        }
        if let Some(backend) = read_map(spec, "defaultBackend") {
            check_backend(backend, "spec.defaultBackend", faults);
        }
        let class = read_text(spec, "ingressClassName");
        if !class.is_empty() {
            let found = names::dns1123_subdomain(class);
            faults.invalid_texts("spec.ingressClassName", class, &found);
        }
        for (index, rule) in read_maps(spec, "rules") {
            check_rule(rule, &format!("spec.rules[{index}]"), faults);
        }
    }

    fn has_generation(&self) -> bool {
        true
    }
}

fn check_rule(rule: &Members, field: &str, faults: &mut Faults) {
    let host = read_text(rule, "host");
    if host.parse::<IpAddr>().is_ok() {
        let detail = "must be a DNS name, not an IP address";
        faults.invalid_text(format!("{field}.host"), host, detail);
    } else if !host.is_empty() {
        let name = host.strip_prefix("*.").unwrap_or(host);
        faults.invalid_texts(
            format!("{field}.host"),
            host,
            &names::dns1123_subdomain(name),
        );
    }
    let Some(http) = read_map(rule, "http") else {
        return;
    };
    let field = format!("{field}.http.paths");
    if read_list(http, "paths").is_empty() {
        faults.required(&field, "");
    }
    for (index, path) in read_maps(http, "paths") {
        let field = format!("{field}[{index}]");
        match path.get("pathType") {
            None => faults.required(format!("{field}.pathType"), "pathType must be specified"),
            Some(_) => choice(path, "pathType", &field, &PATH_TYPES, faults),
        }
        check_path(path, &field, faults);
        let nothing = Members::new();
        let backend = read_map(path, "backend").unwrap_or(&nothing);
        check_backend(backend, &format!("{field}.backend"), faults);
    }
}

fn check_path(path: &Members, field: &str, faults: &mut Faults) {
    let text = read_text(path, "path");
    let exact = matches!(read_text(path, "pathType"), "Exact" | "Prefix");
    let field = format!("{field}.path");
    if !text.starts_with('/') && (exact || !text.is_empty()) {
        faults.invalid_text(field, text, "must be an absolute path");
        return;
    }
    for part in ["//", "/./", "/../", "%2f", "%2F"] {
        if exact && text.contains(part) {
            faults.invalid_text(&field, text, &format!("must not contain '{part}'"));
        }
    }
    for end in ["/..", "/."] {
        if exact && text.ends_with(end) {
            faults.invalid_text(&field, text, &format!("cannot end with '{end}'"));
        }
    }
}

fn check_backend(backend: &Members, field: &str, faults: &mut Faults) {
    let (service, resource) = (read_map(backend, "service"), read_map(backend, "resource"));
    match (service, resource) {
        (Some(_), Some(_)) => {
            let detail = "cannot set both resource and service backends";
            faults.invalid_text(field, "", detail);
        }
        (None, None) => faults.required(field, "resource or service backend is required"),
        (None, Some(resource)) => {
            for name in ["kind", "name"] {
                named(
                    resource,
                    name,
                    &format!("{field}.resource"),
                    names::path_segment,
                    faults,
                );
            }
        }
        (Some(service), None) => {
            let field = format!("{field}.service");
            named(service, "name", &field, names::dns1035_label, faults);
            let port = read_map(service, "port");
            let name = port.map(|port| read_text(port, "name")).unwrap_or_default();
            let number = port.and_then(|port| read_number(port, "number"));
            match (name, number) {
                ("", None | Some(0)) => {
                    faults.required(format!("{field}.port"), "port name or number is required");
                }
                ("", Some(number)) => {
                    for detail in names::port_number(number) {
                        faults.invalid(
                            format!("{field}.port.number"),
                            &Value::from(number),
                            &detail,
                        );
                    }
                }
                (name, None | Some(0)) => {
                    faults.invalid_texts(
                        format!("{field}.port.name"),
                        name,
                        &names::port_name(name),
                    );
                }
                (_, Some(number)) => {
                    let detail = "cannot set both port name & port number";
                    faults.invalid(format!("{field}.port"), &Value::from(number), detail);
                }
            }
        }
    }
}

/// The ingress classes' strategy.
pub struct IngressClasses;

impl Strategy for IngressClasses {
    fn default_fields(&self, object: &mut Object) {
        let spec = map_at(&mut object.body, "spec");
        if let Some(parameters) = spec.and_then(|spec| existing_map(spec, "parameters")) {
            default_text(parameters, "scope", "Cluster");
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let Some(spec) = read_map(&object.body, "spec") else {
            return;
        };
        let controller = read_text(spec, "controller");
        if controller.len() > 250 {
            faults.too_long("spec.controller", 250);
        }
        match controller {
            "" => faults.required("spec.controller", ""),
            controller if controller.contains('/') => {}
            controller => {
                let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
                faults.invalid_text("spec.controller", controller, detail);
            }
        }
        if let Some(parameters) = read_map(spec, "parameters") {
            let field = "spec.parameters";
            for name in ["kind", "name"] {
                named(parameters, name, field, names::path_segment, faults);
            }
            choice(
                parameters,
                "scope",
                field,
                &["Cluster", "Namespace"],
                faults,
            );
            let namespaced = read_text(parameters, "scope") == "Namespace";
            match (namespaced, read_text(parameters, "namespace")) {
                (true, "") => faults.required(
                    "spec.parameters.namespace",
                    "`parameters.scope` is set to 'Namespace'",
                ),
                (false, namespace) if !namespace.is_empty() => {
                    faults.forbidden(
                        "spec.parameters.namespace",
                        "`parameters.scope` is set to 'Cluster'",
                    );
                }
                _ => {}
            }
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        frozen(object, old, &["spec.controller"], faults);
    }

    fn has_generation(&self) -> bool {
        true
    }
}
