//! Resource quotas.

use super::{check, story};
use crate::context::{Asked, Context, ensure, refused, shown};
use crate::lifecycle::Story;
use crate::run::Check;
use serde_json::{Value, json};

pub const CHECKS: &[Check] = &[
    check!(
        "[sig-api-machinery] ResourceQuota should create a ResourceQuota and ensure its status is promptly calculated. [Conformance]",
        calculated
    ),
    check!(
        "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a service. [Conformance]",
        service
    ),
    check!(
        "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a secret. [Conformance]",
        secret
    ),
    check!(
        "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a pod. [Conformance]",
        pod
    ),
    check!(
        "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a configMap. [Conformance]",
        config_map
    ),
    check!(
        "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replication controller. [Conformance]",
        replication_controller
    ),
    check!(
        "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replica set. [Conformance]",
        replica_set
    ),
    check!(
        "[sig-api-machinery] ResourceQuota should verify ResourceQuota with terminating scopes. [Conformance]",
        terminating
    ),
    check!(
        "[sig-api-machinery] ResourceQuota should verify ResourceQuota with best effort scope. [Conformance]",
        best_effort
    ),
    check!(
        "[sig-api-machinery] ResourceQuota should be able to update and delete ResourceQuota. [Conformance]",
        update
    ),
    story!(
        "[sig-api-machinery] ResourceQuota should manage the lifecycle of a ResourceQuota [Conformance]",
        Story::of(
            "v1",
            "resourcequotas",
            "ResourceQuota",
            json!({"spec": {"hard": {"cpu": "10"}}})
        )
    ),
    check!(
        "[sig-api-machinery] ResourceQuota should apply changes to a resourcequota status [Conformance]",
        status
    ),
];

fn quota(own: &str, spec: Value) -> Value {
    json!({"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": own}, "spec": spec})
}

async fn make(context: &Context, own: &str, spec: Value) -> Asked<String> {
    let quotas = context.of("v1", "resourcequotas").await?;
    context.create(&quotas, &quota(own, spec)).await?;
    Ok(format!("{quotas}/{own}"))
}

async fn used(context: &Context, path: &str, resource: &str, wanted: &str) -> Asked<()> {
    context
        .wait(&format!("{wanted} used of {resource}"), path, |it| {
            it["status"]["used"][resource] == wanted
        })
        .await?;
    Ok(())
}

async fn calculated(context: &Context) -> Asked<()> {
    let path = make(
        context,
        "q",
        json!({"hard": {"pods": "5", "services": "3", "cpu": "1", "configmaps": "10"}}),
    )
    .await?;
    used(context, &path, "pods", "0").await?;
    let read = context.get(&path).await?;
    ensure!(
        read["status"]["hard"]["pods"] == "5" && read["status"]["used"]["cpu"] == "0",
        "{}",
        shown(&read)
    );
    Ok(())
}

/// An object is counted while it lives, and one too many is refused.
async fn life(
    context: &Context,
    resource: &str,
    group_version: &str,
    plural: &str,
    object: impl Fn(&str) -> Value,
) -> Asked<()> {
    let collection = context.of(group_version, plural).await?;
    let there = context.items(&collection).await?.len();
    let limit = there + 1;
    let path = make(context, "q", json!({"hard": {resource: limit.to_string()}})).await?;
    used(context, &path, resource, &there.to_string()).await?;
    context.create(&collection, &object("one")).await?;
    used(context, &path, resource, &limit.to_string()).await?;
    let status = refused(
        "one more than the quota allows",
        context
            .client()
            .post::<Value>(&collection, &object("two"))
            .await,
        403,
    )?;
    ensure!(
        status.message.contains("exceeded quota: q"),
        "{}",
        status.message
    );
    context.delete(&format!("{collection}/one")).await?;
    used(context, &path, resource, &there.to_string()).await
}

async fn service(context: &Context) -> Asked<()> {
    life(context, "services", "v1", "services", |own| json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": own}, "spec": {"ports": [{"port": 80}]}})).await
}

async fn secret(context: &Context) -> Asked<()> {
    life(
        context,
        "secrets",
        "v1",
        "secrets",
        |own| json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": own}}),
    )
    .await
}

/// The map with the cluster's CA, which every namespace gets, must be there before maps are counted.
async fn config_map(context: &Context) -> Asked<()> {
    let maps = context.of("v1", "configmaps").await?;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    context.get(&maps).await?;
    life(
        context,
        "configmaps",
        "v1",
        "configmaps",
        |own| json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": own}}),
    )
    .await
}

fn pending(own: &str, requests: Value) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": own},
        "spec": {"nodeSelector": {"no-such": "node"}, "containers": [{"name": "c", "image": "none", "resources": requests}]}})
}

