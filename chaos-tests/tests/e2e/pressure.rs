//! A node that runs short, and one that goes down: which pods end, and what is told.

use crate::manifests::{SLEEP, documents, pod, wait_pods};
use crate::site::{Site, condition};
use crate::told::assert_words;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const GREEDY: &str =
    "trap 'exit 0' TERM; x=$(head -c 20000000 /dev/zero | tr '\\0' x); sleep 100000 & wait";

#[test]
fn a_short_node_gives_up_pods_in_order() {
    let mut site = Site::cluster("pressure", 46, 1, 1);
    let mut modest = pod("modest", SLEEP);
    modest["spec"]["containers"][0]["resources"] =
        json!({"requests": {"memory": "100Mi", "cpu": "10m"}});
    site.apply(&documents(&[modest, pod("greedy", GREEDY)]));
    wait_pods(&site, "modest", 1);
    wait_pods(&site, "greedy", 1);
    site.wait(&["node", "n1"], 30, |node| {
        let images = node["status"]["images"].to_string();
        images.contains("trireme.local/busybox")
    });
    short_of_memory(&mut site);
    calm_again(&mut site);
    goes_down(&mut site);
}

fn restart(site: &mut Site, flags: &[&str]) {
    site.end("n1", Signal::SIGTERM);
    site.start_node("n1", flags);
}

fn short_of_memory(site: &mut Site) {
    restart(
        site,
        &[
            "--eviction-hard",
            "memory.available<100Ti",
            "--system-reserved",
            "cpu=100m,memory=64Mi",
        ],
    );
    let greedy = site.wait(&["pod", "greedy"], 90, |pod| {
        pod["status"]["phase"] == "Failed"
    });
    assert_eq!(greedy["status"]["reason"], "Evicted", "{greedy}");
    assert_words(
        greedy["status"]["message"].as_str().unwrap_or_default(),
        &[
            "The node was low on resource: memory. Threshold quantity: 100Ti, available: ",
            "Container main was using ",
            "request is 0, has larger consumption of memory. ",
        ],
    );
    assert_eq!(condition(&greedy, "DisruptionTarget"), "True", "{greedy}");
    let node = site.wait(&["node", "n1"], 60, |node| {
        condition(node, "MemoryPressure") == "True"
            && node["spec"]["taints"]
                .to_string()
                .contains("node.kubernetes.io/memory-pressure")
    });
    assert_eq!(node["status"]["allocatable"]["memory"], "0", "{node}");
    let milli = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    assert!(
        milli(&node["status"]["allocatable"]["cpu"]).ends_with("900m"),
        "{node}"
    );
    // A pod that is put here all the same is not taken.
    let mut refused = pod("refused", SLEEP);
    refused["spec"]["nodeName"] = json!("n1");
    site.apply(&documents(&[refused]));
    let refused = site.wait(&["pod", "refused"], 30, |pod| {
        pod["status"]["phase"] == "Failed"
    });
    assert_eq!(
        refused["status"]["message"], "The node had condition: [MemoryPressure]. ",
        "{refused}"
    );
}

fn calm_again(site: &mut Site) {
    restart(
        site,
        &[
            "--shutdown-grace-period",
            "20s",
            "--shutdown-grace-period-critical-pods",
            "5s",
        ],
    );
    site.wait(&["node", "n1"], 60, |node| {
        condition(node, "MemoryPressure") == "False"
            && !node["spec"]["taints"]
                .to_string()
                .contains("memory-pressure")
    });
    site.apply(&documents(&[pod("web", SLEEP)]));
    wait_pods(site, "web", 1);
}

/// The machine's power fails: pods end, and it is told, before the agent ends.
fn goes_down(site: &mut Site) {
    site.end("n1", Signal::SIGPWR);
    let web = site.get(&["pod", "web"]);
    assert_eq!(web["status"]["phase"], "Failed", "{web}");
    assert_eq!(web["status"]["reason"], "Terminated", "{web}");
    assert_words(
        web["status"]["message"].as_str().unwrap_or_default(),
        &["node shutdown"],
    );
}
