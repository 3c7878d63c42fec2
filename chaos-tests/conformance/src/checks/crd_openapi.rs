//! Custom resources in the published schemas.

use super::check;
use super::crd::{DEFINITIONS, Defined, define, definition};
use crate::context::{Asked, Context, SOON, ensure, shown};
use crate::run::Check;
use serde_json::{Value, json};

pub const CHECKS: &[Check] = &[
    check!(
        "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD with validation schema [Conformance]",
        with_schema
    ),
    check!(
        "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD without validation schema [Conformance]",
        without_schema
    ),
    check!(
        "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields at the schema root [Conformance]",
        open_root
    ),
    check!(
        "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields in an embedded object [Conformance]",
        open_inside
    ),
    check!(
        "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of different groups [Conformance]",
        two_groups
    ),
    check!(
        "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group but different versions [Conformance]",
        two_versions
    ),
    check!(
        "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group and version but different kinds [Conformance]",
        two_kinds
    ),
    check!(
        "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] updates the published spec when one version gets renamed [Conformance]",
        renamed
    ),
    check!(
        "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] removes definition from spec when one version gets changed to not be served [Conformance]",
        unserved
    ),
];

fn schema() -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "description": "Specification of Foo", "required": ["name"],
        "properties": {"name": {"type": "string", "description": "Name of Bar."}, "bars": {"type": "array", "items": {"type": "object",
            "properties": {"age": {"type": "integer"}}}}}}}})
}

/// The schema that is published for a kind of a group and version, in v3 and in v2.
async fn published(
    context: &Context,
    group: &str,
    version: &str,
    kind: &str,
) -> Asked<Option<Value>> {
    let index = context.get("/openapi/v3").await?;
    let url = index["paths"][format!("apis/{group}/{version}")]["serverRelativeURL"].as_str();
    let Some(url) = url else {
        return Ok(None);
    };
    let v3 = context.get(url).await?;
    let v2 = context.get("/openapi/v2").await?;
    let is_meant = |schema: &&Value| {
        let kinds = schema["x-kubernetes-group-version-kind"]
            .as_array()
            .into_iter()
            .flatten();
        kinds
            .clone()
            .any(|it| it["group"] == group && it["version"] == version && it["kind"] == kind)
    };
    let find = |schemas: &Value| {
        schemas
            .as_object()
            .into_iter()
            .flat_map(|it| it.values())
            .find(is_meant)
            .cloned()
    };
    Ok(
        match (find(&v3["components"]["schemas"]), find(&v2["definitions"])) {
            (Some(v3), Some(_)) => Some(v3),
            _ => None,
        },
    )
}

async fn wait_published(
    context: &Context,
    group: &str,
    version: &str,
    kind: &str,
    wanted: bool,
) -> Asked<Value> {
    let question = async || {
        let found = published(context, group, version, kind).await?;
        Ok(match (found, wanted) {
            (Some(schema), true) => Some(schema),
            (None, false) => Some(Value::Null),
            _ => None,
        })
    };
    let what = if wanted {
        "the published schema"
    } else {
        "the end of the published schema"
    };
    context
        .until(
            &format!("{what} of {group}/{version} {kind}"),
            SOON,
            question,
        )
        .await
}

async fn with_schema(context: &Context) -> Asked<()> {
    let defined = define(context, &schema(), json!({})).await?;
    let found = wait_published(context, &defined.group, "v1", "Foo", true).await?;
    let spec = &found["properties"]["spec"];
    ensure!(
        spec["properties"]["bars"]["items"]["properties"]["age"]["type"] == "integer"
            && spec["required"] == json!(["name"])
            && spec["description"] == "Specification of Foo"
            && found["properties"]["metadata"].is_object(),
        "{}",
        shown(&found)
    );
    Ok(())
}

async fn without_schema(context: &Context) -> Asked<()> {
    let defined = define(context, &json!({"type": "object"}), json!({})).await?;
    wait_published(context, &defined.group, "v1", "Foo", true).await?;
    Ok(())
}

