//! A server on loopback over a store in memory, and a client that shows what came back.

use crate::pki::Pki;
use api::{
    ApiConfig, ApiServer, Archive, Audit, Check, Cluster, HttpsWebhooks, Identities, NodeClientTls,
    Oidc, PemBundle, Proof, ServerTls, SnapshotKeys, TokenKeys,
};
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mvcc::{Command, HistoryLimits, MemStore};
use objects::cluster::{
    ClusterSettings, ClusterStatus, JoinRequest, JoinResponse, KeyRotation, KeysRotated, Member,
    MemberAdd, MemberCheck, MemberList, MemberReplace, Replacement,
};
use objects::past::HistoryKeep;
use objects::snapshots::{
    SnapshotList, SnapshotRequested, SnapshotSchedule, SnapshotScheduleList, SnapshotSchedulePut,
    SnapshotScheduleStatus,
};
use objects::{Reason, Status, Timestamp, Uid};
use registry::{Pipeline, Registry, Shell};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

pub const TOKEN: &str = "trireme.ab.cd";

/// How a server is started.
#[derive(Default)]
pub struct Setup {
    pub config: ApiConfig,
    pub oidc: Option<Oidc>,
    pub audit: Option<Audit>,
    /// Whether the cluster has the roles that every cluster has.
    pub roles: bool,
}

/// A running server.
pub struct Rig {
    pub pki: Pki,
    pub admin: PemBundle,
    pub address: SocketAddr,
    pub pipeline: Arc<Pipeline>,
    pub server: ApiServer,
    pub token_keys: TokenKeys,
    pub cluster: Arc<FakeCluster>,
    pub tls: ServerTls,
    pub shutdown: CancellationToken,
    pub served: JoinHandle<()>,
}

impl Rig {
    pub async fn start() -> Rig {
        Rig::with(ApiConfig::default()).await
    }

    pub async fn with(config: ApiConfig) -> Rig {
        let setup = Setup {
            config,
            ..Setup::default()
        };
        Rig::set_up(Pki::new(), setup).await
    }

    pub async fn set_up(pki: Pki, setup: Setup) -> Rig {
        let server_pem = pki.issue("trireme", &[]);
        let admin = pki.issue("trireme:admin", &["system:masters"]);
        let to_nodes = pki.issue("system:trireme:control", &["system:masters"]);
        let cluster = Arc::new(FakeCluster::default());
        let token_keys = TokenKeys::none();
        let key = TokenKeys::generate().expect("a key");
        token_keys.replace(&[key]).expect("a usable key");
        let webhooks = Arc::new(HttpsWebhooks::default());
        let pipeline = pipeline(cluster.store.clone())
            .with_converter(webhooks.clone())
            .with_webhooks(webhooks.clone());
        let pipeline = Arc::new(pipeline);
        let server = ApiServer::new(
            pipeline.clone(),
            cluster.clone(),
            NodeClientTls::new(&to_nodes).expect("PEM"),
            Identities {
                token_keys: token_keys.clone(),
                oidc: setup.oidc,
                audit: setup.audit,
            },
            setup.config,
        );
        webhooks.reach_services_by(&server);
        let tls = ServerTls::new(&server_pem).expect("PEM");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let shutdown = CancellationToken::new();
        let serving = api::serve(listener, tls.clone(), server.clone(), shutdown.clone());
        let served = tokio::spawn(serving);
        let rig = Rig {
            pki,
            admin,
            address,
            pipeline,
            server,
            token_keys,
            cluster,
            tls,
            shutdown,
            served,
        };
        let namespace = r#"{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"default"}}"#;
        let made = rig.admin().post("/api/v1/namespaces", namespace).await;
        assert_eq!(made.code, 201, "{}", made.text());
        if setup.roles {
            let system =
                r#"{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"kube-system"}}"#;
            let made = rig.admin().post("/api/v1/namespaces", system).await;
            assert_eq!(made.code, 201, "{}", made.text());
            let ensured = rig.pipeline.ensure_default_roles().await;
            ensured.expect("the roles are written");
        }
        rig
    }

    /// A client with the administrator's certificate, over HTTP/1.1.
    pub fn admin(&self) -> Client {
        self.client(Some(&self.admin), "http/1.1")
    }

    pub fn client(&self, identity: Option<&PemBundle>, alpn: &'static str) -> Client {
        self.client_of(&self.pki, identity, alpn)
    }

