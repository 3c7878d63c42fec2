//! The same requests to Debian's etcd and to a member of ours: the answers must be the same, but for the ids in the headers.

mod served;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rpc::etcd::etcdserverpb as pb;
use rpc::etcd::etcdserverpb::kv_client::KvClient;
use rpc::etcd::etcdserverpb::lease_client::LeaseClient;
use rpc::etcd::etcdserverpb::maintenance_client::MaintenanceClient;
use rpc::etcd::etcdserverpb::watch_client::WatchClient;
use served::Served;
use served::real::Etcd;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

/// What can be asked.
#[derive(Clone, Debug)]
enum Call {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    Grant(pb::LeaseGrantRequest),
    Revoke(pb::LeaseRevokeRequest),
    Life(pb::LeaseTimeToLiveRequest),
    Leases,
    KeepAlive(i64),
}

/// One of the two.
#[derive(Clone)]
struct Side {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    watch: WatchClient<Channel>,
}

impl Side {
    async fn connect(address: SocketAddr) -> Self {
        let channel = Channel::from_shared(format!("http://{address}"))
            .expect("a URL")
            .connect()
            .await
            .expect("it listens");
        Side {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            watch: WatchClient::new(channel),
        }
    }

    /// The answer as text, without what may differ.
    async fn ask(&mut self, call: Call) -> String {
        match call {
            Call::Range(request) => show(self.kv.range(request).await, |a| &mut a.header),
            Call::Put(request) => show(self.kv.put(request).await, |a| &mut a.header),
            Call::Delete(request) => show(self.kv.delete_range(request).await, |a| &mut a.header),
            Call::Txn(request) => show(self.kv.txn(request).await, |a| &mut a.header),
            Call::Compact(request) => show(self.kv.compact(request).await, |a| &mut a.header),
            Call::Grant(request) => show(self.lease.lease_grant(request).await, |a| &mut a.header),
            Call::Revoke(request) => {
                show(self.lease.lease_revoke(request).await, |a| &mut a.header)
            }
            Call::Life(request) => {
                let answer = self.lease.lease_time_to_live(request).await;
                let answer = answer.map(|mut answer| {
                    // Where a second begins, the two may differ.
                    let life = answer.get_mut();
                    life.ttl = if life.ttl > 0 {
                        life.granted_ttl
                    } else {
                        life.ttl
                    };
                    life.keys.sort();
                    answer
                });
                show(answer, |a| &mut a.header)
            }
            Call::Leases => {
                let answer = self.lease.lease_leases(pb::LeaseLeasesRequest {}).await;
                let answer = answer.map(|mut answer| {
                    answer.get_mut().leases.sort_by_key(|lease| lease.id);
                    answer
                });
                show(answer, |a| &mut a.header)
            }
            Call::KeepAlive(id) => {
                let request = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
                let answer = match self.lease.lease_keep_alive(request).await {
                    Ok(mut stream) => stream
                        .get_mut()
                        .message()
                        .await
                        .map(|answer| Response::new(answer.expect("one answer a request"))),
                    Err(status) => Err(status),
                };
                show(answer, |a| &mut a.header)
            }
        }
    }
}

fn show<A: Debug>(
    answer: Result<Response<A>, Status>,
    header: impl Fn(&mut A) -> &mut Option<pb::ResponseHeader>,
) -> String {
    match answer {
        Ok(answer) => {
            let mut answer = answer.into_inner();
            let revision = header(&mut answer).take().map(|header| header.revision);
            format!("at {revision:?}: {answer:#?}")
        }
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

struct Both {
    ours: Side,
    theirs: Side,
    served: Served,
    _etcd: Etcd,
    asked: usize,
}

impl Both {
    async fn start() -> Self {
        let (served, etcd) = (Served::new(1).await, Etcd::start().await);
        Both {
            ours: Side::connect(served.addresses[0]).await,
            theirs: Side::connect(etcd.address).await,
            served,
            _etcd: etcd,
            asked: 0,
        }
    }

    /// Asks both; they must agree. Returns what they said.
    async fn ask(&mut self, call: Call) -> String {
        self.asked += 1;
        let (ours, theirs) =
            tokio::join!(self.ours.ask(call.clone()), self.theirs.ask(call.clone()));
        assert_eq!(
            ours, theirs,
            "ours and etcd's answer to the {}th: {call:?}",
            self.asked
        );
        ours
    }
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..pb::PutRequest::default()
    }
}

fn get(key: &str, range_end: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..pb::RangeRequest::default()
    }
}

