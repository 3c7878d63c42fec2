//! `metrics.k8s.io/v1beta1`: what nodes and pods use now, asked of the nodes' agents when somebody asks.
//!
//! Nothing is stored. A node is asked at most once in [`FRESH`], however many ask for its pods; one that does not answer within
//! [`NODE_DEADLINE`] is left out of lists, as it would be with metrics-server, and named where it alone was asked for.
//! Shapes: k8s.io/metrics v1beta1 upward, the kubelet's Summary API downward.

use crate::ApiServer;
use crate::proxy::NodeAddress;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty, Limited};
use objects::{Quantity, Reason, Status, Timestamp};
use registry::{List, ListOptions, Target};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer of a node is told again.
const FRESH: Duration = Duration::from_secs(5);
/// A node must answer within this time.
const NODE_DEADLINE: Duration = Duration::from_secs(3);
/// Nodes that are asked at one time.
const ASKED_MAX: usize = 16;
/// A node tells about a kilobyte a container.
const SUMMARY_BYTES_MAX: usize = 16 << 20;
/// Agents and kubelets measure processor time over about so long.
const WINDOW: &str = "10s";
const SUMMARY: &str = "/stats/summary?only_cpu_and_memory=true";

type Answered = Result<Arc<Usages>, Status>;
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Answered)>>>;

/// What nodes have told, by their names.
#[derive(Default)]
pub(crate) struct Cache(Mutex<BTreeMap<String, Slot>>);

/// One object of the group.
pub(crate) async fn get(server: &ApiServer, target: &Target) -> Result<Bytes, Status> {
    let name = target.name.as_deref().unwrap_or_default();
    let namespace = target.namespace.as_deref();
    let measured = core(server, target, Some(name))?;
    let object = server.pipeline().get(&measured, None);
    let object = Measured::read(&server.within_deadline(object).await?)?;
    let node = object.node_name(target);
    let missing = || Status::not_found(&target.group_resource(), name);
    if node.is_empty() {
        return Err(missing());
    }
    let usages = usages(server, node).await?;
    let value = match namespace {
        None => usages.node(&object),
        Some(_) => usages.pod(&object),
    };
    Ok(value.ok_or_else(missing)?.to_string().into())
}

/// Those that `options` select.
pub(crate) async fn list(
    server: &ApiServer,
    target: &Target,
    options: &ListOptions,
) -> Result<List, Status> {
    let measured = core(server, target, None)?;
    let mut list = server.pipeline().list(&measured, options).await?;
    let objects: Vec<Measured> = list
        .items
        .iter()
        .map(|object| Measured::read(object))
        .collect::<Result<_, _>>()?;
    let mut nodes: Vec<String> = objects
        .iter()
        .map(|object| object.node_name(target).to_owned())
        .filter(|node| !node.is_empty())
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    let asked = stream::iter(nodes).map(|node| {
        let server = server.clone();
        async move {
            match usages(&server, &node).await {
                Ok(usages) => Some((node, usages)),
                Err(error) => {
                    tracing::debug!(node, error = %error.message, "a node tells no metrics");
                    None
                }
            }
        }
    });
    let told: BTreeMap<String, Arc<Usages>> = asked
        .buffer_unordered(ASKED_MAX)
        .filter_map(std::future::ready)
        .collect()
        .await;
    let of = |object: &Measured| {
        let usages = told.get(object.node_name(target))?;
        let value = match target.resource.namespaced {
            false => usages.node(object),
            true => usages.pod(object),
        };
        value.map(|value| Bytes::from(value.to_string()))
    };
    list.items = objects.iter().filter_map(of).collect();
    Ok(list)
}

/// The nodes or pods that are measured.
fn core(server: &ApiServer, target: &Target, name: Option<&str>) -> Result<Target, Status> {
    let registry = server.pipeline().registry();
    let row = registry
        .find("", "v1", &target.resource.resource)
        .ok_or_else(crate::cluster::not_found)?;
    Ok(Target {
        name: name.map(str::to_owned),
        ..Target::collection(row, target.namespace.as_deref())
    })
}

/// What a node says, now or a moment ago.
async fn usages(server: &ApiServer, node: &str) -> Answered {
    let slot = server.metrics_cache().slot(node);
    let mut kept = slot.lock().await;
    if let Some((at, answered)) = &*kept
        && at.elapsed() < FRESH
    {
        return answered.clone();
    }
    let answered = match tokio::time::timeout(NODE_DEADLINE, ask(server, node)).await {
        Ok(answered) => answered.map(Arc::new),
        Err(_) => Err(unavailable(node, &"no answer in 3 s")),
    };
    *kept = Some((Instant::now(), answered.clone()));
    answered
}

async fn ask(server: &ApiServer, node: &str) -> Result<Usages, Status> {
    let address: NodeAddress = server.node_address(node).await?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::from_static(SUMMARY);
    request.headers_mut().insert(HOST, address.host_header()?);
    let mut sender = address.connect(server.node_tls()).await?;
    let response = address.send(&mut sender, request).await?;
    if response.status() != http::StatusCode::OK {
        return Err(unavailable(
            node,
            &format_args!("its agent answered {}", response.status()),
        ));
    }
    let body = Limited::new(response.into_body(), SUMMARY_BYTES_MAX).collect();
    let body = body.await.map_err(|error| unavailable(node, &error))?;
    Usages::read(&body.to_bytes()).map_err(|error| unavailable(node, &error))
}

fn unavailable(node: &str, why: &dyn std::fmt::Display) -> Status {
    Status::failure(
        503,
        Reason::ServiceUnavailable,
        format!("node {node:?} tells no metrics: {why}; check that its agent runs"),
    )
}

