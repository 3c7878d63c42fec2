//! The rules that hold for every client, request by request.

use crate::rig::{Client, Rig, TOKEN, assert_code};
use http::{Method, StatusCode};
use objects::identities::{MASTER_USER, MASTERS_GROUP};
use serde_json::json;
use std::io::Read;
use std::sync::atomic::Ordering;

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

async fn make_map(client: &Client, name: &str, data: &str) {
    let body = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"a": data}});
    let made = client.post(MAPS, &body.to_string()).await;
    assert_code(&made, StatusCode::CREATED);
}

#[tokio::test]
async fn identity_comes_from_the_certificate() {
    let rig = Rig::start().await;
    let nobody = rig.client(None, "http/1.1");
    for path in ["/healthz", "/livez", "/readyz", "/version", "/version/"] {
        assert_code(&nobody.get(path).await, StatusCode::OK);
    }
    for path in [
        PODS,
        "/api",
        "/apis",
        "/openapi/v3",
        "/cluster/v1/status",
        "/nothing",
    ] {
        let refused = nobody.get(path).await;
        assert_code(&refused, StatusCode::FORBIDDEN);
        assert_eq!(refused.json()["reason"], "Forbidden");
    }
    let jane = rig.pki.issue("jane", &["dev"]);
    let refused = rig.client(Some(&jane), "http/1.1").get(PODS).await;
    assert_code(&refused, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.message(),
        r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#
    );
    let headers = [("impersonate-user", "jane"), ("impersonate-group", "dev")];
    let refused = rig.admin().call(Method::GET, PODS, &headers, "").await;
    assert_code(&refused, StatusCode::FORBIDDEN);
    let stranger = crate::pki::Pki::new().issue("trireme:admin", &["system:masters"]);
    let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::new(
        rig.pki.client(Some(&stranger), "http/1.1"),
    ));
    assert!(
        is_refused(&tls, rig.address).await,
        "a certificate of another CA was taken"
    );
}

/// With TLS 1.3 the refusal comes with the first read.
async fn is_refused(tls: &tokio_rustls::TlsConnector, address: std::net::SocketAddr) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let tcp = tokio::net::TcpStream::connect(address)
        .await
        .expect("listens");
    let Ok(mut stream) = tls
        .connect("127.0.0.1".try_into().expect("a name"), tcp)
        .await
    else {
        return true;
    };
    let _ = stream
        .write_all(b"GET /api HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    stream.read(&mut [0; 64]).await.is_err()
}

