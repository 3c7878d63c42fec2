//! Who asks and what he may: kubectl's own questions, tokens, impersonation, an OpenID Connect issuer.

use crate::kubectl::Kubectl;
use crate::pki::Pki;
use crate::rig::{Client, Reply, Rig, Setup, assert_code};
use api::{Oidc, OidcConfig, TokenKeys};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

async fn rig() -> Rig {
    Rig::set_up(
        Pki::new(),
        Setup {
            roles: true,
            ..Setup::default()
        },
    )
    .await
}

/// A request with a token and nothing else.
async fn with_token(rig: &Rig, token: &str, method: Method, path: &str, body: &str) -> Reply {
    let client: Client = rig.client(None, "http/1.1");
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    client.call(method, path, &headers, body.to_owned()).await
}

async fn make(rig: &Rig, path: &str, object: &Value) -> Value {
    let made = rig.admin().post(path, &object.to_string()).await;
    assert_code(&made, StatusCode::CREATED);
    made.json()
}

async fn account(rig: &Rig, name: &str) -> Value {
    make(rig, ACCOUNTS, &json!({"metadata": {"name": name}})).await
}

async fn token(rig: &Rig, account: &str, spec: Value) -> Reply {
    let path = format!("{ACCOUNTS}/{account}/token");
    let request = json!({"spec": spec}).to_string();
    rig.admin().post(&path, &request).await
}

fn token_of(reply: &Reply) -> String {
    assert_code(reply, StatusCode::CREATED);
    let text = reply.json()["status"]["token"].as_str().map(str::to_owned);
    text.expect("a token")
}

