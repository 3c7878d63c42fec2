//! Custom kinds over HTTP and through the real kubectl. No controller runs here: the test establishes the definitions itself.

use crate::kubectl::Kubectl;
use crate::pki::Pki;
use crate::rig::{Client, Reply, Rig, assert_code};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const MERGE: &str = "application/merge-patch+json";

/// Does what the controllers do with a definition whose names nobody has, and waits until it is served.
async fn establish(client: &Client, name: &str) -> Duration {
    let path = format!("{DEFINITIONS}/{name}");
    let definition = client.get(&path).await.json();
    let spec = &definition["spec"];
    let condition =
        |kind: &str| json!({"type": kind, "status": "True", "reason": "Test", "message": ""});
    let status = json!({"status": {
        "acceptedNames": spec["names"],
        "conditions": [condition("NamesAccepted"), condition("Established")],
    }});
    let patched = client
        .patch(&format!("{path}/status"), MERGE, &status.to_string())
        .await;
    assert_code(&patched, StatusCode::OK);
    let (group, version) = (&spec["group"], &spec["versions"][0]["name"]);
    let path = format!(
        "/apis/{}/{}",
        group.as_str().unwrap(),
        version.as_str().unwrap()
    );
    let began = now();
    while client.get(&path).await.code != 200 {
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{path} is not served"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

fn now() -> Instant {
    Instant::now()
}

fn definition(versions: Value, conversion: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "jobs.work.example.com"},
        "spec": {
            "group": "work.example.com",
            "scope": "Namespaced",
            "names": {"plural": "jobs", "singular": "job", "kind": "Work", "shortNames": ["wk"]},
            "versions": versions,
            "conversion": conversion,
        },
    })
}

fn version(name: &str, storage: bool, field: &str) -> Value {
    json!({
        "name": name,
        "served": true,
        "storage": storage,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {field: {"type": "integer", "minimum": 1}}},
        }}},
    })
}

const WORKS: &str = "/apis/work.example.com/v1/namespaces/default/jobs";

