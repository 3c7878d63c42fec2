//! Watches as clients read them, line by line.

use crate::rig::{Client, Rig};
use api::ApiConfig;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A watch that is read line by line.
struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    async fn open(client: &Client, query: &str, accept: &str) -> Lines {
        let path = format!("{MAPS}?watch=true&{query}");
        let response = client
            .open(Method::GET, &path, &[("accept", accept)], "")
            .await;
        assert_eq!(response.status(), 200);
        Lines {
            body: response.into_body(),
            buffer: vec![],
        }
    }

    /// The next line; None when the watch has ended.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("JSON"));
            }
            let frame = tokio::time::timeout(Duration::from_secs(10), self.body.frame());
            match frame.await.expect("an event in time")? {
                Ok(frame) => self.buffer.extend(frame.into_data().expect("data")),
                Err(error) => panic!("the watch broke off: {error}"),
            }
        }
    }

    /// `TYPE name` of the next line.
    async fn event(&mut self) -> String {
        let event = self.next().await.expect("the watch goes on");
        let name = event["object"]["metadata"]["name"]
            .as_str()
            .unwrap_or_default();
        format!("{} {name}", event["type"].as_str().unwrap_or_default())
    }
}

async fn make(client: &Client, name: &str) {
    let body = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}});
    assert_eq!(client.post(MAPS, &body.to_string()).await.code, 201);
}

#[tokio::test]
async fn changes_are_told_in_order_over_both_protocols() {
    let rig = Rig::start().await;
    for alpn in ["http/1.1", "h2"] {
        let client = rig.client(Some(&rig.admin), alpn);
        let list = client.get(MAPS).await.json();
        let version = list["metadata"]["resourceVersion"]
            .as_str()
            .expect("a revision");
        let query = format!("resourceVersion={version}");
        let mut lines = Lines::open(&client, &query, "application/json").await;
        make(&client, "a").await;
        assert_eq!(lines.event().await, "ADDED a");
        let path = format!("{MAPS}/a");
        client
            .patch(
                &path,
                "application/merge-patch+json",
                r#"{"data":{"x":"y"}}"#,
            )
            .await;
        assert_eq!(lines.event().await, "MODIFIED a");
        client.call(Method::DELETE, &path, &[], "").await;
        assert_eq!(lines.event().await, "DELETED a");
    }
}

#[tokio::test]
async fn a_streaming_list_ends_with_its_bookmark() {
    let rig = Rig::start().await;
    let client = rig.admin();
    make(&client, "a").await;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    let mut lines = Lines::open(&client, query, "*/*").await;
    assert_eq!(lines.event().await, "ADDED a");
    let bookmark = lines.next().await.expect("a bookmark");
    assert_eq!(bookmark["type"], "BOOKMARK");
    let annotations = &bookmark["object"]["metadata"]["annotations"];
    assert_eq!(annotations["k8s.io/initial-events-end"], "true");
    let begun = Instant::now();
    while lines.next().await.is_some() {}
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "timeoutSeconds was not kept"
    );
}

#[tokio::test]
async fn tables_describe_their_columns_once() {
    let rig = Rig::start().await;
    let client = rig.admin();
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut lines = Lines::open(&client, "", table).await;
    make(&client, "a").await;
    make(&client, "b").await;
    for (name, columns) in [("a", true), ("b", false)] {
        let event = lines.next().await.expect("an event");
        assert_eq!(event["object"]["kind"], "Table");
        assert_eq!(event["object"]["rows"][0]["cells"][0], name);
        let described = event["object"]["columnDefinitions"]
            .as_array()
            .expect("a list");
        assert_eq!(!described.is_empty(), columns);
    }
}

#[tokio::test]
async fn shutdown_ends_watches_with_a_bookmark_and_drains() {
    let rig = Rig::start().await;
    let client = rig.admin();
    make(&client, "a").await;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut lines = Lines::open(&client, query, "*/*").await;
    assert_eq!(lines.event().await, "ADDED a");
    rig.shutdown.cancel();
    while let Some(event) = lines.next().await {
        assert_eq!(event["type"], "BOOKMARK");
    }
    tokio::time::timeout(Duration::from_secs(5), rig.served)
        .await
        .expect("drained")
        .expect("ran");
}

#[tokio::test]
async fn too_many_watches_are_turned_away() {
    let rig = Rig::with(ApiConfig {
        streams_max: 1,
        ..ApiConfig::default()
    })
    .await;
    let client = rig.admin();
    let first = Lines::open(&client, "", "*/*").await;
    let second = client.get(&format!("{MAPS}?watch=true")).await;
    assert_eq!(second.code, 429);
    assert_eq!(second.header("retry-after"), "1");
    assert_eq!(client.get(MAPS).await.code, 200);
    drop(first);
    let begun = Instant::now();
    while client
        .get(&format!("{MAPS}?watch=true&timeoutSeconds=1"))
        .await
        .code
        == 429
    {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "the place was not given back"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_watcher_that_does_not_read_misses_nothing_and_stops_nobody() {
    const COUNT: usize = 25;
    let rig = Rig::start().await;
    for alpn in ["http/1.1", "h2"] {
        let client = rig.client(Some(&rig.admin), alpn);
        let list = client.get(MAPS).await.json();
        let version = list["metadata"]["resourceVersion"]
            .as_str()
            .expect("a revision");
        let query = format!("resourceVersion={version}");
        let mut lines = Lines::open(&client, &query, "*/*").await;
        let data = "x".repeat(300_000);
        for index in 0..COUNT {
            let name = format!("{}-{index}", alpn.replace(['/', '.'], "-").to_lowercase());
            let body = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"x": data}});
            assert_eq!(client.post(MAPS, &body.to_string()).await.code, 201);
        }
        // What it reads now is without a gap, up to where the server gave up on it.
        let mut read = 0;
        while read < COUNT {
            let Some(event) = lines.next().await else {
                break;
            };
            let name = event["object"]["metadata"]["name"]
                .as_str()
                .unwrap_or_default();
            assert!(
                name.ends_with(&format!("-{read}")),
                "{name} after {read} events"
            );
            read += 1;
        }
        assert!(read > 0);
    }
}
