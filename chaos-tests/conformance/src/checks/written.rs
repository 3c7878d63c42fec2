//! Server-side apply, dry runs, generations, and other rules of writing.

use super::check;
use crate::context::{Asked, Context, ensure, refused, shown, version};
use crate::run::Check;
use client::PatchKind;
use serde_json::{Value, json};

pub const CHECKS: &[Check] = &[
    check!(
        "[sig-api-machinery] ServerSideApply should create an applied object if it does not already exist",
        creates
    ),
    check!(
        "[sig-api-machinery] ServerSideApply should work for subresources",
        subresources
    ),
    check!(
        "[sig-api-machinery] ServerSideApply should remove a field if it is owned but removed in the apply request",
        removes
    ),
    check!(
        "[sig-api-machinery] ServerSideApply should not remove a field if an owner unsets the field but other managers still have ownership of the field",
        shares
    ),
    check!(
        "[sig-api-machinery] ServerSideApply should ignore conflict errors if force apply is used",
        forces
    ),
    check!(
        "[sig-api-machinery] ServerSideApply should give up ownership of a field if forced applied by a controller",
        gives_up
    ),
    check!(
        "[sig-api-machinery] Generated clientset should create pods, set the deletionTimestamp and deletionGracePeriodSeconds of the pod",
        pods_made
    ),
    check!(
        "[sig-api-machinery] own: a write with dryRun=All changes nothing and tells what it would",
        dry_run
    ),
    check!(
        "[sig-api-machinery] own: an update that changes nothing keeps the resource version",
        nothing_changed
    ),
    check!(
        "[sig-api-machinery] own: an update of an older resource version is a conflict",
        conflict
    ),
    check!(
        "[sig-api-machinery] own: generateName makes names and tells when one is taken",
        generated
    ),
    check!(
        "[sig-node] ConfigMap should run through a ConfigMap lifecycle [Conformance]",
        config_map
    ),
    check!(
        "[sig-node] ConfigMap should fail to create ConfigMap with empty key [Conformance]",
        config_map_key
    ),
    check!(
        "[sig-node] Secrets should patch a secret [Conformance]",
        secret
    ),
    check!(
        "[sig-node] Secrets should fail to create secret due to empty secret key [Conformance]",
        secret_key
    ),
    check!(
        "[sig-storage] ConfigMap should be immutable if `immutable` field is set [Conformance]",
        config_map_immutable
    ),
    check!(
        "[sig-storage] Secrets should be immutable if `immutable` field is set [Conformance]",
        secret_immutable
    ),
];

fn map(own: &str, data: Value) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": own}, "data": data})
}

async fn creates(context: &Context) -> Asked<()> {
    let maps = context.of("v1", "configmaps").await?;
    let applied = context
        .apply(
            &format!("{maps}/one"),
            "check",
            false,
            &map("one", json!({"a": "1"})),
        )
        .await?;
    let managed = &applied["metadata"]["managedFields"][0];
    ensure!(
        managed["manager"] == "check"
            && managed["operation"] == "Apply"
            && managed["fieldsV1"]["f:data"]["f:a"].is_object(),
        "{}",
        shown(&applied)
    );
    Ok(())
}

async fn subresources(context: &Context) -> Asked<()> {
    let pods = context.of("v1", "pods").await?;
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "one"},
        "spec": {"nodeSelector": {"no-such": "node"}, "containers": [{"name": "c", "image": "none"}]}});
    context.create(&pods, &pod).await?;
    let condition = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "one"},
        "status": {"conditions": [{"type": "MyStatus", "status": "True"}]}});
    let applied = context
        .apply(&format!("{pods}/one/status"), "below", false, &condition)
        .await?;
    ensure!(
        applied["status"]["conditions"]
            .to_string()
            .contains("MyStatus"),
        "{}",
        shown(&applied)
    );
    let below = applied["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|it| it["manager"] == "below" && it["subresource"] == "status");
    ensure!(
        below,
        "the manager's subresource is missing in {}",
        shown(&applied["metadata"]["managedFields"])
    );
    Ok(())
}

async fn removes(context: &Context) -> Asked<()> {
    let path = format!("{}/one", context.of("v1", "configmaps").await?);
    context
        .apply(
            &path,
            "check",
            false,
            &map("one", json!({"a": "1", "b": "2"})),
        )
        .await?;
    let applied = context
        .apply(&path, "check", false, &map("one", json!({"a": "1"})))
        .await?;
    ensure!(applied["data"] == json!({"a": "1"}), "{}", shown(&applied));
    Ok(())
}

