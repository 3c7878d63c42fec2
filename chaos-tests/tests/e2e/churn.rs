//! Pods that come and go while their agent is killed: at the end nothing of them is left on the node.

use crate::manifests::{SLEEP, documents, pod, wait_pods};
use crate::site::{Site, items};
use nix::sys::signal::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

const PODS: usize = 6;
/// Rounds, where `TRIREME_SOAK_MINUTES` does not say how long.
const ROUNDS: usize = 3;

#[test]
fn nothing_is_left_of_pods_that_went() {
    let mut site = Site::cluster("churn", 48, 1, 1);
    let minutes = std::env::var("TRIREME_SOAK_MINUTES").ok();
    let minutes = minutes.map(|text| text.parse().expect("a number of minutes"));
    let end = minutes.map(|minutes: u64| Instant::now() + Duration::from_secs(minutes * 60));
    let mut round = 0;
    while end.map_or(round < ROUNDS, |end| Instant::now() < end) {
        churn(&mut site, round);
        round += 1;
    }
    site.assert_no_leaks("n1");
}

/// The agent is killed while pods are made, while they run, or while they go.
fn churn(site: &mut Site, round: usize) {
    let moment = round % 3;
    let pods: Vec<_> = (0..PODS)
        .map(|number| {
            let mut pod = pod(&format!("p{number}"), SLEEP);
            pod["metadata"]["labels"]["app"] = json!("churn");
            pod["spec"]["volumes"] = json!([{"name": "memory", "emptyDir": {"medium": "Memory"}}]);
            pod["spec"]["containers"][0]["volumeMounts"] =
                json!([{"name": "memory", "mountPath": "/memory"}]);
            pod
        })
        .collect();
    site.apply(&documents(&pods));
    if moment == 0 {
        again(site);
    }
    wait_pods(site, "churn", PODS);
    if moment == 1 {
        again(site);
        wait_pods(site, "churn", PODS);
    }
    site.ctl(&["delete", "pods", "-l", "app=churn", "--no-wait"])
        .ok();
    if moment == 2 {
        again(site);
    }
    site.wait(&["pods", "-l", "app=churn"], 90, |list| {
        items(list).is_empty()
    });
}

fn again(site: &mut Site) {
    site.end("n1", Signal::SIGKILL);
    site.start("n1");
}