async fn whoami(rig: &Rig, token: &str) -> Reply {
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    with_token(rig, token, Method::POST, path, "{}").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kubectl_asks_what_it_may() {
    let rig = rig().await;
    let programs = kubectls::all();
    let stories = programs.iter().enumerate().map(|(index, program)| {
        let namespace = format!("v{index}");
        let kubectl = Kubectl::new(&program.program, &rig, &namespace);
        async move {
            kubectl.ok(&format!("create namespace {namespace}")).await;
            let mut wrong = kubectl.play("access.txt").await;
            // The kind became stable in 1.28.
            if program.minor >= 28 {
                let shown = kubectl
                    .ok("auth whoami --as ann --as-group devs --as-uid 7 -o json")
                    .await;
                let shown: Value = serde_json::from_str(&shown).expect("JSON");
                let told = &shown["status"]["userInfo"];
                let wanted = json!({"username": "ann", "groups": ["devs", "system:authenticated"], "uid": "7"});
                if *told != wanted {
                    wrong.push(format!("whoami tells {told}"));
                }
            }
            wrong
        }
    });
    let wrong = futures::future::join_all(stories).await.concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // One after the other: they write the same objects, and give up when those change meanwhile.
    for program in &programs {
        let kubectl = Kubectl::new(&program.program, &rig, "default");
        let shown = kubectl.ok("auth reconcile -f roles.yaml").await;
        for kind in ["role", "rolebinding"] {
            let line = format!("{kind}.rbac.authorization.k8s.io/robot reconciled");
            assert!(shown.contains(&line), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_service_account_is_known_by_its_token() {
    let rig = rig().await;
    let made = account(&rig, "robot").await;
    let granted = token(&rig, "robot", json!({})).await;
    let robot = token_of(&granted);
    assert_eq!(granted.json()["spec"]["expirationSeconds"], 3600);
    let told = whoami(&rig, &robot).await;
    assert_code(&told, StatusCode::CREATED);
    let told = &told.json()["status"]["userInfo"];
    assert_eq!(told["username"], "system:serviceaccount:default:robot");
    assert_eq!(told["uid"], made["metadata"]["uid"]);
    assert_eq!(
        told["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:default",
            "system:authenticated"
        ])
    );
    // It may what a binding says, within a second.
    let pods = "/api/v1/namespaces/default/pods";
    let refused = with_token(&rig, &robot, Method::GET, pods, "").await;
    assert_code(&refused, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.message(),
        "pods is forbidden: User \"system:serviceaccount:default:robot\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    make(
        &rig,
        &format!("{rbac}/roles"),
        &json!({"metadata": {"name": "r"}, "rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]}),
    )
    .await;
    let binding = json!({
        "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}],
    });
    make(&rig, &format!("{rbac}/rolebindings"), &binding).await;
    let allowed = with_token(&rig, &robot, Method::GET, pods, "").await;
    assert_code(&allowed, StatusCode::OK);
    // Its keys are published to accounts.
    let issuer = "/.well-known/openid-configuration";
    let configuration = with_token(&rig, &robot, Method::GET, issuer, "").await;
    assert_code(&configuration, StatusCode::OK);
    assert_eq!(
        configuration.json()["issuer"],
        "https://kubernetes.default.svc.cluster.local"
    );
    let keys = with_token(&rig, &robot, Method::GET, "/openid/v1/jwks", "").await;
    assert_eq!(keys.json()["keys"][0]["alg"], "ES256");
    // New keys sign; the old one goes on to verify until it is gone.
    let (old, new) = (TokenKeys::generate(), TokenKeys::generate());
    let (old, new) = (old.expect("a key"), new.expect("a key"));
    rig.token_keys
        .replace(std::slice::from_ref(&old))
        .expect("usable");
    let by_old = token_of(&token(&rig, "robot", json!({})).await);
    rig.token_keys.replace(&[new.clone(), old]).expect("usable");
    assert_code(&whoami(&rig, &by_old).await, StatusCode::CREATED);
    assert_code(&whoami(&rig, &robot).await, StatusCode::UNAUTHORIZED);
    let by_new = token_of(&token(&rig, "robot", json!({})).await);
    rig.token_keys.replace(&[new]).expect("usable");
    assert_code(&whoami(&rig, &by_old).await, StatusCode::UNAUTHORIZED);
    assert_code(&whoami(&rig, &by_new).await, StatusCode::CREATED);
    // Without its account it is nothing.
    let gone = rig.admin();
    let gone = gone
        .call(Method::DELETE, &format!("{ACCOUNTS}/robot"), &[], "")
        .await;
    assert_code(&gone, StatusCode::OK);
    assert_code(&whoami(&rig, &by_new).await, StatusCode::UNAUTHORIZED);
    account(&rig, "robot").await;
    assert_code(&whoami(&rig, &by_new).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_token_is_for_its_audience_and_ends_with_its_pod() {
    let rig = rig().await;
    account(&rig, "robot").await;
    account(&rig, "other").await;
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]},
    });
    let pods = "/api/v1/namespaces/default/pods";
    let pod = make(&rig, pods, &pod).await;
    let uid = &pod["metadata"]["uid"];
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid});
    let elsewhere = token_of(
        &token(
            &rig,
            "robot",
            json!({"audiences": ["vault"], "boundObjectRef": bound}),
        )
        .await,
    );
    assert_code(&whoami(&rig, &elsewhere).await, StatusCode::UNAUTHORIZED);
    let review = |audiences: Value| {
        let spec = json!({"spec": {"token": elsewhere, "audiences": audiences}}).to_string();
        let admin = rig.admin();
        async move {
            let path = "/apis/authentication.k8s.io/v1/tokenreviews";
            let reviewed = admin.post(path, &spec).await;
            assert_code(&reviewed, StatusCode::CREATED);
            reviewed.json()["status"].clone()
        }
    };
    let known = review(json!(["vault", "x"])).await;
    assert_eq!(known["authenticated"], true, "{known}");
    assert_eq!(known["audiences"], json!(["vault"]));
    let extra = &known["user"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["p"]));
    assert_eq!(review(json!(["x"])).await["authenticated"], false);
    // Neither another account's pod nor another pod of the name.
    let refused = token(&rig, "other", json!({"boundObjectRef": bound})).await;
    assert_code(&refused, StatusCode::BAD_REQUEST);
    let mut stale = bound.clone();
    stale["uid"] = json!("other");
    let refused = token(&rig, "robot", json!({"boundObjectRef": stale})).await;
    assert_code(&refused, StatusCode::CONFLICT);
    let gone = rig.admin();
    let gone = gone
        .call(
            Method::DELETE,
            &format!("{pods}/p?gracePeriodSeconds=0"),
            &[],
            "",
        )
        .await;
    assert_code(&gone, StatusCode::OK);
    assert_eq!(review(json!(["vault"])).await["authenticated"], false);
}

#[tokio::test]
async fn who_proves_nothing_is_anonymous_and_a_false_proof_is_refused() {
    let rig = rig().await;
    let nobody = rig.client(None, "http/1.1");
    for open in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_code(&nobody.get(open).await, StatusCode::OK);
    }
    for closed in [
        "/api",
        "/apis",
        "/metrics",
        "/openapi/v2",
        "/cluster/v1/status",
    ] {
        let refused = nobody.get(closed).await;
        assert_code(&refused, StatusCode::FORBIDDEN);
        let why = format!("forbidden: User \"system:anonymous\" cannot get path {closed:?}");
        assert_eq!(refused.message(), why);
    }
    let refused = nobody.get("/api/v1/pods").await;
    assert_code(&refused, StatusCode::FORBIDDEN);
    for false_proof in ["x", "a.b.c", "abcdef.0123456789abcdef"] {
        let refused = with_token(&rig, false_proof, Method::GET, "/api", "").await;
        assert_code(&refused, StatusCode::UNAUTHORIZED);
    }
    let basic = [("authorization", "Basic YTpi")];
    let refused = nobody.call(Method::GET, "/api", &basic, "").await;
    assert_code(&refused, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_bootstrap_token_opens_what_bootstrappers_may() {
    let rig = rig().await;
    let secret = |id: &str, expiration: &str| {
        json!({
            "metadata": {"name": format!("bootstrap-token-{id}")},
            "type": "bootstrap.kubernetes.io/token",
            "stringData": {
                "token-id": id, "token-secret": "0123456789abcdef", "expiration": expiration,
                "usage-bootstrap-authentication": "true",
                "auth-extra-groups": "system:bootstrappers:workers",
            },
        })
    };
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    make(&rig, secrets, &secret("abcdef", "2099-01-01T00:00:00Z")).await;
    make(&rig, secrets, &secret("expire", "2020-01-01T00:00:00Z")).await;
    let told = whoami(&rig, "abcdef.0123456789abcdef").await;
    assert_code(&told, StatusCode::CREATED);
    let told = &told.json()["status"]["userInfo"];
    assert_eq!(told["username"], "system:bootstrap:abcdef");
    assert_eq!(
        told["groups"],
        json!([
            "system:bootstrappers",
            "system:bootstrappers:workers",
            "system:authenticated"
        ])
    );
    for refused in ["abcdef.0123456789abcdee", "expire.0123456789abcdef"] {
        assert_code(&whoami(&rig, refused).await, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn impersonation_is_allowed_by_name() {
    let rig = rig().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rules = json!([
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["ann"]},
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"], "resourceNames": ["devs"]},
        {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"], "resourceNames": ["view"]},
    ]);
    make(
        &rig,
        &format!("{rbac}/clusterroles"),
        &json!({"metadata": {"name": "i"}, "rules": rules}),
    )
    .await;
    let binding = json!({
        "metadata": {"name": "i"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "i"},
        "subjects": [{"kind": "User", "name": "proxy", "apiGroup": "rbac.authorization.k8s.io"}],
    });
    make(&rig, &format!("{rbac}/clusterrolebindings"), &binding).await;
    let proxy = rig.pki.issue("proxy", &[]);
    let proxy = rig.client(Some(&proxy), "http/1.1");
    let review = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let ask = |headers: &'static [(&'static str, &'static str)]| {
        let proxy = proxy.clone();
        async move { proxy.call(Method::POST, review, headers, "{}").await }
    };
    let told = ask(&[
        ("impersonate-user", "ann"),
        ("impersonate-group", "devs"),
        ("impersonate-extra-Scopes", "view"),
    ])
    .await;
    assert_code(&told, StatusCode::CREATED);
    assert_eq!(
        told.json()["status"]["userInfo"],
        json!({"username": "ann", "groups": ["devs", "system:authenticated"], "extra": {"scopes": ["view"]}})
    );
    let refused = ask(&[("impersonate-user", "bob")]).await;
    assert_code(&refused, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.message(),
        "users \"bob\" is forbidden: User \"proxy\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
    );
    for refused in [
        &[
            ("impersonate-user", "ann"),
            ("impersonate-group", "system:masters"),
        ][..],
        &[("impersonate-user", "ann"), ("impersonate-uid", "1")],
        &[
            ("impersonate-user", "ann"),
            ("impersonate-extra-scopes", "edit"),
        ],
        &[("impersonate-user", "system:serviceaccount:default:default")],
    ] {
        assert_code(&ask(refused).await, StatusCode::FORBIDDEN);
    }
    let half = ask(&[("impersonate-group", "devs")]).await;
    assert_code(&half, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_node_sees_what_its_pods_name() {
    let rig = rig().await;
    let n1 = rig.pki.issue("system:node:n1", &["system:nodes"]);
    let node = rig.client(Some(&n1), "http/1.1");
    let secrets = "/api/v1/namespaces/default/secrets";
    for name in ["named", "other"] {
        make(&rig, secrets, &json!({"metadata": {"name": name}})).await;
    }
    account(&rig, "robot").await;
    let named = format!("{secrets}/named");
    assert_code(&node.get(&named).await, StatusCode::FORBIDDEN);
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {
            "nodeName": "n1", "serviceAccountName": "robot",
            "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "named"}}]}],
        },
    });
    let pod = make(&rig, "/api/v1/namespaces/default/pods", &pod).await;
    assert_code(&node.get(&named).await, StatusCode::OK);
    let one = format!("{secrets}?fieldSelector=metadata.name%3Dnamed");
    assert_code(&node.get(&one).await, StatusCode::OK);
    for refused in [
        format!("{secrets}/other"),
        secrets.to_owned(),
        "/api/v1/secrets".to_owned(),
        "/api/v1/configmaps".to_owned(),
    ] {
        assert_code(&node.get(&refused).await, StatusCode::FORBIDDEN);
    }
    // The peers of a network policy are pods of any node; a role says so, not the node authoriser.
    assert_code(&node.get("/api/v1/pods").await, StatusCode::OK);
    let binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:node-network";
    let admin = rig.admin();
    assert_code(
        &admin.call(Method::DELETE, binding, &[], "").await,
        StatusCode::OK,
    );
    while node.get("/api/v1/pods").await.code != StatusCode::FORBIDDEN {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let of_other = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2";
    assert_code(&node.get(of_other).await, StatusCode::FORBIDDEN);
    let own = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1";
    assert_code(&node.get(own).await, StatusCode::OK);
    // Tokens only for its pods, bound to them.
    let ask = |spec: Value| {
        let path = format!("{ACCOUNTS}/robot/token");
        let (node, spec) = (node.clone(), json!({ "spec": spec }).to_string());
        async move { node.post(&path, &spec).await }
    };
    assert_code(&ask(json!({})).await, StatusCode::FORBIDDEN);
    let bound =
        json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod["metadata"]["uid"]});
    let granted = ask(json!({"boundObjectRef": bound})).await;
    assert_code(&granted, StatusCode::CREATED);
    let n2 = rig.pki.issue("system:node:n2", &["system:nodes"]);
    let other = rig.client(Some(&n2), "http/1.1");
    let request = json!({"spec": {"boundObjectRef": bound}}).to_string();
    let refused = other
        .post(&format!("{ACCOUNTS}/robot/token"), &request)
        .await;
    assert_code(&refused, StatusCode::FORBIDDEN);
}

/// An issuer on loopback: its two documents, and tokens signed with a key of its own.
struct Issuer {
    url: String,
    key: ring::signature::EcdsaKeyPair,
}

impl Issuer {
    async fn start(pki: &Pki) -> Issuer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let url = format!("https://{}", listener.local_addr().expect("bound"));
        let algorithm = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let random = ring::rand::SystemRandom::new();
        let document = ring::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random);
        let document = document.expect("a key");
        let key = ring::signature::EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random);
        let key = key.expect("a key");
        let point = ring::signature::KeyPair::public_key(&key).as_ref();
        let jwks = json!({"keys": [{
            "kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]),
        }]});
        let configuration = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
        let acceptor = TlsAcceptor::from(Arc::new(pki.server()));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(tcp).await else {
                    continue;
                };
                let mut asked = vec![0; 4096];
                let read = stream.read(&mut asked).await.unwrap_or(0);
                let asked = String::from_utf8_lossy(&asked[..read]).into_owned();
                let body = if asked.starts_with("GET /keys ") {
                    jwks.to_string()
                } else {
                    configuration.to_string()
                };
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let answer = [head, body].concat();
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Issuer { url, key }
    }

    fn token(&self, kid: &str, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!(
            "{}.{}",
            part(&json!({"alg": "ES256", "kid": kid})),
            part(claims)
        );
        let random = ring::rand::SystemRandom::new();
        let signature = self.key.sign(&random, signed.as_bytes()).expect("signs");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[tokio::test]
async fn an_issuer_s_users_are_known_by_its_tokens() {
    let pki = Pki::new();
    let issuer = Issuer::start(&pki).await;
    let oidc = Oidc::new(OidcConfig {
        issuer_url: issuer.url.clone(),
        client_id: "cluster".to_owned(),
        username_claim: "email".to_owned(),
        username_prefix: Some("oidc:".to_owned()),
        groups_claim: Some("groups".to_owned()),
        groups_prefix: "oidc:".to_owned(),
        ca_pem: pki.ca_pem(),
        ..OidcConfig::default()
    });
    let setup = Setup {
        roles: true,
        oidc: Some(oidc.expect("usable")),
        ..Setup::default()
    };
    let rig = Rig::set_up(pki, setup).await;
    let claims = json!({
        "iss": issuer.url, "aud": "cluster", "sub": "1", "email": "ann@example.com", "groups": ["devs"],
        "exp": 4_000_000_000u64,
    });
    let told = whoami(&rig, &issuer.token("k1", &claims)).await;
    assert_code(&told, StatusCode::CREATED);
    assert_eq!(
        told.json()["status"]["userInfo"],
        json!({"username": "oidc:ann@example.com", "groups": ["oidc:devs", "system:authenticated"]})
    );
    let mut others = claims.clone();
    others["aud"] = json!("elsewhere");
    let mut late = claims.clone();
    late["exp"] = json!(1_000_000_000u64);
    for refused in [
        issuer.token("k1", &others),
        issuer.token("k1", &late),
        issuer.token("k2", &claims),
    ] {
        assert_code(&whoami(&rig, &refused).await, StatusCode::UNAUTHORIZED);
    }
    // The cluster's own tokens are another matter; a token that names its issuer must have its signature.
    let mut forged = claims;
    forged["iss"] = json!("https://kubernetes.default.svc.cluster.local");
    let refused = whoami(&rig, &issuer.token("k1", &forged)).await;
    assert_code(&refused, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn what_was_asked_is_noted_as_the_policy_says() {
    let (lines, mut noted) = tokio::sync::mpsc::channel(1000);
    let policy = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:trireme:control"]
- level: Metadata
  resources: [{group: "", resources: [secrets]}]
- level: RequestResponse
  verbs: [create]
  resources: [{group: "", resources: [configmaps]}]
- level: Request
  resources: [{group: "", resources: ["configmaps"]}]
- level: Metadata
  nonResourceURLs: ["/api*"]
"#;
    let setup = Setup {
        roles: true,
        audit: Some(api::Audit::new(policy, lines).expect("a policy")),
        ..Setup::default()
    };
    let rig = Rig::set_up(Pki::new(), setup).await;
    while noted.try_recv().is_ok() {}
    let admin = rig.admin();
    make(
        &rig,
        "/api/v1/namespaces/default/secrets",
        &json!({"metadata": {"name": "s"}, "stringData": {"a": "hush"}}),
    )
    .await;
    make(
        &rig,
        "/api/v1/namespaces/default/configmaps",
        &json!({"metadata": {"name": "c"}, "data": {"a": "b"}}),
    )
    .await;
    let patch = "application/merge-patch+json";
    let path = "/api/v1/namespaces/default/configmaps/c";
    let patched = admin.patch(path, patch, r#"{"data":{"a":"c"}}"#).await;
    assert_code(&patched, StatusCode::OK);
    let headers = [
        ("impersonate-user", "ann"),
        ("audit-id", "abc"),
        ("user-agent", "test/1"),
    ];
    let refused = admin.call(Method::GET, path, &headers, "").await;
    assert_code(&refused, StatusCode::FORBIDDEN);
    assert_code(&admin.get("/api").await, StatusCode::OK);
    assert_code(&admin.get("/openapi/v3").await, StatusCode::OK);
    let mut events = Vec::new();
    while let Ok(line) = noted.try_recv() {
        events.push(serde_json::from_slice::<Value>(&line).expect("JSON"));
    }
    let shown: Vec<String> = events
        .iter()
        .map(|event| {
            let text = |pointer: &str| event.pointer(pointer).map(Value::to_string);
            let part = |pointer: &str| text(pointer).unwrap_or_default();
            format!(
                "{} {} {} {} {} {}",
                event["level"].as_str().unwrap_or_default(),
                event["verb"].as_str().unwrap_or_default(),
                event["requestURI"].as_str().unwrap_or_default(),
                event["responseStatus"]["code"],
                part("/requestObject/data"),
                part("/responseObject/data"),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "Metadata create /api/v1/namespaces/default/secrets 201  ",
            r#"RequestResponse create /api/v1/namespaces/default/configmaps 201 {"a":"b"} {"a":"b"}"#,
            r#"Request patch /api/v1/namespaces/default/configmaps/c 200 {"a":"c"} "#,
            "Request get /api/v1/namespaces/default/configmaps/c 403  ",
            "Metadata get /api 200  ",
        ]
    );
    let refused = &events[3];
    assert_eq!(refused["user"]["username"], "trireme:admin");
    assert_eq!(refused["impersonatedUser"]["username"], "ann");
    assert_eq!(refused["auditID"], "abc");
    assert_eq!(refused["userAgent"], "test/1");
    assert_eq!(refused["sourceIPs"], json!(["127.0.0.1"]));
    assert_eq!(
        refused["objectRef"],
        json!({"resource": "configmaps", "namespace": "default", "name": "c", "apiVersion": "v1"})
    );
    assert_eq!(refused["stage"], "ResponseComplete");
}
