//! A cluster in memory for tests that write in Rust rather than as a story.

use futures::executor::block_on;
use mvcc::MemStore;
use objects::cluster::ClusterSettings;
use objects::{Timestamp, Uid};
use registry::{Caller, Pipeline, Registry, Shell, Target, WriteOptions};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Ids that count, and a time that stands still.
#[derive(Default)]
pub struct CountingShell(AtomicU64);

impl Shell for CountingShell {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix(1_767_225_600)
    }

    fn uid(&self) -> Uid {
        Uid(format!("uid-{}", self.0.fetch_add(1, Ordering::SeqCst)))
    }

    fn name_suffix(&self) -> String {
        format!("{:05}", self.0.fetch_add(1, Ordering::SeqCst))
    }
}

/// An empty cluster with the namespace `default`.
pub fn cluster() -> Pipeline {
    cluster_and_store().0
}

/// The same, and the store beneath.
pub fn cluster_and_store() -> (Pipeline, MemStore) {
    let settings = ClusterSettings {
        cluster_cidr: "10.244.0.0/16".to_owned(),
        service_cidr: "10.96.0.0/16".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        dns_address: "10.96.0.10".to_owned(),
    };
    let store = MemStore::new();
    let shell = Arc::new(CountingShell::default());
    let pipeline = Pipeline::new(
        Arc::new(store.clone()),
        Arc::new(Registry::builtin()),
        shell,
        settings,
    );
    create(
        &pipeline,
        "namespaces",
        json!({"metadata": {"name": "default"}}),
    );
    (pipeline, store)
}

/// Objects of `resource` in `default`, or one of them.
pub fn target(pipeline: &Pipeline, resource: &str, name: Option<&str>) -> Target {
    let registry = pipeline.registry();
    let row = registry.by_name(resource).expect("the resource exists");
    let namespace = row.namespaced.then_some("default");
    match name {
        Some(name) => Target::object(row, namespace, name),
        None => Target::collection(row, namespace),
    }
}

/// Creates an object and answers with it.
pub fn create(pipeline: &Pipeline, resource: &str, object: Value) -> Value {
    let target = target(pipeline, resource, None);
    let options = WriteOptions::default();
    let written = block_on(pipeline.create(&Caller::master(), &target, object, &options));
    serde_json::from_slice(&written.expect("it is created").json).expect("is JSON")
}
