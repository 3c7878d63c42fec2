//! Workloads, as far as they need no node.

use super::{check, story};
use crate::context::{Asked, Context, ensure, items, shown};
use crate::lifecycle::Story;
use crate::run::Check;
use serde_json::{Value, json};

pub const CHECKS: &[Check] = &[
    check!("[sig-apps] Deployment Deployment should have a working scale subresource [Conformance]", deployment_scale),
    check!("[sig-apps] Deployment should validate Deployment Status endpoints [Conformance]", deployment_status),
    check!("[sig-apps] own: deployments are listed and deleted together", deployments),
    check!("[sig-apps] ReplicaSet Replicaset should have a working scale subresource [Conformance]", replica_set_scale),
    check!("[sig-apps] ReplicaSet should validate Replicaset Status endpoints [Conformance]", replica_set_status),
    check!("[sig-apps] ReplicaSet should list and delete a collection of ReplicaSets [Conformance]", replica_sets),
    check!("[sig-apps] ReplicaSet should adopt matching pods on creation and release no longer matching pods [Conformance]", adopt),
    check!("[sig-apps] ReplicationController should get and update a ReplicationController scale [Conformance]", controller_scale),
    check!("[sig-apps] ReplicationController should test the lifecycle of a ReplicationController [Conformance]", controllers),
    check!("[sig-apps] ReplicationController should surface a failure condition on a common issue like exceeded quota [Conformance]", controller_quota),
    check!("[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should have a working scale subresource [Conformance]", stateful_set_scale),
    check!("[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should list, patch and delete a collection of StatefulSets [Conformance]", stateful_sets),
    check!("[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should validate Statefulset Status endpoints [Conformance]", stateful_set_status),
    check!("[sig-apps] Daemon set [Serial] should list and delete a collection of DaemonSets [Conformance]", daemon_sets),
    check!("[sig-apps] Daemon set [Serial] should verify changes to a daemon set status [Conformance]", daemon_set_status),
    story!("[sig-apps] ControllerRevision [Serial] should manage the lifecycle of a ControllerRevision [Conformance]",
        Story::of("apps/v1", "controllerrevisions", "ControllerRevision", json!({"revision": 1, "data": {"some": "state"}}))),
    check!("[sig-apps] Job should manage the lifecycle of a job [Conformance]", jobs),
    check!("[sig-apps] Job should apply changes to a job status [Conformance]", job_status),
    check!("[sig-apps] Job should not create pods when created in suspend state", suspended),
    story!("[sig-apps] CronJob should support CronJob API operations [Conformance]", Story::of("batch/v1", "cronjobs", "CronJob", json!({"spec": {
        "schedule": "0 0 29 2 *", "suspend": true, "jobTemplate": {"spec": {"template": template("Never")}}}}))
        .with_status(json!({"lastScheduleTime": "2030-01-01T00:00:00Z"}))),
    story!("[sig-apps] DisruptionController Listing PodDisruptionBudgets for all namespaces should list and delete a collection of PodDisruptionBudgets [Conformance]",
        Story::of("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"no": "pods"}}}}))),
    check!("[sig-apps] DisruptionController should create a PodDisruptionBudget [Conformance]", budget),
    check!("[sig-apps] DisruptionController should update/patch PodDisruptionBudget status [Conformance]", budget_status),
    story!("[sig-autoscaling] own: HorizontalPodAutoscaler API operations",
        Story::of("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", json!({"spec": {"maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]}}))
        .with_status(json!({"currentReplicas": 1, "desiredReplicas": 2}))),
];

/// Pods that no node takes.
fn template(restart: &str) -> Value {
    json!({"metadata": {"labels": {"app": "check"}}, "spec": {"restartPolicy": restart, "nodeSelector": {"no-such": "node"}, "containers": [{"name": "c", "image": "none"}]}})
}

fn workload(replicas: u32) -> Value {
    json!({"spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "check"}}, "template": template("Always")}})
}

fn with_service(mut workload: Value) -> Value {
    workload["spec"]["serviceName"] = json!("check");
    workload
}

fn of_controller(replicas: u32) -> Value {
    json!({"spec": {"replicas": replicas, "selector": {"app": "check"}, "template": template("Always")}})
}

/// The scale is read, updated and patched, and the object follows.
async fn scales(
    context: &Context,
    group_version: &str,
    plural: &str,
    kind: &str,
    rest: Value,
) -> Asked<()> {
    let collection = context.of(group_version, plural).await?;
    let mut object = rest;
    object["apiVersion"] = json!(group_version);
    object["kind"] = json!(kind);
    object["metadata"]["name"] = json!("one");
    context.create(&collection, &object).await?;
    let path = format!("{collection}/one/scale");
    let mut scale = context.get(&path).await?;
    ensure!(
        scale["kind"] == "Scale"
            && scale["apiVersion"] == "autoscaling/v1"
            && scale["spec"]["replicas"] == 1
            && scale["status"]["selector"] == "app=check",
        "{}",
        shown(&scale)
    );
    scale["metadata"]["resourceVersion"] = Value::Null;
    scale["spec"]["replicas"] = json!(2);
    let updated = context.replace(&path, &scale).await?;
    ensure!(updated["spec"]["replicas"] == 2, "{}", shown(&updated));
    let patched = context
        .merge(&path, &json!({"spec": {"replicas": 4}}))
        .await?;
    ensure!(patched["spec"]["replicas"] == 4, "{}", shown(&patched));
    let read = context.get(&format!("{collection}/one")).await?;
    ensure!(read["spec"]["replicas"] == 4, "{}", shown(&read));
    Ok(())
}

async fn deployment_scale(context: &Context) -> Asked<()> {
    scales(context, "apps/v1", "deployments", "Deployment", workload(1)).await
}

async fn replica_set_scale(context: &Context) -> Asked<()> {
    scales(context, "apps/v1", "replicasets", "ReplicaSet", workload(1)).await
}

async fn stateful_set_scale(context: &Context) -> Asked<()> {
    scales(
        context,
        "apps/v1",
        "statefulsets",
        "StatefulSet",
        with_service(workload(1)),
    )
    .await
}

async fn controller_scale(context: &Context) -> Asked<()> {
    scales(
        context,
        "v1",
        "replicationcontrollers",
        "ReplicationController",
        of_controller(1),
    )
    .await
}

/// Conditions set by others than the controller stay, by patch and by update of the status.
async fn keeps_conditions(
    context: &Context,
    group_version: &str,
    plural: &str,
    kind: &str,
    rest: Value,
) -> Asked<()> {
    let collection = context.of(group_version, plural).await?;
    let mut object = rest;
    object["apiVersion"] = json!(group_version);
    object["kind"] = json!(kind);
    object["metadata"]["name"] = json!("one");
    let made = context.create(&collection, &object).await?;
    let path = format!("{collection}/one/status");
    let read = context.get(&path).await?;
    ensure!(read["kind"] == kind, "{}", shown(&read));
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": "set by a check"});
    let question = async || {
        let mut read = context.get(&path).await?;
        let mut conditions = read["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions.push(condition("StatusUpdate"));
        read["status"]["conditions"] = json!(conditions);
        match context.client().put::<Value>(&path, &read).await {
            Ok(updated) => Ok(Some(updated)),
            Err(error) if error.is_code(409) => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    let updated = context
        .until("an update of the status", crate::context::SOON, question)
        .await?;
    ensure!(
        updated["status"]["conditions"]
            .to_string()
            .contains("StatusUpdate"),
        "{}",
        shown(&updated)
    );
    let patched = context.merge(&path, &json!({"status": {"conditions": [condition("StatusPatched")]}, "spec": {"minReadySeconds": 77}})).await?;
    ensure!(
        patched["status"]["conditions"]
            .to_string()
            .contains("StatusPatched")
            && patched["spec"] == made["spec"],
        "{}",
        shown(&patched)
    );
    Ok(())
}

async fn deployment_status(context: &Context) -> Asked<()> {
    keeps_conditions(context, "apps/v1", "deployments", "Deployment", workload(0)).await
}

async fn replica_set_status(context: &Context) -> Asked<()> {
    keeps_conditions(context, "apps/v1", "replicasets", "ReplicaSet", workload(0)).await
}

async fn stateful_set_status(context: &Context) -> Asked<()> {
    keeps_conditions(
        context,
        "apps/v1",
        "statefulsets",
        "StatefulSet",
        with_service(workload(0)),
    )
    .await
}

async fn daemon_set_status(context: &Context) -> Asked<()> {
    keeps_conditions(context, "apps/v1", "daemonsets", "DaemonSet", daemon()).await
}

fn daemon() -> Value {
    let mut object = workload(0);
    if let Some(spec) = object["spec"].as_object_mut() {
        spec.remove("replicas");
    }
    object
}

async fn deployments(context: &Context) -> Asked<()> {
    Story::of("apps/v1", "deployments", "Deployment", workload(0))
        .play(context)
        .await
}

async fn replica_sets(context: &Context) -> Asked<()> {
    Story::of("apps/v1", "replicasets", "ReplicaSet", workload(0))
        .play(context)
        .await
}

async fn stateful_sets(context: &Context) -> Asked<()> {
    Story::of(
        "apps/v1",
        "statefulsets",
        "StatefulSet",
        with_service(workload(0)),
    )
    .play(context)
    .await
}

async fn daemon_sets(context: &Context) -> Asked<()> {
    Story::of("apps/v1", "daemonsets", "DaemonSet", daemon())
        .play(context)
        .await
}

async fn controllers(context: &Context) -> Asked<()> {
    Story::of(
        "v1",
        "replicationcontrollers",
        "ReplicationController",
        of_controller(0),
    )
    .play(context)
    .await
}

async fn adopt(context: &Context) -> Asked<()> {
    let (sets, pods) = (
        context.of("apps/v1", "replicasets").await?,
        context.of("v1", "pods").await?,
    );
    let mut pod = template("Always");
    pod["kind"] = json!("Pod");
    pod["apiVersion"] = json!("v1");
    pod["metadata"]["name"] = json!("alone");
    context.create(&pods, &pod).await?;
    let mut set = workload(1);
    set["kind"] = json!("ReplicaSet");
    set["apiVersion"] = json!("apps/v1");
    set["metadata"]["name"] = json!("adopts");
    context.create(&sets, &set).await?;
    let path = format!("{pods}/alone");
    context
        .wait("an adopted pod", &path, |it| {
            it["metadata"]["ownerReferences"][0]["name"] == "adopts"
        })
        .await?;
    context
        .merge(&path, &json!({"metadata": {"labels": {"app": "other"}}}))
        .await?;
    context
        .wait("a released pod", &path, |it| {
            it["metadata"]["ownerReferences"]
                .as_array()
                .is_none_or(Vec::is_empty)
        })
        .await?;
    context
        .wait(
            "another in its place",
            &format!("{pods}?labelSelector=app%3Dcheck"),
            |it| items(it).len() == 1,
        )
        .await?;
    Ok(())
}

async fn controller_quota(context: &Context) -> Asked<()> {
    let quotas = context.of("v1", "resourcequotas").await?;
    let quota = json!({"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}});
    context.create(&quotas, &quota).await?;
    context
        .wait("the quota's count", &format!("{quotas}/q"), |it| {
            it["status"]["used"]["pods"] == "0"
        })
        .await?;
    let controllers = context.of("v1", "replicationcontrollers").await?;
    let mut object = of_controller(2);
    object["kind"] = json!("ReplicationController");
    object["apiVersion"] = json!("v1");
    object["metadata"]["name"] = json!("one");
    context.create(&controllers, &object).await?;
    let path = format!("{controllers}/one");
    let failing = |it: &Value| {
        it["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|it| it["type"] == "ReplicaFailure" && it["status"] == "True")
    };
    context
        .wait("the condition ReplicaFailure", &path, failing)
        .await?;
    context
        .merge(&format!("{path}/scale"), &json!({"spec": {"replicas": 1}}))
        .await?;
    context
        .wait("the condition's end", &path, |it| !failing(it))
        .await?;
    Ok(())
}

fn job() -> Value {
    json!({"spec": {"suspend": true, "template": template("Never")}})
}

async fn jobs(context: &Context) -> Asked<()> {
    Story::of("batch/v1", "jobs", "Job", job())
        .play(context)
        .await
}

async fn job_status(context: &Context) -> Asked<()> {
    keeps_conditions(context, "batch/v1", "jobs", "Job", job()).await
}

async fn suspended(context: &Context) -> Asked<()> {
    let (jobs, pods) = (
        context.of("batch/v1", "jobs").await?,
        context.of("v1", "pods").await?,
    );
    let mut object = job();
    object["kind"] = json!("Job");
    object["apiVersion"] = json!("batch/v1");
    object["metadata"]["name"] = json!("one");
    context.create(&jobs, &object).await?;
    let path = format!("{jobs}/one");
    context
        .wait("the condition Suspended", &path, |it| {
            it["status"]["conditions"].to_string().contains("Suspended")
        })
        .await?;
    ensure!(
        context.items(&pods).await?.is_empty(),
        "a suspended job has pods"
    );
    context
        .merge(&path, &json!({"spec": {"suspend": false}}))
        .await?;
    context
        .wait("its pod", &pods, |it| items(it).len() == 1)
        .await?;
    context
        .merge(&path, &json!({"spec": {"suspend": true}}))
        .await?;
    context
        .wait("the pod's end", &pods, |it| items(it).is_empty())
        .await?;
    Ok(())
}

async fn make_budget(context: &Context) -> Asked<String> {
    let budgets = context.of("policy/v1", "poddisruptionbudgets").await?;
    let budget = json!({"kind": "PodDisruptionBudget", "apiVersion": "policy/v1", "metadata": {"name": "one"},
        "spec": {"minAvailable": "1%", "selector": {"matchLabels": {"no": "pods"}}}});
    context.create(&budgets, &budget).await?;
    Ok(format!("{budgets}/one"))
}

async fn budget(context: &Context) -> Asked<()> {
    let path = make_budget(context).await?;
    context
        .wait("the budget's status", &path, |it| {
            it["status"]["observedGeneration"] == 1
        })
        .await?;
    context
        .merge(&path, &json!({"spec": {"minAvailable": 3}}))
        .await?;
    let seen = context
        .wait("the new generation", &path, |it| {
            it["status"]["observedGeneration"] == 2
        })
        .await?;
    ensure!(
        seen["spec"]["minAvailable"] == 3 && seen["status"]["disruptionsAllowed"] == 0,
        "{}",
        shown(&seen)
    );
    Ok(())
}

async fn budget_status(context: &Context) -> Asked<()> {
    let path = make_budget(context).await?;
    context
        .wait("the budget's status", &path, |it| {
            it["status"]["observedGeneration"] == 1
        })
        .await?;
    let patched = context
        .merge(
            &format!("{path}/status"),
            &json!({"status": {"disruptedPods": {"gone": "2030-01-01T00:00:00Z"}}}),
        )
        .await?;
    ensure!(
        patched["status"]["disruptedPods"].is_object(),
        "{}",
        shown(&patched)
    );
    Ok(())
}
