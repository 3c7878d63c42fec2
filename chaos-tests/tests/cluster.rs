//! The cluster that the harness starts: its masters can be lost with their data and come back, a node joins, and nothing of it
//! stays on the machine. Needs root and the programs, as the smoke test does.

use chaos::cluster::{Cluster, Options};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

async fn node_is_ready(cluster: &Cluster, name: &str) -> bool {
    let client = cluster.client().expect("a client");
    let node: Result<Value, _> = client.get(&format!("/api/v1/nodes/{name}")).await;
    let Ok(node) = node else { return false };
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

#[tokio::test]
async fn a_lost_master_comes_back_a_node_joins_and_nothing_stays() {
    let options = Options::masters(3).expect("the programs are built");
    let mut cluster = Cluster::start(options).await.expect("three masters vote");
    let first = cluster.wait_for_leader().await.expect("a leader").name;
    cluster.kill(&first).await.expect("it is killed");
    cluster.destroy_data(&first).expect("its data goes");
    let next = loop {
        let leader = cluster.wait_for_leader().await.expect("a leader");
        if leader.name != first {
            break leader.name;
        }
    };
    cluster.start_machine(&first).expect("it starts anew");
    cluster.wait_until_whole().await.expect("it votes again");
    cluster.stop(&next).await.expect("an orderly stop");
    cluster.start_machine(&next).expect("it starts");
    cluster.wait_until_whole().await.expect("it votes again");

    cluster.add_node("n1").expect("a node starts");
    let until = Instant::now() + Duration::from_secs(20);
    while !node_is_ready(&cluster, "n1").await {
        cluster.fail_where_ended().expect("the node lives");
        assert!(Instant::now() < until, "the node is not ready");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let namespaces = ["m1", "m2", "m3", "n1"].map(|name| cluster.namespace(name));
    let data = cluster.data_dir("m1");
    let pid = cluster.pid("n1").expect("it runs");
    drop(cluster);
    for namespace in namespaces {
        let path = Path::new("/run/netns").join(&namespace);
        assert!(!path.exists(), "{namespace} is left");
    }
    assert!(!data.exists(), "data is left");
    // A killed child is reaped by the runtime a moment later.
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(
        state.is_empty() || state.contains(") Z "),
        "the agent is left: {state}"
    );
}
