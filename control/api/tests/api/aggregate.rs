//! API services: a server of another group behind a service of the cluster, asked through the API server by clients and the real
//! kubectl.

use crate::kubectl::Kubectl;
use crate::node::start_node_with;
use crate::pki::{Pki, pem};
use crate::rig::{Client, Reply, Rig, Setup, assert_code};
use api::ApiConfig;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

const GROUP: &str = "/apis/wardle.example.com";
const VERSION: &str = "/apis/wardle.example.com/v1alpha1";
const FLUNDERS: &str = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";
const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1alpha1.wardle.example.com";
const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The extension server: who vouches for it, and for the front proxy.
struct Extension {
    pki: Pki,
    front_proxy: Pki,
    acceptor: TlsAcceptor,
    flunders: Mutex<Vec<Value>>,
}

/// One for the process: the agent below is a plain function.
fn extension() -> &'static Extension {
    static EXTENSION: OnceLock<Extension> = OnceLock::new();
    EXTENSION.get_or_init(|| {
        let (pki, front_proxy) = (Pki::new(), Pki::new());
        let (chain, key) = pem(&pki.issue_for("wardle", &[], &["wardle.default.svc"]));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(front_proxy.roots());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a CA"))
            .with_single_cert(chain, key)
            .expect("fits");
        Extension {
            acceptor: TlsAcceptor::from(Arc::new(tls)),
            pki,
            front_proxy,
            flunders: Mutex::default(),
        }
    })
}

/// The agent's `/connect`: the pod is the extension server.
async fn agent(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    if request.uri() != "/connect/default/p1/8443?address=10.1.2.3" {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return Ok(response);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let io = TokioIo::new(upgrade.await.expect("upgraded"));
        // A handshake without the front proxy's certificate ends here.
        if let Ok(stream) = extension().acceptor.accept(io).await {
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(serve))
                .await;
        }
    });
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("connection", "Upgrade".parse().expect("a header"));
    headers.insert("upgrade", "tcp".parse().expect("a header"));
    Ok(response)
}

async fn serve(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let texts = |name: &str| -> Vec<String> {
        let values = parts.headers.get_all(name).iter();
        values
            .map(|it| it.to_str().expect("text").to_owned())
            .collect()
    };
    let answer = |code: u16, value: Value| {
        let response = Response::builder()
            .status(code)
            .header("content-type", "application/json")
            .body(Full::from(value.to_string()));
        Ok(response.expect("a response"))
    };
    let schema = json!({"type": "object", "description": "A flunder is what wardle keeps.",
        "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
            "spec": {"type": "object", "properties": {"reference": {"type": "string", "description": "Where it is."}}}},
        "x-kubernetes-group-version-kind": [{"group": "wardle.example.com", "version": "v1alpha1", "kind": "Flunder"}]});
    let path = parts.uri.path();
    match (&parts.method, path) {
        (_, VERSION) => answer(
            200,
            json!({
                "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1",
                "resources": [
                    {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                        "verbs": ["create", "get", "list"], "shortNames": ["fl"]},
                    {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"]},
                ],
            }),
        ),
        (_, "/openapi/v3") => answer(
            200,
            json!({"paths": {
                "apis/wardle.example.com/v1alpha1": {"serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=1"},
            }}),
        ),
        (_, "/openapi/v3/apis/wardle.example.com/v1alpha1") => answer(
            200,
            json!({
                "openapi": "3.0.0", "info": {"title": "wardle", "version": "1"},
                "paths": {FLUNDERS.replace("default", "{namespace}"): {"get": {
                    "x-kubernetes-action": "list",
                    "x-kubernetes-group-version-kind": {"group": "wardle.example.com", "version": "v1alpha1", "kind": "Flunder"},
                    "responses": {"200": {"description": "OK"}},
                }}},
                "components": {"schemas": {"com.example.wardle.v1alpha1.Flunder": schema}},
            }),
        ),
        (&Method::POST, FLUNDERS) => {
            let mut flunder: Value = serde_json::from_slice(&body).expect("JSON");
            flunder["metadata"]["namespace"] = json!("default");
            let by = texts("x-remote-user").join(",");
            flunder["metadata"]["annotations"] = json!({"by": by});
            extension()
                .flunders
                .lock()
                .expect("no panic")
                .push(flunder.clone());
            answer(201, flunder)
        }
        (&Method::GET, FLUNDERS) => {
            let items = extension().flunders.lock().expect("no panic").clone();
            answer(
                200,
                json!({"kind": "FlunderList", "apiVersion": "wardle.example.com/v1alpha1",
                "metadata": {"resourceVersion": "1"}, "items": items}),
            )
        }
        _ => answer(
            404,
            json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound",
                "message": format!("{path} for {:?} of {:?}, authorization {:?}, cookie {:?}, scopes {:?}",
                    texts("x-remote-user"), texts("x-remote-group"), texts("authorization"), texts("cookie"),
                    texts("x-remote-extra-scopes")),
            }),
        ),
    }
}

