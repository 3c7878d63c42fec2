//! Custom resources.

use super::check;
use crate::context::{Asked, Context, ensure, items, name, refused, shown, text};
use crate::run::Check;
use client::WatchKind::{Added, Deleted, Modified};
use serde_json::{Value, json};

pub const CHECKS: &[Check] = &[
    check!(
        "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition creating/deleting custom resource definition objects works [Conformance]",
        create_and_delete
    ),
    check!(
        "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition getting/updating/patching custom resource definition status sub-resource works [Conformance]",
        definition_status
    ),
    check!(
        "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition listing custom resource definition objects works [Conformance]",
        list
    ),
    check!(
        "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] custom resource defaulting for requests and from storage works [Conformance]",
        defaulting
    ),
    check!(
        "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] should include custom resource definition resources in discovery documents [Conformance]",
        discovered
    ),
    check!(
        "[sig-api-machinery] CustomResourceDefinition Watch [Privileged:ClusterAdmin] CustomResourceDefinition Watch watch on custom resource definition objects [Conformance]",
        watched
    ),
    check!(
        "[sig-api-machinery] CustomResourceFieldSelectors [Privileged:ClusterAdmin] CustomResourceFieldSelectors MUST list and watch custom resources matching the field selector [Conformance]",
        selectable
    ),
    check!(
        "[sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery request for CRDs [Conformance]",
        aggregated
    ),
    check!(
        "[sig-api-machinery] CustomResourceValidationRules [Privileged:ClusterAdmin] MUST NOT fail validation for create of a custom resource that satisfies the x-kubernetes-validations rules",
        rule_holds
    ),
    check!(
        "[sig-api-machinery] CustomResourceValidationRules [Privileged:ClusterAdmin] MUST fail validation for create of a custom resource that does not satisfy the x-kubernetes-validations rules",
        rule_refuses
    ),
    check!(
        "[sig-api-machinery] CustomResourceValidationRules [Privileged:ClusterAdmin] MUST fail create of a custom resource definition that contains a x-kubernetes-validations rule that refers to a property that do not exist",
        unknown_property
    ),
    check!(
        "[sig-api-machinery] CustomResourceValidationRules [Privileged:ClusterAdmin] MUST fail create of a custom resource definition that contains an x-kubernetes-validations rule that contains a syntax error",
        syntax_error
    ),
    check!(
        "[sig-api-machinery] CustomResourceValidationRules [Privileged:ClusterAdmin] MUST fail create of a custom resource definition that contains an x-kubernetes-validations rule that exceeds the estimated cost limit",
        costly_rule
    ),
    check!(
        "[sig-api-machinery] CustomResourceValidationRules [Privileged:ClusterAdmin] MUST fail update of a custom resource that does not satisfy a x-kubernetes-validations transition rule",
        transition_rule
    ),
    check!(
        "[sig-api-machinery] own: status and scale of custom resources",
        subresources
    ),
];

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A kind that a check defines.
pub struct Defined {
    /// `foo-1234.example.com`
    pub group: String,
    /// The path of the definition.
    pub path: String,
}

impl Defined {
    /// The path of its objects in the check's namespace.
    pub async fn objects(&self, context: &Context) -> Asked<String> {
        context.of(&format!("{}/v1", self.group), "foos").await
    }

    /// An object.
    pub fn object(&self, own: &str, rest: Value) -> Value {
        let mut object = json!({"apiVersion": format!("{}/v1", self.group), "kind": "Foo", "metadata": {"name": own}});
        if let (Some(object), Value::Object(rest)) = (object.as_object_mut(), rest) {
            object.extend(rest);
        }
        object
    }
}

/// A definition of the kind Foo with this schema and whatever else is of its version.
pub fn definition(group: &str, schema: &Value, version: Value) -> Value {
    let mut of_version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    if let (Some(of_version), Value::Object(more)) = (of_version.as_object_mut(), version) {
        of_version.extend(more);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("foos.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "versions": [of_version],
            "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList", "shortNames": [format!("f{}", &group[..6])]}},
    })
}

