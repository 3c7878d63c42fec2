//! Admission webhooks over the wire: a real HTTPS server that changes, refuses, warns, and takes its time.

use crate::pki::{Pki, pem};
use crate::rig::{Client, Rig};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A webhook server and what it was asked.
#[derive(Clone)]
struct Hooks {
    address: SocketAddr,
    bundle: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    connections: Arc<AtomicUsize>,
}

impl Hooks {
    async fn start() -> Hooks {
        let pki = Pki::new();
        let (chain, key) = pem(&pki.issue("webhook", &[]));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("fits");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let hooks = Hooks {
            address: listener.local_addr().expect("bound"),
            bundle: STANDARD.encode(pki.ca_pem()),
            asked: Arc::default(),
            connections: Arc::default(),
        };
        tokio::spawn(
            hooks
                .clone()
                .serve(listener, TlsAcceptor::from(Arc::new(tls))),
        );
        hooks
    }

    async fn serve(self, listener: TcpListener, acceptor: TlsAcceptor) {
        while let Ok((tcp, _)) = listener.accept().await {
            let (hooks, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else {
                    return;
                };
                hooks.connections.fetch_add(1, Ordering::SeqCst);
                let service = service_fn(|request| hooks.clone().answer(request));
                let _ended = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path().to_owned();
        assert_eq!(request.method(), Method::POST);
        let body = request.into_body().collect().await.expect("a body");
        let review: Value = serde_json::from_slice(&body.to_bytes()).expect("JSON");
        let asked = &review["request"];
        self.asked
            .lock()
            .expect("no panic")
            .push((path.clone(), asked.clone()));
        if path == "/slow" {
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        let mut response = decide(&path, asked);
        response["uid"] = asked["uid"].clone();
        let answer = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        Ok(Response::new(Full::new(answer.to_string().into())))
    }

    /// A webhook of this server about configmaps, with more members.
    fn hook(&self, name: &str, path: &str, more: Value) -> Value {
        let mut hook = json!({
            "name": format!("{name}.example.com"),
            "clientConfig": {"url": format!("https://{}{path}", self.address), "caBundle": self.bundle},
            "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
            "admissionReviewVersions": ["v1"], "sideEffects": "None",
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            hook[name] = value.clone();
        }
        hook
    }

    fn asked_at(&self, path: &str) -> Vec<Value> {
        let asked = self.asked.lock().expect("no panic");
        let at_path = asked.iter().filter(|(at, _)| at == path);
        at_path.map(|(_, review)| review.clone()).collect()
    }
}

fn decide(path: &str, asked: &Value) -> Value {
    let patch = |patch: Value| json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())});
    let data = asked["object"]["data"].as_object();
    match path {
        "/mark" => {
            patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"marked": "yes"}}]))
        }
        // Notes how many members it saw.
        "/count" => {
            let seen = data.map_or(0, serde_json::Map::len).to_string();
            patch(json!([{"op": "add", "path": "/metadata/annotations", "value": {"seen": seen}}]))
        }
        "/add" => patch(json!([{"op": "add", "path": "/data/added", "value": "by the webhook"}])),
        "/deny" => {
            json!({"allowed": false, "status": {"message": "not today", "code": 422, "reason": "Invalid"}})
        }
        "/warn" => {
            json!({"allowed": true, "warnings": ["mind the gap"], "auditAnnotations": {"key": "value"}})
        }
        _ => json!({"allowed": true}),
    }
}

async fn configure(admin: &Client, kind: &str, name: &str, hooks: Value) {
    let resource = format!("{}webhookconfigurations", kind.to_lowercase());
    let object = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
        "metadata": {"name": name}, "webhooks": hooks,
    });
    let made = admin
        .post(&format!("{GROUP}/{resource}"), &object.to_string())
        .await;
    assert_eq!(made.code, 201, "{}", made.text());
    assert_eq!(made.header("warning"), "");
}

fn configmap(name: &str) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
        .to_string()
}

