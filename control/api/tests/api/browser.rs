//! The dashboard as a browser meets it: its files, watches over WebSockets, tokens in subprotocols, and pages of other sites.

use crate::rig::{Client, Rig, assert_code};
use futures::StreamExt;
use http::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const UPGRADE: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[tokio::test]
async fn everybody_may_have_the_page() {
    let rig = Rig::start().await;
    let nobody = rig.client(None, "h2");
    let page = nobody.get("/dashboard/").await;
    assert_code(&page, StatusCode::OK);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("script-src 'self'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(
        page.text()
            .contains("<script type=\"module\" src=\"main.js\">")
    );
    let script = nobody.get("/dashboard/views/pod.js").await;
    assert_eq!(
        script.header("content-type"),
        "text/javascript; charset=utf-8"
    );
    assert_eq!(script.header("x-content-type-options"), "nosniff");
    let known = [("if-none-match", script.header("etag"))];
    let again = nobody
        .call(Method::GET, "/dashboard/views/pod.js", &known, "")
        .await;
    assert_code(&again, StatusCode::NOT_MODIFIED);
    for absent in [
        "/dashboard/none.js",
        "/dashboard/../Cargo.toml",
        "/dashboard/views",
    ] {
        assert_code(&nobody.get(absent).await, StatusCode::NOT_FOUND);
    }
    assert_code(
        &rig.admin().post("/dashboard/", "").await,
        StatusCode::METHOD_NOT_ALLOWED,
    );
}

#[tokio::test]
async fn a_browser_is_led_to_the_page() {
    let rig = Rig::start().await;
    let nobody = rig.client(None, "http/1.1");
    for path in ["/", "/dashboard"] {
        let led = nobody
            .get_as(path, "text/html,application/xhtml+xml,*/*;q=0.8")
            .await;
        assert_code(&led, StatusCode::FOUND);
        assert_eq!(led.header("location"), "dashboard/");
    }
    let paths = rig.admin().get_as("/", "application/json, */*").await;
    assert_code(&paths, StatusCode::OK);
    assert!(paths.json()["paths"].is_array());
}

/// What a WebSocket says, text by text.
struct Texts(WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>);

impl Texts {
    async fn open(client: &Client, path: &str, more: &[(&str, &str)]) -> (Texts, String) {
        let headers = [&UPGRADE[..], more].concat();
        let response = client.open(Method::GET, path, &headers, "").await;
        assert_eq!(response.status(), 101);
        let accepted = &response.headers()["sec-websocket-accept"];
        assert_eq!(accepted, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="); // RFC 6455's example.
        let protocol = response.headers().get("sec-websocket-protocol");
        let protocol = protocol.map(|it| it.to_str().expect("text").to_owned());
        let io = TokioIo::new(hyper::upgrade::on(response).await.expect("upgraded"));
        let socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        (Texts(socket), protocol.unwrap_or_default())
    }

    async fn next(&mut self) -> Value {
        let message = tokio::time::timeout(Duration::from_secs(10), self.0.next());
        match message.await.expect("in time") {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("no text but {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_watch_is_told_over_a_websocket() {
    let rig = Rig::start().await;
    let admin = rig.admin();
    let offered = [("sec-websocket-protocol", "lines.trireme, other")];
    let (mut texts, protocol) = Texts::open(&admin, &format!("{MAPS}?watch=true"), &offered).await;
    assert_eq!(protocol, "lines.trireme");
    let body = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "one"}});
    assert_code(
        &admin.post(MAPS, &body.to_string()).await,
        StatusCode::CREATED,
    );
    assert_code(
        &admin
            .call(Method::DELETE, &format!("{MAPS}/one"), &[], "")
            .await,
        StatusCode::OK,
    );
    for kind in ["ADDED", "DELETED"] {
        let event = texts.next().await;
        assert_eq!(
            (&event["type"], &event["object"]["metadata"]["name"]),
            (&json!(kind), &json!("one"))
        );
    }
    // At shutdown the socket is closed, so that the page goes to another master.
    rig.shutdown.cancel();
    let last = tokio::time::timeout(Duration::from_secs(10), async {
        while let Some(Ok(message)) = texts.0.next().await {
            if message.is_close() {
                return true;
            }
        }
        false
    });
    assert!(last.await.expect("in time"), "the socket was not closed");
}

#[tokio::test]
async fn the_clusters_status_is_told_as_it_changes() {
    let rig = Rig::start().await;
    let (mut texts, protocol) =
        Texts::open(&rig.admin(), "/cluster/v1/status?watch=true", &[]).await;
    assert_eq!(protocol, "");
    assert_eq!(texts.next().await["term"], 3);
    let nobody = rig.client(None, "http/1.1");
    assert_code(
        &nobody.get("/cluster/v1/status?watch=true").await,
        StatusCode::FORBIDDEN,
    );
}

#[tokio::test]
async fn an_upgrade_without_a_key_is_refused() {
    let rig = Rig::start().await;
    let path = format!("{MAPS}?watch=true");
    let headers = [("connection", "Upgrade"), ("upgrade", "websocket")];
    let refused = rig.admin().call(Method::GET, &path, &headers, "").await;
    assert_code(&refused, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn pages_of_other_sites_cannot_use_a_certificate() {
    let rig = Rig::start().await;
    let admin = rig.admin();
    let body =
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "one"}}).to_string();
    let evil = [
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
    ];
    let refused = admin.call(Method::POST, MAPS, &evil, body.clone()).await;
    assert_code(&refused, StatusCode::FORBIDDEN);
    let refused = admin
        .call(
            Method::GET,
            &format!("{MAPS}?watch=true"),
            &[&UPGRADE[..], &evil].concat(),
            "",
        )
        .await;
    assert_code(&refused, StatusCode::FORBIDDEN);
    let own = [
        ("origin", "https://127.0.0.1"),
        ("sec-fetch-site", "same-origin"),
    ];
    assert_code(
        &admin.call(Method::POST, MAPS, &own, body).await,
        StatusCode::CREATED,
    );
}
