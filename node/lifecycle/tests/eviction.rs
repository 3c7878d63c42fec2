//! Stories of nodes that run short. `UPDATE_EXPECT=1` writes them anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use expect_test::expect_file;
use lifecycle::Desired;
use lifecycle::eviction::{
    Candidate, Config, ContainerUsage, Memory, Reading, Signal, Threshold, decide,
    exceeds_local_limits, refusal,
};
use objects::{Quantity, Timestamp};
use serde_json::json;

struct Node {
    config: Config,
    readings: BTreeMap<Signal, Reading>,
    pods: Vec<Candidate>,
    memory: Memory,
    now: Timestamp,
}

fn bytes(text: &str) -> u64 {
    u64::try_from(Quantity::parse(text).expect("an amount").units()).expect("no less than nothing")
}

/// `NAME [priority=N] [request=MEM] [uses=MEM] [disk=BYTES] [limit=BYTES] [empty=BYTES/LIMIT] [pids=N] [inodes=N]`
fn candidate(words: &[&str]) -> Candidate {
    let get = |key: &str| {
        words
            .iter()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    };
    let amount = |key: &str| get(key).map_or(0, bytes);
    let mut container = json!({"name": "main", "image": "i", "resources": {}});
    if let Some(request) = get("request") {
        container["resources"]["requests"] = json!({"memory": request});
    }
    if let Some(limit) = get("limit") {
        container["resources"]["limits"] = json!({"ephemeral-storage": limit});
    }
    let empty = get("empty").and_then(|text| text.split_once('/'));
    let volumes =
        empty.map(|(_, limit)| json!([{"name": "tmp", "emptyDir": {"sizeLimit": limit}}]));
    let pod = json!({
        "metadata": {"name": words[0], "uid": words[0]},
        "spec": {"containers": [container], "priority": get("priority").map(|text| text.parse::<i32>().expect("a number")), "volumes": volumes},
    });
    Candidate {
        pod: Arc::new(Desired::parse(pod).expect("a pod")),
        containers: vec![ContainerUsage {
            name: "main".into(),
            memory_bytes: amount("uses"),
            disk_bytes: amount("disk"),
        }],
        volumes: empty
            .map(|(used, _)| ("tmp".to_owned(), bytes(used)))
            .into_iter()
            .collect(),
        inodes: amount("inodes"),
        pids: amount("pids"),
    }
}

fn play(node: &mut Node, command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    match &words[..] {
        ["pod", rest @ ..] => node.pods.push(candidate(rest)),
        ["gone", name] => node.pods.retain(|it| it.pod.name != *name),
        ["reads", signal, available, "of", capacity] => {
            let parsed = Threshold::hard(&format!("{signal}<1")).expect("a signal")[0].signal;
            node.readings.insert(
                parsed,
                Reading {
                    available: bytes(available),
                    capacity: bytes(capacity),
                },
            );
        }
        ["tick", seconds] => {
            node.now = node
                .now
                .plus(Duration::from_secs(seconds.parse().expect("seconds")))
        }
        ["new", rest @ ..] => {
            let decision = decide(
                &node.config,
                &node.readings,
                &[],
                &mut node.memory,
                node.now,
            );
            let refused = refusal(&decision.pressures, &candidate(rest).pod);
            return refused.map_or("taken".into(), |why| format!("refused: {why}"));
        }
        ["limits"] => {
            let ends = node.pods.iter().filter_map(exceeds_local_limits);
            return ends
                .map(|end| format!("{} goes: {}", end.uid, end.message))
                .collect::<Vec<_>>()
                .join("\n");
        }
        _ => panic!("no such command: {command}"),
    }
    let decision = decide(
        &node.config,
        &node.readings,
        &node.pods,
        &mut node.memory,
        node.now,
    );
    let pressures: Vec<&str> = decision.pressures.iter().map(|it| it.condition()).collect();
    let mut told = if pressures.is_empty() {
        "calm".to_owned()
    } else {
        pressures.join(" ")
    };
    if decision.reclaims_disk {
        told.push_str(", reclaims");
    }
    if let Some(end) = decision.evict {
        write!(
            told,
            "\n{} goes in {} s: {}",
            end.uid, end.grace_s, end.message
        )
        .expect("a text");
    }
    told
}

#[test]
fn nodes_run_short() {
    let file = expect_file!["../testdata/eviction/signals.txt"];
    let mut config = Config {
        thresholds: Threshold::hard(
            "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,pid.available<100",
        )
        .expect("thresholds"),
        pressure_transition_period: Duration::from_secs(30),
        max_pod_grace_s: 20,
    };
    let grace = [("memory.available".to_owned(), Duration::from_secs(60))];
    config
        .thresholds
        .extend(Threshold::soft("memory.available<300Mi", &grace).expect("thresholds"));
    let mut told = String::new();
    for story in file.data().split("\n\n") {
        let mut node = Node {
            config: config.clone(),
            readings: BTreeMap::new(),
            pods: vec![],
            memory: Memory::default(),
            now: Timestamp::from_unix(1_800_000_000),
        };
        if !told.is_empty() {
            told.push('\n');
        }
        for line in story
            .lines()
            .filter(|line| line.starts_with("> ") || line.starts_with('#'))
        {
            writeln!(told, "{line}").expect("a text");
            if let Some(command) = line.strip_prefix("> ") {
                writeln!(told, "{}", play(&mut node, command)).expect("a text");
            }
        }
    }
    file.assert_eq(&told);
}
