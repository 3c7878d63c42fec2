//! What a kube-apiserver asks of its etcd, request by request: paged lists at a revision, creates and updates compared by
//! mod_revision, a watch with progress, compaction agreed on through a key of its own, and leases for events.

mod served;

use rpc::etcd::etcdserverpb as pb;
use rpc::etcd::etcdserverpb::compare::{CompareTarget, TargetUnion};
use rpc::etcd::etcdserverpb::kv_client::KvClient;
use rpc::etcd::etcdserverpb::lease_client::LeaseClient;
use rpc::etcd::etcdserverpb::maintenance_client::MaintenanceClient;
use rpc::etcd::etcdserverpb::request_op::Request as Step;
use rpc::etcd::etcdserverpb::watch_client::WatchClient;
use rpc::etcd::etcdserverpb::watch_request::RequestUnion;
use served::Served;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::transport::Channel;

const PODS: &str = "/registry/pods/";
const PODS_END: &str = "/registry/pods0";
const POD_COUNT: i64 = 8;
const COMPACTED: &str = "compact_rev_key";

async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("a URL");
    endpoint.connect().await.expect("it listens")
}

/// Write `value` if the key is as it was when `target` was read; else say what it is.
fn guarded(
    key: &str,
    target: CompareTarget,
    was: TargetUnion,
    value: &str,
    lease: i64,
) -> pb::TxnRequest {
    let put = pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        lease,
        ..pb::PutRequest::default()
    };
    let get = pb::RangeRequest {
        key: key.to_owned().into(),
        ..pb::RangeRequest::default()
    };
    let step = |step| pb::RequestOp {
        request: Some(step),
    };
    pb::TxnRequest {
        compare: vec![pb::Compare {
            target: target.into(),
            key: key.to_owned().into(),
            target_union: Some(was),
            ..pb::Compare::default()
        }],
        success: vec![step(Step::RequestPut(put))],
        failure: vec![step(Step::RequestRange(get))],
    }
}

fn unchanged(key: &str, mod_revision: i64, value: &str) -> pb::TxnRequest {
    let was = TargetUnion::ModRevision(mod_revision);
    guarded(key, CompareTarget::Mod, was, value, 0)
}

fn revision(header: &Option<pb::ResponseHeader>) -> i64 {
    header.as_ref().expect("every answer has one").revision
}

