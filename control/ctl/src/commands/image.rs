//! `ctl image`: images on the nodes, through the API server's node proxy.

use crate::cli::{Image, Output, OutputArg};
use crate::context::Context;
use crate::output;
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use client::{Deadline, Payload, encode_segment};
use futures::StreamExt;
use http::Method;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio_util::io::ReaderStream;

const IMPORT_DEADLINE: Deadline = Deadline(Duration::from_secs(1800));
const CHUNK: usize = 256 << 10;

pub async fn run(context: &Context, command: Image) -> Result<()> {
    match command {
        Image::Import { archive, node } => import(context, &archive, node).await,
        Image::List(args) => list(context, args).await,
    }
}

async fn import(context: &Context, archive: &Path, chosen: Vec<String>) -> Result<()> {
    let nodes = if chosen.is_empty() {
        node_names(context).await?
    } else {
        chosen
    };
    ensure!(
        !nodes.is_empty(),
        "the cluster has no nodes yet: start one with `node run`"
    );
    let bars = MultiProgress::new();
    let imports = nodes
        .iter()
        .map(|node| import_on(context, archive, node, &bars));
    for (node, outcome) in nodes.iter().zip(futures::future::join_all(imports).await) {
        let answer = outcome.with_context(|| format!("node {node}"))?;
        for image in answer["images"].as_array().into_iter().flatten() {
            println!("{node}: imported {}", image.as_str().unwrap_or(""));
        }
    }
    Ok(())
}

async fn import_on(
    context: &Context,
    archive: &Path,
    node: &str,
    bars: &MultiProgress,
) -> Result<Value> {
    let file = tokio::fs::File::open(archive)
        .await
        .with_context(|| format!("cannot read {}", archive.display()))?;
    let size = file.metadata().await?.len();
    let bar = bars.add(ProgressBar::new(size));
    bar.set_style(ProgressStyle::with_template(
        "{msg} {wide_bar} {bytes}/{total_bytes}",
    )?);
    bar.set_message(node.to_owned());
    let moved = bar.clone();
    let chunks =
        ReaderStream::with_capacity(file, CHUNK).map(move |chunk: std::io::Result<Bytes>| {
            moved.inc(chunk.as_ref().map_or(0, |chunk| chunk.len() as u64));
            chunk
        });
    let path = format!("{}/images/import", proxy(node));
    let payload = Payload::stream("application/x-tar", chunks);
    let answer = context
        .client
        .call(Method::POST, &path, payload, IMPORT_DEADLINE)
        .await;
    bar.finish_and_clear();
    Ok(answer?)
}

async fn list(context: &Context, args: OutputArg) -> Result<()> {
    let mut all = Vec::new();
    for node in node_names(context).await? {
        let answer: Value = context
            .client
            .get(&format!("{}/images", proxy(&node)))
            .await?;
        all.push((node, answer));
    }
    if args.output == Output::Json {
        let map: serde_json::Map<String, Value> = all
            .into_iter()
            .map(|(node, answer)| (node, answer["images"].clone()))
            .collect();
        return output::json(&json!(map));
    }
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let rows = all.iter().flat_map(|(node, answer)| {
        let images = answer["images"].as_array().into_iter().flatten();
        images.map(move |image| {
            vec![
                node.clone(),
                text(&image["reference"]),
                text(&image["digest"]),
            ]
        })
    });
    output::table(
        &["Node", "Image", "Digest"].map(str::to_owned),
        rows.collect(),
    );
    Ok(())
}

async fn node_names(context: &Context) -> Result<Vec<String>> {
    let nodes: Value = context.client.get("/api/v1/nodes").await?;
    let names = nodes["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|node| node["metadata"]["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

fn proxy(node: &str) -> String {
    format!("/api/v1/nodes/{}/proxy", encode_segment(node))
}