async fn pod(context: &Context) -> Asked<()> {
    let pods = context.of("v1", "pods").await?;
    let path = make(
        context,
        "q",
        json!({"hard": {"pods": "5", "cpu": "1", "memory": "500Mi"}}),
    )
    .await?;
    used(context, &path, "pods", "0").await?;
    context
        .create(
            &pods,
            &pending(
                "one",
                json!({"requests": {"cpu": "500m", "memory": "252Mi"}}),
            ),
        )
        .await?;
    used(context, &path, "cpu", "500m").await?;
    used(context, &path, "memory", "252Mi").await?;
    for (why, requests) in [
        (
            "too much",
            json!({"requests": {"cpu": "600m", "memory": "100Mi"}}),
        ),
        ("nothing said", json!({})),
    ] {
        refused(
            why,
            context
                .client()
                .post::<Value>(&pods, &pending("two", requests))
                .await,
            403,
        )?;
    }
    context.delete(&format!("{pods}/one")).await?;
    used(context, &path, "pods", "0").await
}

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "none"}]}})
}

async fn replication_controller(context: &Context) -> Asked<()> {
    life(context, "replicationcontrollers", "v1", "replicationcontrollers", |own| {
        json!({"kind": "ReplicationController", "apiVersion": "v1", "metadata": {"name": own}, "spec": {"replicas": 0, "selector": {"a": "b"}, "template": template()}})
    })
    .await
}

async fn replica_set(context: &Context) -> Asked<()> {
    life(context, "count/replicasets.apps", "apps/v1", "replicasets", |own| {
        json!({"kind": "ReplicaSet", "apiVersion": "apps/v1", "metadata": {"name": own}, "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template()}})
    })
    .await
}

/// A pod is counted by the quota of its scope alone.
async fn scoped(
    context: &Context,
    scopes: [&str; 2],
    of_first: Value,
    of_second: Value,
) -> Asked<()> {
    let pods = context.of("v1", "pods").await?;
    let spec = |scope: &str| json!({"hard": {"pods": "5"}, "scopes": [scope]});
    let first = make(context, "first", spec(scopes[0])).await?;
    let second = make(context, "second", spec(scopes[1])).await?;
    used(context, &first, "pods", "0").await?;
    used(context, &second, "pods", "0").await?;
    for (pod, counts, not) in [(of_first, &first, &second), (of_second, &second, &first)] {
        context.create(&pods, &pod).await?;
        used(context, counts, "pods", "1").await?;
        used(context, not, "pods", "0").await?;
        context
            .delete(&format!("{pods}/{}", crate::context::name(&pod)))
            .await?;
        used(context, counts, "pods", "0").await?;
    }
    Ok(())
}

async fn terminating(context: &Context) -> Asked<()> {
    let mut ends = pending("ends", json!({}));
    ends["spec"]["activeDeadlineSeconds"] = json!(3600);
    scoped(
        context,
        ["Terminating", "NotTerminating"],
        ends,
        pending("stays", json!({})),
    )
    .await
}

async fn best_effort(context: &Context) -> Asked<()> {
    let requests = json!({"requests": {"cpu": "1m", "memory": "1Mi"}});
    scoped(
        context,
        ["BestEffort", "NotBestEffort"],
        pending("best", json!({})),
        pending("asks", requests),
    )
    .await
}

async fn update(context: &Context) -> Asked<()> {
    let path = make(
        context,
        "q",
        json!({"hard": {"cpu": "1", "memory": "500Mi"}}),
    )
    .await?;
    let mut read = context.get(&path).await?;
    read["spec"]["hard"]["cpu"] = json!("2");
    let question = async || {
        read["metadata"]["resourceVersion"] =
            context.get(&path).await?["metadata"]["resourceVersion"].clone();
        match context.client().put::<Value>(&path, &read).await {
            Ok(updated) => Ok(Some(updated)),
            Err(error) if error.is_code(409) => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    let updated = context
        .until("an update", crate::context::SOON, question)
        .await?;
    ensure!(updated["spec"]["hard"]["cpu"] == "2", "{}", shown(&updated));
    context.delete(&path).await?;
    context.wait_gone(&path).await
}

async fn status(context: &Context) -> Asked<()> {
    let path = make(context, "q", json!({"hard": {"cpu": "500m"}})).await?;
    used(context, &path, "cpu", "0").await?;
    let patched = context
        .merge(
            &format!("{path}/status"),
            &json!({"status": {"hard": {"cpu": "500m", "memory": "500Mi"}}}),
        )
        .await?;
    ensure!(
        patched["status"]["hard"]["memory"] == "500Mi"
            && patched["spec"]["hard"].get("memory").is_none(),
        "{}",
        shown(&patched)
    );
    Ok(())
}
