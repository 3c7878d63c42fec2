//! Manifests that stories write, and what they read of objects.

use crate::site::{IMAGE, Site, items};
use serde_json::{Value, json};

/// A pod with one container that runs a shell script.
pub fn pod(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": IMAGE, "command": ["sh", "-c", script]}],
        },
    })
}

/// A deployment of such pods.
pub fn deployment(name: &str, replicas: u32, script: &str) -> Value {
    let pod = pod(name, script);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod["spec"]},
        },
    })
}

/// A service in front of the pods labelled with its name.
pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    })
}

/// A script that serves the pod's name on port 8080 and ends at once when asked to.
pub const SERVE: &str =
    "trap 'exit 0' TERM; mkdir -p /www; hostname >/www/index.html; httpd -f -p 8080 -h /www & wait";

/// A script that does nothing and ends at once when asked to.
pub const SLEEP: &str = "trap 'exit 0' TERM; sleep 100000 & wait";

/// Several objects as one stream of documents.
pub fn documents(objects: &[Value]) -> String {
    objects
        .iter()
        .map(|object| format!("---\n{object}\n"))
        .collect()
}

/// The running pods with a label.
pub fn pods_of(site: &Site, app: &str) -> Vec<Value> {
    let selector = format!("app={app}");
    let mut pods = items(&site.get(&["pods", "-l", &selector]));
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    pods
}

/// An object's name.
pub fn name(object: &Value) -> String {
    object["metadata"]["name"]
        .as_str()
        .expect("every object has a name")
        .to_owned()
}

/// Names, in order.
pub fn names(objects: &[Value]) -> Vec<String> {
    let mut names: Vec<String> = objects.iter().map(name).collect();
    names.sort();
    names
}

/// The state of a pod's first container.
pub fn state(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]
}

/// What must not change when an agent or the masters come back: the containers as the API tells them.
pub fn lives(site: &Site, app: &str) -> Vec<String> {
    let mut lives: Vec<String> = pods_of(site, app)
        .iter()
        .map(|pod| {
            let status = &pod["status"]["containerStatuses"][0];
            format!(
                "{} {} {} {}",
                name(pod),
                status["containerID"],
                status["restartCount"],
                status["state"]["running"]["startedAt"]
            )
        })
        .collect();
    lives.sort();
    lives
}

/// When the kernel started each pod's first process: nobody's word but the kernel's.
pub fn births(site: &Site, app: &str) -> Vec<String> {
    let births = names(&pods_of(site, app)).into_iter().map(|pod| {
        let stat = site.ctl(&["exec", &pod, "--", "cat", "/proc/1/stat"]).ok();
        // The 22nd field is the start time; the second, a name in brackets, may hold blanks.
        let after_name = stat
            .rsplit(") ")
            .next()
            .expect("rsplit gives at least one part")
            .to_owned();
        format!(
            "{pod} {}",
            after_name
                .split_whitespace()
                .nth(19)
                .expect("stat has 22 fields")
        )
    });
    births.collect()
}

/// Whether a container of the pod has run so long, so often and from then on: see [`lives`].
pub fn all_running(pods: &[Value]) -> bool {
    pods.iter().all(|pod| {
        pod["status"]["phase"] == "Running"
            && pod["status"]["containerStatuses"][0]["ready"] == true
    })
}

/// Waits until so many pods of the label run and are ready.
#[track_caller]
pub fn wait_pods(site: &Site, app: &str, count: usize) -> Vec<Value> {
    let selector = format!("app={app}");
    site.wait(&["pods", "-l", &selector], 60, |list| {
        items(list).len() == count && all_running(&items(list))
    });
    pods_of(site, app)
}