/// All pods as of one revision, a few at a time, as the API server lists them.
async fn list(kv: &mut KvClient<Channel>) -> (Vec<(String, i64)>, i64) {
    let (mut pods, mut key, mut at) = (vec![], PODS.to_owned(), 0);
    loop {
        let request = pb::RangeRequest {
            key: key.clone().into(),
            range_end: PODS_END.into(),
            limit: 3,
            revision: at,
            ..pb::RangeRequest::default()
        };
        let page = kv.range(request).await.expect("it is listed").into_inner();
        if at == 0 {
            at = revision(&page.header);
        }
        let before = pods.len() as i64;
        let keys = page.kvs.iter().map(|kv| {
            let key = String::from_utf8(kv.key.to_vec()).expect("a path");
            (key, kv.mod_revision)
        });
        pods.extend(keys);
        // The count is exact, of what is left from this page on.
        assert_eq!(page.count, POD_COUNT - before);
        match page.more {
            true => key = format!("{}\0", pods.last().expect("a page is not empty").0),
            false => return (pods, at),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_can_be_served() {
    let served = Served::three().await;
    let (first, second) = (
        connect(served.addresses[0]).await,
        connect(served.addresses[1]).await,
    );
    let (mut kv, mut other) = (KvClient::new(first.clone()), KvClient::new(second.clone()));

    // It looks for the version first: progress is asked for only from 3.5.13 on.
    let status = MaintenanceClient::new(first.clone())
        .status(pb::StatusRequest {})
        .await;
    let status = status.expect("it tells").into_inner();
    let numbers: Vec<u32> = status
        .version
        .split('.')
        .map(|part| part.parse().expect("a number"))
        .collect();
    assert!(numbers >= vec![3, 5, 13], "{}", status.version);
    assert!(status.db_size > 0 && status.leader > 0);

    // Create: only if nobody did. Two API servers at once have one winner.
    for pod in 0..POD_COUNT {
        let key = format!("{PODS}default/p{pod}");
        let (one, two) = tokio::join!(
            kv.txn(unchanged(&key, 0, "one")),
            other.txn(unchanged(&key, 0, "two"))
        );
        let answers = [one, two].map(|answer| answer.expect("it is decided").into_inner());
        assert_eq!(
            answers.iter().filter(|answer| answer.succeeded).count(),
            1,
            "{answers:?}"
        );
    }
    let (pods, listed_at) = list(&mut other).await;
    assert_eq!(pods.len() as i64, POD_COUNT);

    // Watch from the list on, over the other member, with a leader and progress.
    let (requests, receiver) = mpsc::channel(4);
    let create = pb::WatchCreateRequest {
        key: PODS.into(),
        range_end: PODS_END.into(),
        start_revision: listed_at + 1,
        progress_notify: true,
        prev_kv: true,
        ..pb::WatchCreateRequest::default()
    };
    let send = async |request| {
        let request = pb::WatchRequest {
            request_union: Some(request),
        };
        requests.send(request).await.expect("the stream runs");
    };
    send(RequestUnion::CreateRequest(create)).await;
    let mut watch = Request::new(ReceiverStream::new(receiver));
    watch
        .metadata_mut()
        .insert("hasleader", "true".parse().expect("ASCII"));
    let answers = WatchClient::new(second).watch(watch).await;
    let mut answers = answers.expect("there is a leader").into_inner();
    let mut next = async || {
        let answer = tokio::time::timeout(Duration::from_secs(10), answers.message());
        answer
            .await
            .expect("it comes")
            .expect("the stream runs")
            .expect("it goes on")
    };
    assert!(next().await.created);

    // Update: the first of two that read the same wins, the other is told what is there.
    let (key, read_at) = pods[2].clone();
    let updated = kv
        .txn(unchanged(&key, read_at, "new"))
        .await
        .expect("it is decided")
        .into_inner();
    assert!(updated.succeeded);
    let lost = other
        .txn(unchanged(&key, read_at, "late"))
        .await
        .expect("it is decided")
        .into_inner();
    assert!(!lost.succeeded);
    let event = next().await;
    assert_eq!(event.events.len(), 1);
    assert_eq!(
        event.events[0].prev_kv.as_ref().map(|kv| kv.mod_revision),
        Some(read_at)
    );
    assert_eq!(revision(&event.header), revision(&updated.header));

    // A read from the watch's cache waits for progress up to what the store has, other keys' changes included.
    let elsewhere = kv
        .txn(unchanged("/registry/nodes/n1", 0, "x"))
        .await
        .expect("it is decided")
        .into_inner();
    let asked = revision(&elsewhere.header);
    loop {
        send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
        let progress = next().await;
        assert!(
            progress.events.is_empty() && !progress.canceled,
            "{progress:?}"
        );
        if progress.watch_id == -1 && revision(&progress.header) >= asked {
            break;
        }
    }

    // An event's key goes with its lease; nobody keeps that alive.
    let granted = LeaseClient::new(first)
        .lease_grant(pb::LeaseGrantRequest { ttl: 2, id: 0 })
        .await;
    let lease = granted.expect("it is granted").into_inner().id;
    let event_key = "/registry/events/default/e1";
    let was = TargetUnion::ModRevision(0);
    let leased = kv
        .txn(guarded(
            event_key,
            CompareTarget::Mod,
            was,
            "happened",
            lease,
        ))
        .await;
    assert!(leased.expect("it is decided").into_inner().succeeded);

    // Compaction: whoever moves the key forward compacts, the other learns of it.
    let first_turn = guarded(
        COMPACTED,
        CompareTarget::Version,
        TargetUnion::Version(0),
        &listed_at.to_string(),
        0,
    );
    assert!(
        kv.txn(first_turn.clone())
            .await
            .expect("it is decided")
            .into_inner()
            .succeeded
    );
    assert!(
        !other
            .txn(first_turn)
            .await
            .expect("it is decided")
            .into_inner()
            .succeeded
    );
    let compact = pb::CompactionRequest {
        revision: listed_at,
        physical: false,
    };
    kv.compact(compact).await.expect("it is compacted");
    let old = pb::RangeRequest {
        key: PODS.into(),
        range_end: PODS_END.into(),
        revision: listed_at - 1,
        ..pb::RangeRequest::default()
    };
    // The other member refuses it as soon as it has applied the compaction, of which a read makes sure.
    list(&mut other).await;
    let gone = other.range(old).await.expect_err("that is compacted");
    assert_eq!(
        gone.message(),
        "etcdserver: mvcc: required revision has been compacted"
    );

    let get = pb::RangeRequest {
        key: event_key.into(),
        count_only: true,
        ..pb::RangeRequest::default()
    };
    let began = std::time::Instant::now();
    while kv
        .range(get.clone())
        .await
        .expect("it is read")
        .into_inner()
        .count
        > 0
    {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "the event goes with its lease"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    served.stop().await;
}