/// The service `wardle` with an endpoint, if it is to have one.
async fn place(client: &Client) {
    let running = json!({"status": {"phase": "Running", "podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}]}});
    let merge = "application/merge-patch+json";
    let pod = "/api/v1/namespaces/default/pods/p1/status";
    assert_code(
        &client.patch(pod, merge, &running.to_string()).await,
        StatusCode::OK,
    );
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "wardle"},
        "spec": {"ports": [{"name": "https", "port": 443}]}});
    let made = client
        .post("/api/v1/namespaces/default/services", &service.to_string())
        .await;
    assert_code(&made, StatusCode::CREATED);
    let slice = json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": "wardle-1", "labels": {"kubernetes.io/service-name": "wardle"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.2.3"], "conditions": {"ready": true}, "nodeName": "n1",
            "targetRef": {"kind": "Pod", "name": "p1", "namespace": "default"}}],
        "ports": [{"name": "https", "port": 8443, "protocol": "TCP"}]});
    let made = client.post(SLICES, &slice.to_string()).await;
    assert_code(&made, StatusCode::CREATED);
}

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

fn service() -> Value {
    json!({"kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1", "metadata": {"name": NAME},
        "spec": {"group": "wardle.example.com", "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
            "service": {"namespace": "default", "name": "wardle"}, "caBundle": STANDARD.encode(extension().pki.ca_pem())}})
}

