//! The stories in `testdata/`: nodes come and go, pods are placed, and every refusal is told in full.
//!
//! A command with its input, `----`, and the output that is expected. `UPDATE_EXPECT=1` writes the output that was seen into
//! the file.

use k8s_openapi::api::core::v1::{Node, Pod};
use schedule::{Decision, Snapshot, decide_batch, explain};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;

#[test]
fn resources() {
    check("testdata/resources.txt");
}

#[test]
fn constraints() {
    check("testdata/constraints.txt");
}

#[test]
fn neighbours() {
    check("testdata/neighbours.txt");
}

#[test]
fn spreading() {
    check("testdata/spreading.txt");
}

fn check(path: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let mut snapshot = Snapshot::new();
    let blocks = text.split("\n\n").map(|block| run(&mut snapshot, block));
    let seen: Vec<String> = blocks.collect();
    let seen = format!("{}\n", seen.join("\n\n").trim_end());
    expect_test::expect_file![path].assert_eq(&seen);
}

/// The block as it should be: comments and the command as they are, then what was seen.
fn run(snapshot: &mut Snapshot, block: &str) -> String {
    let head = block.split("----").next().unwrap_or("").trim_end();
    let lines: Vec<&str> = head.lines().filter(|line| !line.starts_with('#')).collect();
    let Some((command, input)) = lines.split_first() else {
        return head.to_owned();
    };
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = match words[..] {
        ["nodes"] => nodes(snapshot, &input.join("\n")),
        ["remove-node", name] => {
            snapshot.remove_node(name);
            String::new()
        }
        ["place"] => place(snapshot, &read(&input.join("\n"))),
        ["explain"] => tell(snapshot, &read(&input.join("\n"))),
        ref other => panic!("unknown command {other:?}"),
    };
    format!("{head}\n----\n{}", output.trim_end())
        .trim_end()
        .to_owned()
}

/// YAML, one object a line.
fn read(input: &str) -> Vec<Value> {
    let lines = input.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| serde_saphyr::from_str(line).expect("YAML"))
        .collect()
}

fn nodes(snapshot: &mut Snapshot, input: &str) -> String {
    for value in read(input) {
        let node: Node = serde_json::from_value(value).expect("a node");
        snapshot.set_node(&node);
    }
    format!("{} nodes", snapshot.nodes().count())
}

fn pods(values: &[Value]) -> Vec<Pod> {
    let pods = values.iter().map(|value| {
        let mut pod: Pod = serde_json::from_value(value.clone()).expect("a pod");
        pod.metadata.uid = pod.metadata.name.clone();
        pod
    });
    pods.collect()
}

fn place(snapshot: &mut Snapshot, values: &[Value]) -> String {
    let pods = pods(values);
    let mut lines = String::new();
    for (pod, decision) in pods.iter().zip(decide_batch(&pods, snapshot, 7)) {
        let name = pod.metadata.name.as_deref().unwrap_or("");
        match decision {
            Decision::Bind(node) => writeln!(lines, "{name} -> {node}"),
            Decision::Unschedulable { reason, message } => {
                writeln!(lines, "{name} {reason}: {message}")
            }
        }
        .expect("a text");
    }
    lines
}

fn tell(snapshot: &Snapshot, values: &[Value]) -> String {
    let mut lines = String::new();
    for pod in pods(values) {
        for (node, reasons) in explain(&pod, snapshot) {
            let reasons = if reasons.is_empty() {
                "fits".to_owned()
            } else {
                reasons.join(", ")
            };
            writeln!(lines, "{node}: {reasons}").expect("a text");
        }
    }
    lines
}
