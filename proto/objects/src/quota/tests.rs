use super::*;
use serde_json::json;

fn object(kind: &str, body: Value) -> Object {
    let mut value = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}});
    for (name, member) in body.as_object().into_iter().flatten() {
        value[name] = member.clone();
    }
    Object::from_value(value).expect("an object")
}

fn cost(hard: &Value, scopes: Value, resource: &str, counted: &Object) -> String {
    let mut spec = scopes;
    spec["hard"] = hard.clone();
    let quota = Quota::of(&object("ResourceQuota", json!({"spec": spec})));
    shown(&quota.cost(
        &GroupResource::new("", resource),
        counted,
        Timestamp::from_unix(0),
    ))
}

#[test]
fn pods_cost_what_all_their_containers_ask_for() {
    let asks =
        |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu, "memory": "1Gi"}});
    let pod = object(
        "Pod",
        json!({"spec": {
            "containers": [{"name": "a", "resources": asks("1")}, {"name": "b", "resources": asks("500m")}],
            "initContainers": [
                {"name": "beside", "restartPolicy": "Always", "resources": asks("250m")},
                {"name": "first", "resources": asks("4")},
            ],
            "overhead": {"cpu": "10m", "memory": "1Mi"},
        }}),
    );
    let hard = json!({"pods": 1, "count/pods": 1, "requests.cpu": 1, "cpu": 1, "memory": 1, "limits.cpu": 1, "limits.memory": 1, "requests.storage": 1});
    assert_eq!(
        cost(&hard, json!({}), "pods", &pod),
        "count/pods=1,cpu=4260m,limits.cpu=4260m,limits.memory=3073Mi,memory=1Mi,pods=1,requests.cpu=4260m"
    );
    let mut ended = pod;
    let status = json!({"phase": "Succeeded"});
    ended.body.insert("status".to_owned(), status);
    assert_eq!(cost(&hard, json!({}), "pods", &ended), "count/pods=1");
}

#[test]
fn scopes_choose() {
    let hard = json!({"pods": 1});
    let best_effort = object("Pod", json!({"spec": {"containers": [{"name": "a"}]}}));
    let high = object(
        "Pod",
        json!({"spec": {"priorityClassName": "high", "activeDeadlineSeconds": 5,
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]}}),
    );
    let by_class = |operator: &str| {
        json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": operator, "values": ["high"]}]}})
    };
    for (scopes, counts_best_effort, counts_high) in [
        (json!({"scopes": ["BestEffort"]}), true, false),
        (json!({"scopes": ["NotBestEffort"]}), false, true),
        (json!({"scopes": ["Terminating"]}), false, true),
        (
            json!({"scopes": ["NotTerminating", "BestEffort"]}),
            true,
            false,
        ),
        (json!({"scopes": ["PriorityClass"]}), false, true),
        (
            json!({"scopes": ["CrossNamespacePodAffinity"]}),
            false,
            false,
        ),
        (by_class("In"), false, true),
        (by_class("NotIn"), true, false),
        (by_class("DoesNotExist"), true, false),
    ] {
        let counts = |pod: &Object| !cost(&hard, scopes.clone(), "pods", pod).is_empty();
        assert_eq!(counts(&best_effort), counts_best_effort, "{scopes}");
        assert_eq!(counts(&high), counts_high, "{scopes}");
    }
}

#[test]
fn services_and_claims_cost_ports_and_bytes() {
    let hard = json!({"services": 1, "services.nodeports": 1, "services.loadbalancers": 1});
    let service = object(
        "Service",
        json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}}),
    );
    assert_eq!(
        cost(&hard, json!({}), "services", &service),
        "services=1,services.loadbalancers=1,services.nodeports=2"
    );
    let hard = json!({"requests.storage": 1, "fast.storageclass.storage.k8s.io/requests.storage": 1,
        "slow.storageclass.storage.k8s.io/persistentvolumeclaims": 1});
    let claim = object(
        "PersistentVolumeClaim",
        json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}}),
    );
    assert_eq!(
        cost(&hard, json!({}), "persistentvolumeclaims", &claim),
        "fast.storageclass.storage.k8s.io/requests.storage=2Gi,requests.storage=2Gi"
    );
}

#[test]
fn says_which_containers_leave_what_unsaid() {
    let pod = object(
        "Pod",
        json!({"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}, {"name": "b"}]}}),
    );
    let hard = amounts(Some(
        &json!({"pods": 1, "limits.cpu": 1, "requests.memory": 1}),
    ));
    let missing = missing(&hard, &pod);
    assert_eq!(
        format!("{missing:?}"),
        r#"{"limits.cpu": ["b"], "requests.memory": ["a", "b"]}"#
    );
}