/// A schema that keeps everything.
pub fn open_schema() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Defines a kind and waits until it is served.
pub async fn define(context: &Context, schema: &Value, version: Value) -> Asked<Defined> {
    context
        .need("apiextensions.k8s.io/v1", "customresourcedefinitions")
        .await?;
    let group = format!("{}.example.com", context.unique("conformance"));
    context
        .create(DEFINITIONS, &definition(&group, schema, version))
        .await?;
    let path = format!("{DEFINITIONS}/foos.{group}");
    context.clean_up(path.clone());
    established(context, &path).await?;
    let defined = Defined { group, path };
    let group_version = format!("{}/v1", defined.group);
    let question = async || Ok(context.serves(&group_version, "foos").await?.then_some(()));
    context
        .until(
            "the custom resource in discovery",
            crate::context::SOON,
            question,
        )
        .await?;
    // Every master must serve it: a write to each is the proof that clients can give.
    Ok(defined)
}

async fn established(context: &Context, path: &str) -> Asked<Value> {
    context
        .wait("an established definition", path, |it| {
            let conditions = it["status"]["conditions"].as_array().into_iter().flatten();
            let held = |kind: &str| {
                conditions
                    .clone()
                    .any(|it| it["type"] == kind && it["status"] == "True")
            };
            held("Established") && held("NamesAccepted")
        })
        .await
}

fn typed_schema() -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "a": {"type": "string"}, "replicas": {"type": "integer", "minimum": 0}, "mode": {"type": "string", "enum": ["on", "off"]}}},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "phase": {"type": "string"}}}}})
}

async fn create_and_delete(context: &Context) -> Asked<()> {
    let defined = define(context, &open_schema(), json!({})).await?;
    let objects = defined.objects(context).await?;
    let made = context
        .create(
            &objects,
            &defined.object("one", json!({"any": {"thing": [1, "two"]}})),
        )
        .await?;
    ensure!(
        made["any"]["thing"] == json!([1, "two"]) && made["metadata"]["generation"] == 1,
        "{}",
        shown(&made)
    );
    context.delete(&format!("{objects}/one")).await?;
    context.wait_gone(&format!("{objects}/one")).await?;
    context
        .create(&objects, &defined.object("two", json!({})))
        .await?;
    context.delete(&defined.path).await?;
    context.wait_gone(&defined.path).await?;
    let question = async || {
        Ok((!context
            .serves(&format!("{}/v1", defined.group), "foos")
            .await?)
            .then_some(()))
    };
    context
        .until("the end of the resource", crate::context::SOON, question)
        .await
}

async fn definition_status(context: &Context) -> Asked<()> {
    let defined = define(context, &open_schema(), json!({})).await?;
    let path = format!("{}/status", defined.path);
    let mut read = context.get(&path).await?;
    ensure!(
        read["kind"] == "CustomResourceDefinition",
        "{}",
        shown(&read)
    );
    let condition = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "set by a check", "lastTransitionTime": null});
    if let Some(conditions) = read["status"]["conditions"].as_array_mut() {
        conditions.push(condition);
    }
    let updated = context.replace(&path, &read).await?;
    ensure!(
        updated["status"]["conditions"]
            .to_string()
            .contains("StatusUpdate"),
        "{}",
        shown(&updated)
    );
    Ok(())
}

async fn list(context: &Context) -> Asked<()> {
    context
        .need("apiextensions.k8s.io/v1", "customresourcedefinitions")
        .await?;
    let label = context.unique("listed");
    let mut names = Vec::new();
    for _ in 0..5 {
        let group = format!("{}.example.com", context.unique("conformance"));
        let mut object = definition(&group, &open_schema(), json!({}));
        object["metadata"]["labels"] = json!({"e2e-list": label});
        context.create(DEFINITIONS, &object).await?;
        names.push(format!("foos.{group}"));
        context.clean_up(format!("{DEFINITIONS}/foos.{group}"));
    }
    names.sort();
    let selected = format!("{DEFINITIONS}?labelSelector=e2e-list%3D{label}");
    let found: Vec<String> = context
        .items(&selected)
        .await?
        .iter()
        .map(|it| name(it).to_owned())
        .collect();
    ensure!(found == names, "the list holds {found:?}");
    context.delete(&selected).await?;
    context
        .wait("the end of the definitions", &selected, |list| {
            items(list).is_empty()
        })
        .await?;
    Ok(())
}

