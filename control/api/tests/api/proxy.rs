//! Proxies to pods, services and nodes, against backends behind a kubelet port made here.

use crate::node::start_node_with;
use crate::rig::{Client, Rig, assert_code};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NAMESPACE: &str = "/api/v1/namespaces/default";

/// The agent's `/connect`: whatever is connected to is the backend below.
async fn agent(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let code = |code: u16, text: &str| {
        Response::builder()
            .status(code)
            .body(Full::from(text.to_owned()))
            .expect("a response")
    };
    match request.uri().to_string().as_str() {
        "/connect/default/p1/8080?address=10.1.2.3" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let io = TokioIo::new(upgrade.await.expect("upgraded"));
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(io), service_fn(backend))
                    .with_upgrades();
                let _ = served.await;
            });
            let mut response = code(101, "");
            let headers = response.headers_mut();
            headers.insert("connection", "Upgrade".parse().expect("a header"));
            headers.insert("upgrade", "tcp".parse().expect("a header"));
            Ok(response)
        }
        "/connect/default/p1/9?address=10.1.2.3" => Ok(code(
            503,
            "dial tcp 10.1.2.3:9: connect: Connection refused",
        )),
        "/stats?a=b" => Ok(code(200, "the kubelet's own")),
        _ => Ok(code(404, "404 page not found")),
    }
}

/// Tells what it was asked, redirects, or speaks another protocol.
async fn backend(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/moved" {
        let response = Response::builder()
            .status(302)
            .header("location", "/elsewhere?x=y")
            .header("access-control-allow-origin", "*")
            .body(Full::from("moved"));
        return Ok(response.expect("a response"));
    }
    if request.headers().get("upgrade").is_some() {
        let cookie = request.headers().get("cookie").cloned();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.expect("upgraded"));
            let mut said = Vec::new();
            io.read_to_end(&mut said).await.expect("half closed");
            said.extend(format!(" and {cookie:?}").into_bytes());
            io.write_all(&said).await.expect("written");
            io.shutdown().await.expect("closed");
        });
        let response = Response::builder()
            .status(101)
            .header("connection", "Upgrade")
            .header("upgrade", "echo")
            .body(Full::default());
        return Ok(response.expect("a response"));
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let header = |name: &str| parts.headers.get(name).map(|value| format!("{value:?}"));
    let told = json!({
        "method": parts.method.as_str(), "uri": parts.uri.to_string(), "bytes": body.len(),
        "authorization": header("authorization"), "forwardedUri": header("x-forwarded-uri"),
        "forwardedProto": header("x-forwarded-proto"),
    });
    Ok(Response::new(Full::from(told.to_string())))
}

/// A pod with an address and a service with a slice that leads to it.
async fn start(rig: &Rig) -> Client {
    let client = start_node_with(rig, agent).await;
    let running = json!({"status": {"phase": "Running", "podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}]}});
    let set = client
        .patch(
            &format!("{NAMESPACE}/pods/p1/status"),
            "application/merge-patch+json",
            &running.to_string(),
        )
        .await;
    assert_code(&set, StatusCode::OK);
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "web"},
        "spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]}});
    let slice = json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.2.3"], "conditions": {"ready": true}, "nodeName": "n1",
            "targetRef": {"kind": "Pod", "name": "p1", "namespace": "default"}}],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]});
    for (path, object) in [
        (format!("{NAMESPACE}/services"), service),
        (
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices".to_owned(),
            slice,
        ),
    ] {
        let made = client.post(&path, &object.to_string()).await;
        assert_code(&made, StatusCode::CREATED);
    }
    client
}

