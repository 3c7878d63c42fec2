//! What nodes and pods use: the metrics API without an add-on, as the oldest and the newest kubectl and `ctl` show it, and the
//! kubelet's own pages.

use crate::manifests::{SLEEP, documents, pod, wait_pods};
use crate::site::Site;
use crate::told::{Told, assert_words, until};
use serde_json::{Value, json};
use std::process::Command;

const BUSY: &str = "trap 'exit 0' TERM; while :; do :; done & wait";

#[test]
fn usage_is_served_without_an_add_on() {
    let site = Site::cluster("usage", 44, 1, 1);
    let mut busy = pod("busy", BUSY);
    busy["spec"]["containers"][0]["resources"] =
        json!({"limits": {"cpu": "200m", "memory": "64Mi"}});
    let mut beside = pod("idle", SLEEP)["spec"]["containers"][0].clone();
    beside["name"] = json!("beside");
    busy["spec"]["containers"]
        .as_array_mut()
        .expect("a list")
        .push(beside);
    busy["spec"]["containers"][1]["readinessProbe"] =
        json!({"exec": {"command": ["true"]}, "periodSeconds": 1});
    site.apply(&documents(&[busy, pod("idle", SLEEP)]));
    wait_pods(&site, "busy", 1);
    wait_pods(&site, "idle", 1);
    kubectls(&site);
    ctl(&site);
    objects(&site);
    pages(&site);
}

fn kubectls(site: &Site) {
    let all = kubectls::all();
    for kubectl in [&all[0], &all[all.len() - 1]] {
        let run = |arguments: &[&str]| {
            let mut command = Command::new(&kubectl.program);
            let home = site.home().join(format!("home-{}", kubectl.minor));
            command
                .env("HOME", home)
                .arg("--kubeconfig")
                .arg(site.kubeconfig())
                .args(arguments);
            Told::of(command, b"")
        };
        let pods = until("the pods' usage", 60, || {
            let told = run(&["top", "pods", "--containers"]);
            let complete = told.code == Some(0)
                && ["main", "beside", "idle"]
                    .iter()
                    .all(|word| told.out.contains(word));
            if complete {
                Ok(told.out)
            } else {
                Err(format!("{told:?}"))
            }
        });
        assert_words(&pods, &["POD", "NAME", "CPU(cores)", "MEMORY(bytes)"]);
        assert_words(&run(&["top", "nodes"]).ok(), &["n1", "m", "%", "Mi"]);
        let selected = run(&["top", "pods", "-l", "app=idle"]).ok();
        assert!(
            selected.contains("idle") && !selected.contains("busy"),
            "{selected}"
        );
        assert_words(&run(&["top", "pods", "-A"]).ok(), &["NAMESPACE", "default"]);
        assert_words(&run(&["top", "pod", "nothing"]).fails(1), &["NotFound"]);
        assert_words(
            &run(&["get", "nodes.metrics.k8s.io"]).ok(),
            &["NAME", "CPU", "n1"],
        );
    }
}

fn ctl(site: &Site) {
    let first = |told: String| told.lines().nth(1).unwrap_or_default().to_owned();
    // Throttled to a fifth of a processor, it still uses more than one that sleeps.
    let told = site.ctl(&["top", "pods", "--sort-by", "cpu"]).ok();
    assert!(first(told.clone()).starts_with("busy"), "{told}");
    assert_words(
        &site.ctl(&["top", "pods", "--containers", "busy"]).ok(),
        &["POD", "main", "beside"],
    );
    assert_words(
        &site.ctl(&["top", "nodes"]).ok(),
        &["CPU(CORES)", "n1", "%"],
    );
    site.ctl(&["top", "nodes", "nothing"])
        .one_line(&["not found"]);
}

/// The usage of a container that spins is what its limit allows.
fn objects(site: &Site) {
    let path = "pods.metrics.k8s.io";
    let milli = until("a rate within the limit", 60, || {
        let metrics = site.json(&["get", path, "busy", "-o", "json"])?;
        let main = metrics["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|one| one["name"] == "main");
        let nanos = main.and_then(|main| {
            main["usage"]["cpu"]
                .as_str()?
                .strip_suffix('n')?
                .parse::<u64>()
                .ok()
        });
        match nanos {
            Some(nanos) if nanos > 20_000_000 && nanos < 260_000_000 => Ok(metrics),
            _ => Err(metrics.to_string()),
        }
    });
    assert_eq!(milli["metadata"]["labels"]["app"], "busy", "{milli}");
    assert!(
        milli["timestamp"].is_string() && milli["window"] == "10s",
        "{milli}"
    );
}

/// The kubelet's port, through the node proxy.
fn pages(site: &Site) {
    let raw = |path: &str| {
        let mut command = Command::new(&kubectls::all()[0].program);
        let path = format!("/api/v1/nodes/n1/proxy/{path}");
        command
            .arg("--kubeconfig")
            .arg(site.kubeconfig())
            .args(["get", "--raw", &path]);
        Told::of(command, b"").ok()
    };
    let summary: Value = serde_json::from_str(&raw("stats/summary")).expect("JSON");
    let pods = summary["pods"].as_array().cloned().unwrap_or_default();
    let busy = pods
        .iter()
        .find(|pod| pod["podRef"]["name"] == "busy")
        .expect("is told");
    assert_eq!(
        busy["containers"].as_array().map(Vec::len),
        Some(2),
        "{busy}"
    );
    let positive = |value: &Value, path: &str| {
        assert!(
            value
                .pointer(path)
                .and_then(Value::as_u64)
                .is_some_and(|it| it > 0),
            "{path}: {value}"
        );
    };
    for path in [
        "/cpu/usageCoreNanoSeconds",
        "/memory/workingSetBytes",
        "/network/interfaces/0/rxBytes",
        "/ephemeral-storage/usedBytes",
        "/containers/0/rootfs/inodesUsed",
        "/containers/0/memory/rssBytes",
    ] {
        positive(busy, path);
    }
    for path in [
        "/memory/availableBytes",
        "/fs/capacityBytes",
        "/fs/inodesFree",
        "/runtime/imageFs/usedBytes",
        "/rlimit/maxpid",
        "/network/txBytes",
    ] {
        positive(&summary["node"], path);
    }
    assert_words(
        &raw("metrics/resource"),
        &[
            "container_cpu_usage_seconds_total{container=\"main\",namespace=\"default\",pod=\"busy\"}",
            "node_memory_working_set_bytes",
            "pod_cpu_usage_seconds_total",
            "resource_scrape_error 0",
        ],
    );
    assert_words(
        &raw("metrics/cadvisor"),
        &[
            "container_spec_memory_limit_bytes{container=\"main\"",
            " 67108864 ",
            "container_network_receive_bytes_total{interface=\"eth0\",namespace=\"default\",pod=\"busy\"}",
            "machine_cpu_cores",
        ],
    );
    assert_words(
        &raw("metrics/probes"),
        &[
            "prober_probe_total{container=\"beside\"",
            "probe_type=\"Readiness\",result=\"successful\"}",
        ],
    );
    let list: Value = serde_json::from_str(&raw("pods")).expect("JSON");
    let item = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|pod| pod["metadata"]["name"] == "busy")
        .cloned()
        .expect("is told");
    assert_eq!(item["status"]["phase"], "Running", "{item}");
}
