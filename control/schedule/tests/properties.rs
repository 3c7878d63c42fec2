//! Properties: no node is ever given more than it has, whoever is placed passed every filter, incremental upkeep of the
//! snapshot equals building it anew, and a decision over a thousand nodes takes well under a millisecond.

use k8s_openapi::api::core::v1::{Node, Pod};
use objects::{NodeName, Uid};
use proptest::prelude::*;
use schedule::{Decision, Snapshot, decide, decide_batch, explain};
use serde_json::json;
use std::collections::BTreeMap;

fn node(name: usize, cpu: i64, memory: i64, pods: i64, tainted: bool) -> Node {
    let taints = if tainted {
        json!([{ "key": "k", "effect": "NoSchedule" }])
    } else {
        json!([])
    };
    serde_json::from_value(json!({
        "metadata": { "name": format!("n{name}"), "labels": { "parity": (name % 2).to_string() } },
        "spec": { "taints": taints },
        "status": { "allocatable": { "cpu": format!("{cpu}m"), "memory": memory.to_string(), "pods": pods.to_string() } },
    }))
    .expect("a node")
}

fn pod(
    uid: usize,
    cpu: i64,
    memory: i64,
    port: Option<i32>,
    parity: Option<u8>,
    tolerates: bool,
) -> Pod {
    let ports = port.map(|port| json!([{ "containerPort": port, "hostPort": port }]));
    let tolerations = if tolerates {
        json!([{ "operator": "Exists" }])
    } else {
        json!([])
    };
    let selector = parity.map(|parity| json!({ "parity": parity.to_string() }));
    serde_json::from_value(json!({
        "metadata": { "name": format!("p{uid}"), "uid": format!("u{uid}"), "namespace": "default",
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": format!("r{}", uid % 3), "controller": true }] },
        "spec": {
            "nodeSelector": selector,
            "tolerations": tolerations,
            "containers": [{ "name": "c", "ports": ports,
                "resources": { "requests": { "cpu": format!("{cpu}m"), "memory": memory.to_string() } } }],
        },
    }))
    .expect("a pod")
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let one = (1i64..4000, 1i64..4000, 1i64..8, any::<bool>());
    proptest::collection::vec(one, 1..8).prop_map(|nodes| {
        let nodes = nodes.into_iter().enumerate();
        nodes
            .map(|(at, (cpu, memory, pods, tainted))| node(at, cpu, memory, pods, tainted))
            .collect()
    })
}

fn pods() -> impl Strategy<Value = Vec<Pod>> {
    let one = (
        0i64..2000,
        0i64..2000,
        proptest::option::of(1i32..4),
        proptest::option::of(0u8..2),
        any::<bool>(),
    );
    proptest::collection::vec(one, 1..30).prop_map(|pods| {
        let pods = pods.into_iter().enumerate();
        pods.map(|(at, (cpu, memory, port, parity, tolerates))| {
            pod(at, cpu, memory, port, parity, tolerates)
        })
        .collect()
    })
}

fn bound(pod: &Pod, node: &NodeName) -> Pod {
    let mut pod = pod.clone();
    pod.spec.as_mut().expect("has a spec").node_name = Some(node.0.clone());
    pod
}

/// What of a snapshot later decisions depend on.
fn facts(snapshot: &Snapshot) -> BTreeMap<NodeName, String> {
    let fact = |node: &schedule::NodeState| {
        let owners: BTreeMap<_, _> = node.owners.iter().collect();
        let pods: std::collections::BTreeSet<_> = node.pods.keys().collect();
        format!(
            "{:?} {owners:?} {pods:?} {} {}",
            node.requested, node.weighed_milli_cpu, node.weighed_memory
        )
    };
    snapshot
        .nodes()
        .map(|node| (node.name.clone(), fact(node)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_over_commits(nodes in nodes(), pods in pods(), seed: u64) {
        let mut snapshot = Snapshot::new();
        for node in &nodes {
            snapshot.set_node(node);
        }
        decide_batch(&pods, &mut snapshot, seed);
        for node in snapshot.nodes() {
            prop_assert!(node.requested.milli_cpu <= node.allocatable.milli_cpu);
            prop_assert!(node.requested.memory <= node.allocatable.memory);
            prop_assert!(node.pods.len() as i64 <= node.pods_max);
        }
    }

    #[test]
    fn whoever_is_placed_passed_every_filter(nodes in nodes(), pods in pods(), seed: u64) {
        let mut snapshot = Snapshot::new();
        for node in &nodes {
            snapshot.set_node(node);
        }
        for pod in &pods {
            let decision = decide(pod, &snapshot, seed);
            let reasons = explain(pod, &snapshot);
            match &decision {
                Decision::Bind(node) => prop_assert!(reasons[node].is_empty()),
                Decision::Unschedulable { message, .. } => {
                    prop_assert!(reasons.values().all(|reasons| !reasons.is_empty()), "{message}");
                }
            }
            prop_assert_eq!(&decision, &decide(pod, &snapshot.clone(), seed));
            if let Decision::Bind(node) = decision {
                snapshot.assume(pod, &node);
            }
        }
    }

    /// Any order of events, assumptions among them, leads to the snapshot that the present objects alone give.
    #[test]
    fn upkeep_equals_building_anew(nodes in nodes(), pods in pods(), steps in proptest::collection::vec((0usize..30, 0usize..8, 0u8..6), 0..80)) {
        let mut snapshot = Snapshot::new();
        let mut there: BTreeMap<usize, NodeName> = BTreeMap::new();
        let mut known: BTreeMap<usize, bool> = BTreeMap::new();
        for (pod_at, node_at, step) in steps {
            let (pod_at, node_at) = (pod_at % pods.len(), node_at % nodes.len());
            let (pod, name) = (&pods[pod_at], NodeName(format!("n{node_at}")));
            let uid = Uid(format!("u{pod_at}"));
            match step {
                0 => { snapshot.set_node(&nodes[node_at]); known.insert(node_at, true); }
                1 => { snapshot.remove_node(&name.0); known.remove(&node_at); }
                2 => { snapshot.set_pod(&bound(pod, &name)); there.insert(pod_at, name); }
                3 => { snapshot.remove_pod(&uid); there.remove(&pod_at); }
                4 if !there.contains_key(&pod_at) => {
                    snapshot.assume(pod, &name);
                    snapshot.set_pod(pod);
                    snapshot.forget(&uid);
                }
                _ => snapshot.forget(&uid),
            }
        }
        let mut anew = Snapshot::new();
        for (pod_at, name) in &there {
            anew.set_pod(&bound(&pods[*pod_at], name));
        }
        for node_at in known.keys() {
            anew.set_node(&nodes[*node_at]);
        }
        prop_assert_eq!(facts(&snapshot), facts(&anew));
    }
}

#[test]
fn a_thousand_nodes_are_decided_quickly() {
    let mut snapshot = Snapshot::new();
    for name in 0..1000 {
        snapshot.set_node(&node(name, 4000, 1 << 33, 110, false));
    }
    let pods: Vec<Pod> = (0..1000)
        .map(|uid| pod(uid, 100, 1 << 20, None, None, false))
        .collect();
    let start = std::time::Instant::now();
    let decisions = decide_batch(&pods, &mut snapshot, 1);
    let each = start.elapsed() / 1000;
    assert!(
        decisions
            .iter()
            .all(|decision| matches!(decision, Decision::Bind(_)))
    );
    println!("a decision over 1,000 nodes took {each:?}");
    // Generous, since tests are built without optimisation and share the machine.
    assert!(each < std::time::Duration::from_millis(20), "took {each:?}");
}