    /// A client that trusts another CA.
    pub fn client_of(&self, pki: &Pki, identity: Option<&PemBundle>, alpn: &str) -> Client {
        Client {
            address: self.address,
            tls: TlsConnector::from(Arc::new(pki.client(identity, alpn))),
            h2: alpn == "h2",
        }
    }
}

fn pipeline(store: MemStore) -> Pipeline {
    let settings = ClusterSettings {
        cluster_cidr: "10.244.0.0/16".to_owned(),
        service_cidr: "10.96.0.0/16".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        dns_address: "10.96.0.10".to_owned(),
    };
    let registry = Arc::new(Registry::builtin());
    Pipeline::new(
        Arc::new(store),
        registry,
        Arc::new(TestShell::default()),
        settings,
    )
}

/// Each call is a connection of its own.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    tls: TlsConnector,
    h2: bool,
}

/// What came back.
pub struct Reply {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("JSON: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    pub fn message(&self) -> String {
        self.json()["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

impl Client {
    pub async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, &[], "").await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> Reply {
        self.call(Method::GET, path, &[("accept", accept)], "")
            .await
    }

    pub async fn post(&self, path: &str, body: &str) -> Reply {
        self.call(Method::POST, path, &[], body.to_owned()).await
    }

    pub async fn patch(&self, path: &str, content_type: &str, body: &str) -> Reply {
        self.call(
            Method::PATCH,
            path,
            &[("content-type", content_type)],
            body.to_owned(),
        )
        .await
    }

    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let response = self.open(method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        Reply {
            code: parts.status.as_u16(),
            headers: parts.headers,
            body: body.collect().await.expect("a body").to_bytes(),
        }
    }

    /// The answer with its body still to be read.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Full::new(body.into())).expect("a request");
        let tcp = TcpStream::connect(self.address)
            .await
            .expect("the server listens");
        let name = "127.0.0.1".try_into().expect("a name");
        let stream = TokioIo::new(self.tls.connect(name, tcp).await.expect("TLS"));
        if self.h2 {
            *request.uri_mut() = format!("https://{}{path}", self.address)
                .parse()
                .expect("a URI");
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
                    .await
                    .expect("HTTP/2");
            tokio::spawn(connection);
            return sender.send_request(request).await.expect("an answer");
        }
        request
            .headers_mut()
            .insert("host", "127.0.0.1".parse().expect("a header"));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
            .await
            .expect("HTTP/1.1");
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.expect("an answer")
    }
}

/// Time of the machine; ids counted.
#[derive(Default)]
struct TestShell(AtomicU64);

impl Shell for TestShell {
    #[expect(clippy::disallowed_methods, reason = "the test is its own shell")]
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now())
    }

    fn uid(&self) -> Uid {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        Uid(format!("00000000-0000-4000-8000-{number:012x}"))
    }

    fn name_suffix(&self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut number = self.0.fetch_add(1, Ordering::Relaxed);
        (0..5)
            .map(|_| {
                let letter = LETTERS[(number % 27) as usize];
                number /= 27;
                char::from(letter)
            })
            .collect()
    }
}

/// A cluster of one that knows one token.
#[derive(Default)]
pub struct FakeCluster {
    pub leaderless: AtomicBool,
    /// What it says since it was removed.
    pub removed: OnceLock<String>,
    pub store: MemStore,
}

fn member() -> Member {
    Member {
        id: 1,
        name: "m1".to_owned(),
        peer_address: "127.0.0.1:2380".to_owned(),
        api_url: "https://127.0.0.1:6443".to_owned(),
        voter: true,
        replaces: None,
        replaced_by: None,
    }
}

#[async_trait]
impl Cluster for FakeCluster {
    async fn status(&self) -> Result<ClusterStatus, Status> {
        Ok(ClusterStatus {
            cluster_id: "c1".to_owned(),
            term: 3,
            leader: Some(1),
            members: vec![],
        })
    }

    async fn members(&self) -> Result<MemberList, Status> {
        Ok(MemberList {
            cluster_id: "c1".to_owned(),
            members: vec![member()],
        })
    }

    async fn add_member(&self, add: MemberAdd) -> Result<Member, Status> {
        Ok(Member {
            id: 2,
            name: add.name,
            voter: false,
            ..member()
        })
    }

    async fn remove_member(&self, name_or_id: &str) -> Result<(), Status> {
        assert_eq!(name_or_id, "m2");
        Ok(())
    }

