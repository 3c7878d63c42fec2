//! A node behind the API server: logs, exec by both protocols, and the node proxy, against a kubelet port made here.

use crate::kubectl::Kubectl;
use crate::pki::pem;
use crate::rig::{Client, Rig, assert_code};
use bytes::Bytes;
use futures::SinkExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

async fn start_node(rig: &Rig) -> Client {
    start_node_with(rig, kubelet).await
}

/// Starts a kubelet port that takes only the cluster's certificates, and tells the API server of node and pod.
pub async fn start_node_with<F>(rig: &Rig, answer: fn(Request<Incoming>) -> F) -> Client
where
    F: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(rig.pki.roots());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
    let (chain, key) = pem(&rig.pki.issue("system:node:n1", &["system:nodes"]));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.expect("a CA"))
        .with_single_cert(chain, key)
        .expect("fits");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.expect("a connection");
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(tcp).await.expect("TLS");
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .with_upgrades();
                let _ = connection.await;
            });
        }
    });
    let client = rig.admin();
    place(&client, port).await;
    client
}

async fn place(client: &Client, port: u16) {
    let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"}});
    assert_code(
        &client.post("/api/v1/nodes", &node.to_string()).await,
        StatusCode::CREATED,
    );
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }});
    let merge = "application/merge-patch+json";
    let set = client
        .patch("/api/v1/nodes/n1/status", merge, &status.to_string())
        .await;
    assert_code(&set, StatusCode::OK);
    for (name, containers) in [("p1", vec!["main"]), ("p2", vec!["a", "b"])] {
        let containers: Vec<_> = containers
            .iter()
            .map(|name| json!({"name": name, "image": "busybox"}))
            .collect();
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name},
            "spec": {"nodeName": "n1", "containers": containers}});
        let made = client
            .post("/api/v1/namespaces/default/pods", &pod.to_string())
            .await;
        assert_code(&made, StatusCode::CREATED);
    }
    let running = r#"{"status":{"phase":"Running","containerStatuses":[{"name":"main","ready":true,"restartCount":0,"image":"busybox","imageID":"","state":{"running":{}}}]}}"#;
    let set = client
        .patch("/api/v1/namespaces/default/pods/p1/status", merge, running)
        .await;
    assert_code(&set, StatusCode::OK);
}

/// The kubelet: logs tell their request, exec runs an echo, uploads are counted.
async fn kubelet(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = |code: u16, text: String| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = StatusCode::from_u16(code).expect("a code");
        Ok(response)
    };
    let path = request.uri().path().to_owned();
    if path == "/containerLogs/default/p2/b" {
        return text(
            400,
            "container \"b\" in pod \"p2\" is waiting to start: ContainerCreating".to_owned(),
        );
    }
    if path.starts_with("/containerLogs/") {
        return text(200, format!("{}\n", request.uri()));
    }
    if path == "/images/import" {
        let mut count = 0;
        while let Some(frame) = request.body_mut().frame().await {
            count += frame
                .expect("a frame")
                .into_data()
                .map_or(0, |data| data.len());
        }
        return text(
            200,
            format!(
                "{} {count} bytes, authorization {:?}",
                request.method(),
                request.headers().get("authorization")
            ),
        );
    }
    match request
        .headers()
        .get("upgrade")
        .and_then(|it| it.to_str().ok())
    {
        Some("websocket") => Ok(web_socket(request)),
        Some("SPDY/3.1") => Ok(spdy(request)),
        _ => {
            // As the agent does: a refusal waits for the rest of the upload, or it would be lost on its way.
            while request.body_mut().frame().await.is_some() {}
            text(404, format!("no {path} here"))
        }
    }
}

/// Says back the request's query on stdout, then success, as `v5.channel.k8s.io` frames them.
fn web_socket(mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let key = request.headers()["sec-websocket-key"].as_bytes().to_vec();
    let said = format!("\u{1}{}\n", request.uri().query().unwrap_or_default());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let io = TokioIo::new(upgrade.await.expect("upgraded"));
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        let status = "\u{3}{\"metadata\":{},\"status\":\"Success\"}";
        for message in [said.into_bytes(), status.as_bytes().to_vec()] {
            socket
                .send(Message::Binary(message.into()))
                .await
                .expect("sent");
        }
        let normal = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        let _ = socket.close(Some(normal)).await;
    });
    Response::builder()
        .status(101)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", derive_accept_key(&key))
        .header("sec-websocket-protocol", "v5.channel.k8s.io")
        .body(Full::default())
        .expect("a response")
}

/// Says back every byte until the other side is done, then says so: enough to see bytes pass both ways.
fn spdy(mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let offered = request
        .headers()
        .get_all("x-stream-protocol-version")
        .iter()
        .count();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgrade.await.expect("upgraded"));
        let mut said = Vec::new();
        io.read_to_end(&mut said).await.expect("half closed");
        said.extend(format!(" {offered} offered").into_bytes());
        io.write_all(&said).await.expect("written");
        io.shutdown().await.expect("closed");
    });
    Response::builder()
        .status(101)
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", "v4.channel.k8s.io")
        .body(Full::default())
        .expect("a response")
}