async fn shares(context: &Context) -> Asked<()> {
    let path = format!("{}/one", context.of("v1", "configmaps").await?);
    context
        .apply(
            &path,
            "first",
            false,
            &map("one", json!({"a": "1", "b": "2"})),
        )
        .await?;
    context
        .apply(&path, "second", false, &map("one", json!({"b": "2"})))
        .await?;
    let applied = context
        .apply(&path, "first", false, &map("one", json!({"a": "1"})))
        .await?;
    ensure!(
        applied["data"] == json!({"a": "1", "b": "2"}),
        "{}",
        shown(&applied)
    );
    let applied = context
        .apply(&path, "second", false, &map("one", json!({})))
        .await?;
    ensure!(applied["data"] == json!({"a": "1"}), "{}", shown(&applied));
    Ok(())
}

async fn forces(context: &Context) -> Asked<()> {
    let path = format!("{}/one", context.of("v1", "configmaps").await?);
    context
        .apply(&path, "first", false, &map("one", json!({"a": "1"})))
        .await?;
    let body = map("one", json!({"a": "2"})).to_string().into();
    let payload = client::Payload::Bytes("application/apply-patch+yaml", body);
    let asked = context
        .client()
        .call::<Value>(
            http::Method::PATCH,
            &format!("{path}?fieldManager=second"),
            payload,
            client::Deadline::default(),
        )
        .await;
    let status = refused("a field of another manager", asked, 409)?;
    ensure!(
        status.message.contains("\"first\"") && status.message.contains(".data.a"),
        "{}",
        status.message
    );
    let applied = context
        .apply(&path, "second", true, &map("one", json!({"a": "2"})))
        .await?;
    ensure!(applied["data"]["a"] == "2", "{}", shown(&applied));
    Ok(())
}

async fn gives_up(context: &Context) -> Asked<()> {
    let path = format!("{}/one", context.of("v1", "configmaps").await?);
    context
        .apply(
            &path,
            "first",
            false,
            &map("one", json!({"a": "1", "b": "1"})),
        )
        .await?;
    context
        .apply(&path, "second", true, &map("one", json!({"a": "2"})))
        .await?;
    let applied = context
        .apply(&path, "first", false, &map("one", json!({"b": "1"})))
        .await?;
    ensure!(
        applied["data"] == json!({"a": "2", "b": "1"}),
        "{}",
        shown(&applied)
    );
    Ok(())
}

async fn pods_made(context: &Context) -> Asked<()> {
    let pods = context.of("v1", "pods").await?;
    // A node that nobody runs: nobody ends the pod, so that its deletion can be seen.
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "one", "finalizers": ["example.com/hold"]},
        "spec": {"nodeName": "no-such-node", "containers": [{"name": "c", "image": "none"}]}});
    context.create(&pods, &pod).await?;
    let path = format!("{pods}/one");
    context
        .delete_with(&path, &json!({"gracePeriodSeconds": 31}))
        .await?;
    let read = context.get(&path).await?;
    ensure!(
        read["metadata"]["deletionTimestamp"].is_string()
            && read["metadata"]["deletionGracePeriodSeconds"] == 31,
        "{}",
        shown(&read)
    );
    context
        .delete_with(&path, &json!({"gracePeriodSeconds": 0}))
        .await?;
    context
        .merge(&path, &json!({"metadata": {"finalizers": null}}))
        .await?;
    context.wait_gone(&path).await
}

async fn dry_run(context: &Context) -> Asked<()> {
    let maps = context.of("v1", "configmaps").await?;
    let made = context
        .create(
            &format!("{maps}?dryRun=All"),
            &map("one", json!({"a": "1"})),
        )
        .await?;
    ensure!(made["metadata"]["uid"].is_string(), "{}", shown(&made));
    ensure!(
        context.is_gone(&format!("{maps}/one")).await?,
        "a dry run made an object"
    );
    let made = context
        .create(&maps, &map("one", json!({"a": "1"})))
        .await?;
    let told = context
        .merge(
            &format!("{maps}/one?dryRun=All"),
            &json!({"data": {"a": "2"}}),
        )
        .await?;
    ensure!(told["data"]["a"] == "2", "{}", shown(&told));
    context.delete(&format!("{maps}/one?dryRun=All")).await?;
    let read = context.get(&format!("{maps}/one")).await?;
    ensure!(
        version(&read) == version(&made),
        "a dry run changed {}",
        shown(&read)
    );
    Ok(())
}

