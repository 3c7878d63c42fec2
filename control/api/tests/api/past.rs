//! The past over the wire: which revision was when, lists as they were, the versions of an object and who made them.

use crate::rig::{Client, Rig, assert_code};
use http::{Method, StatusCode};
use mvcc::Command;
use objects::Revision;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const OBJECT: &str = "/cluster/v1/history/object?resource=configmaps&namespace=default&name=a";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

async fn revision(client: &Client) -> u64 {
    let list = client.get(MAPS).await.json();
    let text = list["metadata"]["resourceVersion"].as_str();
    text.and_then(|text| text.parse().ok())
        .expect("a list has a revision")
}

/// Makes the map `a`, changes it, and deletes it; returns the revision before each step and after the last.
async fn live_and_die(client: &Client) -> [u64; 4] {
    let before = revision(client).await;
    let body = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"x": "1"}});
    let headers = [
        ("user-agent", "tool/1.0 (linux)"),
        ("content-type", "application/json"),
    ];
    let made = client
        .call(Method::POST, MAPS, &headers, body.to_string())
        .await;
    assert_code(&made, StatusCode::CREATED);
    let made = revision(client).await;
    let path = format!("{MAPS}/a?fieldManager=hand");
    let patch = r#"{"data":{"x":"2"}}"#;
    let patched = client
        .patch(&path, "application/merge-patch+json", patch)
        .await;
    assert_code(&patched, StatusCode::OK);
    let patched = revision(client).await;
    let path = format!("{MAPS}/a");
    let deleted = client.call(Method::DELETE, &path, &headers, "").await;
    assert_code(&deleted, StatusCode::OK);
    [before, made, patched, revision(client).await]
}

#[tokio::test]
async fn lists_and_objects_are_read_as_they_were() {
    let rig = Rig::start().await;
    let client = rig.admin();
    let [before, made, patched, deleted] = live_and_die(&client).await;
    for (at, expected) in [
        (before, None),
        (made, Some("1")),
        (patched, Some("2")),
        (deleted, None),
    ] {
        let exact = format!("resourceVersion={at}&resourceVersionMatch=Exact");
        for query in ["", "fieldSelector=metadata.name%3Da&", "limit=1&"] {
            let list = client.get(&format!("{MAPS}?{query}{exact}")).await;
            assert_code(&list, StatusCode::OK);
            let found = list.json()["items"][0]["data"]["x"].clone();
            assert_eq!(found.as_str(), expected, "{query} at {at}");
        }
        let table = client
            .get_as(&format!("{MAPS}?{exact}"), TABLE)
            .await
            .json();
        assert_eq!(
            table["rows"].as_array().map(Vec::len),
            Some(expected.iter().len())
        );
    }
}