#[tokio::test]
async fn a_webhook_changes_what_is_written_and_is_told_all() {
    let (rig, hooks) = (Rig::start().await, Hooks::start().await);
    let admin = rig.admin();
    configure(
        &admin,
        "Mutating",
        "m",
        json!([hooks.hook("mark", "/mark", json!({}))]),
    )
    .await;
    let made = admin.post(CONFIGMAPS, &configmap("a")).await;
    assert_eq!(made.code, 201, "{}", made.text());
    assert_eq!(made.json()["metadata"]["labels"]["marked"], "yes");
    let asked = &hooks.asked_at("/mark")[0];
    assert_eq!(asked["operation"], "CREATE");
    assert_eq!(
        asked["kind"],
        json!({"group": "", "version": "v1", "kind": "ConfigMap"})
    );
    assert_eq!(
        asked["resource"],
        json!({"group": "", "version": "v1", "resource": "configmaps"})
    );
    assert_eq!(
        (&asked["name"], &asked["namespace"]),
        (&json!("a"), &json!("default"))
    );
    assert_eq!(asked["userInfo"]["username"], "trireme:admin");
    assert_eq!(asked["object"]["data"]["a"], "b");
    assert_eq!(
        (&asked["oldObject"], &asked["dryRun"]),
        (&Value::Null, &json!(false))
    );
    assert_eq!(asked["options"]["kind"], "CreateOptions");

    // An update tells what was; what is asked as a dry run says so, and stays undone.
    let path = format!("{CONFIGMAPS}/a");
    let merge = "application/merge-patch+json";
    let dry = admin
        .patch(
            &format!("{path}?dryRun=All"),
            merge,
            r#"{"data":{"a":"c"}}"#,
        )
        .await;
    assert_eq!(dry.code, 200, "{}", dry.text());
    let asked = &hooks.asked_at("/mark")[1];
    assert_eq!(
        (&asked["operation"], &asked["dryRun"]),
        (&json!("UPDATE"), &json!(true))
    );
    assert_eq!(
        (
            &asked["oldObject"]["data"]["a"],
            &asked["object"]["data"]["a"]
        ),
        (&json!("b"), &json!("c"))
    );
    assert_eq!(admin.get(&path).await.json()["data"]["a"], "b");

    // A delete tells what goes.
    assert_eq!(admin.call(Method::DELETE, &path, &[], "").await.code, 200);
    let asked = hooks.asked_at("/mark").pop().expect("asked");
    assert_eq!(
        (&asked["operation"], &asked["object"]),
        (&json!("DELETE"), &Value::Null)
    );
    assert_eq!(asked["oldObject"]["metadata"]["name"], "a");
    assert_eq!(
        hooks.connections.load(Ordering::SeqCst),
        1,
        "one connection serves all calls"
    );
}

