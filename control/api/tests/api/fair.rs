//! Who asks too much, sends too slowly, takes too slowly or sends bombs costs others nothing.

use crate::pki::Pki;
use crate::rig::{Client, Reply, Rig, Setup, assert_code};
use api::{ApiConfig, Limits};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FLOWS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

/// A server for people of the group `people`, who may read and write config maps.
async fn rig(config: ApiConfig) -> Rig {
    let setup = Setup {
        config,
        roles: true,
        ..Setup::default()
    };
    let rig = Rig::set_up(Pki::new(), setup).await;
    let made = rig.pipeline.ensure_default_flows().await;
    made.expect("the levels are written");
    let binding = json!({
        "metadata": {"name": "people"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "maps"},
        "subjects": [{"kind": "Group", "name": "people", "apiGroup": "rbac.authorization.k8s.io"}],
    });
    let role = json!({
        "metadata": {"name": "maps"},
        "rules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"]}],
    });
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    make(&rig, &format!("{rbac}/clusterroles"), &role).await;
    make(&rig, &format!("{rbac}/clusterrolebindings"), &binding).await;
    rig
}

async fn make(rig: &Rig, path: &str, object: &Value) -> Value {
    let made = rig.admin().post(path, &object.to_string()).await;
    assert_code(&made, StatusCode::CREATED);
    made.json()
}

fn person(rig: &Rig, name: &str, alpn: &'static str) -> Client {
    let pem = rig.pki.issue(name, &["people"]);
    rig.client(Some(&pem), alpn)
}

async fn make_maps(rig: &Rig, count: usize, bytes: usize) {
    let admin = rig.admin();
    for at in 0..count {
        let text = "x".repeat(bytes);
        let map = json!({"metadata": {"name": format!("m{at}")}, "data": {"a": text}});
        let made = admin.post(MAPS, &map.to_string()).await;
        assert_code(&made, StatusCode::CREATED);
    }
}

#[tokio::test]
async fn answers_tell_to_which_level_they_belong() {
    let rig = rig(ApiConfig::default()).await;
    let uid = |object: &Value| object["metadata"]["uid"].as_str().map(str::to_owned);
    let level = json!({
        "metadata": {"name": "mine"},
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"},
        }},
    });
    let level = make(
        &rig,
        &format!("{FLOWS}/prioritylevelconfigurations"),
        &level,
    )
    .await;
    let schema = json!({
        "metadata": {"name": "mine"},
        "spec": {
            "matchingPrecedence": 20, "priorityLevelConfiguration": {"name": "mine"},
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "ann"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}],
            }],
        },
    });
    let schema = make(&rig, &format!("{FLOWS}/flowschemas"), &schema).await;
    let (ann, bob) = (
        person(&rig, "ann", "http/1.1"),
        person(&rig, "bob", "http/1.1"),
    );
    let header = |reply: &Reply, kind: &str| {
        let name = format!("x-kubernetes-pf-{kind}-uid");
        Some(reply.header(&name).to_owned()).filter(|uid| !uid.is_empty())
    };
    let begun = Instant::now();
    let told = loop {
        let told = ann.get(MAPS).await;
        if header(&told, "flowschema") == uid(&schema) {
            break told;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            told.headers
        );
    };
    assert_eq!(header(&told, "prioritylevel"), uid(&level));
    // So does a refusal, and a watch.
    let refused = ann.get("/api/v1/namespaces/default/secrets").await;
    assert_code(&refused, StatusCode::FORBIDDEN);
    assert_eq!(header(&refused, "flowschema"), uid(&schema));
    let watch = ann
        .open(Method::GET, &format!("{MAPS}?watch=true"), &[], "")
        .await;
    assert_eq!(
        watch.headers()["x-kubernetes-pf-flowschema-uid"],
        uid(&schema).expect("a uid")
    );
    let other = bob.get(MAPS).await;
    assert!(header(&other, "flowschema").is_some());
    assert_ne!(header(&other, "flowschema"), uid(&schema));
    let metrics = rig.admin().get("/metrics").await.text();
    for line in [
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"mine\",priority_level=\"mine\"}",
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"mine\"} 12",
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1",
        "apiserver_longrunning_requests 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }
}

