//! Asks a webhook for custom objects in another version. Shape: apiextensions/v1 `ConversionReview`.

use super::HttpsWebhooks;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use registry::{Converter, WebhookClient, Webhooks};
use serde_json::{Value, json};
use std::time::Duration;

/// How long a conversion may take.
const DEADLINE: Duration = Duration::from_secs(30);

impl Converter for HttpsWebhooks {
    fn convert<'a>(
        &'a self,
        webhook: &'a Value,
        api_version: &'a str,
        objects: Vec<Value>,
    ) -> BoxFuture<'a, Result<Vec<Value>, String>> {
        async move {
            let client = webhook["clientConfig"].as_object();
            let client = client.and_then(WebhookClient::of);
            let client = client.ok_or("the definition names no webhook to convert by")?;
            let uid = format!("{:032x}", rand::random::<u128>());
            let review = json!({
                "apiVersion": format!("apiextensions.k8s.io/{}", version(webhook)),
                "kind": "ConversionReview",
                "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects},
            });
            let body = Bytes::from(review.to_string());
            let answer = self.call(&client, body, DEADLINE).await?;
            let mut answer: Value = serde_json::from_slice(&answer)
                .map_err(|error| format!("the webhook's answer cannot be read: {error}"))?;
            converted(answer["response"].take(), &uid)
        }
        .boxed()
    }
}

/// The version of the review: the first of the webhook's that is known here.
fn version(webhook: &Value) -> &str {
    let versions = webhook["conversionReviewVersions"].as_array();
    let mut versions = versions.into_iter().flatten().filter_map(Value::as_str);
    versions
        .find(|version| ["v1", "v1beta1"].contains(version))
        .unwrap_or("v1")
}

fn converted(mut response: Value, uid: &str) -> Result<Vec<Value>, String> {
    if response["uid"] != uid {
        return Err("expected response.uid to be that of the request".to_owned());
    }
    let result = &response["result"];
    if result["status"] != "Success" {
        let why = result["message"].as_str();
        return Err(why.unwrap_or("it gave no reason").to_owned());
    }
    match response["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Err("it answered without convertedObjects".to_owned()),
    }
}
