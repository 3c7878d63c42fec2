//! The crate `etcd-client`, as services of others use it, on three members: keys, transactions, a watch that is resumed at
//! another member, a lease that is kept alive and revoked, members and status.

mod served;

use etcd_client::{
    Client, Compare, CompareOp, Error, EventType, GetOptions, LockOptions, ProclaimOptions,
    PutOptions, ResignOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchOptions,
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
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_has_one_holder_at_a_time() {
    let served = Served::three().await;
    let (mut first, mut second) = (client(&served, 0).await, client(&served, 1).await);
    let lease = first.lease_grant(600, None).await.expect("a lease").id();
    let options = LockOptions::new().with_lease(lease);
    let held = first.lock("door", Some(options)).await.expect("it is free");
    assert_eq!(held.key(), format!("door/{lease:x}").as_bytes());

    // Who waits and goes leaves the line; who stays is next.
    let gone = second.lock("door", None);
    let gone = tokio::time::timeout(Duration::from_millis(300), gone).await;
    assert!(gone.is_err(), "it is held");
    let mut waiter = client(&served, 2).await;
    let waiting = tokio::spawn(async move { waiter.lock("door", None).await });
    let prefix = GetOptions::new().with_prefix().with_count_only();
    wait_for_count(&mut first, prefix, 2).await;
    assert!(!waiting.is_finished());
    first.unlock(held.key()).await.expect("it is given back");
    let next = tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("in time");
    let next = next.expect("no panic").expect("it is had");

    // The end of a lease frees it too.
    let waiting = tokio::spawn(async move { second.lock("door", None).await });
    let lease = i64::from_str_radix(
        std::str::from_utf8(&next.key()["door/".len()..]).expect("text"),
        16,
    );
    let revoked = first.lease_revoke(lease.expect("hexadecimal")).await;
    revoked.expect("an end");
    let last = tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("in time");
    last.expect("no panic").expect("it is had");
    served.stop().await;
}

/// Until so many keys stand in the line for the door.
async fn wait_for_count(client: &mut Client, options: GetOptions, count: i64) {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let found = client
            .get("door/", Some(options.clone()))
            .await
            .expect("a read");
        if found.count() == count {
            return;
        }
        assert!(tokio::time::Instant::now() < until, "{found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_election_has_one_leader_whom_all_see() {
    let served = Served::three().await;
    let (mut first, mut second) = (client(&served, 0).await, client(&served, 1).await);
    let nobody = first.leader("office").await.expect_err("nobody stood yet");
    assert!(
        nobody.to_string().contains("election: no leader"),
        "{nobody}"
    );
    let lease = first.lease_grant(600, None).await.expect("a lease").id();
    let won = first
        .campaign("office", "a", lease)
        .await
        .expect("it leads");
    let key = won.leader().expect("its key").clone();
    let mut observer = client(&served, 2).await;
    let mut observed = observer.observe("office").await.expect("a stream");
    let mut seen = async || {
        let told = tokio::time::timeout(PATIENCE, observed.message()).await;
        let told = told.expect("in time").expect("no error").expect("no end");
        let kv = told.kv().expect("a leader").clone();
        kv.value_str().expect("text").to_owned()
    };
    assert_eq!(seen().await, "a");
    let as_leader = ProclaimOptions::new().with_leader(key.clone());
    let changed = first.proclaim("b", Some(as_leader)).await;
    changed.expect("it leads");
    assert_eq!(seen().await, "b");

    let other = second.lease_grant(600, None).await.expect("a lease").id();
    let next = tokio::spawn(async move { second.campaign("office", "c", other).await });
    let leader = first.leader("office").await.expect("one leads");
    assert_eq!(leader.kv().expect("its key").value(), b"b");
    let resign = ResignOptions::new().with_leader(key.clone());
    first.resign(Some(resign)).await.expect("it steps back");
    let next = tokio::time::timeout(PATIENCE, next).await.expect("in time");
    next.expect("no panic").expect("it leads");
    assert_eq!(seen().await, "c");
    let late = ProclaimOptions::new().with_leader(key);
    let late = first.proclaim("d", Some(late)).await;
    let late = late.expect_err("it leads no more").to_string();
    assert!(late.contains("election: not leader"), "{late}");
    served.stop().await;
}
