//! Pods that are changed while they run: a container put beside the others to look around, and resources that grow in place.

use crate::manifests::{SLEEP, documents, pod, state, wait_pods};
use crate::site::{Site, condition};
use crate::told::{Told, assert_words, until};
use serde_json::{Value, json};
use std::process::Command;

#[test]
fn running_pods_are_debugged_and_resized() {
    let site = Site::cluster("alter", 45, 1, 1);
    let mut web = pod("web", SLEEP);
    let main = &mut web["spec"]["containers"][0];
    main["resources"] = json!({"limits": {"cpu": "200m", "memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "32Mi"}});
    main["resizePolicy"] = json!([
        {"resourceName": "cpu", "restartPolicy": "NotRequired"},
        {"resourceName": "memory", "restartPolicy": "RestartContainer"},
    ]);
    site.apply(&documents(&[web]));
    wait_pods(&site, "web", 1);
    debug(&site);
    resize(&site);
    site.ctl(&["delete", "pod", "web"]).ok();
    site.assert_no_leaks("n1");
}

fn kubectl(site: &Site, arguments: &[&str]) -> Told {
    let all = kubectls::all();
    let mut command = Command::new(&all[all.len() - 1].program);
    command
        .env("HOME", site.home())
        .arg("--kubeconfig")
        .arg(site.kubeconfig())
        .args(arguments);
    Told::of(command, b"")
}

fn debug(site: &Site) {
    let debug = [
        "debug",
        "web",
        "--image",
        crate::site::IMAGE,
        "--target",
        "main",
        "-c",
        "look",
        "--",
        "sleep",
        "1000",
    ];
    kubectl(site, &debug).ok();
    let found = site.wait(&["pod", "web"], 60, |pod| {
        pod["status"]["ephemeralContainerStatuses"][0]["state"]["running"].is_object()
    });
    assert_eq!(
        found["status"]["containerStatuses"][0]["restartCount"], 0,
        "{found}"
    );
    assert_eq!(condition(&found, "Ready"), "True", "{found}");
    // It sees the processes of the container that it was put beside.
    let first = site
        .ctl(&["exec", "web", "-c", "look", "--", "cat", "/proc/1/cmdline"])
        .ok();
    assert_words(&first, &["trap", "sleep 100000"]);
}

fn resize(site: &Site) {
    let patch = |resources: Value| {
        let patch =
            json!({"spec": {"containers": [{"name": "main", "resources": resources}]}}).to_string();
        kubectl(
            site,
            &[
                "patch",
                "pod",
                "web",
                "--subresource",
                "resize",
                "--patch",
                &patch,
            ],
        )
        .ok();
    };
    let applied = |resource: &str, amount: &str| {
        site.wait(&["pod", "web"], 60, |pod| {
            pod["status"]["containerStatuses"][0]["resources"]["limits"][resource] == amount
                && state(pod)["running"].is_object()
        })
    };
    applied("cpu", "200m");
    patch(json!({"limits": {"cpu": "300m"}}));
    let found = applied("cpu", "300m");
    assert_eq!(
        found["status"]["containerStatuses"][0]["restartCount"], 0,
        "{found}"
    );
    assert_eq!(
        found["status"]["containerStatuses"][0]["allocatedResources"]["cpu"], "100m",
        "{found}"
    );
    let uid = found["metadata"]["uid"].as_str().expect("a uid");
    let id = found["status"]["containerStatuses"][0]["containerID"]
        .as_str()
        .expect("an id");
    let group = format!(
        "{}/burstable/pod{uid}/{}",
        site.cgroup("n1"),
        id.trim_start_matches("libcontainer://")
    );
    let quota = std::fs::read_to_string(format!("/sys/fs/cgroup/cpu/{group}/cpu.cfs_quota_us"))
        .or_else(|_| std::fs::read_to_string(format!("/sys/fs/cgroup/{group}/cpu.max")))
        .expect("the container has a group");
    assert!(quota.starts_with("30000"), "{quota}");
    // Memory is changed by a restart, as its policy says.
    patch(json!({"limits": {"memory": "96Mi"}}));
    let found = applied("memory", "96Mi");
    assert_eq!(
        found["status"]["containerStatuses"][0]["restartCount"], 1,
        "{found}"
    );
    // What no node has is never given, and told.
    patch(json!({"requests": {"cpu": "900"}, "limits": {"cpu": "900"}}));
    let told = until("the refusal", 30, || {
        let pod = site.json(&["get", "pod", "web", "-o", "json"])?;
        let conditions = pod["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions
            .into_iter()
            .find(|it| it["type"] == "PodResizePending")
            .ok_or_else(|| pod["status"].to_string())
    });
    assert_eq!(told["reason"], "Infeasible", "{told}");
    patch(json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "300m"}}));
    site.wait(&["pod", "web"], 30, |pod| {
        condition(pod, "PodResizePending").is_empty()
    });
}