async fn defaulting(context: &Context) -> Asked<()> {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string", "default": "A"}, "b": {"type": "string"}}});
    let defined = define(context, &schema, json!({})).await?;
    let objects = defined.objects(context).await?;
    let made = context
        .create(&objects, &defined.object("one", json!({"unknown": 1})))
        .await?;
    ensure!(
        made["a"] == "A" && made.get("b").is_none() && made.get("unknown").is_none(),
        "{}",
        shown(&made)
    );
    let patch = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/b", "value": {"type": "string", "default": "B"}}]);
    context.json_patch(&defined.path, &patch).await?;
    context
        .wait(
            "a default of what was stored before",
            &format!("{objects}/one"),
            |it| it["a"] == "A" && it["b"] == "B",
        )
        .await?;
    Ok(())
}

async fn discovered(context: &Context) -> Asked<()> {
    let groups = context.get("/apis").await?;
    ensure!(
        groups["groups"]
            .as_array()
            .is_some_and(|it| it.iter().any(|it| it["name"] == "apiextensions.k8s.io")),
        "the group is missing"
    );
    let own = context.get("/apis/apiextensions.k8s.io").await?;
    ensure!(
        own["versions"].as_array().is_some_and(|it| it
            .iter()
            .any(|it| it["groupVersion"] == "apiextensions.k8s.io/v1")),
        "{}",
        shown(&own)
    );
    context
        .need("apiextensions.k8s.io/v1", "customresourcedefinitions")
        .await
}

async fn watched(context: &Context) -> Asked<()> {
    let defined = define(context, &open_schema(), json!({})).await?;
    let objects = defined.objects(context).await?;
    let mut events = context.watch(&objects).await?;
    for own in ["one", "two"] {
        context
            .create(&objects, &defined.object(own, json!({"num": 1})))
            .await?;
        events.expect(Added, own).await?;
    }
    for own in ["one", "two"] {
        let patched = context
            .merge(&format!("{objects}/{own}"), &json!({"num": 2}))
            .await?;
        ensure!(
            patched["metadata"]["generation"] == 2,
            "a change is a generation: {}",
            shown(&patched)
        );
        events.expect(Modified, own).await?;
        context.delete(&format!("{objects}/{own}")).await?;
        events.expect(Deleted, own).await?;
    }
    events.silent().await
}

async fn selectable(context: &Context) -> Asked<()> {
    let schema = json!({"type": "object", "properties": {"hostPort": {"type": "string"}}});
    let defined = define(
        context,
        &schema,
        json!({"selectableFields": [{"jsonPath": ".hostPort"}]}),
    )
    .await?;
    let objects = defined.objects(context).await?;
    let selected = format!("{objects}?fieldSelector=hostPort%3Dhost1:80");
    let mut events = context.watch(&selected).await?;
    for (own, port) in [("one", "host1:80"), ("two", "host2:80")] {
        context
            .create(&objects, &defined.object(own, json!({"hostPort": port})))
            .await?;
    }
    let found = context.items(&selected).await?;
    ensure!(found.len() == 1 && name(&found[0]) == "one", "{found:?}");
    events.expect(Added, "one").await?;
    context
        .merge(&format!("{objects}/one"), &json!({"hostPort": "host2:80"}))
        .await?;
    events.expect(Deleted, "one").await?;
    let unknown = context
        .client()
        .get::<Value>(&format!("{objects}?fieldSelector=other%3Dx"))
        .await;
    refused("a field that is not selectable", unknown, 400)?;
    Ok(())
}

async fn aggregated(context: &Context) -> Asked<()> {
    let defined = define(context, &open_schema(), json!({})).await?;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let question = async || {
        let list = context.get_as("/apis", accept).await?;
        let groups = list["items"].as_array().cloned().unwrap_or_default();
        Ok(groups
            .into_iter()
            .find(|it| text(it, "/metadata/name") == defined.group))
    };
    let group = context
        .until(
            "the group in aggregated discovery",
            crate::context::SOON,
            question,
        )
        .await?;
    ensure!(
        group["versions"][0]["resources"][0]["resource"] == "foos"
            && group["versions"][0]["resources"][0]["scope"] == "Namespaced",
        "{}",
        shown(&group)
    );
    Ok(())
}

fn ruled(rule: &str) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object",
        "x-kubernetes-validations": [{"rule": rule, "message": "the rule is broken"}],
        "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}}}})
}

async fn rule_holds(context: &Context) -> Asked<()> {
    let defined = define(context, &ruled("self.x + self.y > 0"), json!({})).await?;
    let objects = defined.objects(context).await?;
    context
        .create(
            &objects,
            &defined.object("one", json!({"spec": {"x": 1, "y": 0}})),
        )
        .await?;
    Ok(())
}