/// Requests of one connection of HTTP/2.
#[derive(Clone)]
struct Caller(SendRequest<Full<Bytes>>);

impl Caller {
    async fn connect(rig: &Rig, name: &str) -> Caller {
        let pem = rig.pki.issue(name, &["people"]);
        let tls = tokio_rustls::TlsConnector::from(Arc::new(rig.pki.client(Some(&pem), "h2")));
        let tcp = tokio::net::TcpStream::connect(rig.address).await;
        let name = "127.0.0.1".try_into().expect("a name");
        let stream = tls.connect(name, tcp.expect("listens")).await.expect("TLS");
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let shaken = hyper::client::conn::http2::handshake(executor, io).await;
        let (sender, connection) = shaken.expect("HTTP/2");
        tokio::spawn(connection);
        Caller(sender)
    }

    async fn list(&mut self) -> StatusCode {
        let request = Request::get(format!("https://127.0.0.1{MAPS}"));
        let request = request.body(Full::default()).expect("a request");
        let response = self.0.send_request(request).await.expect("an answer");
        let code = response.status();
        response.into_body().collect().await.expect("all of it");
        code
    }
}

/// How long each of so many requests, one after the other, takes; every one is served.
async fn times(rig: &Rig, name: &str, count: usize) -> Vec<Duration> {
    let mut caller = Caller::connect(rig, name).await;
    let mut times = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        assert_eq!(caller.list().await, StatusCode::OK);
        times.push(begun.elapsed());
    }
    times.sort();
    times
}

/// One user sends all that he can, more than is served; another one, of the same priority level, waits for what just runs and
/// not for what waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_user_does_not_starve_another() {
    const REQUESTS: usize = 60;
    let rig = rig(ApiConfig {
        requests_max: 20,
        ..ApiConfig::default()
    })
    .await;
    make_maps(&rig, 50, 2000).await;
    let alone = times(&rig, "calm", REQUESTS).await;
    let stop = Arc::new(AtomicBool::new(false));
    let refused = Arc::new(AtomicU64::new(0));
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let caller = Caller::connect(&rig, "flood").await;
        for _ in 0..180 {
            let (caller, stop, refused) = (caller.clone(), stop.clone(), refused.clone());
            flood.spawn(flood_until(caller, stop, refused));
        }
    }
    let begun = Instant::now();
    while refused.load(Ordering::Relaxed) == 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "nothing is refused"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let beside = times(&rig, "calm", REQUESTS).await;
    stop.store(true, Ordering::Relaxed);
    let mut drowned = Vec::new();
    while let Some(times) = flood.join_next().await {
        drowned.extend(times.expect("no answer is wrong"));
    }
    drowned.sort();
    let middle = |times: &[Duration]| times[times.len() / 2];
    let (alone, beside, drowned) = (middle(&alone), middle(&beside), middle(&drowned));
    println!(
        "medians: alone {alone:?}, beside the flood {beside:?}, of the flood itself {drowned:?}"
    );
    assert!(
        beside * 3 < drowned,
        "{beside:?} beside a flood that waits {drowned:?}"
    );
}

/// Asks again and again; how long each request took that was served.
async fn flood_until(
    mut caller: Caller,
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
) -> Vec<Duration> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        match caller.list().await {
            StatusCode::OK => times.push(begun.elapsed()),
            StatusCode::TOO_MANY_REQUESTS => {
                refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            other => panic!("{other}"),
        }
    }
    times
}