#[tokio::test]
async fn logs_are_streamed_from_the_node() {
    let rig = Rig::start().await;
    let client = start_node(&rig).await;
    let pods = "/api/v1/namespaces/default/pods";
    let log = client
        .get(&format!("{pods}/p1/log?tailLines=10&follow=true"))
        .await;
    assert_code(&log, StatusCode::OK);
    assert_eq!(
        log.text(),
        "/containerLogs/default/p1/main?tailLines=10&follow=true\n"
    );
    assert_eq!(log.header("content-type"), "text/plain");
    let which = client.get(&format!("{pods}/p2/log")).await;
    assert_code(&which, StatusCode::BAD_REQUEST);
    assert_eq!(
        which.message(),
        "a container name must be specified for pod p2, choose one of: [a b]"
    );
    let waiting = client.get(&format!("{pods}/p2/log?container=b")).await;
    assert_code(&waiting, StatusCode::BAD_REQUEST);
    assert!(waiting.message().contains("ContainerCreating"));
    assert_code(
        &client.get(&format!("{pods}/nope/log")).await,
        StatusCode::NOT_FOUND,
    );
}

#[tokio::test]
async fn bytes_pass_both_ways_through_an_upgrade() {
    let rig = Rig::start().await;
    let client = start_node(&rig).await;
    let path = "/api/v1/namespaces/default/pods/p1/exec?command=cat&stdin=true";
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "SPDY/3.1"),
        ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ("x-stream-protocol-version", "v3.channel.k8s.io"),
    ];
    let response = client.open(Method::POST, path, &headers, "").await;
    assert_eq!(response.status(), 101);
    assert_eq!(
        response.headers()["x-stream-protocol-version"],
        "v4.channel.k8s.io"
    );
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.expect("upgraded"));
    let sent = vec![b'x'; 300_000];
    io.write_all(&sent).await.expect("written");
    io.shutdown().await.expect("half closed");
    let mut said = Vec::new();
    io.read_to_end(&mut said).await.expect("read");
    assert_eq!(said.len(), sent.len() + " 2 offered".len());
    assert!(said.ends_with(b" 2 offered"));
    let plain = client.post(path, "").await;
    assert_code(&plain, StatusCode::BAD_REQUEST);
    assert_eq!(plain.message(), "Upgrade request required");
}

#[tokio::test]
async fn the_node_proxy_streams_any_size() {
    let rig = Rig::start().await;
    start_node(&rig).await;
    for alpn in ["http/1.1", "h2"] {
        let client = rig.client(Some(&rig.admin), alpn);
        let path = "/api/v1/nodes/n1/proxy/images/import";
        let archive = vec![0_u8; 20 * 1024 * 1024];
        let headers = [("authorization", "Bearer secret")];
        let reply = client.call(Method::POST, path, &headers, archive).await;
        assert_eq!(reply.text(), "POST 20971520 bytes, authorization None");
        let refused = "/api/v1/nodes/n1/proxy/refused";
        let reply = client
            .call(Method::POST, refused, &[], vec![0_u8; 20 * 1024 * 1024])
            .await;
        assert_code(&reply, StatusCode::NOT_FOUND);
        assert_eq!(reply.text(), "no /refused here");
    }
    let absent = rig.admin().get("/api/v1/nodes/n1/proxy/other").await;
    assert_code(&absent, StatusCode::NOT_FOUND);
    assert_eq!(absent.text(), "no /other here");
}

#[tokio::test]
async fn a_silent_node_is_named() {
    let rig = Rig::start().await;
    let free = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let port = free.local_addr().expect("bound").port();
    drop(free);
    let client = rig.admin();
    place(&client, port).await;
    let reply = client.get("/api/v1/namespaces/default/pods/p1/log").await;
    assert_code(&reply, StatusCode::BAD_GATEWAY);
    let expected = format!("error dialing backend: node \"n1\" at 127.0.0.1:{port}: ");
    assert!(
        reply.message().starts_with(&expected),
        "{}",
        reply.message()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_reads_logs_and_runs_commands() {
    let rig = Rig::start().await;
    start_node(&rig).await;
    let newest = kubectls::all().pop().expect("at least one");
    let kubectl = Kubectl::new(&newest.program, &rig, "default");
    let log = kubectl.ok("logs p1 --tail=5").await;
    assert!(
        log.contains("/containerLogs/default/p1/main?tailLines=5"),
        "{log}"
    );
    let said = kubectl.ok("exec p1 -- echo hi").await;
    assert_eq!(said, "command=echo&command=hi&output=1&error=1\n");
}