    async fn replace_member(
        &self,
        name_or_id: &str,
        replace: MemberReplace,
    ) -> Result<Replacement, Status> {
        assert_eq!((name_or_id, &*replace.by), ("m1", "m4"));
        Ok(Replacement {
            replaced: member(),
            by: None,
            servers: vec![],
            token: TOKEN.to_owned().into(),
        })
    }

    async fn check_members(&self) -> Result<Vec<MemberCheck>, Status> {
        Ok(vec![MemberCheck {
            member: member(),
            revision: 7,
            same: Some(true),
            problem: None,
        }])
    }

    async fn join(&self, proof: Proof<'_>, request: JoinRequest) -> Result<JoinResponse, Status> {
        match (proof, request) {
            (Proof::Token(TOKEN), _) | (Proof::MastersCertificate, JoinRequest::Master { .. }) => {}
            _ => return Err(Status::unauthorized()),
        }
        Ok(JoinResponse::Node {
            cluster_id: "c1".to_owned(),
            ca_pem: String::new(),
            certificate_pem: String::new(),
            masters: vec![],
            cluster_cidr: String::new(),
            service_cidr: String::new(),
            dns_address: String::new(),
            cluster_domain: String::new(),
        })
    }

    async fn snapshot(&self, keys: SnapshotKeys) -> Result<Archive, Status> {
        let text = match keys {
            SnapshotKeys::Sealed(passphrase) => [b"sealed ", &passphrase[..]].concat(),
            SnapshotKeys::SealedFor(key) => format!("sealed for {key}").into_bytes(),
            SnapshotKeys::LeftOut => b"bare".to_vec(),
        };
        Ok(Box::pin(futures::stream::iter([Ok(Bytes::from(text))])))
    }

    async fn snapshot_schedules(&self) -> Result<SnapshotScheduleList, Status> {
        Ok(SnapshotScheduleList::default())
    }

    async fn snapshot_schedule(&self, name: &str) -> Result<SnapshotScheduleStatus, Status> {
        Err(Status::failure(
            404,
            Reason::NotFound,
            format!("no schedule {name}"),
        ))
    }

    async fn put_snapshot_schedule(
        &self,
        name: &str,
        put: SnapshotSchedulePut,
    ) -> Result<SnapshotScheduleStatus, Status> {
        Ok(SnapshotScheduleStatus {
            schedule: SnapshotSchedule {
                name: name.to_owned(),
                ..put.schedule
            },
            next: None,
            running: None,
            last: None,
            last_success: None,
            failures: 0,
        })
    }

    async fn remove_snapshot_schedule(&self, name: &str) -> Result<(), Status> {
        assert_eq!(name, "nightly");
        Ok(())
    }

    async fn run_snapshot_schedule(&self, name: &str) -> Result<SnapshotRequested, Status> {
        assert_eq!(name, "nightly");
        Ok(SnapshotRequested {
            due: Timestamp::from_unix(0),
        })
    }

    async fn snapshots(&self) -> Result<SnapshotList, Status> {
        Ok(SnapshotList::default())
    }

    async fn transfer_leader(&self, _to: Option<&str>) -> Result<(), Status> {
        Ok(())
    }

    async fn explain(
        &self,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Vec<String>, Status> {
        Ok(vec![format!("{resource} {namespace:?} {name}")])
    }

    async fn keep_history(&self, keep: HistoryKeep) -> Result<(), Status> {
        let limits = HistoryLimits {
            keep_ms: keep.seconds.expect("the test says it") * 1000,
            keep_bytes: keep.bytes.expect("the test says it"),
        };
        self.store
            .command(&Command::KeepHistory { limits })
            .expect("the store leads");
        Ok(())
    }

    async fn rotate_keys(&self, rotation: KeyRotation) -> Result<KeysRotated, Status> {
        assert!(rotation.secrets && !rotation.tokens);
        Ok(KeysRotated {
            secrets_sealed: 3,
            ..KeysRotated::default()
        })
    }

    async fn metrics(&self) -> Result<String, Status> {
        Ok("up 1\n".to_owned())
    }

    fn removed(&self) -> Option<String> {
        self.removed.get().cloned()
    }

    fn readiness(&self) -> Vec<Check> {
        let leaderless = self.leaderless.load(Ordering::Relaxed);
        vec![Check {
            name: "store",
            problem: leaderless.then(|| "no leader".to_owned()),
        }]
    }
}

/// So that a failing status shows its text.
pub fn assert_code(reply: &Reply, code: StatusCode) {
    assert_eq!(reply.code, code.as_u16(), "{}", reply.text());
}