async fn open_root(context: &Context) -> Asked<()> {
    let mut schema = schema();
    schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
    let defined = define(context, &schema, json!({})).await?;
    let found = wait_published(context, &defined.group, "v1", "Foo", true).await?;
    ensure!(
        found["x-kubernetes-preserve-unknown-fields"] == true,
        "{}",
        shown(&found)
    );
    keeps(
        context,
        &defined,
        json!({"spec": {"name": "n"}, "extra": {"a": 1}}),
    )
    .await
}

async fn open_inside(context: &Context) -> Asked<()> {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    let defined = define(context, &schema, json!({})).await?;
    let found = wait_published(context, &defined.group, "v1", "Foo", true).await?;
    ensure!(
        found["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"] == true,
        "{}",
        shown(&found)
    );
    keeps(context, &defined, json!({"spec": {"any": {"thing": true}}})).await
}

async fn keeps(context: &Context, defined: &Defined, rest: Value) -> Asked<()> {
    let objects = defined.objects(context).await?;
    let made = context
        .create(&objects, &defined.object("kept", rest.clone()))
        .await?;
    ensure!(crate::lifecycle::holds(&made, &rest), "{}", shown(&made));
    Ok(())
}

async fn two_groups(context: &Context) -> Asked<()> {
    let (one, two) = (
        define(context, &schema(), json!({})).await?,
        define(context, &schema(), json!({})).await?,
    );
    wait_published(context, &one.group, "v1", "Foo", true).await?;
    wait_published(context, &two.group, "v1", "Foo", true).await?;
    Ok(())
}

/// Makes a definition with two versions; gives its group and path.
async fn with_two_versions(context: &Context) -> Asked<(String, String)> {
    context
        .need("apiextensions.k8s.io/v1", "customresourcedefinitions")
        .await?;
    let group = format!("{}.example.com", context.unique("conformance"));
    let mut object = definition(&group, &schema(), json!({}));
    let more = json!({"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": schema()}});
    if let Some(versions) = object["spec"]["versions"].as_array_mut() {
        versions.push(more);
    }
    context.create(DEFINITIONS, &object).await?;
    let path = format!("{DEFINITIONS}/foos.{group}");
    context.clean_up(path.clone());
    for version in ["v1", "v2"] {
        wait_published(context, &group, version, "Foo", true).await?;
    }
    Ok((group, path))
}

async fn two_versions(context: &Context) -> Asked<()> {
    with_two_versions(context).await?;
    Ok(())
}

async fn two_kinds(context: &Context) -> Asked<()> {
    let defined = define(context, &schema(), json!({})).await?;
    let mut object = definition(&defined.group, &schema(), json!({}));
    object["metadata"]["name"] = json!(format!("bars.{}", defined.group));
    object["spec"]["names"] =
        json!({"plural": "bars", "singular": "bar", "kind": "Bar", "listKind": "BarList"});
    context.create(DEFINITIONS, &object).await?;
    context.clean_up(format!("{DEFINITIONS}/bars.{}", defined.group));
    wait_published(context, &defined.group, "v1", "Foo", true).await?;
    wait_published(context, &defined.group, "v1", "Bar", true).await?;
    Ok(())
}

async fn renamed(context: &Context) -> Asked<()> {
    let (group, path) = with_two_versions(context).await?;
    let patch = json!([{"op": "replace", "path": "/spec/versions/1/name", "value": "v3"}]);
    context.json_patch(&path, &patch).await?;
    wait_published(context, &group, "v3", "Foo", true).await?;
    wait_published(context, &group, "v2", "Foo", false).await?;
    wait_published(context, &group, "v1", "Foo", true).await?;
    Ok(())
}

async fn unserved(context: &Context) -> Asked<()> {
    let (group, path) = with_two_versions(context).await?;
    let patch = json!([{"op": "replace", "path": "/spec/versions/1/served", "value": false}]);
    context.json_patch(&path, &patch).await?;
    wait_published(context, &group, "v2", "Foo", false).await?;
    wait_published(context, &group, "v1", "Foo", true).await?;
    Ok(())
}