#[tokio::test]
async fn objects_live_over_both_protocols() {
    let rig = Rig::start().await;
    for alpn in ["http/1.1", "h2"] {
        let client = rig.client(Some(&rig.admin), alpn);
        make_map(&client, "a", "1").await;
        let again = client
            .post(
                MAPS,
                r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}"#,
            )
            .await;
        assert_code(&again, StatusCode::CONFLICT);
        assert_eq!(again.message(), r#"configmaps "a" already exists"#);
        let got = client.get(&format!("{MAPS}/a")).await;
        assert_code(&got, StatusCode::OK);
        assert_eq!(got.json()["data"]["a"], "1");
        assert!(!got.header("audit-id").is_empty());
        let patched = client
            .patch(
                &format!("{MAPS}/a"),
                "application/merge-patch+json",
                r#"{"data":{"a":"2"}}"#,
            )
            .await;
        assert_eq!(patched.json()["data"]["a"], "2", "{}", patched.text());
        let list = client.get(&format!("{MAPS}?limit=5")).await.json();
        assert_eq!(list["kind"], "ConfigMapList");
        assert_eq!(list["items"][0]["metadata"]["name"], "a");
        let gone = client
            .call(Method::DELETE, &format!("{MAPS}/a"), &[], "")
            .await;
        assert_code(&gone, StatusCode::OK);
        let absent = client.get(&format!("{MAPS}/a")).await;
        assert_code(&absent, StatusCode::NOT_FOUND);
        assert_eq!(absent.message(), r#"configmaps "a" not found"#);
    }
}

#[tokio::test]
async fn bodies_are_read_by_their_type() {
    let rig = Rig::start().await;
    let client = rig.admin();
    let yaml = "kind: ConfigMap\napiVersion: v1\nmetadata:\n  name: yaml\ndata:\n  a: \"yes\"\n";
    let of = async |content_type: &str, body: &str| {
        let headers = [("content-type", content_type)];
        client
            .call(Method::POST, MAPS, &headers, body.to_owned())
            .await
    };
    assert_code(&of("application/yaml", yaml).await, StatusCode::CREATED);
    assert_code(
        &of("text/html", "x").await,
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
    );
    let broken = of("application/json", "{\"kind\":").await;
    assert_code(&broken, StatusCode::BAD_REQUEST);
    assert!(
        broken.message().starts_with("the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: "),
        "{}",
        broken.message()
    );
    let huge = "x".repeat(3 * 1024 * 1024 + 1);
    let refused = of("application/json", &huge).await;
    assert_code(&refused, StatusCode::PAYLOAD_TOO_LARGE);
    let patch = client
        .patch(&format!("{MAPS}/yaml"), "application/json", "{}")
        .await;
    assert_code(&patch, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let twice = client
        .post(
            &format!("{MAPS}?fieldValidation=Strict"),
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"d"},"data":{"a":"1","a":"2"}}"#,
        )
        .await;
    assert_code(&twice, StatusCode::BAD_REQUEST);
    assert!(
        twice.message().contains(r#"duplicate field "data.a""#),
        "{}",
        twice.message()
    );
}

#[tokio::test]
async fn views_follow_accept() {
    let rig = Rig::start().await;
    let client = rig.admin();
    make_map(&client, "a", "1").await;
    let table = client.get_as(MAPS, TABLE).await.json();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["apiVersion"], "meta.k8s.io/v1");
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let list = client.get_as(MAPS, metadata).await.json();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["name"], "a");
    assert!(list["items"][0].get("data").is_none());
    let protobuf = client
        .get_as(MAPS, "application/vnd.kubernetes.protobuf")
        .await;
    assert_eq!(protobuf.header("content-type"), "application/json");
    assert_code(
        &client.get_as(MAPS, "text/html").await,
        StatusCode::NOT_ACCEPTABLE,
    );
}

