//! What probes, load balancers and Prometheus ask on the clients' port, by plain HTTP and gRPC's health protocol.

mod served;

use hyper::{Method, StatusCode, Version};
use rpc::health::health_check_response::ServingStatus;
use rpc::health::health_client::HealthClient;
use rpc::health::{HealthCheckRequest, HealthCheckResponse};
use serde_json::Value;
use served::Served;
use served::http::{ask, get};
use served::real::Etcd;
use std::time::Duration;

/// What a wait may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_answered_as_etcd_answers_it() {
    let (served, etcd) = (Served::new(1).await, Etcd::start().await);
    let address = served.addresses[0];
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let health = ask(address, Method::GET, "/health", version).await;
        assert_eq!(
            (health.status, &health.content_type[..], &health.text[..]),
            (
                StatusCode::OK,
                "application/json",
                r#"{"health":"true","reason":""}"#
            )
        );
    }
    let theirs: Value =
        serde_json::from_str(&get(etcd.address, "/health").await.text).expect("JSON");
    assert_eq!(theirs["health"], "true");
    for query in [
        "serializable=true",
        "exclude=NOSPACE",
        "serializable=true&exclude=CORRUPT",
    ] {
        let health = get(address, &format!("/health?{query}")).await;
        assert_eq!(health.status, StatusCode::OK, "{health:?}");
    }
    let (ours, theirs) = (
        get(address, "/version").await,
        get(etcd.address, "/version").await,
    );
    assert_eq!(ours.content_type, theirs.content_type);
    let names = |text: &str| {
        let value: Value = serde_json::from_str(text).expect("JSON");
        value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&ours.text), names(&theirs.text));
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/nothing"),
        (Method::GET, "/health/"),
        (Method::POST, "/nothing"),
    ] {
        let unknown = ask(address, method, path, Version::HTTP_11).await;
        assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{path}: {unknown:?}");
    }
    for path in [
        "/health",
        "/version",
        "/metrics",
        "/livez",
        "/readyz/data_corruption",
    ] {
        let posted = ask(address, Method::POST, path, Version::HTTP_11).await;
        assert_eq!(posted.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_are_told_one_by_one() {
    let served = Served::new(1).await;
    let address = served.addresses[0];
    assert_eq!(get(address, "/livez").await.text, "ok\n");
    assert_eq!(
        get(address, "/livez?verbose").await.text,
        "[+]serializable_read ok\nok\n"
    );
    assert_eq!(get(address, "/readyz").await.text, "ok\n");
    assert_eq!(
        get(address, "/readyz?verbose&exclude=linearizable_read")
            .await
            .text,
        "[+]data_corruption ok\n[+]serializable_read ok\n[+]non_learner ok\nok\n"
    );
    assert_eq!(get(address, "/readyz/linearizable_read").await.text, "ok\n");
    let unknown = get(address, "/livez/linearizable_read").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let metrics = get(address, "/metrics").await.text;
    for line in [
        r#"etcd_server_healthcheck{name="serializable_read",type="livez"} 1"#,
        r#"etcd_server_healthchecks_total{name="serializable_read",status="success",type="livez"} 2"#,
    ] {
        assert!(
            metrics.lines().any(|told| told == line),
            "{line} lacks in\n{metrics}"
        );
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_quorum_lives_and_is_not_ready() {
    let mut served = Served::three().await;
    let address = served.addresses[0];
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
    let channel = channel.expect("a URL").connect().await.expect("it listens");
    let mut health = HealthClient::new(channel);
    let ask = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    let mut watch = health.watch(ask("")).await.expect("a stream").into_inner();
    let mut next = async || {
        let told = tokio::time::timeout(PATIENCE, watch.message()).await;
        told.expect("in time").expect("no error").expect("no end")
    };
    let is = |status: ServingStatus| HealthCheckResponse {
        status: status.into(),
    };
    assert_eq!(next().await, is(ServingStatus::Serving));
    for service in ["", "etcdserverpb.KV"] {
        let told = health.check(ask(service)).await.expect("an answer");
        assert_eq!(told.into_inner(), is(ServingStatus::Serving));
    }
    let unknown = health.check(ask("nothing")).await.expect_err("unknown");
    assert_eq!(unknown.code(), tonic::Code::NotFound);

    for place in [1, 2] {
        served.cluster.kill(place).await;
    }
    assert_eq!(next().await, is(ServingStatus::NotServing));
    let told = get(address, "/health").await;
    assert_eq!(told.status, StatusCode::SERVICE_UNAVAILABLE, "{told:?}");
    let verdict: Value = serde_json::from_str(&told.text).expect("JSON");
    assert_eq!(verdict["health"], "false");
    assert!(!verdict["reason"].as_str().expect("a text").is_empty());
    for alive in [
        "/health?serializable=true",
        "/livez",
        "/readyz?exclude=linearizable_read",
    ] {
        let told = get(address, alive).await;
        assert_eq!(told.status, StatusCode::OK, "{alive}: {told:?}");
    }
    let unready = get(address, "/readyz").await;
    assert_eq!(unready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        unready.text.contains("[-]linearizable_read failed: "),
        "{unready:?}"
    );
    assert!(
        unready.text.contains("[+]serializable_read ok\n"),
        "{unready:?}"
    );
    let metrics = get(address, "/metrics").await.text;
    assert!(
        metrics.contains("etcd_server_health_failures 1\n"),
        "{metrics}"
    );
    served.stop().await;
}
