//! Bodies of writes: decoded as the API does it, then brought through the whole pipeline of a cluster in memory.
//!
//! An input's first line names the resource, `pods`; the rest is the body.

use crate::cluster::{Cluster, row};
use crate::wire::assert_clients_fault;
use api::input;
use registry::{Patch, PatchKind, ResourceDef};
use serde_json::{Value, json};
use std::sync::Arc;

/// A create with a JSON body.
pub fn json(bytes: &[u8]) {
    body("application/json", bytes);
}

/// A create with a YAML body.
pub fn yaml(bytes: &[u8]) {
    body("application/yaml", bytes);
}

/// A create with a protobuf body.
pub fn protobuf(bytes: &[u8]) {
    body("application/vnd.kubernetes.protobuf", bytes);
}

fn body(content_type: &str, bytes: &[u8]) {
    let (row, body) = split(bytes);
    match input::body(content_type, body, &row.kind) {
        Ok(value) => create(row, value),
        Err(status) => assert_clients_fault(&status),
    }
}

fn split(bytes: &[u8]) -> (&'static Arc<ResourceDef>, &[u8]) {
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(bytes.len());
    (row(&bytes[..end]), bytes.get(end + 1..).unwrap_or_default())
}

/// What is taken can be read back, and written again as it was read.
fn create(row: &Arc<ResourceDef>, value: Value) {
    let cluster = Cluster::new();
    let made = match cluster.create(row, value) {
        Ok(made) => made,
        Err(status) => return assert_clients_fault(&status),
    };
    let Some(name) = made["metadata"]["name"].as_str() else {
        return; // A review is answered and not stored.
    };
    let Ok(read) = cluster.get(row, name) else {
        return;
    };
    assert_eq!(read, made);
    if let Err(status) = cluster.update(row, name, read) {
        assert!(
            status.code == 405,
            "what was taken cannot be written again: {status:?}"
        );
    }
}

/// A patch of an object that is there: the first line is the kind of patch, the second the resource.
pub fn patches(bytes: &[u8]) {
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(bytes.len());
    let kind = match bytes.first() {
        Some(b'j') => PatchKind::Json,
        Some(b'm') => PatchKind::Merge,
        Some(b's') => PatchKind::Strategic,
        _ => PatchKind::Apply,
    };
    let rest = bytes.get(end + 1..).unwrap_or_default();
    let end = rest
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(rest.len());
    let object = match &rest[..end] {
        b"deployments" => ("deployments", deployment()),
        b"services" => ("services", service()),
        b"configmaps" => (
            "configmaps",
            json!({"metadata": {"name": "x"}, "data": {"a": "b"}}),
        ),
        _ => (
            "pods",
            json!({"metadata": {"name": "x"}, "spec": pod_spec()}),
        ),
    };
    let patch = rest.get(end + 1..).unwrap_or_default();
    let value = match input::patch(patch, kind == PatchKind::Apply) {
        Ok(value) => value,
        Err(status) => return assert_clients_fault(&status),
    };
    let cluster = Cluster::new();
    let row = row(object.0.as_bytes());
    cluster.create(row, object.1).expect("the object is right");
    match cluster.patch(row, "x", &Patch { kind, value }) {
        Ok(written) => assert_eq!(cluster.get(row, "x").ok(), Some(written)),
        // A strategic merge patch that does not fit the type is answered 500 by kube-apiserver, so by us too.
        Err(status) if kind == PatchKind::Strategic && status.code == 500 => {}
        Err(status) => assert_clients_fault(&status),
    }
}

fn pod_spec() -> Value {
    json!({"containers": [
        {"name": "main", "image": "a", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}]},
        {"name": "side", "image": "b"},
    ], "tolerations": [{"key": "a", "operator": "Exists"}]})
}

fn deployment() -> Value {
    json!({"metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": pod_spec()}}})
}

fn service() -> Value {
    json!({"metadata": {"name": "x"}, "spec": {"ports": [{"name": "http", "port": 80}, {"name": "other", "port": 81}]}})
}
