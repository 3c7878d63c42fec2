//! The runtime as a whole, over a store in memory: a Deployment becomes pods on nodes, and who leads no more writes no more.

use futures::StreamExt;
use mvcc::{LeaderState, MemStore, Store};
use objects::cluster::ClusterSettings;
use objects::{GroupVersionKind, ObjectError, ObjectKey, Reason, Term, Timestamp, Uid};
use reconcile::controller::{Asked, Change, Controller, Outside, World};
use reconcile::horizontal::{PodMetrics, PodUsage};
use reconcile::tokensecret::TokenSigner;
use reconcile::{Action, Plan, Precondition};
use registry::{Caller, ListOptions, Pipeline, Registry, Shell, Target, WriteOptions};
use runtime::Runtime;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

/// A clock that stands, and ids that count.
struct TestShell(AtomicU64);

impl Shell for TestShell {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix(1_800_000_000)
    }

    fn uid(&self) -> Uid {
        Uid(format!("uid-{}", self.0.fetch_add(1, Ordering::Relaxed)))
    }

    fn name_suffix(&self) -> String {
        format!("{:05}", self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Labels config maps, and breaks over one of them.
struct Fragile;

impl Controller for Fragile {
    fn name(&self) -> &'static str {
        "fragile"
    }

    fn keys_for(&self, change: &Change<'_>, _: &dyn World) -> Vec<ObjectKey> {
        let keys = change.is_of("", "configmaps").then(|| change.key.clone());
        keys.into_iter().collect()
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        assert_ne!(asked.key.name, "bad", "planted");
        let labelled = asked
            .world
            .record(asked.key)
            .is_none_or(|record| record.labels.contains_key("seen"));
        let patch = Action::Patch {
            key: asked.key.clone(),
            precondition: Precondition::default(),
            merge: json!({"metadata": {"labels": {"seen": "yes"}}}),
            subresource: None,
        };
        Ok(Plan {
            actions: if labelled { vec![] } else { vec![patch] },
            ..Plan::nothing()
        })
    }
}

/// Knows no metrics and has no keys.
struct Nothing;

impl PodMetrics for Nothing {
    fn usage(&self, _: &str) -> Option<Result<Vec<PodUsage>, String>> {
        Some(Err("none are measured".to_owned()))
    }
}

impl TokenSigner for Nothing {
    fn sign(&self, _: &Value) -> Result<String, String> {
        Err("there is no key".to_owned())
    }

    fn knows(&self, _: &str) -> bool {
        false
    }
}

struct Master {
    store: MemStore,
    runtime: Runtime,
    stop: CancellationToken,
}

impl Master {
    fn start() -> Self {
        let store = MemStore::new();
        store.set_leader(leads(1, true));
        let registry = Arc::new(Registry::builtin());
        let shell: Arc<dyn Shell> = Arc::new(TestShell(AtomicU64::new(1)));
        let settings = ClusterSettings {
            cluster_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/16".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            dns_address: "10.96.0.10".to_owned(),
        };
        let pipeline = Pipeline::new(
            Arc::new(store.clone()),
            registry,
            shell.clone(),
            settings.clone(),
        );
        let runtime = Runtime {
            store: Arc::new(store.clone()),
            pipeline: Arc::new(pipeline),
            shell,
            controllers: reconcile::controller::all(Outside {
                settings: &settings,
                ca_pem: "CA",
                served: &[],
                metrics: Arc::new(Nothing),
                signer: Arc::new(Nothing),
            })
            .into_iter()
            .chain([Arc::new(Fragile) as Arc<dyn Controller>])
            .collect(),
        };
        let stop = CancellationToken::new();
        tokio::spawn(runtime.clone().run(stop.clone()));
        Master {
            store,
            runtime,
            stop,
        }
    }

    fn target(&self, group: &str, kind: &str, namespace: Option<&str>) -> Target {
        let kind = GroupVersionKind::new(group, "v1", kind);
        let registry = self.runtime.pipeline.registry();
        Target::collection(registry.by_kind(&kind).expect("it is served"), namespace)
    }

    async fn create(&self, group: &str, kind: &str, namespace: Option<&str>, object: Value) {
        let target = self.target(group, kind, namespace);
        let created = self
            .runtime
            .pipeline
            .create(&Caller::master(), &target, object, &WriteOptions::default())
            .await;
        created.expect("is created");
    }

    async fn list(&self, group: &str, kind: &str) -> Vec<Value> {
        let target = self.target(group, kind, None);
        let list = self
            .runtime
            .pipeline
            .list(&target, &ListOptions::default())
            .await
            .expect("lists");
        list.items
            .iter()
            .map(|item| serde_json::from_slice(item).expect("JSON"))
            .collect()
    }

    /// Waits until the objects of a kind are as `wanted` says.
    async fn until(
        &self,
        what: &str,
        group: &str,
        kind: &str,
        wanted: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        let mut last = Vec::new();
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.list(group, kind).await;
                if wanted(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let in_time = waited.await.is_ok();
        assert!(in_time, "{what} did not come; there is {}", json!(last));
        last
    }

    async fn with_a_node_and_a_deployment(self) -> Self {
        self.create(
            "",
            "Namespace",
            None,
            json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "default"}}),
        )
        .await;
        let node = json!({
            "kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"},
            "status": {
                "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        self.create("", "Node", None, node).await;
        let deployment = json!({
            "kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "web"},
            "spec": {
                "replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}},
            },
        });
        self.create("apps", "Deployment", Some("default"), deployment)
            .await;
        self
    }
}

fn leads(term: u64, is_leader: bool) -> LeaderState {
    LeaderState {
        term: Term(term),
        is_leader,
        has_leader: true,
    }
}

fn bound(pods: &[Value]) -> usize {
    pods.iter()
        .filter(|pod| pod["spec"]["nodeName"] == "n1")
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_becomes_pods_on_a_node() {
    let master = Master::start().with_a_node_and_a_deployment().await;
    let pods = master
        .until("three bound pods", "", "Pod", |pods| bound(pods) == 3)
        .await;
    assert_eq!(pods.len(), 3);
    master
        .until(
            "the node's part of the pods' network",
            "",
            "Node",
            |nodes| nodes[0]["spec"]["podCIDR"] == "10.244.0.0/24",
        )
        .await;
    master
        .until("the observed generation", "apps", "Deployment", |all| {
            all[0]["status"]["observedGeneration"] == 1
        })
        .await;
    let key = objects::ObjectKey::new(
        objects::GroupResource::new("apps", "deployments"),
        Some("default"),
        "web",
    );
    let lines = runtime::explain(&master.runtime, &key)
        .await
        .expect("explains");
    assert!(
        lines
            .iter()
            .any(|line| line == "controller deployment would do next:"),
        "{lines:?}"
    );
    master.stop.cancel();
}

/// A workload whose pods are labelled with its name.
fn workload(kind: &str, version: &str, name: &str, restart: &str, more: Value) -> Value {
    let mut object = json!({
        "kind": kind, "apiVersion": version, "metadata": {"name": name},
        "spec": {"template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": "c:1"}]},
        }},
    });
    let members = more.as_object().cloned().unwrap_or_default();
    object["spec"]
        .as_object_mut()
        .expect("a map")
        .extend(members);
    object
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_workload_becomes_pods() {
    let master = Master::start().with_a_node_and_a_deployment().await;
    let selector = |name: &str| json!({"selector": {"matchLabels": {"app": name}}});
    let job = workload("Job", "batch/v1", "pi", "Never", json!({}));
    master.create("batch", "Job", Some("default"), job).await;
    for (kind, name) in [("StatefulSet", "db"), ("DaemonSet", "log")] {
        let object = workload(kind, "apps/v1", name, "Always", selector(name));
        master.create("apps", kind, Some("default"), object).await;
    }
    let old = workload("ReplicationController", "v1", "old", "Always", json!({}));
    master
        .create("", "ReplicationController", Some("default"), old)
        .await;
    let budget = json!({
        "kind": "PodDisruptionBudget", "apiVersion": "policy/v1", "metadata": {"name": "web"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    });
    master
        .create("policy", "PodDisruptionBudget", Some("default"), budget)
        .await;
    let of = |pods: &[Value], name: &str| {
        let pods = pods.iter();
        pods.filter(|pod| {
            pod["metadata"]["labels"]["app"] == name && pod["spec"]["nodeName"] == "n1"
        })
        .count()
    };
    let names = ["pi", "db", "log", "old"];
    let pods = master
        .until("a bound pod of each workload", "", "Pod", |pods| {
            names.iter().all(|name| of(pods, name) == 1)
        })
        .await;

    // The job's pod succeeds: it is counted, let go, and the job is complete.
    let pod = pods
        .iter()
        .find(|pod| pod["metadata"]["labels"]["app"] == "pi");
    let name = pod.expect("was seen")["metadata"]["name"].as_str();
    let mut target = master
        .target("", "Pod", Some("default"))
        .subresource("status");
    target.name = name.map(str::to_owned);
    let patch = registry::Patch {
        kind: registry::PatchKind::Merge,
        value: json!({"status": {"phase": "Succeeded"}}),
    };
    let pipeline = &master.runtime.pipeline;
    let options = WriteOptions::default();
    let ended = pipeline
        .patch(&Caller::master(), &target, &patch, &options)
        .await;
    ended.expect("is told");
    master
        .until("a complete job", "batch", "Job", |jobs| {
            let status = &jobs[0]["status"];
            let conditions = status["conditions"].as_array();
            let complete = conditions.is_some_and(|conditions| {
                conditions
                    .iter()
                    .any(|condition| condition["type"] == "Complete")
            });
            complete && status["succeeded"] == 1
        })
        .await;
    master
        .until(
            "the budget's count",
            "policy",
            "PodDisruptionBudget",
            |budgets| {
                let status = &budgets[0]["status"];
                status["expectedPods"] == 3 && status["desiredHealthy"] == 2
            },
        )
        .await;
    master.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_is_established_and_takes_its_objects_with_it() {
    let master = Master::start().with_a_node_and_a_deployment().await;
    let pipeline = master.runtime.pipeline.clone();
    tokio::spawn(async move { pipeline.follow_definitions().await });
    let definition = json!({
        "kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1", "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }}}],
        },
    });
    let kind = "CustomResourceDefinition";
    master
        .create("apiextensions.k8s.io", kind, None, definition)
        .await;
    let widget = GroupVersionKind::new("example.com", "v1", "Widget");
    let served = async {
        while master
            .runtime
            .pipeline
            .registry()
            .by_kind(&widget)
            .is_none()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, served)
        .await
        .expect("the kind is served");
    let owner = master.list("apps", "Deployment").await.remove(0);
    let owned = json!({
        "kind": "Widget", "apiVersion": "example.com/v1", "metadata": {"name": "owner"}, "spec": {"any": 1},
    });
    master
        .create("example.com", "Widget", Some("default"), owned)
        .await;
    let owner_uid = master.list("example.com", "Widget").await[0]["metadata"]["uid"].clone();
    let config = json!({
        "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "owned", "ownerReferences": [
            {"apiVersion": "example.com/v1", "kind": "Widget", "name": "owner", "uid": owner_uid},
        ]},
    });
    master
        .create("", "ConfigMap", Some("default"), config)
        .await;
    let of_deployment = json!({
        "kind": "Widget", "apiVersion": "example.com/v1", "metadata": {"name": "dependent", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": owner["metadata"]["uid"]},
        ]},
    });
    master
        .create("example.com", "Widget", Some("default"), of_deployment)
        .await;
    let target = master.target("apiextensions.k8s.io", kind, None);
    let target = Target {
        name: Some("widgets.example.com".to_owned()),
        ..target
    };
    let deleted = master
        .runtime
        .pipeline
        .delete(
            &Caller::master(),
            &target,
            &registry::DeleteOptions::default(),
        )
        .await;
    deleted.expect("is deleted");
    master
        .until(
            "the definition's end",
            "apiextensions.k8s.io",
            kind,
            <[Value]>::is_empty,
        )
        .await;
    // What a custom object owned goes after it.
    master
        .until("the owned config map's end", "", "ConfigMap", |maps| {
            maps.iter().all(|map| map["metadata"]["name"] != "owned")
        })
        .await;
    let served = async {
        while master
            .runtime
            .pipeline
            .registry()
            .by_kind(&widget)
            .is_some()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, served)
        .await
        .expect("the kind is served no more");
    master.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leads_no_more_acts_no_more() {
    let master = Master::start().with_a_node_and_a_deployment().await;
    master
        .until("three bound pods", "", "Pod", |pods| bound(pods) == 3)
        .await;
    master.store.set_leader(leads(2, false));
    let mut states = master.store.leader();
    assert_eq!(states.next().await, Some(leads(2, false)));

    let target = master.target("apps", "Deployment", Some("default"));
    let target = Target {
        name: Some("web".to_owned()),
        ..target
    };
    let patch = registry::Patch {
        kind: registry::PatchKind::Merge,
        value: json!({"spec": {"replicas": 5}}),
    };
    master
        .runtime
        .pipeline
        .patch(&Caller::master(), &target, &patch, &WriteOptions::default())
        .await
        .expect("is patched");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        master.list("", "Pod").await.len(),
        3,
        "a follower's controllers must not act"
    );

    // A write under the old term is refused by the store itself.
    let old = Caller::controller("test", Term(1));
    let refused = master
        .runtime
        .pipeline
        .delete(&old, &target, &registry::DeleteOptions::default())
        .await;
    assert!(
        refused.is_err(),
        "the store must refuse a term that is over"
    );
    assert!(!refused.is_err_and(|status| status.is(Reason::NotFound)));

    master.store.set_leader(leads(3, true));
    master
        .until("five bound pods under the new term", "", "Pod", |pods| {
            bound(pods) == 5
        })
        .await;
    master.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_breaks_over_one_object_goes_on_with_others() {
    let master = Master::start();
    let namespace =
        json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "default"}});
    master.create("", "Namespace", None, namespace).await;
    for name in ["bad", "good"] {
        let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}});
        master
            .create("", "ConfigMap", Some("default"), object)
            .await;
    }
    let seen = |map: &Value| map["metadata"]["labels"]["seen"] == "yes";
    let maps = master
        .until("the label", "", "ConfigMap", |maps| maps.iter().any(seen))
        .await;
    // The cluster's CA may be there too by now.
    let labelled: Vec<&Value> = maps
        .iter()
        .filter(|map| seen(map))
        .map(|map| &map["metadata"]["name"])
        .filter(|name| **name != "kube-root-ca.crt")
        .collect();
    assert_eq!(labelled, ["good"]);
    master.stop.cancel();
}