#[tokio::test]
async fn a_definition_is_served_within_a_second_and_gone_with_it() {
    let rig = Rig::start().await;
    let admin = rig.admin();
    assert_code(&admin.get(WORKS).await, StatusCode::NOT_FOUND);
    let made = admin
        .post(
            DEFINITIONS,
            &definition(json!([version("v1", true, "size")]), Value::Null).to_string(),
        )
        .await;
    assert_code(&made, StatusCode::CREATED);
    let took = establish(&admin, "jobs.work.example.com").await;
    assert!(took < Duration::from_secs(1), "served after {took:?}");

    let listed = admin.get("/apis/work.example.com/v1").await.json();
    assert_eq!(listed["resources"][0]["kind"], "Work");
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    assert!(
        admin
            .get_as("/apis", aggregated)
            .await
            .text()
            .contains("work.example.com")
    );
    let index = admin.get("/openapi/v3").await.json();
    let address = index["paths"]["apis/work.example.com/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap()
        .to_owned();
    let document = admin.get(&address).await.json();
    let schema = &document["components"]["schemas"]["com.example.work.v1.Work"];
    assert_eq!(
        schema["properties"]["spec"]["properties"]["size"]["minimum"],
        1
    );
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Work");
    assert!(
        admin.get("/openapi/v2").await.json()["definitions"]["com.example.work.v1.Work"]
            .is_object()
    );

    let work = |size: i64| json!({"apiVersion": "work.example.com/v1", "kind": "Work", "metadata": {"name": "a"}, "spec": {"size": size}});
    let refused = admin.post(WORKS, &work(0).to_string()).await;
    assert_code(&refused, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        refused.message(),
        "Work.work.example.com \"a\" is invalid: spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"
    );
    assert_code(
        &admin.post(WORKS, &work(1).to_string()).await,
        StatusCode::CREATED,
    );
    assert_code(&admin.get(&format!("{WORKS}/a")).await, StatusCode::OK);

    let path = format!("{DEFINITIONS}/jobs.work.example.com");
    assert_code(
        &admin.call(Method::DELETE, &path, &[], "").await,
        StatusCode::OK,
    );
    let free = json!({"metadata": {"finalizers": null}}).to_string();
    assert_code(&admin.patch(&path, MERGE, &free).await, StatusCode::OK);
    let began = now();
    while admin.get(WORKS).await.code != 404 {
        assert!(began.elapsed() < Duration::from_secs(1), "still served");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_webhook_turns_one_version_into_another() {
    let rig = Rig::start().await;
    let admin = rig.admin();
    let pki = Pki::new();
    let hook = serve_conversion(&pki).await;
    let ca_bundle = STANDARD.encode(pki.ca_pem());
    let conversion = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"],
        "clientConfig": {"url": format!("https://127.0.0.1:{}/convert", hook.port()), "caBundle": ca_bundle},
    }});
    let versions = json!([version("v1", true, "size"), version("v2", false, "amount")]);
    let made = admin
        .post(DEFINITIONS, &definition(versions, conversion).to_string())
        .await;
    assert_code(&made, StatusCode::CREATED);
    establish(&admin, "jobs.work.example.com").await;
    let others = WORKS.replace("/v1/", "/v2/");
    let body = json!({"apiVersion": "work.example.com/v2", "kind": "Work", "metadata": {"name": "a"}, "spec": {"amount": 3}});
    let made = admin.post(&others, &body.to_string()).await;
    assert_code(&made, StatusCode::CREATED);
    assert_eq!(made.json()["spec"], json!({"amount": 3}));
    assert_eq!(
        admin.get(&format!("{WORKS}/a")).await.json()["spec"],
        json!({"size": 3})
    );
    let patch = json!({"spec": {"amount": 5}}).to_string();
    assert_code(
        &admin.patch(&format!("{others}/a"), MERGE, &patch).await,
        StatusCode::OK,
    );
    let list: Reply = admin.get(WORKS).await;
    assert_eq!(list.json()["items"][0]["spec"], json!({"size": 5}));
    let refused = json!({"spec": {"amount": 666}}).to_string();
    let failed = admin.patch(&format!("{others}/a"), MERGE, &refused).await;
    assert_code(&failed, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        failed.message().ends_with("failed: that is too much"),
        "{}",
        failed.message()
    );
}

/// A webhook that calls `spec.size` of v1 `spec.amount` in v2.
async fn serve_conversion(pki: &Pki) -> SocketAddr {
    let bundle = pki.issue("webhook", &[]);
    let (chain, key) = crate::pki::pem(&bundle);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(tcp).await else {
                continue;
            };
            let service = hyper::service::service_fn(convert);
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

async fn convert(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    let wanted = &review["request"]["desiredAPIVersion"];
    let mut objects = review["request"]["objects"].clone();
    let mut result = json!({"status": "Success"});
    for object in objects.as_array_mut().unwrap() {
        let spec = object["spec"].as_object_mut().unwrap();
        let (from, to) = if wanted == "work.example.com/v2" {
            ("size", "amount")
        } else {
            ("amount", "size")
        };
        let value = spec.remove(from).unwrap();
        if value == 666 {
            result = json!({"status": "Failure", "message": "that is too much"});
        }
        spec.insert(to.to_owned(), value);
        object["apiVersion"] = wanted.clone();
    }
    let answer = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": {
        "uid": review["request"]["uid"], "result": result, "convertedObjects": objects,
    }});
    Ok(Response::new(Full::new(Bytes::from(answer.to_string()))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_cannot_tell_it_from_a_built_in_kind() {
    let rig = Rig::start().await;
    let programs = kubectls::all();
    let mut wrong = Vec::new();
    for program in [programs.first().unwrap(), programs.last().unwrap()] {
        let kubectl = Kubectl::new(&program.program, &rig, "default");
        kubectl.ok("apply -f certificates.yaml").await;
        establish(&rig.admin(), "seals.trust.example.com").await;
        wrong.extend(kubectl.play("custom.txt").await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