async fn rule_refuses(context: &Context) -> Asked<()> {
    let defined = define(context, &ruled("self.x + self.y > 0"), json!({})).await?;
    let objects = defined.objects(context).await?;
    let asked = context
        .client()
        .post::<Value>(
            &objects,
            &defined.object("one", json!({"spec": {"x": -1, "y": 0}})),
        )
        .await;
    let status = refused("an object that breaks a rule", asked, 422)?;
    ensure!(
        status.message.contains("the rule is broken"),
        "{}",
        status.message
    );
    Ok(())
}

async fn refuses_definition(context: &Context, rule: &str) -> Asked<()> {
    context
        .need("apiextensions.k8s.io/v1", "customresourcedefinitions")
        .await?;
    let group = format!("{}.example.com", context.unique("conformance"));
    context.clean_up(format!("{DEFINITIONS}/foos.{group}"));
    let asked = context
        .client()
        .post::<Value>(DEFINITIONS, &definition(&group, &ruled(rule), json!({})))
        .await;
    let status = refused("a definition with a rule that does not compile", asked, 422)?;
    ensure!(
        status.message.contains("x-kubernetes-validations"),
        "{}",
        status.message
    );
    Ok(())
}

async fn costly_rule(context: &Context) -> Asked<()> {
    context
        .need("apiextensions.k8s.io/v1", "customresourcedefinitions")
        .await?;
    let group = format!("{}.example.com", context.unique("conformance"));
    context.clean_up(format!("{DEFINITIONS}/foos.{group}"));
    let list = |of: Value| json!({"type": "array", "items": of});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
        "x-kubernetes-validations": [{"rule": "self.x.all(a, a.all(b, b.all(c, c == 'x')))"}],
        "properties": {"x": list(list(list(json!({"type": "string"}))))}}}});
    let asked = context
        .client()
        .post::<Value>(DEFINITIONS, &definition(&group, &schema, json!({})))
        .await;
    let status = refused("a definition with a rule without bounds", asked, 422)?;
    ensure!(
        status
            .message
            .contains("estimated rule cost exceeds budget"),
        "{}",
        status.message
    );
    Ok(())
}

async fn unknown_property(context: &Context) -> Asked<()> {
    refuses_definition(context, "self.z > 0").await
}

async fn syntax_error(context: &Context) -> Asked<()> {
    refuses_definition(context, "self = 42").await
}

async fn transition_rule(context: &Context) -> Asked<()> {
    let defined = define(context, &ruled("self.x >= oldSelf.x"), json!({})).await?;
    let objects = defined.objects(context).await?;
    let path = format!("{objects}/one");
    context
        .create(&objects, &defined.object("one", json!({"spec": {"x": 5}})))
        .await?;
    context.merge(&path, &json!({"spec": {"x": 6}})).await?;
    let back = context
        .client()
        .patch::<Value>(&path, client::PatchKind::Merge, &json!({"spec": {"x": 1}}))
        .await;
    refused("a change that breaks a transition rule", back, 422)?;
    Ok(())
}

async fn subresources(context: &Context) -> Asked<()> {
    let below = json!({"subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}});
    let defined = define(context, &typed_schema(), below).await?;
    let objects = defined.objects(context).await?;
    let path = format!("{objects}/one");
    let made = context
        .create(
            &objects,
            &defined.object(
                "one",
                json!({"spec": {"replicas": 1}, "status": {"phase": "ignored"}}),
            ),
        )
        .await?;
    ensure!(
        made.get("status").is_none(),
        "a status is set below: {}",
        shown(&made)
    );
    let patched = context
        .merge(
            &format!("{path}/status"),
            &json!({"status": {"replicas": 1}, "spec": {"replicas": 9}}),
        )
        .await?;
    ensure!(
        patched["status"]["replicas"] == 1
            && patched["spec"]["replicas"] == 1
            && patched["metadata"]["generation"] == 1,
        "{}",
        shown(&patched)
    );
    let scale = context
        .merge(&format!("{path}/scale"), &json!({"spec": {"replicas": 3}}))
        .await?;
    ensure!(
        scale["kind"] == "Scale"
            && scale["spec"]["replicas"] == 3
            && scale["status"]["replicas"] == 1,
        "{}",
        shown(&scale)
    );
    let read = context.get(&path).await?;
    ensure!(
        read["spec"]["replicas"] == 3 && read["metadata"]["generation"] == 2,
        "{}",
        shown(&read)
    );
    Ok(())
}
