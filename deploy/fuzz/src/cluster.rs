//! A cluster in memory for one input: the real pipeline, time that stands still, ids that count.

use futures::executor::block_on;
use mvcc::MemStore;
use objects::cluster::ClusterSettings;
use objects::{Status, Timestamp, Uid};
use registry::{Caller, Patch, Pipeline, Registry, ResourceDef, Shell, Target, Verb, WriteOptions};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

static REGISTRY: LazyLock<Arc<Registry>> = LazyLock::new(|| Arc::new(Registry::builtin()));

/// The rows that can be created, in a fixed order.
static ROWS: LazyLock<Vec<Arc<ResourceDef>>> = LazyLock::new(|| {
    REGISTRY
        .iter()
        .filter(|row| row.serves(Verb::Create, None))
        .cloned()
        .collect()
});

#[derive(Default)]
struct FuzzShell(AtomicU64);

impl Shell for FuzzShell {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(1_767_225_600_000)
    }

    fn uid(&self) -> Uid {
        Uid(format!(
            "00000000-0000-4000-8000-{:012x}",
            self.0.fetch_add(1, Ordering::Relaxed)
        ))
    }

    fn name_suffix(&self) -> String {
        format!("bcd{:02}", self.0.fetch_add(1, Ordering::Relaxed) % 100)
    }
}

/// The row that an input's first line names, or else any that its bytes choose.
pub fn row(line: &[u8]) -> &'static Arc<ResourceDef> {
    let named = std::str::from_utf8(line)
        .ok()
        .and_then(|name| ROWS.iter().find(|row| row.resource == name));
    let sum: usize = line.iter().copied().map(usize::from).sum();
    named.unwrap_or_else(|| &ROWS[sum % ROWS.len()])
}

/// One cluster.
pub struct Cluster {
    pipeline: Pipeline,
    caller: Caller,
}

impl Cluster {
    /// With a namespace.
    pub fn new() -> Self {
        let settings = ClusterSettings {
            cluster_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/16".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            dns_address: "10.96.0.10".to_owned(),
        };
        let pipeline = Pipeline::new(
            Arc::new(MemStore::new()),
            Arc::clone(&REGISTRY),
            Arc::new(FuzzShell::default()),
            settings,
        );
        let cluster = Cluster {
            pipeline,
            caller: Caller::master(),
        };
        let row = row(b"namespaces");
        cluster
            .create(row, json!({"metadata": {"name": "default"}}))
            .expect("a namespace");
        cluster
    }

    /// Creates an object in the namespace; gives its JSON.
    pub fn create(&self, row: &Arc<ResourceDef>, body: Value) -> Result<Value, Status> {
        let target = Target {
            name: None,
            ..self.target(row, "")
        };
        let written =
            block_on(
                self.pipeline
                    .create(&self.caller, &target, body, &WriteOptions::default()),
            )?;
        Ok(serde_json::from_slice(&written.json).expect("what is answered is JSON"))
    }

    /// Writes an object as it is.
    pub fn update(&self, row: &Arc<ResourceDef>, name: &str, body: Value) -> Result<Value, Status> {
        let target = self.target(row, name);
        let written =
            block_on(
                self.pipeline
                    .update(&self.caller, &target, body, &WriteOptions::default()),
            )?;
        Ok(serde_json::from_slice(&written.json).expect("what is answered is JSON"))
    }

    /// Patches an object.
    pub fn patch(
        &self,
        row: &Arc<ResourceDef>,
        name: &str,
        patch: &Patch,
    ) -> Result<Value, Status> {
        let target = self.target(row, name);
        let options = WriteOptions {
            field_manager: Some("fuzz".to_owned()),
            ..WriteOptions::default()
        };
        let written = block_on(self.pipeline.patch(&self.caller, &target, patch, &options))?;
        Ok(serde_json::from_slice(&written.json).expect("what is answered is JSON"))
    }

    /// Reads an object.
    pub fn get(&self, row: &Arc<ResourceDef>, name: &str) -> Result<Value, Status> {
        let json = block_on(self.pipeline.get(&self.target(row, name), None))?;
        Ok(serde_json::from_slice(&json).expect("what is stored is JSON"))
    }

    fn target(&self, row: &Arc<ResourceDef>, name: &str) -> Target {
        Target {
            resource: Arc::clone(row),
            namespace: row.namespaced.then(|| "default".to_owned()),
            name: Some(name.to_owned()),
            subresource: None,
        }
    }
}
