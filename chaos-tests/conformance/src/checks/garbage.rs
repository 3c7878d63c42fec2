//! What becomes of the owned when owners go.

use super::check;
use crate::context::{Asked, Context, SOON, ensure, items, name, shown, text};
use crate::run::Check;
use serde_json::{Value, json};
use std::time::Duration;

pub const CHECKS: &[Check] = &[
    check!(
        "[sig-api-machinery] Garbage collector should delete pods created by rc when not orphaning [Conformance]",
        controller_background
    ),
    check!(
        "[sig-api-machinery] Garbage collector should orphan pods created by rc if delete options say so [Serial] [Conformance]",
        controller_orphan
    ),
    check!(
        "[sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning [Conformance]",
        deployment_background
    ),
    check!(
        "[sig-api-machinery] Garbage collector should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan [Serial] [Conformance]",
        deployment_orphan
    ),
    check!(
        "[sig-api-machinery] Garbage collector should keep the rc around until all its pods are deleted if the deleteOptions says so [Serial] [Conformance]",
        foreground
    ),
    check!(
        "[sig-api-machinery] Garbage collector should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted [Serial] [Conformance]",
        two_owners
    ),
    check!(
        "[sig-api-machinery] Garbage collector should not be blocked by dependency circle [Conformance]",
        circle
    ),
    check!(
        "[sig-api-machinery] own: what a config map owned is left when orphans are asked for",
        orphan_config_map
    ),
];

/// Pods that no node takes.
fn template(label: &str) -> Value {
    json!({"metadata": {"labels": {"app": label}}, "spec": {"nodeSelector": {"no-such": "node"}, "containers": [{"name": "c", "image": "none"}]}})
}

fn controller(own: &str, replicas: u32) -> Value {
    json!({"kind": "ReplicationController", "apiVersion": "v1", "metadata": {"name": own},
        "spec": {"replicas": replicas, "selector": {"app": own}, "template": template(own)}})
}

fn deployment(own: &str) -> Value {
    json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": own},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": own}}, "template": template(own)}})
}

/// Waits for so many objects of a label.
async fn count(context: &Context, path: &str, label: &str, wanted: usize) -> Asked<Vec<Value>> {
    let path = format!("{path}?labelSelector=app%3D{label}");
    let list = context
        .wait(&format!("{wanted} in {path}"), &path, |list| {
            items(list).len() == wanted
        })
        .await?;
    Ok(items(&list))
}

/// Stays so for a while.
async fn stays(context: &Context, path: &str, label: &str, wanted: usize) -> Asked<()> {
    tokio::time::sleep(Duration::from_secs(3)).await;
    let found = context
        .items(&format!("{path}?labelSelector=app%3D{label}"))
        .await?;
    ensure!(
        found.len() == wanted,
        "{wanted} are to stay of {path}, {} did",
        found.len()
    );
    Ok(())
}

fn policy(policy: &str) -> Value {
    json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy})
}

async fn controller_background(context: &Context) -> Asked<()> {
    let (controllers, pods) = (
        context.of("v1", "replicationcontrollers").await?,
        context.of("v1", "pods").await?,
    );
    context.create(&controllers, &controller("gone", 2)).await?;
    count(context, &pods, "gone", 2).await?;
    context
        .delete_with(&format!("{controllers}/gone"), &policy("Background"))
        .await?;
    count(context, &pods, "gone", 0).await?;
    Ok(())
}

async fn controller_orphan(context: &Context) -> Asked<()> {
    let (controllers, pods) = (
        context.of("v1", "replicationcontrollers").await?,
        context.of("v1", "pods").await?,
    );
    context.create(&controllers, &controller("left", 3)).await?;
    count(context, &pods, "left", 3).await?;
    context
        .delete_with(&format!("{controllers}/left"), &policy("Orphan"))
        .await?;
    context.wait_gone(&format!("{controllers}/left")).await?;
    stays(context, &pods, "left", 3).await?;
    let owned = context.items(&pods).await?;
    ensure!(
        owned.iter().all(|pod| pod["metadata"]["ownerReferences"]
            .as_array()
            .is_none_or(Vec::is_empty)),
        "orphans have owners: {}",
        shown(&owned[0])
    );
    Ok(())
}

async fn deployment_background(context: &Context) -> Asked<()> {
    let (deployments, sets) = (
        context.of("apps/v1", "deployments").await?,
        context.of("apps/v1", "replicasets").await?,
    );
    context.create(&deployments, &deployment("gone")).await?;
    count(context, &sets, "gone", 1).await?;
    context
        .delete_with(&format!("{deployments}/gone"), &policy("Background"))
        .await?;
    count(context, &sets, "gone", 0).await?;
    count(context, &context.of("v1", "pods").await?, "gone", 0).await?;
    Ok(())
}