#[tokio::test]
async fn paths_that_lead_nowhere_say_so() {
    let rig = Rig::start().await;
    let client = rig.admin();
    for path in [
        "/nothing",
        "/api/v1/nothings",
        "/apis/no.such/v1",
        "/api/v1/namespaces/default/nodes",
    ] {
        let reply = client.get(path).await;
        assert_code(&reply, StatusCode::NOT_FOUND);
        assert_eq!(
            reply.message(),
            "the server could not find the requested resource"
        );
    }
    let refused = client.call(Method::PUT, PODS, &[], "{}").await;
    assert_code(&refused, StatusCode::METHOD_NOT_ALLOWED);
    let bad = client.get(&format!("{PODS}?limit=x")).await;
    assert_code(&bad, StatusCode::BAD_REQUEST);
    let bad = client.get(&format!("{PODS}?labelSelector=a%20b%20c")).await;
    assert_code(&bad, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn large_answers_are_compressed_on_demand() {
    let rig = Rig::start().await;
    let client = rig.admin();
    make_map(&client, "big", &"x".repeat(200_000)).await;
    let path = format!("{MAPS}/big");
    let plain = client.get(&path).await;
    assert_eq!(plain.header("content-encoding"), "");
    let packed = client
        .call(Method::GET, &path, &[("accept-encoding", "gzip")], "")
        .await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert!(packed.body.len() < 10_000);
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&packed.body[..])
        .read_to_end(&mut unpacked)
        .expect("gzip");
    assert_eq!(unpacked, plain.body);
}

#[tokio::test]
async fn discovery_is_aggregated_and_cached() {
    let rig = Rig::start().await;
    let client = rig.admin();
    let aggregated =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let groups = client.get_as("/apis", aggregated).await;
    assert_eq!(
        groups.header("content-type"),
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    assert_eq!(groups.json()["kind"], "APIGroupDiscoveryList");
    let etag = groups.header("etag").to_owned();
    let headers = [("accept", aggregated), ("if-none-match", &etag)];
    let same = client.call(Method::GET, "/apis", &headers, "").await;
    assert_code(&same, StatusCode::NOT_MODIFIED);
    assert!(same.body.is_empty());
    assert_eq!(client.get("/api").await.json()["versions"][0], "v1");
    assert_eq!(client.get("/apis").await.json()["kind"], "APIGroupList");
    assert_eq!(client.get("/apis/apps").await.json()["kind"], "APIGroup");
    let core = client.get("/api/v1").await.json();
    let names: Vec<&str> = core["resources"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|resource| resource["name"].as_str())
        .collect();
    assert!(
        names.contains(&"pods") && names.contains(&"pods/status"),
        "{names:?}"
    );
}

#[tokio::test]
async fn schema_documents_are_cached() {
    const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let rig = Rig::start().await;
    let admin = rig.admin();
    let index = admin.get("/openapi/v3").await.json();
    let apps = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str();
    let apps = apps.expect("apps/v1 is served").to_owned();
    for (path, accept) in [
        ("/openapi/v2", "application/json"),
        ("/openapi/v2", PROTOBUF),
        ("/openapi/v3", "application/json"),
        (apps.as_str(), "application/json"),
    ] {
        let whole = admin.get_as(path, accept).await;
        assert_eq!(whole.code, 200, "{path}");
        let headers = [("accept", accept), ("if-none-match", whole.header("etag"))];
        let again = admin.call(Method::GET, path, &headers, "").await;
        assert_eq!((again.code, again.body.len()), (304, 0), "{path} {accept}");
    }
    let asked = admin.get(&apps).await;
    assert!(asked.header("cache-control").contains("immutable"));
}

/// An apply creates what is not there, and names in a refusal what others own.
#[tokio::test]
async fn applies_create_and_conflict() {
    const APPLY: &str = "application/apply-patch+yaml";
    let rig = Rig::start().await;
    let admin = rig.admin();
    let path = "/api/v1/namespaces/default/configmaps/a?fieldManager=";
    let config = |value: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: {value}\n")
    };
    let apply = async |manager: &str, value: &str| {
        let path = format!("{path}{manager}");
        admin.patch(&path, APPLY, &config(value)).await
    };
    assert_eq!(apply("one", "first").await.code, 201);
    assert_eq!(apply("one", "second").await.code, 200);
    let refused = apply("two", "third").await;
    assert_eq!(refused.code, 409);
    let cause = &refused.json()["details"]["causes"][0];
    assert_eq!(cause["reason"], "FieldManagerConflict");
    assert_eq!(cause["field"], ".data.k");
    assert_eq!(apply("two&force=true", "third").await.code, 200);
    assert_eq!(apply("", "third").await.code, 422);
}

#[tokio::test]
async fn health_tells_what_is_wrong() {
    let rig = Rig::start().await;
    let client = rig.client(None, "http/1.1");
    assert_eq!(client.get("/readyz").await.text(), "ok");
    assert_eq!(
        client.get("/readyz?verbose").await.text(),
        "[+]ping ok\n[+]shutdown ok\n[+]store ok\nreadyz check passed\n"
    );
    rig.cluster.leaderless.store(true, Ordering::Relaxed);
    let unready = client.get("/readyz").await;
    assert_code(&unready, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(unready.text().contains("[-]store failed: no leader"));
    assert_eq!(client.get("/livez").await.text(), "ok");
    assert_eq!(client.get("/readyz?exclude=store").await.text(), "ok");
    assert_code(
        &client.get("/readyz/store").await,
        StatusCode::INTERNAL_SERVER_ERROR,
    );
    assert_code(&client.get("/readyz/none").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_master_that_was_removed_sends_everybody_away() {
    let rig = Rig::start().await;
    let client = rig.admin();
    let reason = "this master was removed".to_owned();
    rig.cluster.removed.set(reason.clone()).expect("once");
    for path in [
        "/api/v1/namespaces",
        "/apis",
        "/cluster/v1/members",
        "/cluster/v1/status",
    ] {
        let away = client.get(path).await;
        assert_code(&away, StatusCode::SERVICE_UNAVAILABLE);
        assert!(away.text().contains(&reason), "{}", away.text());
    }
    assert_eq!(client.get("/livez").await.text(), "ok");
}

#[tokio::test]
async fn the_cluster_answers_whom_it_should() {
    let rig = Rig::start().await;
    let (admin, nobody) = (rig.admin(), rig.client(None, "h2"));
    let node = rig.pki.issue("system:node:n1", &["system:nodes"]);
    let node = rig.client(Some(&node), "h2");
    assert_eq!(
        admin.get("/cluster/v1/status").await.json()["clusterId"],
        "c1"
    );
    assert_eq!(
        node.get("/cluster/v1/members").await.json()["members"][0]["name"],
        "m1"
    );
    let refused = node
        .call(Method::DELETE, "/cluster/v1/members/m2", &[], "")
        .await;
    assert_code(&refused, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.message(),
        r#"forbidden: User "system:node:n1" cannot delete path "/cluster/v1/members/m2""#
    );
    let removed = admin
        .call(Method::DELETE, "/cluster/v1/members/m2", &[], "")
        .await;
    assert_eq!(removed.json()["status"], "Success");
    let join = r#"{"role":"node","name":"n1","address":"127.0.0.1","csrPem":""}"#;
    let with = async |token: &str| {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        nobody
            .call(Method::POST, "/cluster/v1/join", &headers, join)
            .await
    };
    assert_eq!(with(TOKEN).await.json()["clusterId"], "c1");
    assert_code(&with("wrong").await, StatusCode::UNAUTHORIZED);
    assert_code(
        &nobody.post("/cluster/v1/join", join).await,
        StatusCode::UNAUTHORIZED,
    );
    // A master proves itself by its certificate, and only as a master.
    let master = rig.pki.issue(MASTER_USER, &[MASTERS_GROUP]);
    let master = rig.client(Some(&master), "h2");
    let rejoin = r#"{"role":"master","name":"m1","peerAddress":"127.0.0.1:2380","apiUrl":""}"#;
    assert_code(
        &master.post("/cluster/v1/join", rejoin).await,
        StatusCode::OK,
    );
    for (client, body) in [(&master, join), (&node, rejoin), (&admin, rejoin)] {
        assert_code(
            &client.post("/cluster/v1/join", body).await,
            StatusCode::UNAUTHORIZED,
        );
    }
    let replace = "/cluster/v1/members/m1/replace";
    let noted = admin.post(replace, r#"{"by":"m4"}"#).await.json();
    assert_eq!(
        (&noted["replaced"]["id"], &noted["token"]),
        (&1.into(), &TOKEN.into())
    );
    let checks = admin.post("/cluster/v1/check", "").await.json();
    assert_eq!(
        (&checks[0]["name"], &checks[0]["same"]),
        (&"m1".into(), &true.into())
    );
    assert_code(
        &node.post(replace, r#"{"by":"m4"}"#).await,
        StatusCode::FORBIDDEN,
    );
    assert_code(
        &admin.get("/cluster/v1/snapshot").await,
        StatusCode::BAD_REQUEST,
    );
    assert_eq!(
        admin.get("/cluster/v1/snapshot?keys=none").await.text(),
        "bare"
    );
    let headers = [("x-trireme-passphrase", "c2VjcmV0")];
    let sealed = admin
        .call(Method::GET, "/cluster/v1/snapshot", &headers, "")
        .await;
    assert_eq!(sealed.text(), "sealed secret");
    let headers = [("x-trireme-snapshot-key", "abcd")];
    let sealed = admin
        .call(Method::GET, "/cluster/v1/snapshot", &headers, "")
        .await;
    assert_eq!(sealed.text(), "sealed for abcd");
    snapshot_schedules_are_kept_for_administrators(&admin, &nobody).await;
    let lines = admin
        .get("/cluster/v1/explain?resource=pods&namespace=a&name=b")
        .await
        .json();
    assert_eq!(lines["lines"][0], r#"pods Some("a") b"#);
}

async fn snapshot_schedules_are_kept_for_administrators(admin: &Client, nobody: &Client) {
    const SCHEDULES: &str = "/cluster/v1/snapshots/schedules";
    let put = r#"{"name": "other", "everySeconds": 3600, "target": {"kind": "folder", "path": "/b"}, "passphrase": "p"}"#;
    let path = format!("{SCHEDULES}/nightly");
    let kept = admin.call(Method::PUT, &path, &[], put).await.json();
    assert!(
        kept["name"] == "nightly" && kept["everySeconds"] == 3600,
        "the path names it: {kept}"
    );
    assert!(kept.get("passphrase").is_none(), "{kept}");
    let refused = admin
        .call(Method::PUT, &path, &[], r#"{"name": "x"}"#)
        .await;
    assert_code(&refused, StatusCode::BAD_REQUEST);
    let run = admin.post(&format!("{path}/run"), "").await.json();
    assert_eq!(run["due"], "1970-01-01T00:00:00Z");
    let removed = admin.call(Method::DELETE, &path, &[], "").await;
    assert_code(&removed, StatusCode::OK);
    assert_code(
        &admin.get(&format!("{SCHEDULES}/absent")).await,
        StatusCode::NOT_FOUND,
    );
    let list = admin.get("/cluster/v1/snapshots").await.json();
    assert_eq!(list["snapshots"], serde_json::json!([]));
    for path in [SCHEDULES, "/cluster/v1/snapshots"] {
        assert_code(&nobody.get(path).await, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn certificates_are_replaced_while_the_server_runs() {
    let rig = Rig::start().await;
    let old = rig.admin();
    assert_code(&old.get("/api").await, StatusCode::OK);
    let broken = api::PemBundle {
        key_pem: "none".to_owned(),
        ..rig.admin.clone()
    };
    assert!(rig.tls.replace(&broken).is_err());
    assert_code(&old.get("/api").await, StatusCode::OK);
    let next = crate::pki::Pki::new();
    rig.tls.replace(&next.issue("trireme", &[])).expect("PEM");
    let admin = next.issue("trireme:admin", &["system:masters"]);
    let new = rig.client_of(&next, Some(&admin), "h2");
    assert_code(&new.get("/api").await, StatusCode::OK);
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let rig = Rig::start().await;
    let upload = vec![0_u8; 20 * 1024 * 1024];
    for alpn in ["http/1.1", "h2"] {
        let nobody = rig.client(None, alpn);
        let refused = nobody.call(Method::POST, MAPS, &[], upload.clone()).await;
        assert_code(&refused, StatusCode::FORBIDDEN);
        let admin = rig.client(Some(&rig.admin), alpn);
        let large = admin.call(Method::POST, MAPS, &[], upload.clone());
        assert_code(&large.await, StatusCode::PAYLOAD_TOO_LARGE);
    }
}

#[tokio::test]
async fn a_long_list_is_whole_at_one_revision() {
    let rig = Rig::start().await;
    let admin = rig.admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    for number in 0..510 {
        let body = format!(
            r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"m{number:03}"}}}}"#
        );
        assert_code(&admin.post(maps, &body).await, StatusCode::CREATED);
    }
    let names = |list: &serde_json::Value| -> Vec<String> {
        let items = list["items"].as_array().expect("items");
        items
            .iter()
            .map(|item| {
                item["metadata"]["name"]
                    .as_str()
                    .expect("a name")
                    .to_owned()
            })
            .collect()
    };
    let expected: Vec<String> = (0..510).map(|number| format!("m{number:03}")).collect();
    let streamed = admin.get(maps).await;
    assert_eq!(
        streamed.header("content-length"),
        "",
        "it is sent while it is read"
    );
    let compressed = admin
        .call(Method::GET, &format!("{maps}?limit=1000"), &[], "")
        .await;
    assert!(!compressed.header("content-length").is_empty());
    assert_eq!(streamed.json(), compressed.json());
    assert_eq!(names(&streamed.json()), expected);
    // What a client knows already may be shown, and what it has not seen yet too.
    let revision = streamed.json()["metadata"]["resourceVersion"]
        .as_str()
        .expect("a revision")
        .to_owned();
    assert_code(
        &admin
            .call(Method::DELETE, &format!("{maps}/m509"), &[], "")
            .await,
        StatusCode::OK,
    );
    let newer = admin
        .get(&format!("{maps}?resourceVersion={revision}"))
        .await;
    assert_eq!(names(&newer.json()).len(), 509);
    let exact = admin
        .get(&format!(
            "{maps}?resourceVersion={revision}&resourceVersionMatch=Exact"
        ))
        .await;
    assert_eq!(names(&exact.json()), expected);
    let selected = admin
        .get(&format!("{maps}?fieldSelector=metadata.name%3Dm300"))
        .await;
    assert_eq!(names(&selected.json()), ["m300"]);
}
