//! The store over Debian's etcd: it answers as our own in memory does, and of two that stand for leadership one leads.

use etcd_store::{Config, EtcdStore, LEADER_KEY};
use futures::StreamExt;
use mvcc::{
    Author, Compare, CompareOp, CompareTarget, KeyRange, LeaderState, LeaseId, MemStore, Op,
    RangeRequest, Store, StoreError, Txn, TxnResponse, WatchRequest,
};
use objects::{Revision, Term};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const WAIT_MAX: Duration = Duration::from_secs(20);

/// A lone etcd, which ends with this.
struct Etcd {
    process: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Etcd {
    fn start() -> Etcd {
        let port = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
            listener.local_addr().expect("it is bound").port()
        };
        let (client, peer) = (port(), port());
        let (url, peer) = (
            format!("http://127.0.0.1:{client}"),
            format!("http://127.0.0.1:{peer}"),
        );
        let dir = tempfile::tempdir().expect("a folder can be made");
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args([
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's etcd-server is installed");
        Etcd {
            process,
            url,
            _dir: dir,
        }
    }

    async fn store(&self, name: &str) -> EtcdStore {
        let open = async || {
            EtcdStore::open(Config {
                endpoints: vec![self.url.clone()],
                tls: None,
                name: name.to_owned(),
            })
            .await
        };
        let began = std::time::Instant::now();
        loop {
            match open().await {
                Ok(store) => return store,
                Err(error) if began.elapsed() > WAIT_MAX => panic!("{error:?}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn success(ops: Vec<Op>) -> Txn {
    Txn {
        success: ops,
        ..Txn::default()
    }
}

/// Transactions that use each kind of step and comparison.
fn transactions() -> Vec<Txn> {
    let update = |value: Option<&'static str>, prev_kv| Op::Update {
        key: "/a/1".into(),
        value: value.map(Into::into),
        lease: None,
        prev_kv,
    };
    let inner = Txn {
        compare: vec![Compare::absent("/a/9")],
        success: vec![Op::Sign(Author::default()), Op::put("/b/2", "inner")],
        failure: vec![Op::put("/b/3", "never")],
        fence: None,
    };
    vec![
        success(vec![Op::put("/a/1", "one"), Op::put("/a/2", "two")]),
        success(vec![Op::get("/a/1"), Op::put("/b/1", "x"), Op::get("/b/1")]),
        Txn {
            compare: vec![Compare::absent("/a/1")],
            success: vec![Op::put("/a/1", "never")],
            failure: vec![Op::Sign(Author::default()), update(None, true)],
            fence: None,
        },
        success(vec![update(Some("kept the lease"), true)]),
        success(vec![
            Op::Sign(Author::default()),
            Op::Txn(inner.into()),
            Op::delete("/a/2"),
        ]),
        Txn {
            compare: vec![Compare {
                range: KeyRange::prefix("/b/"),
                op: CompareOp::Less,
                target: CompareTarget::Version(2),
            }],
            success: vec![Op::DeleteRange {
                range: KeyRange::prefix("/b/"),
                prev_kv: true,
            }],
            ..Txn::default()
        },
        success(vec![Op::DeleteRange {
            range: KeyRange::prefix("/nothing/"),
            prev_kv: false,
        }]),
        // Refused, each for its own reason.
        success(vec![Op::put("/a/1", "x"), Op::put("/a/1", "y")]),
        success(vec![Op::put("", "x")]),
        success(vec![Op::Put {
            key: "/a/1".into(),
            value: "x".into(),
            lease: LeaseId(77),
            prev_kv: false,
        }]),
        success(vec![Op::Update {
            key: "/absent".into(),
            value: None,
            lease: None,
            prev_kv: false,
        }]),
    ]
}

#[tokio::test]
async fn it_answers_as_our_own_store() {
    let etcd = Etcd::start();
    let (theirs, ours) = (etcd.store("m1").await, MemStore::new());
    for (number, txn) in transactions().into_iter().enumerate() {
        let (theirs, ours) = (theirs.txn(txn.clone()).await, ours.txn(txn).await);
        // What a read within saw is told by its own revision, which etcd tells only in the answer's.
        assert_eq!(plain(theirs), plain(ours), "transaction {number}");
    }
    let requests = [
        RangeRequest::new(KeyRange::prefix("")),
        RangeRequest::new(KeyRange::key("/a/1")),
        RangeRequest {
            limit: Some(1),
            revision: Some(Revision(2)),
            ..RangeRequest::new(KeyRange::prefix("/a/"))
        },
        RangeRequest {
            keys_only: true,
            ..RangeRequest::new(KeyRange::prefix("/"))
        },
        RangeRequest {
            count_only: true,
            ..RangeRequest::new(KeyRange::prefix("/"))
        },
        RangeRequest {
            revision: Some(Revision(1000)),
            ..RangeRequest::new(KeyRange::prefix("/"))
        },
    ];
    for request in requests {
        let (theirs, ours) = (
            theirs.range(request.clone()).await,
            ours.range(request).await,
        );
        assert_eq!(theirs, ours);
    }
    assert_eq!(theirs.applied_revision(), ours.applied_revision());
    let watch = WatchRequest {
        range: KeyRange::prefix(""),
        start: Revision(2),
    };
    let (told, wanted) = (
        changes(&theirs, watch.clone()).await,
        changes(&ours, watch.clone()).await,
    );
    assert_eq!(told, wanted);
    theirs.compact(Revision(4)).await.expect("it is compacted");
    let refused = theirs
        .range(RangeRequest {
            revision: Some(Revision(3)),
            ..RangeRequest::new(KeyRange::prefix("/"))
        })
        .await;
    assert!(
        matches!(refused, Err(StoreError::Compacted { .. })),
        "{refused:?}"
    );
    let mut late = theirs.watch(watch).await;
    let ended = match &mut late {
        Ok(stream) => stream.next().await.expect("it is told why it ends").err(),
        Err(error) => Some(error.clone()),
    };
    assert_eq!(
        ended,
        Some(StoreError::Compacted {
            requested: Revision(2),
            oldest: Revision(4)
        })
    );
    let past = theirs.past().await;
    assert!(matches!(past, Err(StoreError::Refused(_))), "{past:?}");
}

/// Without what etcd does not tell.
fn plain(answer: Result<TxnResponse, StoreError>) -> Result<TxnResponse, StoreError> {
    answer.map(|mut response| {
        let at = response.revision;
        for result in &mut response.results {
            match result {
                mvcc::OpResult::Range(range) => range.revision = at,
                mvcc::OpResult::Txn(inner) => inner.revision = at,
                _ => {}
            }
        }
        response
    })
}

/// The changes up to where the store is.
async fn changes(store: &dyn Store, watch: WatchRequest) -> Vec<String> {
    let mut stream = store.watch(watch).await.expect("it is watched");
    let (until, mut told) = (store.applied_revision(), Vec::new());
    loop {
        let batch = tokio::time::timeout(WAIT_MAX, stream.next()).await;
        let batch = batch
            .expect("it comes in time")
            .expect("it goes on")
            .expect("it is told");
        told.extend(batch.events.iter().map(|event| format!("{event:?}")));
        if batch.revision >= until {
            return told;
        }
    }
}

async fn until(store: &EtcdStore, wanted: impl Fn(LeaderState) -> bool) -> LeaderState {
    let mut states = store.leader();
    let found = async {
        loop {
            let state = states.next().await.expect("the store lives");
            if wanted(state) {
                return state;
            }
        }
    };
    tokio::time::timeout(WAIT_MAX, found)
        .await
        .expect("it happens in time")
}

#[tokio::test]
async fn one_leads_and_who_led_before_is_fenced() {
    let etcd = Etcd::start();
    let (first, second) = (etcd.store("m1").await, etcd.store("m2").await);
    let stops = [CancellationToken::new(), CancellationToken::new()];
    let stand = |store: &EtcdStore, stop: &CancellationToken| {
        let (store, stop) = (store.clone(), stop.clone());
        tokio::spawn(async move { store.stand(stop).await })
    };
    let mut standing = vec![stand(&first, &stops[0])];
    let began = until(&first, |state| state.is_leader).await.term;
    standing.push(stand(&second, &stops[1]));
    let follows = until(&second, |state| state.has_leader).await;
    assert_eq!((follows.term, follows.is_leader), (began, false));

    let fenced = |term: Term| Txn {
        fence: Some(term),
        ..success(vec![Op::put("/fenced", term.0.to_string())])
    };
    let done = first.txn(fenced(began)).await.expect("it leads");
    assert!(done.succeeded && done.results.len() == 1);
    assert_eq!(done.revision, first.applied_revision());

    // In order: whoever comes next does so at once.
    stops[0].cancel();
    let next = until(&second, |state| state.is_leader).await.term;
    assert!(next > began, "{next:?} follows {began:?}");
    let refused = first.txn(fenced(began)).await;
    assert_eq!(
        refused,
        Err(StoreError::Fenced {
            held: began,
            current: next
        })
    );
    second.txn(fenced(next)).await.expect("it leads");

    // Somebody removes the key: its owner's writes are refused at once, and it stands anew.
    let removed = second.txn(success(vec![Op::delete(LEADER_KEY)])).await;
    removed.expect("it is removed");
    let refused = second.txn(fenced(next)).await;
    assert!(
        matches!(refused, Err(StoreError::Fenced { .. })),
        "{refused:?}"
    );
    let again = until(&second, |state| state.is_leader && state.term > next).await;
    second
        .txn(fenced(again.term))
        .await
        .expect("it leads again");

    stops[1].cancel();
    for task in standing {
        task.await.expect("it ends in order");
    }
}