#[tokio::test]
async fn pods_and_services_are_asked_what_the_client_asks() {
    let rig = Rig::start().await;
    let client = start(&rig).await;
    let seen = |uri: &str, method: &str, bytes: usize, original: &str| {
        json!({"method": method, "uri": uri, "bytes": bytes, "authorization": Value::Null,
            "forwardedUri": format!("{original:?}"), "forwardedProto": "\"https\""})
    };
    for name in ["services/web:http", "services/http:web:80", "pods/p1:8080"] {
        let root = format!("{NAMESPACE}/{name}/proxy");
        let asked = format!("{root}/a%2Fb/?x=1&y=%20");
        let reply = client.get(&asked).await;
        assert_code(&reply, StatusCode::OK);
        let original = format!("{root}/a%2Fb/");
        assert_eq!(
            reply.json(),
            seen("/a%2Fb/?x=1&y=%20", "GET", 0, &original),
            "{name}"
        );
        for method in [
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::OPTIONS,
        ] {
            let headers = [("authorization", "Bearer mine")];
            let body = "x".repeat(100_000);
            let reply = client
                .call(method.clone(), &format!("{root}/to"), &headers, body)
                .await;
            assert_code(&reply, StatusCode::OK);
            let original = format!("{root}/to");
            assert_eq!(
                reply.json(),
                seen("/to", method.as_str(), 100_000, &original)
            );
        }
    }
}

#[tokio::test]
async fn redirects_and_upgrades_pass_the_proxy() {
    let rig = Rig::start().await;
    let client = start(&rig).await;
    let root = format!("{NAMESPACE}/services/web:http/proxy");
    let reply = client.get(&root).await;
    assert_code(&reply, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(reply.header("location"), format!("{root}/"));
    let reply = client.get(&format!("{root}/moved")).await;
    assert_code(&reply, StatusCode::FOUND);
    let location = reply.header("location");
    assert!(location.starts_with("https://"), "{location}");
    assert!(
        location.ends_with(&format!("{root}/elsewhere?x=y")),
        "{location}"
    );
    assert!(
        !reply.headers.contains_key("access-control-allow-origin"),
        "a backend must not open the API server to other origins"
    );

    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "echo"),
        ("cookie", "a=b"),
    ];
    let response = client
        .open(Method::GET, &format!("{root}/ws"), &headers, "")
        .await;
    assert_eq!(response.status(), 101);
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.expect("upgraded"));
    let sent = vec![b'x'; 300_000];
    io.write_all(&sent).await.expect("written");
    io.shutdown().await.expect("half closed");
    let mut said = Vec::new();
    io.read_to_end(&mut said).await.expect("said");
    assert_eq!(said.len(), sent.len() + " and Some(\"a=b\")".len());
    assert!(said.ends_with(b" and Some(\"a=b\")"));
}

#[tokio::test]
async fn what_cannot_be_reached_is_told() {
    let rig = Rig::start().await;
    let client = start(&rig).await;
    for (path, code, message) in [
        (
            "services/web:82/proxy/",
            503,
            "no service port 82 found for service \"web\"",
        ),
        (
            "services/web:admin/proxy/",
            503,
            "no endpoints available for service \"web:admin\"",
        ),
        (
            "services/ftp:web:21/proxy/",
            400,
            "invalid service request \"ftp:web:21\"",
        ),
        ("services/nope/proxy/", 404, "services \"nope\" not found"),
        ("pods/p2:80/proxy/", 400, "address not allowed"),
        (
            "pods/p1:9/proxy/",
            503,
            "error trying to reach service: dial tcp 10.1.2.3:9: connect: Connection refused",
        ),
    ] {
        let reply = client.get(&format!("{NAMESPACE}/{path}")).await;
        assert_eq!(reply.code, code, "{path}: {}", reply.text());
        assert_eq!(reply.message(), message, "{path}");
    }
}

#[tokio::test]
async fn a_node_is_its_kubelet_port() {
    let rig = Rig::start().await;
    let client = start(&rig).await;
    let reply = client.get("/api/v1/nodes/n1/proxy/stats?a=b").await;
    assert_code(&reply, StatusCode::OK);
    assert_eq!(reply.text(), "the kubelet's own");
    let reply = client.get("/api/v1/nodes/n1:x/proxy/").await;
    assert_code(&reply, StatusCode::BAD_REQUEST);
}
