//! Which pods and containers the node has, for the other parts of the kubelet API.

use node_runtime::{ContainerState, ContainerStatus, PodStatus};
use serde_json::{Value, json};

use crate::context::Context;

/// A pod by namespace and name; the newest, should an old one still be going.
pub fn find(context: &Context, namespace: &str, name: &str) -> Option<PodStatus> {
    let mut found: Vec<PodStatus> = context
        .pods
        .list()
        .into_iter()
        .filter(|pod| pod.spec.namespace == namespace && pod.spec.name == name)
        .collect();
    found.sort_by_key(|pod| pod.created_at);
    found.pop()
}

/// The newest container of a name that runs.
pub fn running<'a>(pod: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let runs = |container: &&ContainerStatus| {
        container.spec.name == name && matches!(container.state, ContainerState::Running { .. })
    };
    pod.containers
        .iter()
        .filter(runs)
        .max_by_key(|container| container.spec.attempt)
}

/// `GET /pods`: what this node was told to run, as a PodList.
pub fn list(context: &Context) -> Value {
    let pods = context.known.all();
    let items: Vec<Value> = pods.iter().map(|pod| pod.object()).collect();
    json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items })
}
