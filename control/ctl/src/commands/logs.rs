//! `ctl logs`: a container's log, from the node that has it.

use crate::cli::Logs;
use crate::context::Context;
use anyhow::{Context as _, Result};
use client::{Deadline, Payload};
use http::Method;
use http_body_util::BodyExt;
use serde_json::Value;
use std::io::Write;

pub async fn run(context: &Context, args: Logs) -> Result<()> {
    let pod = context.pod(&args.target).await?;
    let path = format!(
        "{}/log?{}",
        pod_path(context, &pod).await?,
        query(&args, &pod)
    );
    let mut body = context
        .client
        .open(Method::GET, &path, Payload::Empty, Deadline::default())
        .await?;
    let mut stdout = std::io::stdout().lock();
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the log broke off")?;
        if let Ok(data) = frame.into_data() {
            // Whoever reads us may have seen enough.
            if stdout
                .write_all(&data)
                .and_then(|()| stdout.flush())
                .is_err()
            {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The path of a pod that the server answered with.
pub async fn pod_path(context: &Context, pod: &Value) -> Result<String> {
    let pods = context.resources().await?.one("pods")?;
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or("").to_owned();
    Ok(pods.object(&text("namespace"), &text("name")))
}

/// The container asked for, or the pod's first.
pub fn container_of(pod: &Value, asked: Option<&str>) -> String {
    let first = pod["spec"]["containers"][0]["name"].as_str().unwrap_or("");
    let annotated =
        pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
    asked.or(annotated).unwrap_or(first).to_owned()
}

fn query(args: &Logs, pod: &Value) -> String {
    let container = container_of(pod, args.container.as_deref());
    let mut query = vec![format!("container={}", client::encode_segment(&container))];
    for (name, wanted) in [
        ("follow", args.follow),
        ("previous", args.previous),
        ("timestamps", args.timestamps),
    ] {
        if wanted {
            query.push(format!("{name}=true"));
        }
    }
    query.extend(args.tail.map(|lines| format!("tailLines={lines}")));
    query.extend(
        args.since
            .map(|since| format!("sinceSeconds={}", since.as_secs())),
    );
    query.join("&")
}