#[tokio::test]
async fn a_webhook_refuses_and_warns_in_its_own_words() {
    let (rig, hooks) = (Rig::start().await, Hooks::start().await);
    let admin = rig.admin();
    let labelled = json!({"objectSelector": {"matchLabels": {"deny": "me"}}});
    configure(
        &admin,
        "Validating",
        "v",
        json!([
            hooks.hook("warn", "/warn", json!({})),
            hooks.hook("deny", "/deny", labelled),
        ]),
    )
    .await;
    let made = admin.post(CONFIGMAPS, &configmap("fine")).await;
    assert_eq!(
        (made.code, made.header("warning")),
        (201, "299 - \"mind the gap\"")
    );
    let denied = json!({"metadata": {"name": "bad", "labels": {"deny": "me"}}}).to_string();
    let refused = admin.post(CONFIGMAPS, &denied).await;
    assert_eq!(refused.code, 422, "{}", refused.text());
    assert_eq!(
        refused.message(),
        "admission webhook \"deny.example.com\" denied the request: not today"
    );
    assert_eq!(refused.json()["reason"], "Invalid");
    assert_eq!(admin.get(&format!("{CONFIGMAPS}/bad")).await.code, 404);
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_is_passed_over_only_where_its_policy_says_so() {
    let (rig, hooks) = (Rig::start().await, Hooks::start().await);
    let admin = rig.admin();
    let slow = |policy: &str, label: &str| {
        let more = json!({"timeoutSeconds": 1, "failurePolicy": policy, "objectSelector": {"matchLabels": {"is": label}}});
        hooks.hook(label, "/slow", more)
    };
    configure(
        &admin,
        "Validating",
        "v",
        json!([slow("Fail", "strict"), slow("Ignore", "lax")]),
    )
    .await;
    let labelled =
        |label: &str| json!({"metadata": {"name": label, "labels": {"is": label}}}).to_string();
    let refused = admin.post(CONFIGMAPS, &labelled("strict")).await;
    assert_eq!(refused.code, 500, "{}", refused.text());
    assert_eq!(
        refused.message(),
        format!(
            "Internal error occurred: failed calling webhook \"strict.example.com\": failed to call webhook: Post \"https://{}/slow?timeout=1s\": context deadline exceeded",
            hooks.address
        )
    );
    let passed = admin.post(CONFIGMAPS, &labelled("lax")).await;
    assert_eq!(passed.code, 201, "{}", passed.text());
    assert_eq!(hooks.asked_at("/slow").len(), 2);
}

#[tokio::test]
async fn a_webhook_is_asked_again_after_others_if_it_wishes() {
    let (rig, hooks) = (Rig::start().await, Hooks::start().await);
    let admin = rig.admin();
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    configure(
        &admin,
        "Mutating",
        "a",
        json!([
            hooks.hook("count", "/count", again),
            hooks.hook("mark", "/mark", json!({})),
        ]),
    )
    .await;
    configure(
        &admin,
        "Mutating",
        "b",
        json!([hooks.hook("add", "/add", json!({}))]),
    )
    .await;
    let made = admin.post(CONFIGMAPS, &configmap("a")).await;
    assert_eq!(made.code, 201, "{}", made.text());
    let made = made.json();
    assert_eq!(made["data"]["added"], "by the webhook");
    assert_eq!(made["metadata"]["annotations"]["seen"], "2");
    let asked: Vec<String> = hooks
        .asked
        .lock()
        .expect("no panic")
        .iter()
        .map(|(path, _)| path.clone())
        .collect();
    assert_eq!(asked, ["/count", "/mark", "/add", "/count"]);
}

#[tokio::test]
async fn selectors_conditions_and_versions_choose_what_is_asked() {
    let (rig, hooks) = (Rig::start().await, Hooks::start().await);
    let admin = rig.admin();
    let made = admin
        .post(
            "/api/v1/namespaces",
            r#"{"metadata":{"name":"marked","labels":{"hooks":"yes"}}}"#,
        )
        .await;
    assert_eq!(made.code, 201);
    configure(&admin, "Validating", "v", json!([
        hooks.hook("ns", "/ns", json!({"namespaceSelector": {"matchLabels": {"hooks": "yes"}}})),
        hooks.hook("cel", "/cel", json!({"matchConditions": [
            {"name": "named", "expression": "object.metadata.name.startsWith('wanted')"},
            {"name": "by-admin", "expression": "request.userInfo.username == 'trireme:admin'"},
        ]})),
        hooks.hook("equivalent", "/equivalent", json!({"rules": [
            {"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"], "resources": ["horizontalpodautoscalers"]},
        ]})),
        hooks.hook("exact", "/exact", json!({"matchPolicy": "Exact", "rules": [
            {"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"], "resources": ["horizontalpodautoscalers"]},
        ]})),
    ]))
    .await;
    assert_eq!(admin.post(CONFIGMAPS, &configmap("here")).await.code, 201);
    assert_eq!(admin.post(CONFIGMAPS, &configmap("wanted")).await.code, 201);
    let there = "/api/v1/namespaces/marked/configmaps";
    assert_eq!(admin.post(there, &configmap("there")).await.code, 201);
    let names = |path: &str| -> Vec<Value> {
        let asked = hooks.asked_at(path);
        asked.iter().map(|asked| asked["name"].clone()).collect()
    };
    assert_eq!(names("/ns"), ["there"]);
    assert_eq!(names("/cel"), ["wanted"]);

    // The newer version of a kind is shown in the one that the rule names.
    let scaler = json!({"metadata": {"name": "s"}, "spec": {"maxReplicas": 3,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]}});
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let made = admin.post(path, &scaler.to_string()).await;
    assert_eq!(made.code, 201, "{}", made.text());
    let asked = &hooks.asked_at("/equivalent")[0];
    assert_eq!(asked["object"]["apiVersion"], "autoscaling/v1");
    assert_eq!(
        asked["object"]["spec"]["targetCPUUtilizationPercentage"],
        50
    );
    assert_eq!(
        (&asked["kind"]["version"], &asked["requestKind"]["version"]),
        (&json!("v1"), &json!("v2"))
    );
    assert!(hooks.asked_at("/exact").is_empty());
}

