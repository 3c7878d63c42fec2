//! The crate `etcd-client`, as services of others use it, on three members: keys, transactions, a watch that is resumed at
//! another member, a lease that is kept alive and revoked, members and status.

mod served;

use etcd_client::{
    Client, Compare, CompareOp, Error, EventType, GetOptions, LockOptions, PutOptions, SortOrder,
    SortTarget, Txn, TxnOp, TxnOpResponse, WatchOptions,
};
use served::Served;
use std::time::Duration;

/// What a wait may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

async fn client(served: &Served, place: usize) -> Client {
    let endpoint = format!("http://{}", served.addresses[place]);
    Client::connect([endpoint], None)
        .await
        .expect("a member takes connections")
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_transactions() {
    let served = Served::three().await;
    let (mut first, mut second) = (client(&served, 0).await, client(&served, 1).await);
    for (key, value) in [("fruit/b", "2"), ("fruit/a", "1"), ("fruit/c", "3")] {
        first.put(key, value, None).await.expect("a put");
    }
    let newest_first = GetOptions::new()
        .with_prefix()
        .with_sort(SortTarget::Mod, SortOrder::Descend)
        .with_limit(2);
    let found = second
        .get("fruit/", Some(newest_first))
        .await
        .expect("a read at another member sees what was answered");
    let keys: Vec<&str> = found
        .kvs()
        .iter()
        .map(|kv| kv.key_str().expect("text"))
        .collect();
    assert_eq!(
        (keys, found.count(), found.more()),
        (vec!["fruit/c", "fruit/a"], 3, true)
    );

    let is_first = Compare::version("fruit/a", CompareOp::Equal, 1);
    let txn = Txn::new()
        .when([is_first])
        .and_then([
            TxnOp::put("fruit/a", "one", Some(PutOptions::new().with_prev_key())),
            TxnOp::get("fruit/a", None),
        ])
        .or_else([TxnOp::get("fruit/a", None)]);
    let done = second.txn(txn.clone()).await.expect("a transaction");
    assert!(done.succeeded());
    let responses = done.op_responses();
    let [TxnOpResponse::Put(put), TxnOpResponse::Get(get)] = &responses[..] else {
        panic!("{responses:?}");
    };
    assert_eq!(put.prev_key().map(|kv| kv.value()), Some(&b"1"[..]));
    assert_eq!(get.kvs()[0].value(), b"one");
    let again = first.txn(txn).await.expect("a transaction");
    assert!(!again.succeeded(), "the version is 2 by now");

    let refused = first
        .get("fruit/a", Some(GetOptions::new().with_revision(1_000_000)))
        .await
        .expect_err("a revision to come");
    let Error::GRpcStatus(status) = refused else {
        panic!("{refused}");
    };
    assert_eq!(
        status.message(),
        "etcdserver: mvcc: required revision is a future revision"
    );
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_at_another_member() {
    let served = Served::three().await;
    let mut writer = client(&served, 0).await;
    let mut revisions = Vec::new();
    for number in 0..6 {
        let put = writer.put("seen", number.to_string(), None).await;
        let put = put.expect("a put");
        revisions.push(put.header().expect("a header").revision());
    }
    let mut seen = Vec::new();
    let mut next = revisions[0];
    for place in [1, 2] {
        let options = WatchOptions::new()
            .with_start_revision(next)
            .with_prev_key();
        let mut watching = client(&served, place).await;
        let mut stream = watching
            .watch("seen", Some(options))
            .await
            .expect("a watch");
        while seen.len() < 3 * place {
            let told = tokio::time::timeout(PATIENCE, stream.message()).await;
            let told = told.expect("in time").expect("no error").expect("no end");
            for event in told.events() {
                assert_eq!(event.event_type(), EventType::Put);
                seen.push(event.kv().expect("what was put").mod_revision());
            }
        }
        seen.truncate(3 * place);
        next = seen.last().expect("three were seen") + 1;
    }
    assert_eq!(seen, revisions);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_holds_its_keys() {
    let served = Served::three().await;
    let (mut first, mut second) = (client(&served, 0).await, client(&served, 2).await);
    let lease = first.lease_grant(30, None).await.expect("a lease").id();
    let held = PutOptions::new().with_lease(lease);
    first
        .put("held", "by a lease", Some(held))
        .await
        .expect("a put");
    let (mut keeper, mut answers) = second.lease_keep_alive(lease).await.expect("a stream");
    keeper.keep_alive().await.expect("asked");
    let kept = tokio::time::timeout(PATIENCE, answers.message()).await;
    let kept = kept
        .expect("in time")
        .expect("no error")
        .expect("an answer");
    assert_eq!((kept.id(), kept.ttl()), (lease, 30));
    second.lease_revoke(lease).await.expect("an end");
    let found = first.get("held", None).await.expect("a read");
    assert!(found.kvs().is_empty(), "a lease takes its keys along");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_and_status_are_told() {
    let served = Served::three().await;
    let mut asking = client(&served, 1).await;
    let members = asking.member_list().await.expect("a list");
    assert_eq!(members.members().len(), 3);
    let status = asking.status().await.expect("a status");
    let ids: Vec<u64> = members.members().iter().map(|member| member.id()).collect();
    assert!(
        ids.contains(&status.leader()),
        "{ids:?} {}",
        status.leader()
    );
    assert!(status.version().starts_with("3."), "{}", status.version());
    let unknown = asking
        .lock("door", Some(LockOptions::new()))
        .await
        .expect_err("etcd's lock service is not served; its clients lock by keys and leases");
    assert!(
        matches!(&unknown, Error::GRpcStatus(status) if status.code() as i32 == 12),
        "{unknown}"
    );
    served.stop().await;
}