/// A body of which one byte comes and no more.
async fn dawdle(rig: &Rig) -> impl Sized {
    let pem = rig.pki.issue("slow", &["people"]);
    let tls = Arc::new(rig.pki.client(Some(&pem), "http/1.1"));
    let tcp = tokio::net::TcpStream::connect(rig.address).await;
    let name = "127.0.0.1".try_into().expect("a name");
    let mut stream = tokio_rustls::TlsConnector::from(tls)
        .connect(name, tcp.expect("listens"))
        .await
        .expect("TLS");
    let head = format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream
}

#[tokio::test]
async fn slow_senders_cost_others_nothing() {
    let rig = rig(ApiConfig {
        requests_max: 1,
        ..ApiConfig::default()
    })
    .await;
    let slow = [dawdle(&rig).await, dawdle(&rig).await, dawdle(&rig).await];
    let other = person(&rig, "other", "http/1.1");
    for _ in 0..5 {
        assert_code(&other.get(MAPS).await, StatusCode::OK);
    }
    drop(slow);
}

/// Of a user's own requests some are refused, with the time after which to try again.
#[tokio::test]
async fn too_many_requests_are_turned_away() {
    let rig = rig(ApiConfig {
        requests_max: 1,
        ..ApiConfig::default()
    })
    .await;
    let level = "/prioritylevelconfigurations/global-default";
    let changed = rig
        .admin()
        .patch(
            &format!("{FLOWS}{level}"),
            "application/merge-patch+json",
            r#"{"spec":{"limited":{"limitResponse":{"type":"Reject","queuing":null}}}}"#,
        )
        .await;
    assert_code(&changed, StatusCode::OK);
    let client = person(&rig, "ann", "h2");
    let calls = (0..100).map(|_| client.get(MAPS));
    let replies = futures::future::join_all(calls).await;
    for reply in &replies {
        match reply.code {
            200 => (),
            429 => {
                assert_eq!(reply.header("retry-after"), "1");
                assert_eq!(reply.json()["reason"], "TooManyRequests");
            }
            other => panic!("{other}: {}", reply.text()),
        }
    }
    assert!(replies.iter().any(|reply| reply.code == 200));
}

/// One user may not take all places of watches, and no flood of requests keeps a watch out.
#[tokio::test]
async fn one_flow_cannot_take_every_stream() {
    let rig = rig(ApiConfig {
        streams_max: 8,
        requests_max: 1,
        ..ApiConfig::default()
    })
    .await;
    let (ann, bob) = (
        person(&rig, "ann", "http/1.1"),
        person(&rig, "bob", "http/1.1"),
    );
    let path = format!("{MAPS}?watch=true");
    let mut open = Vec::new();
    for _ in 0..2 {
        let watch = ann.open(Method::GET, &path, &[], "").await;
        assert_eq!(watch.status(), StatusCode::OK);
        open.push(watch);
    }
    let refused = ann.get(&path).await;
    assert_code(&refused, StatusCode::TOO_MANY_REQUESTS);
    let watch = bob.open(Method::GET, &path, &[], "").await;
    assert_eq!(watch.status(), StatusCode::OK);
}

fn limits(of: Limits) -> ApiConfig {
    ApiConfig {
        requests_max: 20,
        client_limits: of,
        ..ApiConfig::default()
    }
}