#[tokio::test]
async fn a_broken_webhook_for_everything_locks_nobody_out() {
    let (rig, hooks) = (Rig::start().await, Hooks::start().await);
    let admin = rig.admin();
    let everything = json!({
        "clientConfig": {"url": "https://127.0.0.1:9/nobody", "caBundle": hooks.bundle},
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}],
    });
    for kind in ["Validating", "Mutating"] {
        configure(
            &admin,
            kind,
            "broken",
            json!([hooks.hook("all", "/", everything.clone())]),
        )
        .await;
    }
    let refused = admin.post(CONFIGMAPS, &configmap("a")).await;
    assert_eq!(refused.code, 500, "{}", refused.text());
    assert!(
        refused
            .message()
            .contains("failed calling webhook \"all.example.com\""),
        "{}",
        refused.text()
    );
    for kind in ["validating", "mutating"] {
        let path = format!("{GROUP}/{kind}webhookconfigurations/broken");
        let deleted = admin.call(Method::DELETE, &path, &[], "").await;
        assert_eq!(deleted.code, 200, "{}", deleted.text());
    }
    assert_eq!(admin.post(CONFIGMAPS, &configmap("a")).await.code, 201);
}

#[tokio::test]
async fn a_webhook_that_cannot_be_trusted_is_not_asked() {
    let (rig, hooks) = (Rig::start().await, Hooks::start().await);
    let admin = rig.admin();
    let other = STANDARD.encode(Pki::new().ca_pem());
    let url = format!("https://{}/mark", hooks.address);
    let more = json!({"clientConfig": {"url": url, "caBundle": other}});
    configure(
        &admin,
        "Mutating",
        "m",
        json!([hooks.hook("mark", "/mark", more)]),
    )
    .await;
    let refused = admin.post(CONFIGMAPS, &configmap("a")).await;
    assert_eq!(refused.code, 500, "{}", refused.text());
    assert!(
        refused.message().contains("invalid peer certificate"),
        "{}",
        refused.text()
    );
    assert!(hooks.asked_at("/mark").is_empty());
}

#[tokio::test]
async fn a_webhook_is_asked_about_connections() {
    let (rig, hooks) = (Rig::start().await, Hooks::start().await);
    let admin = rig.admin();
    let connects = json!({"rules": [
        {"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]}]});
    let hook = hooks.hook("deny", "/deny", connects);
    configure(&admin, "Validating", "v", json!([hook])).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"a","image":"i"}]}}"#;
    assert_eq!(admin.post(pods, pod).await.code, 201);
    let path = format!("{pods}/p/exec?command=ls&command=-l&stdout=true&container=a");
    let refused = admin.get(&path).await;
    assert_eq!(refused.code, 422, "{}", refused.text());
    assert!(refused.message().contains("denied the request: not today"));
    let asked = &hooks.asked_at("/deny")[0];
    assert_eq!(
        (
            &asked["operation"],
            &asked["subResource"],
            &asked["name"],
            &asked["namespace"]
        ),
        (
            &json!("CONNECT"),
            &json!("exec"),
            &json!("p"),
            &json!("default")
        )
    );
    assert_eq!(asked["kind"]["kind"], "PodExecOptions");
    let options = json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdout": true, "container": "a", "command": ["ls", "-l"]});
    assert_eq!(
        (&asked["object"], &asked["oldObject"]),
        (&options, &Value::Null)
    );
}
