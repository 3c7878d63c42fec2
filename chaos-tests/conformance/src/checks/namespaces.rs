//! Namespaces.

use super::check;
use crate::context::{Asked, Context, ensure, items, shown};
use crate::run::Check;
use serde_json::{Value, json};

pub const CHECKS: &[Check] = &[
    check!(
        "[sig-api-machinery] Namespaces [Serial] should ensure that all pods are removed when a namespace is deleted [Conformance]",
        pods_go
    ),
    check!(
        "[sig-api-machinery] Namespaces [Serial] should ensure that all services are removed when a namespace is deleted [Conformance]",
        services_go
    ),
    check!(
        "[sig-api-machinery] Namespaces [Serial] should patch a Namespace [Conformance]",
        patch
    ),
    check!(
        "[sig-api-machinery] Namespaces [Serial] should apply changes to a namespace status [Conformance]",
        status
    ),
    check!(
        "[sig-api-machinery] Namespaces [Serial] should apply an update to a Namespace [Conformance]",
        update
    ),
    check!(
        "[sig-api-machinery] Namespaces [Serial] should apply a finalizer to a Namespace [Conformance]",
        finalizer
    ),
    check!(
        "[sig-api-machinery] Namespaces [Serial] should delete fast enough (90 percent of 100 namespaces in 150 seconds)",
        fast
    ),
];

async fn make(context: &Context) -> Asked<String> {
    let name = context.unique("nsdeletetest");
    let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}});
    context.create("/api/v1/namespaces", &namespace).await?;
    let path = format!("/api/v1/namespaces/{name}");
    context.clean_up(path.clone());
    Ok(path)
}

async fn goes_with_its_namespace(context: &Context, plural: &str, object: &Value) -> Asked<()> {
    let namespace = make(context).await?;
    context
        .create(&format!("{namespace}/{plural}"), object)
        .await?;
    context.delete(&namespace).await?;
    context.wait_gone(&namespace).await?;
    let list = context.get(&format!("{namespace}/{plural}")).await?;
    ensure!(
        items(&list).is_empty(),
        "what lay in the namespace is still there: {}",
        shown(&list)
    );
    Ok(())
}

async fn pods_go(context: &Context) -> Asked<()> {
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "test-pod"},
        "spec": {"nodeSelector": {"no-such": "node"}, "containers": [{"name": "nginx", "image": "none"}]}});
    goes_with_its_namespace(context, "pods", &pod).await
}

async fn services_go(context: &Context) -> Asked<()> {
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "test-service"}, "spec": {"ports": [{"port": 80}]}});
    goes_with_its_namespace(context, "services", &service).await
}

async fn patch(context: &Context) -> Asked<()> {
    let path = make(context).await?;
    let patched = context
        .strategic(
            &path,
            &json!({"metadata": {"labels": {"testLabel": "testValue"}}}),
        )
        .await?;
    ensure!(
        patched["metadata"]["labels"]["testLabel"] == "testValue",
        "{}",
        shown(&patched)
    );
    let read = context.get(&path).await?;
    ensure!(
        read["metadata"]["labels"]["testLabel"] == "testValue"
            && read["metadata"]["labels"]["kubernetes.io/metadata.name"].is_string(),
        "{}",
        shown(&read)
    );
    Ok(())
}

async fn status(context: &Context) -> Asked<()> {
    let path = format!("{}/status", make(context).await?);
    let read = context.get(&path).await?;
    ensure!(read["status"]["phase"] == "Active", "{}", shown(&read));
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": "set by a check"});
    let patched = context
        .merge(
            &path,
            &json!({"status": {"conditions": [condition("StatusPatch")]}}),
        )
        .await?;
    ensure!(
        patched["status"]["conditions"][0]["type"] == "StatusPatch",
        "{}",
        shown(&patched)
    );
    let mut object = patched;
    object["status"]["conditions"]
        .as_array_mut()
        .into_iter()
        .for_each(|it| it.push(condition("StatusUpdate")));
    let updated = context.replace(&path, &object).await?;
    ensure!(
        updated["status"]["conditions"][1]["type"] == "StatusUpdate",
        "{}",
        shown(&updated)
    );
    Ok(())
}

async fn update(context: &Context) -> Asked<()> {
    let path = make(context).await?;
    let mut object = context.get(&path).await?;
    object["metadata"]["labels"]["updated"] = json!("yes");
    let updated = context.replace(&path, &object).await?;
    ensure!(
        updated["metadata"]["labels"]["updated"] == "yes",
        "{}",
        shown(&updated)
    );
    Ok(())
}

async fn finalizer(context: &Context) -> Asked<()> {
    const OWN: &str = "e2e.example.com/fakeFinalizer";
    let path = make(context).await?;
    let mut object = context.get(&path).await?;
    ensure!(
        object["spec"]["finalizers"] == json!(["kubernetes"]),
        "{}",
        shown(&object)
    );
    object["spec"]["finalizers"] = json!([OWN, "kubernetes"]);
    let updated = context
        .replace(&format!("{path}/finalize"), &object)
        .await?;
    ensure!(
        updated["spec"]["finalizers"].to_string().contains(OWN),
        "{}",
        shown(&updated)
    );
    object = updated;
    object["spec"]["finalizers"] = json!(["kubernetes"]);
    let updated = context
        .replace(&format!("{path}/finalize"), &object)
        .await?;
    ensure!(
        updated["spec"]["finalizers"] == json!(["kubernetes"]),
        "{}",
        shown(&updated)
    );
    Ok(())
}

async fn fast(context: &Context) -> Asked<()> {
    let mut paths = Vec::new();
    for _ in 0..100 {
        paths.push(make(context).await?);
    }
    for path in &paths {
        context.delete(path).await?;
    }
    for path in &paths {
        context.wait_gone(path).await?;
    }
    Ok(())
}
