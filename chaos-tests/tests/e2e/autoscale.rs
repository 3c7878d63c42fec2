//! A busy workload gets more replicas by what it uses, and its autoscaler tells why.

use crate::manifests::{deployment, documents};
use crate::site::Site;
use crate::told::until;
use serde_json::{Value, json};

const BUSY: &str = "trap 'exit 0' TERM; while :; do :; done & wait";

#[test]
fn a_busy_workload_gets_more_replicas() {
    let site = Site::cluster("autoscale", 46, 1, 1);
    let mut busy = deployment("busy", 1, BUSY);
    let container = &mut busy["spec"]["template"]["spec"]["containers"][0];
    container["resources"] = json!({"requests": {"cpu": "20m"}, "limits": {"cpu": "100m"}});
    let half = json!({"type": "Utilization", "averageUtilization": 50});
    let scaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "busy"}, "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "busy"}, "minReplicas": 1, "maxReplicas": 3,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": half}}]}});
    site.apply(&documents(&[busy, scaler]));
    until("three replicas", 150, || {
        let scale = site.get(&["deploy", "busy"])["spec"]["replicas"].clone();
        let scaler = || site.get(&["hpa", "busy"])["status"].to_string();
        (scale == 3).then_some(()).ok_or_else(scaler)
    });
    let status = site.get(&["hpa", "busy"])["status"].clone();
    let condition = |kind: &str| {
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.into_iter().find(|it| it["type"] == kind);
        found.unwrap_or(Value::Null)
    };
    assert_eq!(condition("AbleToScale")["status"], "True", "{status}");
    let active = condition("ScalingActive");
    assert_eq!(active["reason"], "ValidMetricFound", "{status}");
    assert_eq!(
        condition("ScalingLimited")["reason"],
        "TooManyReplicas",
        "{status}"
    );
    let used = &status["currentMetrics"][0]["resource"]["current"]["averageUtilization"];
    assert!(used.as_i64() > Some(50), "{status}");
}