#[tokio::test]
async fn an_objects_versions_tell_who_made_them() {
    let rig = Rig::start().await;
    let client = rig.admin();
    let [before, ..] = live_and_die(&client).await;
    let history = client.get(OBJECT).await;
    assert_code(&history, StatusCode::OK);
    let history = history.json();
    let told: Vec<[&str; 3]> = ["deleted", "changed", "created"]
        .iter()
        .zip(history["versions"].as_array().expect("a list"))
        .map(|(what, version)| {
            assert_eq!(version["user"], "trireme:admin");
            assert!(
                version["time"]
                    .as_str()
                    .is_some_and(|time| time.ends_with('Z'))
            );
            assert!(version["revision"].as_u64() > Some(before));
            assert_eq!(version["created"], *what == "created");
            let text = |value: &'_ Value| {
                value.as_str().map_or("", |text| match text {
                    "tool" => "tool",
                    "hand" => "hand",
                    "delete" => "delete",
                    "patch" => "patch",
                    "create" => "create",
                    _ => "other",
                })
            };
            [*what, text(&version["manager"]), text(&version["action"])]
        })
        .collect();
    assert_eq!(
        told,
        [
            ["deleted", "tool", "delete"],
            ["changed", "hand", "patch"],
            ["created", "tool", "create"]
        ]
    );
    assert_eq!(history["versions"][0]["object"], Value::Null);
    assert_eq!(history["versions"][1]["object"]["data"]["x"], "2");
    assert_eq!(history["versions"][2]["object"]["data"]["x"], "1");
    assert_eq!(history["more"], false);

    let page = client.get(&format!("{OBJECT}&limit=1")).await.json();
    assert_eq!(page["more"], true);
    let last = page["versions"][0]["revision"]
        .as_u64()
        .expect("a revision");
    let rest = client.get(&format!("{OBJECT}&before={last}")).await.json();
    assert_eq!(rest["versions"].as_array().map(Vec::len), Some(2));

    let unknown = client.get(&OBJECT.replace("name=a", "name=b")).await;
    assert_code(&unknown, StatusCode::NOT_FOUND);
    let unknown = client.get(&OBJECT.replace("configmaps", "boats")).await;
    assert_code(&unknown, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_time_is_a_revision_and_what_is_forgotten_is_gone() {
    let rig = Rig::start().await;
    let client = rig.admin();
    let store = &rig.cluster.store;
    let tick = |wall_ms, now_ms| {
        store
            .command(&Command::Tick { wall_ms, now_ms })
            .expect("leads")
    };
    tick(1_700_000_000_000, 0);
    let [_, made, patched, deleted] = live_and_die(&client).await;
    let history = |query: String| {
        let client = client.clone();
        async move { client.get(&format!("/cluster/v1/history?{query}")).await }
    };
    let now = history("ago=0".to_owned()).await.json();
    assert_eq!(now["at"]["revision"], deleted);
    let versions = client.get(OBJECT).await.json();
    let time = versions["versions"][1]["time"]
        .as_str()
        .expect("a time")
        .to_owned();
    let at = history(format!("at={time}")).await.json();
    assert_eq!(
        at["at"]["revision"], patched,
        "a time that was shown can be asked"
    );
    let before = history("at=2023-11-14T22:13:21Z".to_owned()).await.json();
    assert!(before["at"]["revision"].as_u64() < Some(made));
    assert_eq!(
        history(format!("at={made}")).await.json()["at"]["revision"],
        made
    );
    assert_code(
        &history("at=tomorrow".to_owned()).await,
        StatusCode::BAD_REQUEST,
    );

    let revision = Revision(patched);
    store
        .command(&Command::Compact { revision })
        .expect("leads");
    let gone = history(format!("at={made}")).await;
    assert_code(&gone, StatusCode::GONE);
    assert!(
        gone.message().contains(&format!(
            "the oldest revision that is kept is {patched} of 20"
        )),
        "{}",
        gone.message()
    );
    let exact = format!("{MAPS}?resourceVersion={made}&resourceVersionMatch=Exact");
    let exact = client.get(&exact).await;
    assert_code(&exact, StatusCode::GONE);
    let words = format!(
        "too old resource version: {made} ({patched}); the oldest revision that is kept is {patched} of 20"
    );
    assert!(exact.message().starts_with(&words), "{}", exact.message());
    let kept = history(String::new()).await.json();
    assert_eq!(kept["oldest"]["revision"], patched);
    assert_eq!(kept["newest"]["revision"], deleted);

    let keep = r#"{"seconds":600,"bytes":99000000}"#;
    let set = client
        .call(Method::PUT, "/cluster/v1/history", &[], keep)
        .await;
    assert_code(&set, StatusCode::OK);
    assert_eq!(
        set.json()["keep"],
        json!({"seconds": 600, "bytes": 99_000_000})
    );
}

#[tokio::test]
async fn the_past_is_read_by_who_may_read_the_present() {
    let rig = Rig::start().await;
    live_and_die(&rig.admin()).await;
    let node = rig.pki.issue("system:node:n1", &["system:nodes"]);
    let jane = rig.pki.issue("jane", &["dev"]);
    let (node, jane) = (
        rig.client(Some(&node), "http/1.1"),
        rig.client(Some(&jane), "http/1.1"),
    );
    // No pod of the node names it.
    assert_code(&node.get(OBJECT).await, StatusCode::FORBIDDEN);
    assert_code(&node.get("/cluster/v1/history").await, StatusCode::OK);
    let leases = "/cluster/v1/history/object?group=coordination.k8s.io&resource=leases&namespace=default&name=a";
    assert_code(&node.get(leases).await, StatusCode::FORBIDDEN);
    let put = node
        .call(Method::PUT, "/cluster/v1/history", &[], "{}")
        .await;
    assert_code(&put, StatusCode::FORBIDDEN);
    for path in [OBJECT, "/cluster/v1/history"] {
        assert_code(&jane.get(path).await, StatusCode::FORBIDDEN);
    }
    let nobody = rig.client(None, "http/1.1");
    assert_code(&nobody.get(OBJECT).await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn metrics_are_for_administrators() {
    let rig = Rig::start().await;
    let told = rig.admin().get("/metrics").await;
    assert_code(&told, StatusCode::OK);
    // The cluster's numbers, and the server's own.
    let text = told.text();
    assert!(text.starts_with("up 1\n# HELP apiserver_"), "{text}");
    assert!(
        text.ends_with("\ntrireme_watch_encodings_total 0\n"),
        "{text}"
    );
    assert!(
        told.header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    let node = rig.pki.issue("system:node:n1", &["system:nodes"]);
    let refused = rig.client(Some(&node), "http/1.1").get("/metrics").await;
    assert_code(&refused, StatusCode::FORBIDDEN);
    assert_code(
        &rig.client(None, "http/1.1").get("/metrics").await,
        StatusCode::FORBIDDEN,
    );
}