async fn deployment_orphan(context: &Context) -> Asked<()> {
    let (deployments, sets) = (
        context.of("apps/v1", "deployments").await?,
        context.of("apps/v1", "replicasets").await?,
    );
    context.create(&deployments, &deployment("left")).await?;
    count(context, &sets, "left", 1).await?;
    context
        .delete_with(&format!("{deployments}/left"), &policy("Orphan"))
        .await?;
    context.wait_gone(&format!("{deployments}/left")).await?;
    stays(context, &sets, "left", 1).await?;
    Ok(())
}

async fn foreground(context: &Context) -> Asked<()> {
    let (controllers, pods) = (
        context.of("v1", "replicationcontrollers").await?,
        context.of("v1", "pods").await?,
    );
    context.create(&controllers, &controller("last", 2)).await?;
    let found = count(context, &pods, "last", 2).await?;
    // A finalizer holds one pod, and so its owner.
    let held = format!("{pods}/{}", name(&found[0]));
    context
        .merge(
            &held,
            &json!({"metadata": {"finalizers": ["example.com/hold"]}}),
        )
        .await?;
    let path = format!("{controllers}/last");
    context.delete_with(&path, &policy("Foreground")).await?;
    count(context, &pods, "last", 1).await?;
    let owner = context.get(&path).await?;
    ensure!(
        !text(&owner, "/metadata/deletionTimestamp").is_empty()
            && owner["metadata"]["finalizers"]
                .to_string()
                .contains("foregroundDeletion"),
        "the owner waits: {}",
        shown(&owner)
    );
    context
        .merge(&held, &json!({"metadata": {"finalizers": null}}))
        .await?;
    context.wait_gone(&path).await?;
    count(context, &pods, "last", 0).await?;
    Ok(())
}

async fn two_owners(context: &Context) -> Asked<()> {
    let (controllers, pods) = (
        context.of("v1", "replicationcontrollers").await?,
        context.of("v1", "pods").await?,
    );
    context.create(&controllers, &controller("goes", 4)).await?;
    let stays_on = context
        .create(&controllers, &controller("stays", 0))
        .await?;
    let found = count(context, &pods, "goes", 4).await?;
    for pod in &found[..2] {
        let mut owners = pod["metadata"]["ownerReferences"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        owners.push(json!({"apiVersion": "v1", "kind": "ReplicationController", "name": "stays", "uid": stays_on["metadata"]["uid"]}));
        context
            .merge(
                &format!("{pods}/{}", name(pod)),
                &json!({"metadata": {"ownerReferences": owners}}),
            )
            .await?;
    }
    context
        .delete_with(&format!("{controllers}/goes"), &policy("Foreground"))
        .await?;
    context.wait_gone(&format!("{controllers}/goes")).await?;
    let left = count(context, &pods, "goes", 2).await?;
    ensure!(
        left.iter().all(|pod| pod["metadata"]["ownerReferences"]
            .as_array()
            .is_some_and(|it| it.len() == 1 && it[0]["name"] == "stays")),
        "what has another owner stays with it: {}",
        shown(&left[0])
    );
    Ok(())
}

async fn circle(context: &Context) -> Asked<()> {
    let maps = context.of("v1", "configmaps").await?;
    let names = ["one", "two", "three"];
    let mut uids = Vec::new();
    for own in names {
        let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": own, "labels": {"app": "circle"}}});
        uids.push(context.create(&maps, &map).await?["metadata"]["uid"].clone());
    }
    for (own, owner) in [("one", 2), ("two", 0), ("three", 1)] {
        let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": names[owner], "uid": uids[owner],
            "controller": true, "blockOwnerDeletion": true});
        context
            .merge(
                &format!("{maps}/{own}"),
                &json!({"metadata": {"ownerReferences": [reference]}}),
            )
            .await?;
    }
    context
        .delete_with(&format!("{maps}/one"), &policy("Foreground"))
        .await?;
    count(context, &maps, "circle", 0).await?;
    Ok(())
}

async fn orphan_config_map(context: &Context) -> Asked<()> {
    let maps = context.of("v1", "configmaps").await?;
    let map =
        |own: &str| json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": own}});
    let owner = context.create(&maps, &map("owner")).await?;
    let mut owned = map("owned");
    owned["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}]);
    context.create(&maps, &owned).await?;
    context
        .delete_with(&format!("{maps}/owner"), &policy("Orphan"))
        .await?;
    context.wait_gone(&format!("{maps}/owner")).await?;
    let question = async || {
        let left = context.get(&format!("{maps}/owned")).await?;
        Ok(left["metadata"]["ownerReferences"]
            .as_array()
            .is_none_or(Vec::is_empty)
            .then_some(()))
    };
    context
        .until("an orphan without an owner", SOON, question)
        .await
}
