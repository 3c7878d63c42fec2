//! Unknown and repeated fields.

use super::check;
use super::crd::{Defined, define, open_schema};
use crate::context::{Asked, Context, ensure, refused, shown};
use crate::run::Check;
use bytes::Bytes;
use client::{Deadline, Error, Payload};
use http::Method;
use serde_json::{Value, json};

pub const CHECKS: &[Check] = &[
    check!(
        "[sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed object [Conformance]",
        typed
    ),
    check!(
        "[sig-api-machinery] FieldValidation should detect unknown metadata fields of a typed object [Conformance]",
        typed_metadata
    ),
    check!(
        "[sig-api-machinery] FieldValidation should create/apply a valid CR for CRD with validation schema [Conformance]",
        valid_custom
    ),
    check!(
        "[sig-api-machinery] FieldValidation should create/apply a CR with unknown fields for CRD with no validation schema [Conformance]",
        open_custom
    ),
    check!(
        "[sig-api-machinery] FieldValidation should create/apply an invalid CR with extra properties for CRD with validation schema [Conformance]",
        extra_custom
    ),
    check!(
        "[sig-api-machinery] FieldValidation should detect unknown metadata fields in both the root and embedded object of a CR [Conformance]",
        custom_metadata
    ),
    check!(
        "[sig-api-machinery] FieldValidation should detect duplicates in a CR when preserving unknown fields [Conformance]",
        custom_duplicates
    ),
];

async fn post(context: &Context, path: &str, how: &str, text: &str) -> Result<Value, Error> {
    let payload = Payload::Bytes("application/json", Bytes::from(text.to_owned()));
    let path = format!("{path}?fieldValidation={how}");
    context
        .client()
        .call(Method::POST, &path, payload, Deadline::default())
        .await
}

/// Strict refuses with all of the words; Ignore and Warn take it.
async fn strict_only(context: &Context, path: &str, text: &str, words: &[&str]) -> Asked<()> {
    let status = refused(
        "strict validation",
        post(context, path, "Strict", text).await,
        400,
    )?;
    for word in words {
        ensure!(
            status.message.contains(word),
            "{word:?} is missing in {:?}",
            status.message
        );
    }
    for how in ["Ignore", "Warn"] {
        let own = format!("\"name\": \"{}\"", how.to_lowercase());
        post(
            context,
            path,
            how,
            &text.replace("\"name\": \"strict\"", &own),
        )
        .await?;
    }
    Ok(())
}

const DEPLOYMENT: &str = r#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "strict", "labels": {"app": "nginx"}META},
    "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "nginx"}}, "template": {"metadata": {"labels": {"app": "nginx"}},
    "spec": {"containers": [{"name": "nginx", "image": "none"}]}}SPEC}}"#;

async fn typed(context: &Context) -> Asked<()> {
    let path = context.of("apps/v1", "deployments").await?;
    let text = DEPLOYMENT.replace("META", "").replace(
        "SPEC",
        r#", "unknownField": 1, "paused": true, "paused": false"#,
    );
    strict_only(
        context,
        &path,
        &text,
        &[
            r#"unknown field "spec.unknownField""#,
            r#"duplicate field "spec.paused""#,
        ],
    )
    .await
}

async fn typed_metadata(context: &Context) -> Asked<()> {
    let path = context.of("apps/v1", "deployments").await?;
    let text = DEPLOYMENT
        .replace("META", r#", "unknownMeta": "x""#)
        .replace("SPEC", "");
    strict_only(
        context,
        &path,
        &text,
        &[r#"unknown field "metadata.unknownMeta""#],
    )
    .await
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"foo": {"type": "string"},
        "cronSpec": {"type": "string", "pattern": "^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$"},
        "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"apiVersion": {"type": "string"},
            "kind": {"type": "string"}, "metadata": {"type": "object"}}}}}}})
}

async fn apply(
    context: &Context,
    defined: &Defined,
    own: &str,
    rest: Value,
) -> Result<Value, Error> {
    let objects = defined
        .objects(context)
        .await
        .map_err(|_| Error::Unreachable {
            servers: String::new(),
            reason: "no namespace".to_owned(),
        })?;
    let path = format!("{objects}/{own}?fieldManager=check&fieldValidation=Strict");
    let payload = Payload::Bytes(
        "application/apply-patch+yaml",
        defined.object(own, rest).to_string().into(),
    );
    context
        .client()
        .call(Method::PATCH, &path, payload, Deadline::default())
        .await
}

async fn valid_custom(context: &Context) -> Asked<()> {
    let defined = define(context, &schema(), json!({})).await?;
    let applied = apply(
        context,
        &defined,
        "one",
        json!({"spec": {"foo": "foo1", "cronSpec": "* * * * */5"}}),
    )
    .await?;
    ensure!(applied["spec"]["foo"] == "foo1", "{}", shown(&applied));
    let broken = apply(
        context,
        &defined,
        "one",
        json!({"spec": {"cronSpec": "often"}}),
    )
    .await;
    refused("a text that does not match its pattern", broken, 422)?;
    Ok(())
}

async fn open_custom(context: &Context) -> Asked<()> {
    let defined = define(context, &open_schema(), json!({})).await?;
    let applied = apply(
        context,
        &defined,
        "one",
        json!({"spec": {"unknown": {"a": 1}}}),
    )
    .await?;
    ensure!(applied["spec"]["unknown"]["a"] == 1, "{}", shown(&applied));
    Ok(())
}

async fn extra_custom(context: &Context) -> Asked<()> {
    let mut schema = schema();
    schema["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"] = json!(true);
    let defined = define(context, &schema, json!({})).await?;
    apply(
        context,
        &defined,
        "one",
        json!({"spec": {"foo": "a", "extraProperty": "kept"}}),
    )
    .await?;
    let closed = define(context, &self::schema(), json!({})).await?;
    let status = refused(
        "an unknown field",
        apply(
            context,
            &closed,
            "one",
            json!({"spec": {"extraProperty": "x"}}),
        )
        .await,
        400,
    )?;
    ensure!(
        status.message.contains("extraProperty"),
        "{}",
        status.message
    );
    Ok(())
}

async fn custom_metadata(context: &Context) -> Asked<()> {
    let defined = define(context, &schema(), json!({})).await?;
    let path = defined.objects(context).await?;
    let text = format!(
        r#"{{"apiVersion": "{}/v1", "kind": "Foo", "metadata": {{"name": "strict", "unknownMeta": "x"}},
        "spec": {{"embedded": {{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "inner", "unknownSub": "y"}}}}}}}}"#,
        defined.group
    );
    strict_only(
        context,
        &path,
        &text,
        &["metadata.unknownMeta", "spec.embedded.metadata.unknownSub"],
    )
    .await
}

async fn custom_duplicates(context: &Context) -> Asked<()> {
    let defined = define(context, &open_schema(), json!({})).await?;
    let path = defined.objects(context).await?;
    let text = format!(
        r#"{{"apiVersion": "{}/v1", "kind": "Foo", "metadata": {{"name": "strict"}}, "spec": {{"foo": 1, "foo": 2}}}}"#,
        defined.group
    );
    strict_only(context, &path, &text, &[r#"duplicate field "spec.foo""#]).await
}