async fn nothing_changed(context: &Context) -> Asked<()> {
    let maps = context.of("v1", "configmaps").await?;
    let made = context
        .create(&maps, &map("one", json!({"a": "1"})))
        .await?;
    let again = context.replace(&format!("{maps}/one"), &made).await?;
    let patched = context
        .merge(&format!("{maps}/one"), &json!({"data": {"a": "1"}}))
        .await?;
    ensure!(
        version(&again) == version(&made) && version(&patched) == version(&made),
        "{} became {}",
        version(&made),
        version(&patched)
    );
    Ok(())
}

async fn conflict(context: &Context) -> Asked<()> {
    let maps = context.of("v1", "configmaps").await?;
    let path = format!("{maps}/one");
    let mut old = context
        .create(&maps, &map("one", json!({"a": "1"})))
        .await?;
    context.merge(&path, &json!({"data": {"a": "2"}})).await?;
    old["data"]["a"] = json!("3");
    let status = refused(
        "an update of an older version",
        context.client().put::<Value>(&path, &old).await,
        409,
    )?;
    ensure!(
        status.message.contains("the object has been modified"),
        "{}",
        status.message
    );
    let asked = context
        .client()
        .patch::<Value>(
            &path,
            PatchKind::Merge,
            &json!({"metadata": {"resourceVersion": version(&old)}, "data": {"a": "4"}}),
        )
        .await;
    refused("a patch of an older version", asked, 409)?;
    Ok(())
}

async fn generated(context: &Context) -> Asked<()> {
    let maps = context.of("v1", "configmaps").await?;
    let form =
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"generateName": "made-"}});
    let (one, two) = (
        context.create(&maps, &form).await?,
        context.create(&maps, &form).await?,
    );
    let names = [crate::context::name(&one), crate::context::name(&two)];
    ensure!(
        names[0] != names[1] && names.iter().all(|it| it.len() == "made-".len() + 5),
        "{names:?}"
    );
    let asked = context
        .client()
        .post::<Value>(&maps, &map(names[0], json!({})))
        .await;
    let status = refused("a name that is taken", asked, 409)?;
    ensure!(
        status.message.contains("already exists"),
        "{}",
        status.message
    );
    Ok(())
}

async fn config_map(context: &Context) -> Asked<()> {
    crate::lifecycle::Story::of("v1", "configmaps", "ConfigMap", json!({"data": {"a": "b"}}))
        .play(context)
        .await
}

async fn empty_key(context: &Context, plural: &str, object: Value) -> Asked<()> {
    let path = context.of("v1", plural).await?;
    refused(
        "an empty key",
        context.client().post::<Value>(&path, &object).await,
        422,
    )?;
    Ok(())
}

async fn config_map_key(context: &Context) -> Asked<()> {
    empty_key(context, "configmaps", map("one", json!({"": "value"}))).await
}

async fn secret_key(context: &Context) -> Asked<()> {
    empty_key(context, "secrets", json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "one"}, "data": {"": "dmFsdWU="}})).await
}

async fn secret(context: &Context) -> Asked<()> {
    let path = context.of("v1", "secrets").await?;
    let object = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "one", "labels": {"testsecret": "true"}}, "data": {"key": "dmFsdWU="}});
    context.create(&path, &object).await?;
    let patched = context
        .strategic(
            &format!("{path}/one"),
            &json!({"data": {"key": "bmV3"}, "stringData": {"more": "text"}}),
        )
        .await?;
    ensure!(
        patched["data"] == json!({"key": "bmV3", "more": "dGV4dA=="}),
        "{}",
        shown(&patched)
    );
    context
        .delete(&format!("{path}?labelSelector=testsecret%3Dtrue"))
        .await?;
    context.wait_gone(&format!("{path}/one")).await
}

async fn immutable(context: &Context, plural: &str, object: Value) -> Asked<()> {
    let collection = context.of("v1", plural).await?;
    let path = format!("{collection}/one");
    context.create(&collection, &object).await?;
    context
        .merge(&path, &json!({"data": {"a": "Yg=="}}))
        .await?;
    context.merge(&path, &json!({"immutable": true})).await?;
    for patch in [json!({"data": {"a": "Yw=="}}), json!({"immutable": false})] {
        let asked = context
            .client()
            .patch::<Value>(&path, PatchKind::Merge, &patch)
            .await;
        refused("a change of what is immutable", asked, 422)?;
    }
    context
        .merge(
            &path,
            &json!({"metadata": {"labels": {"still": "possible"}}}),
        )
        .await?;
    context.delete(&path).await?;
    context.wait_gone(&path).await
}

async fn config_map_immutable(context: &Context) -> Asked<()> {
    immutable(context, "configmaps", map("one", json!({"a": "YQ=="}))).await
}

async fn secret_immutable(context: &Context) -> Asked<()> {
    immutable(context, "secrets", json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "one"}, "data": {"a": "YQ=="}})).await
}
