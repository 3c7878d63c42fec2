//! What a pod's spec is when the client does not say.

use super::super::edit::{
    Members, default, default_text, existing_map, map_at, maps_in, read_flag, read_text,
};
use super::CONTAINER_LISTS;
use serde_json::{Value, json};

const CONTAINER_SOURCES: [(&str, &str); 4] = [
    ("secret", "defaultMode"),
    ("configMap", "defaultMode"),
    ("projected", "defaultMode"),
    ("downwardAPI", "defaultMode"),
];
/// 0644, as JSON knows no octals.
const FILE_MODE: i64 = 420;

/// Fills in a pod's or a template's spec.
pub fn default_spec(spec: &mut Members) {
    default_text(spec, "restartPolicy", "Always");
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "schedulerName", "default-scheduler");
    default(spec, "terminationGracePeriodSeconds", 30);
    map_at(spec, "securityContext");
    let host_network = read_flag(spec, "hostNetwork");
    for list in CONTAINER_LISTS {
        for container in maps_in(spec, list) {
            default_container(container, host_network);
        }
    }
    for volume in maps_in(spec, "volumes") {
        default_volume(volume);
    }
    let account = read_text(spec, "serviceAccountName").to_owned();
    if !account.is_empty() {
        spec.insert("serviceAccount".to_owned(), Value::String(account));
    } else if !read_text(spec, "serviceAccount").is_empty() {
        let account = read_text(spec, "serviceAccount").to_owned();
        spec.insert("serviceAccountName".to_owned(), Value::String(account));
    }
}

fn default_container(container: &mut Members, host_network: bool) {
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    let policy = pull_policy(read_text(container, "image"));
    default_text(container, "imagePullPolicy", policy);
    map_at(container, "resources");
    for port in maps_in(container, "ports") {
        default_text(port, "protocol", "TCP");
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            default(port, "hostPort", number);
        }
    }
    for variable in maps_in(container, "env") {
        if let Some(source) = existing_map(variable, "valueFrom") {
            default_field_ref(source);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = existing_map(container, probe) {
            default_probe(probe);
        }
    }
    if let Some(lifecycle) = existing_map(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = existing_map(lifecycle, hook) {
                default_http(hook);
            }
        }
    }
}

fn default_probe(probe: &mut Members) {
    for (name, number) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        default(probe, name, number);
    }
    default_http(probe);
    if let Some(grpc) = existing_map(probe, "grpc") {
        default(grpc, "service", "");
    }
}

fn default_http(handler: &mut Members) {
    if let Some(http) = existing_map(handler, "httpGet") {
        default_text(http, "path", "/");
        default_text(http, "scheme", "HTTP");
    }
}

fn default_field_ref(source: &mut Members) {
    if let Some(field) = existing_map(source, "fieldRef") {
        default_text(field, "apiVersion", "v1");
    }
}

fn default_volume(volume: &mut Members) {
    let has_source = volume
        .iter()
        .any(|(name, value)| name != "name" && !value.is_null());
    if !has_source {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for (source, mode) in CONTAINER_SOURCES {
        if let Some(source) = existing_map(volume, source) {
            default(source, mode, FILE_MODE);
        }
    }
    if let Some(host_path) = existing_map(volume, "hostPath") {
        default(host_path, "type", "");
    }
    if let Some(downward) = existing_map(volume, "downwardAPI") {
        maps_in(downward, "items").for_each(default_field_ref);
    }
    if let Some(projected) = existing_map(volume, "projected") {
        for source in maps_in(projected, "sources") {
            if let Some(token) = existing_map(source, "serviceAccountToken") {
                default(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = existing_map(source, "downwardAPI") {
                maps_in(downward, "items").for_each(default_field_ref);
            }
        }
    }
}

/// An image that may change under its name is pulled each time.
fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    match name.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

#[cfg(test)]
mod tests {
    use super::pull_policy;

    #[test]
    fn pulls_what_may_change() {
        for image in [
            "web",
            "web:latest",
            "host:5000/web",
            "host:5000/a/web:latest",
        ] {
            assert_eq!(pull_policy(image), "Always", "{image}");
        }
        for image in [
            "web:1",
            "host:5000/web:1",
            "web@sha256:00",
            "web:latest@sha256:00",
        ] {
            assert_eq!(pull_policy(image), "IfNotPresent", "{image}");
        }
    }
}