fn step(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

fn then(success: Vec<pb::request_op::Request>) -> pb::TxnRequest {
    pb::TxnRequest {
        success: success.into_iter().map(step).collect(),
        ..pb::TxnRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_the_same_code_and_text() {
    use pb::request_op::Request;
    let mut both = Both::start().await;
    both.ask(Call::Put(put("/a", "1"))).await;
    let large = "x".repeat(1 << 20) + &"y".repeat(600 << 10);
    let many = |count: usize| {
        (0..count)
            .map(|n| Request::RequestPut(put(&format!("/m/{n}"), "")))
            .collect()
    };
    // Deeper ones than 50 are not decoded here, and told so as a malformed message.
    let deep = (0..40).fold(then(many(90)), |inner, _| {
        then(vec![Request::RequestTxn(inner)])
    });
    let refused = [
        Call::Range(get("", "")),
        Call::Put(put("", "x")),
        Call::Delete(pb::DeleteRangeRequest::default()),
        Call::Put(pb::PutRequest {
            ignore_value: true,
            ..put("/a", "x")
        }),
        Call::Put(pb::PutRequest {
            ignore_lease: true,
            lease: 4,
            ..put("/a", "x")
        }),
        Call::Put(pb::PutRequest {
            ignore_value: true,
            ..put("/none", "")
        }),
        Call::Put(pb::PutRequest {
            lease: 99,
            ..put("/a", "x")
        }),
        Call::Put(put("/large", &large)),
        Call::Txn(then(many(129))),
        Call::Txn(deep),
        Call::Txn(then(vec![
            Request::RequestPut(put("/a", "1")),
            Request::RequestPut(put("/a", "2")),
        ])),
        Call::Txn(then(vec![
            Request::RequestPut(put("/a", "1")),
            Request::RequestDeleteRange(pb::DeleteRangeRequest {
                key: "/".into(),
                range_end: "0".into(),
                prev_kv: false,
            }),
        ])),
        Call::Txn(pb::TxnRequest {
            success: vec![pb::RequestOp::default()],
            ..pb::TxnRequest::default()
        }),
        Call::Txn(pb::TxnRequest {
            compare: vec![pb::Compare::default()],
            ..pb::TxnRequest::default()
        }),
        Call::Txn(then(vec![Request::RequestPut(pb::PutRequest {
            lease: 99,
            ..put("/a", "x")
        })])),
        Call::Txn(then(vec![
            Request::RequestPut(put("/b", "1")),
            Request::RequestPut(pb::PutRequest {
                ignore_value: true,
                ..put("/none", "")
            }),
        ])),
        Call::Txn(then(vec![
            Request::RequestPut(put("/b", "1")),
            Request::RequestRange(pb::RangeRequest {
                revision: 99,
                ..get("/a", "")
            }),
        ])),
        Call::Range(pb::RangeRequest {
            revision: 99,
            ..get("/a", "")
        }),
        Call::Compact(pb::CompactionRequest {
            revision: 99,
            physical: false,
        }),
        Call::Compact(pb::CompactionRequest {
            revision: -1,
            physical: false,
        }),
        Call::Grant(pb::LeaseGrantRequest {
            ttl: 9_000_000_001,
            id: 5,
        }),
        Call::Revoke(pb::LeaseRevokeRequest { id: 99 }),
        Call::Life(pb::LeaseTimeToLiveRequest { id: 99, keys: true }),
        Call::KeepAlive(99),
    ];
    for call in refused {
        both.ask(call).await;
    }
    both.ask(Call::Grant(pb::LeaseGrantRequest { ttl: 60, id: 5 }))
        .await;
    let again = both
        .ask(Call::Grant(pb::LeaseGrantRequest { ttl: 60, id: 5 }))
        .await;
    assert!(again.starts_with("FailedPrecondition"), "{again}");
    both.ask(Call::Put(put("/a", "2"))).await;
    both.ask(Call::Compact(pb::CompactionRequest {
        revision: 3,
        physical: true,
    }))
    .await;
    both.ask(Call::Compact(pb::CompactionRequest {
        revision: 3,
        physical: false,
    }))
    .await;
    let gone = both
        .ask(Call::Range(pb::RangeRequest {
            revision: 2,
            ..get("/a", "")
        }))
        .await;
    assert!(gone.starts_with("OutOfRange"), "{gone}");
    both.ask(Call::Txn(then(vec![Request::RequestRange(
        pb::RangeRequest {
            revision: 2,
            ..get("/a", "")
        },
    )])))
    .await;
    both.served.stop().await;
}

/// Requests at random, from few keys, so that they meet.
struct Random(StdRng);

impl Random {
    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.0.random_range(0..of.len())].clone()
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.0.random_ratio(1, count)
    }

    fn key(&mut self) -> &'static str {
        self.pick(&["/a", "/a/1", "/a/2", "/b", "/b/\u{0}", "/c", "z"])
    }

    fn range_end(&mut self) -> &'static str {
        self.pick(&["", "", "", "\u{0}", "/b", "0", "/a0", "/a"])
    }

    fn range(&mut self) -> pb::RangeRequest {
        let (key, range_end) = (self.key(), self.range_end());
        let mut request = get(key, range_end);
        request.limit = self.pick(&[0, 0, 1, 2, -1]);
        request.revision = if self.one_in(3) {
            self.0.random_range(-1..60)
        } else {
            0
        };
        request.serializable = self.one_in(4);
        request.keys_only = self.one_in(4);
        request.count_only = self.one_in(8);
        if self.one_in(3) {
            request.sort_order = self.0.random_range(1..3);
            request.sort_target = self.0.random_range(0..5);
            if request.sort_target != 0 && request.sort_target != 3 && !range_end.is_empty() {
                // Where keys are equal in what they are sorted by, etcd's order is its sort's accident.
                request.sort_target = 3;
            }
        }
        if self.one_in(6) {
            request.min_mod_revision = self.0.random_range(0..20);
            request.max_mod_revision = self.pick(&[0, 15, 30, 60]);
            request.min_create_revision = self.0.random_range(0..10);
            request.max_create_revision = self.pick(&[0, 20, 40]);
        }
        request
    }

    fn put(&mut self) -> pb::PutRequest {
        let value = self.pick(&["", "1", "2", "longer"]);
        let mut request = put(self.key(), value);
        request.prev_kv = self.one_in(2);
        request.lease = self.pick(&[0, 0, 0, 0, 1, 2, 3]);
        request.ignore_value = value.is_empty() && self.one_in(2);
        request.ignore_lease = request.lease == 0 && self.one_in(6);
        if request.ignore_value {
            // Of two reasons to refuse it, etcd tells another one for a put alone than for one in a transaction.
            request.lease = 0;
        }
        request
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest {
            key: self.key().into(),
            range_end: self.range_end().into(),
            prev_kv: self.one_in(2),
        }
    }

    /// etcd takes a range without an end for an empty one when it looks for keys that a transaction changes twice; ours does
    /// not, so there are none here.
    fn delete_in_txn(&mut self) -> pb::DeleteRangeRequest {
        let mut request = self.delete();
        if request.range_end <= request.key {
            request.range_end = "".into();
        }
        request
    }

    fn compare(&mut self) -> pb::Compare {
        use pb::compare::TargetUnion;
        let target = self.0.random_range(0..5);
        let number = self.0.random_range(-1..30);
        let small = self.0.random_range(-1..4);
        pb::Compare {
            result: self.0.random_range(0..4),
            target,
            key: self.key().into(),
            range_end: self.range_end().into(),
            target_union: Some(match target {
                0 => TargetUnion::Version(small),
                1 => TargetUnion::CreateRevision(number),
                2 => TargetUnion::ModRevision(number),
                3 => TargetUnion::Value(self.pick(&["", "1", "2"]).into()),
                _ => TargetUnion::Lease(small),
            }),
        }
    }

    fn txn(&mut self, depth: u32) -> pb::TxnRequest {
        let compares = self.0.random_range(0..3);
        let mut steps = |count: usize| -> Vec<pb::RequestOp> {
            (0..count)
                .map(|_| {
                    step(match self.0.random_range(0..8) {
                        0..=2 => pb::request_op::Request::RequestPut(self.put()),
                        3 => pb::request_op::Request::RequestDeleteRange(self.delete_in_txn()),
                        // Nested ones hold reads and one write, since etcd lets siblings put and delete the same key.
                        4 if depth > 0 => pb::request_op::Request::RequestTxn(self.txn(0)),
                        _ => pb::request_op::Request::RequestRange(self.range()),
                    })
                })
                .collect()
        };
        let (success, failure) = (steps(2), steps(1));
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success,
            failure,
        }
    }

    fn call(&mut self) -> Call {
        let lease = self.0.random_range(1..4);
        match self.0.random_range(0..40) {
            0..=11 => Call::Put(self.put()),
            12..=21 => Call::Range(self.range()),
            22..=24 => Call::Delete(self.delete()),
            25..=33 => Call::Txn(self.txn(1)),
            34 => Call::Compact(pb::CompactionRequest {
                // Not 0, which etcd takes once for a revision that can be compacted.
                revision: self.0.random_range(1..70),
                physical: self.one_in(2),
            }),
            35 => Call::Grant(pb::LeaseGrantRequest {
                ttl: 600,
                id: lease,
            }),
            36 => Call::Revoke(pb::LeaseRevokeRequest { id: lease }),
            37 => Call::Life(pb::LeaseTimeToLiveRequest {
                id: lease,
                keys: true,
            }),
            38 => Call::Leases,
            _ => Call::KeepAlive(lease),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_requests_at_random_are_answered_the_same() {
    for seed in 0..4 {
        let mut both = Both::start().await;
        let mut random = Random(StdRng::seed_from_u64(seed));
        let mut refused = 0;
        for _ in 0..500 {
            let answer = both.ask(random.call()).await;
            refused += usize::from(!answer.starts_with("at"));
        }
        assert!(
            refused < 250,
            "most requests are answered: {refused} were not"
        );
        both.served.stop().await;
    }
}

/// A stream of watches of one side.
struct Watching {
    requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
}

impl Watching {
    /// With a first request, since etcd answers the call only when one has come.
    async fn start(side: &mut Side, first: pb::watch_request::RequestUnion) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let first = pb::WatchRequest {
            request_union: Some(first),
        };
        requests.send(first).await.expect("there is room");
        let answers = side.watch.watch(ReceiverStream::new(receiver));
        let answers = answers.await.expect("the stream begins").into_inner();
        Watching { requests, answers }
    }

    async fn send(&self, request: pb::watch_request::RequestUnion) {
        let request = pb::WatchRequest {
            request_union: Some(request),
        };
        self.requests.send(request).await.expect("the stream runs");
    }

    async fn next(&mut self) -> pb::WatchResponse {
        let next = tokio::time::timeout(Duration::from_secs(10), self.answers.message());
        let answer = next
            .await
            .expect("an answer comes")
            .expect("the stream runs");
        answer.expect("the stream goes on")
    }
}

fn without_ids(mut answer: pb::WatchResponse) -> pb::WatchResponse {
    if let Some(header) = &mut answer.header {
        (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
    }
    answer
}

fn create(key: &str, range_end: &str, start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        start_revision,
        ..pb::WatchCreateRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_tell_the_same() {
    use pb::watch_request::RequestUnion;
    let mut both = Both::start().await;
    for n in 0..6 {
        both.ask(Call::Put(put("/a", &n.to_string()))).await;
    }
    both.ask(Call::Compact(pb::CompactionRequest {
        revision: 4,
        physical: true,
    }))
    .await;
    let first = RequestUnion::CreateRequest(create("/never", "", 0));
    let mut ours = Watching::start(&mut both.ours, first.clone()).await;
    let mut theirs = Watching::start(&mut both.theirs, first).await;
    let created = (ours.next().await, theirs.next().await);
    assert_eq!(without_ids(created.0), without_ids(created.1));
    let filter = |filter: pb::watch_create_request::FilterType| vec![filter.into()];
    // Each with the number of answers that it brings at once.
    let requests = [
        (create("/a", "", 5), 2),
        (
            pb::WatchCreateRequest {
                prev_kv: true,
                watch_id: 7,
                ..create("/", "0", 0)
            },
            1,
        ),
        (
            pb::WatchCreateRequest {
                watch_id: 7,
                ..create("/x", "", 0)
            },
            1,
        ),
        (create("/b", "/a", 0), 1),
        (create("/a", "", 2), 2),
        (
            pb::WatchCreateRequest {
                filters: filter(pb::watch_create_request::FilterType::Noput),
                ..create("/", "\0", 0)
            },
            1,
        ),
        (
            pb::WatchCreateRequest {
                filters: filter(pb::watch_create_request::FilterType::Nodelete),
                fragment: true,
                ..create("", "\0", 6)
            },
            2,
        ),
        (create("/future", "", 50), 1),
    ];
    for (request, answers) in requests {
        ours.send(RequestUnion::CreateRequest(request.clone()))
            .await;
        theirs
            .send(RequestUnion::CreateRequest(request.clone()))
            .await;
        for _ in 0..answers {
            let (our, their) = tokio::join!(ours.next(), theirs.next());
            assert_eq!(without_ids(our), without_ids(their), "{request:?}");
        }
    }
    let changes = [
        Call::Put(put("/a", "x")),
        Call::Put(put("/b", "y")),
        Call::Delete(pb::DeleteRangeRequest {
            key: "/".into(),
            range_end: "0".into(),
            prev_kv: false,
        }),
    ];
    for (change, watchers) in changes.into_iter().zip([3, 2, 3]) {
        both.ask(change.clone()).await;
        // Those of different watches may come in any order.
        let mut told = [vec![], vec![]];
        for _ in 0..watchers {
            let (our, their) = tokio::join!(ours.next(), theirs.next());
            told[0].push(without_ids(our));
            told[1].push(without_ids(their));
        }
        for told in &mut told {
            told.sort_by_key(|answer| answer.watch_id);
        }
        assert_eq!(told[0], told[1], "{change:?}");
    }
    let last = [
        RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 7 }),
        RequestUnion::ProgressRequest(pb::WatchProgressRequest {}),
    ];
    for request in last {
        ours.send(request.clone()).await;
        theirs.send(request.clone()).await;
        let (our, their) = tokio::join!(ours.next(), theirs.next());
        assert_eq!(without_ids(our), without_ids(their), "{request:?}");
    }
    drop((ours, theirs));
    both.served.stop().await;
}

/// etcd's own hashes are of its own files; ours must only be the same on all members, and not for what differs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_have_the_same_hash_at_the_same_revision() {
    let served = Served::three().await;
    let mut hashes = vec![];
    let mut first = Side::connect(served.addresses[0]).await;
    for n in 0..20 {
        first
            .kv
            .put(put(&format!("/{}", n % 7), &n.to_string()))
            .await
            .expect("it is written");
    }
    let compact = pb::CompactionRequest {
        revision: 9,
        physical: false,
    };
    first.kv.compact(compact).await.expect("it is compacted");
    for address in &served.addresses {
        let side = Side::connect(*address).await;
        // A linearizable read brings the member up to date.
        side.clone()
            .kv
            .range(get("/", "0"))
            .await
            .expect("it is read");
        let channel = Channel::from_shared(format!("http://{address}")).expect("a URL");
        let mut maintenance = MaintenanceClient::new(channel.connect().await.expect("it listens"));
        let mut at = async |revision| {
            let answer = maintenance.hash_kv(pb::HashKvRequest { revision }).await;
            let answer = answer.expect("it is hashed").into_inner();
            assert_eq!(answer.compact_revision, 9);
            answer.hash
        };
        hashes.push((at(0).await, at(21).await, at(15).await));
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    assert_eq!(hashes[0].0, hashes[0].1);
    assert_ne!(hashes[0].0, hashes[0].2);
    served.stop().await;
}