impl Cache {
    fn slot(&self, node: &str) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nodes that are gone, and those that nobody asks about: what is held by a caller, or fresh, stays.
        slots.retain(|_, slot| {
            Arc::strong_count(slot) > 1
                || slot.try_lock().is_ok_and(|kept| {
                    kept.as_ref()
                        .is_some_and(|(at, _)| at.elapsed() < 12 * FRESH)
                })
        });
        slots.entry(node.to_owned()).or_default().clone()
    }
}

/// A node or pod, as far as its metrics tell of it.
#[derive(Deserialize)]
struct Measured {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    labels: Map<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    node_name: String,
}

impl Measured {
    fn read(object: &[u8]) -> Result<Self, Status> {
        serde_json::from_slice(object).map_err(Status::internal)
    }

    /// The node that knows: a node's own, a pod's where it is placed.
    fn node_name(&self, target: &Target) -> &str {
        match target.resource.namespaced {
            true => &self.spec.node_name,
            false => &self.metadata.name,
        }
    }
}

/// What a node says of itself and its pods, by their UIDs.
struct Usages {
    node: Usage,
    pods: BTreeMap<String, PodUsage>,
}

struct PodUsage {
    time: Timestamp,
    containers: Vec<Value>,
}

impl Usages {
    fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        let summary: Summary = serde_json::from_slice(body)?;
        let pod = |pod: PodSummary| {
            let times = pod
                .containers
                .iter()
                .filter_map(|container| container.usage.cpu.time);
            let time = times.min()?;
            let container = |container: &ContainerSummary| {
                Some(json!({"name": container.name, "usage": container.usage.resources()?}))
            };
            let containers: Vec<Value> = pod.containers.iter().filter_map(container).collect();
            let usage = PodUsage { time, containers };
            Some((pod.pod_ref.uid, usage)).filter(|(_, usage)| !usage.containers.is_empty())
        };
        Ok(Usages {
            node: summary.node,
            pods: summary.pods.into_iter().filter_map(pod).collect(),
        })
    }

    fn node(&self, node: &Measured) -> Option<Value> {
        let usage = self.node.resources()?;
        let mut object = head("NodeMetrics", node, self.node.cpu.time?);
        object["usage"] = usage;
        Some(object)
    }

    fn pod(&self, pod: &Measured) -> Option<Value> {
        let usage = self.pods.get(&pod.metadata.uid)?;
        let mut object = head("PodMetrics", pod, usage.time);
        object["metadata"]["namespace"] = json!(pod.metadata.namespace);
        object["containers"] = Value::Array(usage.containers.clone());
        Some(object)
    }
}

fn head(kind: &str, of: &Measured, time: Timestamp) -> Value {
    let mut metadata = json!({"name": of.metadata.name, "creationTimestamp": time});
    if !of.metadata.labels.is_empty() {
        metadata["labels"] = Value::Object(of.metadata.labels.clone());
    }
    json!({
        "kind": kind,
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": metadata,
        "timestamp": time,
        "window": WINDOW,
    })
}

#[derive(Deserialize)]
struct Summary {
    node: Usage,
    #[serde(default)]
    pods: Vec<PodSummary>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSummary {
    pod_ref: PodRef,
    #[serde(default)]
    containers: Vec<ContainerSummary>,
}

#[derive(Deserialize)]
struct PodRef {
    uid: String,
}

#[derive(Deserialize)]
struct ContainerSummary {
    name: String,
    #[serde(flatten)]
    usage: Usage,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    cpu: Cpu,
    #[serde(default)]
    memory: Memory,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    time: Option<Timestamp>,
    usage_nano_cores: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    working_set_bytes: Option<u64>,
}

impl Usage {
    /// None before the second measurement: a rate needs two.
    fn resources(&self) -> Option<Value> {
        let cpu = self.cpu.usage_nano_cores?;
        let memory = i64::try_from(self.memory.working_set_bytes?).unwrap_or(i64::MAX);
        // Whole kibibytes, so that the text has the suffix that people read.
        let memory = Quantity::from_bytes(memory / 1024 * 1024);
        Some(json!({"cpu": format!("{cpu}n"), "memory": memory.to_string()}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usages_are_told_once_they_are_rates() {
        let summary = br#"{"node":{"nodeName":"n1","cpu":{"time":"2026-01-01T00:00:00Z","usageNanoCores":250000000},"memory":{"workingSetBytes":1048576}},
            "pods":[{"podRef":{"name":"web","namespace":"default","uid":"a"},"containers":[
                {"name":"main","cpu":{"time":"2026-01-01T00:00:01Z","usageNanoCores":1500},"memory":{"workingSetBytes":4096}},
                {"name":"young","cpu":{"time":"2026-01-01T00:00:00Z"},"memory":{"workingSetBytes":4096}}]},
              {"podRef":{"name":"new","namespace":"default","uid":"b"},"containers":[]}]}"#;
        let usages = Usages::read(summary).expect("a summary");
        let of = |uid: &str| {
            let object = json!({"metadata":{"name":"web","namespace":"default","uid":uid,"labels":{"app":"web"}}});
            Measured::read(object.to_string().as_bytes()).expect("an object")
        };
        let pod = usages.pod(&of("a")).expect("measured");
        assert_eq!(
            pod["containers"],
            json!([{"name":"main","usage":{"cpu":"1500n","memory":"4Ki"}}])
        );
        assert_eq!(pod["timestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(pod["metadata"]["labels"]["app"], "web");
        assert!(usages.pod(&of("b")).is_none() && usages.pod(&of("c")).is_none());
        let node = usages.node(&of("n")).expect("measured");
        assert_eq!(node["usage"], json!({"cpu":"250000000n","memory":"1Mi"}));
    }
}