/// Waits until the condition `Available` has this reason.
async fn until(client: &Client, reason: &str) -> Value {
    for _ in 0..100 {
        let found = client.get(&format!("{SERVICES}/{NAME}")).await.json();
        let condition = found["status"]["conditions"][0].clone();
        if condition["reason"] == reason {
            return condition;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!(
        "never {reason}: {}",
        client.get(&format!("{SERVICES}/{NAME}")).await.text()
    );
}

async fn install(rig: &Rig) -> Client {
    let front_proxy = extension().front_proxy.issue("front-proxy-client", &[]);
    rig.server.prove_by(&front_proxy).expect("PEM");
    let client = start_node_with(rig, agent).await;
    let made = client.post(SERVICES, &service().to_string()).await;
    assert_code(&made, StatusCode::CREATED);
    client
}

fn is_503(reply: &Reply) {
    assert_code(reply, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.text(), "service unavailable\n");
}

#[tokio::test]
async fn a_server_of_another_group_is_asked_in_the_callers_name() {
    let setup = Setup {
        config: ApiConfig::default(),
        roles: true,
        ..Setup::default()
    };
    let rig = Rig::set_up(Pki::new(), setup).await;
    let client = install(&rig).await;
    let condition = until(&client, "ServiceNotFound").await;
    assert_eq!(
        condition["message"],
        "service/wardle in \"default\" is not present"
    );
    is_503(&client.get(FLUNDERS).await);
    place(&client).await;
    assert_eq!(
        until(&client, "Passed").await["message"],
        "all checks passed"
    );

    // Discovery and schemas.
    let groups = client.get("/apis").await.json();
    let listed = groups["groups"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|group| &group["name"]);
    assert!(listed.into_iter().any(|name| name == "wardle.example.com"));
    assert_eq!(
        client.get(GROUP).await.json()["preferredVersion"]["version"],
        "v1alpha1"
    );
    let aggregated = client.get_as("/apis", V2).await.json();
    let mut group = aggregated["items"].as_array().expect("a list").iter();
    let group = group
        .find(|it| it["metadata"]["name"] == "wardle.example.com")
        .expect("is told");
    assert_eq!(
        group["versions"],
        json!([{"version": "v1alpha1", "freshness": "Current", "resources": [{
            "resource": "flunders", "singularResource": "flunder", "scope": "Namespaced", "shortNames": ["fl"],
            "responseKind": {"group": "wardle.example.com", "version": "v1alpha1", "kind": "Flunder"},
            "verbs": ["create", "get", "list"],
            "subresources": [{"subresource": "status", "verbs": ["get"],
                "responseKind": {"group": "wardle.example.com", "version": "v1alpha1", "kind": "Flunder"}}],
        }]}])
    );
    assert_eq!(client.get(VERSION).await.json()["kind"], "APIResourceList");
    let definition = "com.example.wardle.v1alpha1.Flunder";
    let v2 = client.get("/openapi/v2").await.json();
    assert_eq!(
        v2["definitions"][definition]["properties"]["spec"]["properties"]["reference"]["type"],
        "string"
    );

    // Who asks is told, and nothing of what he claims.
    let headers = [
        ("x-remote-user", "root"),
        ("x-remote-extra-scopes", "all"),
        ("cookie", "a=b"),
    ];
    let asked = client
        .call(
            Method::GET,
            &format!("{FLUNDERS}/x/deep/er/still"),
            &headers,
            "",
        )
        .await;
    assert_code(&asked, StatusCode::NOT_FOUND);
    assert_eq!(
        asked.message(),
        format!(
            "{FLUNDERS}/x/deep/er/still for [\"trireme:admin\"] of [\"system:masters\", \"system:authenticated\"], authorization [], cookie [], scopes []"
        )
    );
    let ann = rig.pki.issue("ann", &["devs"]);
    let ann = rig.client(Some(&ann), "h2");
    let refused = ann.get(FLUNDERS).await;
    assert_code(&refused, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.message(),
        "flunders.wardle.example.com is forbidden: User \"ann\" cannot list resource \"flunders\" in API group \"wardle.example.com\" in the namespace \"default\""
    );
    let role = json!({"kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "flunders"},
        "rules": [{"apiGroups": ["wardle.example.com"], "resources": ["flunders"], "verbs": ["create"]}]});
    let binding = json!({"kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "flunders"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "flunders"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]});
    for (resource, object) in [("roles", role), ("rolebindings", binding)] {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/default/{resource}");
        assert_code(
            &client.post(&path, &object.to_string()).await,
            StatusCode::CREATED,
        );
    }
    let two = json!({"kind": "Flunder", "apiVersion": "wardle.example.com/v1alpha1", "metadata": {"name": "two"}});
    let made = ann.post(FLUNDERS, &two.to_string()).await;
    assert_code(&made, StatusCode::CREATED);
    assert_eq!(made.json()["metadata"]["annotations"]["by"], "ann");

    for version in kubectls::all() {
        let kubectl = Kubectl::new(&version.program, &rig, "default");
        let wrong = kubectl.play("apiservices.txt").await;
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    // Without endpoints it is not available, and its resources are told as they were.
    let gone = client
        .call(Method::DELETE, &format!("{SLICES}/wardle-1"), &[], "")
        .await;
    assert_code(&gone, StatusCode::OK);
    is_503(&client.get(FLUNDERS).await);
    until(&client, "EndpointsNotFound").await;
    let stale = client.get_as("/apis", V2).await.text();
    assert!(stale.contains("\"freshness\":\"Stale\""), "{stale}");

    // Once its API service is gone, so is the group.
    let gone = client
        .call(Method::DELETE, &format!("{SERVICES}/{NAME}"), &[], "")
        .await;
    assert_code(&gone, StatusCode::OK);
    for _ in 0..100 {
        if client.get(GROUP).await.code == 404 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the group is still told");
}

#[tokio::test]
async fn a_server_that_proves_the_wrong_thing_is_not_asked() {
    let rig = Rig::start().await;
    let client = install(&rig).await;
    place(&client).await;
    until(&client, "Passed").await;
    let bundle = json!({"spec": {"caBundle": STANDARD.encode(Pki::new().ca_pem())}});
    let merge = "application/merge-patch+json";
    let at = format!("{SERVICES}/{NAME}");
    assert_code(
        &client.patch(&at, merge, &bundle.to_string()).await,
        StatusCode::OK,
    );
    let condition = until(&client, "FailedDiscoveryCheck").await;
    let message = condition["message"].as_str().expect("a text");
    assert!(
        message.starts_with("failing or missing response from https://wardle.default.svc/apis/"),
        "{message}"
    );
    is_503(&client.get(FLUNDERS).await);
    let skips = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    assert_code(
        &client.patch(&at, merge, &skips.to_string()).await,
        StatusCode::OK,
    );
    until(&client, "Passed").await;
    // Another front proxy's word counts for nothing there.
    let stranger = Pki::new().issue("front-proxy-client", &[]);
    rig.server.prove_by(&stranger).expect("PEM");
    until(&client, "FailedDiscoveryCheck").await;
}

#[tokio::test]
async fn an_api_service_is_checked() {
    let rig = Rig::start().await;
    let client = rig.admin();
    let refused = async |edit: &dyn Fn(&mut Value)| {
        let mut object = service();
        edit(&mut object);
        let reply = client.post(SERVICES, &object.to_string()).await;
        assert_code(&reply, StatusCode::UNPROCESSABLE_ENTITY);
        reply.message()
    };
    let told = refused(&|it| it["metadata"]["name"] = json!("v1.other.io")).await;
    assert!(
        told.contains(
            "metadata.name: Invalid value: \"v1.other.io\": must be `spec.version+\".\"+spec.group`"
        ),
        "{told}"
    );
    let told = refused(&|it| it["spec"]["groupPriorityMinimum"] = json!(20_001)).await;
    assert!(
        told.contains(
            "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000"
        ),
        "{told}"
    );
    let told = refused(&|it| it["spec"]["insecureSkipTLSVerify"] = json!(true)).await;
    assert!(told.contains("spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present"), "{told}");
    let told = refused(&|it| it["spec"]["service"] = Value::Null).await;
    assert!(
        told.contains("spec.caBundle: Forbidden: local APIServices may not have a caBundle"),
        "{told}"
    );
}
