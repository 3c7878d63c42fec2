//! Members in this process, over loopback and TLS, with RocksDB in temporary folders.

#![expect(dead_code, reason = "each test binary uses its part of the harness")]

use mvcc::{Compare, KeyRange, Op, RangeRequest, Store, StoreError, Txn, TxnResponse};
use objects::Revision;
use objects::cluster::MemberAdd;
use raft_store::{Config, Limits, OpenError, RaftStore, Timings, Tls};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const CLUSTER: &str = "5f0c8a3e-test";

/// A CA, and from it one certificate for the loopback address.
pub fn tls() -> Tls {
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let mut ca = rcgen::CertificateParams::new(vec![]).expect("no names are valid names");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).expect("a CA");
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let member = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
    let certificate = member.signed_by(&key, &issuer).expect("a certificate");
    Tls::from_pem(
        &ca_certificate.pem(),
        &certificate.pem(),
        &key.serialize_pem(),
    )
    .expect("they fit")
}

pub struct Cluster {
    pub members: Vec<Option<RaftStore>>,
    pub configs: Vec<Config>,
    dir: TempDir,
    tls: Tls,
    pub limits: Limits,
}

impl Cluster {
    /// A cluster of `count` members, all of them voters.
    pub async fn new(count: usize) -> Self {
        Cluster::with_limits(count, Limits::default()).await
    }

    pub async fn with_limits(count: usize, limits: Limits) -> Self {
        // Shown with `RUST_LOG`, when a test fails.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_test_writer()
            .try_init();
        let dir = match std::env::var_os("TRIREME_BENCH_DIR") {
            Some(parent) => TempDir::new_in(parent),
            None => TempDir::new(),
        };
        let dir = dir.expect("a temporary folder");
        let mut cluster = Cluster {
            members: vec![],
            configs: vec![],
            dir,
            tls: tls(),
            limits,
        };
        let config = cluster.config("m1", 1);
        let first = RaftStore::open(config.clone())
            .await
            .expect("the first member opens");
        first.bootstrap().await.expect("a new cluster begins");
        cluster.configs.push(config);
        cluster.members.push(Some(first));
        for number in 2..=count {
            cluster.join(&format!("m{number}")).await;
        }
        cluster.wait_for_voters(count).await;
        cluster
    }

    pub fn config(&self, name: &str, member_id: u64) -> Config {
        let listen = free_address();
        Config {
            data_dir: self.dir.path().join(name),
            cluster_id: CLUSTER.to_owned(),
            member_id,
            name: name.to_owned(),
            listen,
            peer_address: listen.to_string(),
            api_url: format!("https://{name}:6443"),
            tls: Some(self.tls.clone()),
            timings: Timings {
                request: Duration::from_secs(3),
                ..Timings::default()
            },
            limits: self.limits.clone(),
        }
    }

    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Adds a member; returns its place.
    pub async fn join(&mut self, name: &str) -> usize {
        let mut config = self.config(name, 0);
        let add = MemberAdd {
            name: name.to_owned(),
            peer_address: config.peer_address.clone(),
            api_url: config.api_url.clone(),
        };
        let member = self
            .any()
            .add_member(add)
            .await
            .expect("the member is added");
        config.member_id = member.id;
        let store = RaftStore::open(config.clone())
            .await
            .expect("the member opens");
        self.configs.push(config);
        self.members.push(Some(store));
        self.members.len() - 1
    }

    pub fn any(&self) -> &RaftStore {
        self.members.iter().flatten().next().expect("a member runs")
    }

    pub fn member(&self, place: usize) -> &RaftStore {
        self.members[place].as_ref().expect("the member runs")
    }

    /// Stops a member as a crash would.
    pub async fn kill(&mut self, place: usize) {
        self.members[place]
            .take()
            .expect("the member runs")
            .kill()
            .await;
    }

    /// Starts a member that was stopped.
    pub async fn start(&mut self, place: usize) {
        let config = self.configs[place].clone();
        let began = Instant::now();
        let store = loop {
            match RaftStore::open(config.clone()).await {
                Ok(store) => break store,
                Err(OpenError::InUse(_) | OpenError::Listen { .. })
                    if began.elapsed() < Duration::from_secs(8) =>
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(err) => panic!("the member does not open: {err:?}"),
            }
        };
        self.members[place] = Some(store);
    }

    pub async fn wait_for_voters(&self, count: usize) {
        wait_for("all vote", || {
            self.any()
                .members()
                .iter()
                .filter(|member| member.voter)
                .count()
                == count
        })
        .await;
    }

    /// The place of the leader, when there is one that all running members could have.
    pub async fn leader(&self) -> usize {
        let mut place = None;
        wait_for("a member leads", || {
            place = self.members.iter().position(|member| {
                member
                    .as_ref()
                    .is_some_and(|member| member.leader_state().is_leader)
            });
            place.is_some()
        })
        .await;
        place.expect("it was just found")
    }

    pub async fn follower(&self) -> usize {
        let leader = self.leader().await;
        (0..self.members.len())
            .find(|place| *place != leader && self.members[*place].is_some())
            .expect("another member runs")
    }
}

pub async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "waited in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
}

pub fn put_txn(key: &str, value: &str) -> Txn {
    Txn {
        success: vec![Op::put(key.to_owned(), value.to_owned())],
        ..Txn::default()
    }
}

pub async fn put(store: &RaftStore, key: &str, value: &str) -> Revision {
    store
        .txn(put_txn(key, value))
        .await
        .expect("the write is acknowledged")
        .revision
}

/// Creates a key until it surely exists: tries again when the outcome is unknown.
pub async fn put_until_known(store: &RaftStore, key: &str, value: &str) -> Revision {
    let began = Instant::now();
    loop {
        let txn = Txn {
            compare: vec![Compare::absent(key.to_owned())],
            success: vec![Op::put(key.to_owned(), value.to_owned())],
            ..Txn::default()
        };
        match store.txn(txn).await {
            Ok(TxnResponse { revision, .. }) => return revision,
            Err(StoreError::Unavailable(_)) if began.elapsed() < Duration::from_secs(20) => {}
            Err(err) => panic!("the write failed: {err}"),
        }
    }
}

pub async fn get(store: &RaftStore, key: &str) -> Option<String> {
    let response = store
        .range(RangeRequest::new(KeyRange::key(key.to_owned())))
        .await
        .expect("the read is answered");
    response
        .kvs
        .first()
        .map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
}

pub async fn count(store: &RaftStore) -> u64 {
    store
        .range(RangeRequest::new(KeyRange::prefix("")))
        .await
        .expect("the read is answered")
        .count
}