/// Whoever takes nothing of a large answer is cut off, and the seat is free again.
#[tokio::test]
async fn who_does_not_take_his_answer_is_cut_off() {
    let default = ApiConfig::default().client_limits;
    let rig = rig(limits(Limits {
        piece: Duration::from_millis(500),
        ..default
    }))
    .await;
    // More than both ends' kernels take in.
    make_maps(&rig, 40, 900_000).await;
    let in_flight = || async {
        let metrics = rig.admin().get("/metrics").await.text();
        metrics.contains("apiserver_flowcontrol_current_executing_requests{flow_schema=\"global-default\",priority_level=\"global-default\"} 1")
    };
    for alpn in ["http/1.1", "h2"] {
        let slow = person(&rig, "slow", alpn);
        let answer = slow.open(Method::GET, MAPS, &[], "").await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(in_flight().await, "{alpn}");
        let begun = Instant::now();
        while in_flight().await {
            assert!(begun.elapsed() < Duration::from_secs(10), "{alpn}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(answer.into_body().collect().await.is_err(), "{alpn}");
    }
}

#[tokio::test]
async fn who_asks_nothing_is_sent_away() {
    let default = ApiConfig::default().client_limits;
    let rig = rig(limits(Limits {
        first_request: Duration::from_millis(200),
        next_request: Duration::from_millis(200),
        piece: Duration::from_millis(200),
        ..default
    }))
    .await;
    for alpn in ["http/1.1", "h2"] {
        let tls = Arc::new(rig.pki.client(None, alpn));
        let tcp = tokio::net::TcpStream::connect(rig.address).await;
        let name = "127.0.0.1".try_into().expect("a name");
        let connector = tokio_rustls::TlsConnector::from(tls);
        let stream = connector.connect(name, tcp.expect("listens")).await;
        let mut stream = stream.expect("TLS");
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
        assert!(ended.await.is_ok(), "{alpn}");
    }
    // One that asks is heard, and goes on as long as it does.
    let mut caller = Caller::connect(&rig, "ann").await;
    for _ in 0..10 {
        assert_eq!(caller.list().await, StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn bombs_are_refused() {
    let rig = rig(ApiConfig::default()).await;
    let ann = person(&rig, "ann", "http/1.1");
    let aliases: String = (1..30)
        .map(|at| {
            format!(
                "a{at}: &a{at} [{}]\n",
                vec![format!("*a{}", at - 1); 10].join(",")
            )
        })
        .collect();
    let bomb = format!("a0: &a0 [x]\n{aliases}kind: ConfigMap\napiVersion: v1\n");
    let deep = |open: &str, close: &str| {
        let depth = 200_000;
        format!("{{\"a\":{}{}}}", open.repeat(depth), close.repeat(depth))
    };
    let many = "- ".repeat(100_000);
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut zipped, &vec![b' '; 50 << 20]).expect("zips");
    let zipped = zipped.finish().expect("zips");
    let (json, yaml) = ("application/json", "application/yaml");
    let number = format!("{{\"data\":{{\"a\":1{}}}}}", "0".repeat(1_000_000));
    let bodies: [(&str, &str, Vec<u8>); 8] = [
        ("aliases", yaml, bomb.into_bytes()),
        ("deep lists", json, deep("[", "]").into_bytes()),
        (
            "deep maps",
            json,
            deep("{\"a\":", "}").replace(":}", ":1}").into_bytes(),
        ),
        ("deep YAML", yaml, many.into_bytes()),
        ("deep flow YAML", yaml, deep("[", "]").into_bytes()),
        ("a huge number", json, number.into_bytes()),
        (
            "a huge exponent",
            json,
            b"{\"data\":{\"a\":1e999999999}}".to_vec(),
        ),
        ("gzip", json, zipped),
    ];
    for (what, content_type, body) in bodies {
        let mut headers = vec![("content-type", content_type)];
        if what == "gzip" {
            headers.push(("content-encoding", "gzip"));
        }
        let begun = Instant::now();
        let refused = ann.call(Method::POST, MAPS, &headers, body).await;
        assert!(
            (400..500).contains(&refused.code),
            "{what}: {} {}",
            refused.code,
            refused.text()
        );
        assert_eq!(refused.json()["kind"], "Status", "{what}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{what}");
        assert!(
            refused.body.len() < 10_000,
            "{what}: {}",
            refused.body.len()
        );
    }
    // A quantity beyond all measure is cut to the largest one, as Kubernetes does.
    let claim = json!({
        "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1e999999999"}}},
    });
    let path = "/api/v1/namespaces/default/persistentvolumeclaims";
    let begun = Instant::now();
    let made = make(&rig, path, &claim).await;
    assert_eq!(made["metadata"]["name"], "c");
    assert!(begun.elapsed() < Duration::from_secs(5));
}
