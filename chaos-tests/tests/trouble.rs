//! Masters in trouble, on real processes: a leader that sleeps longer than a lease, a leader whose disk is slow, a leader that dies in
//! the middle of a change of members. Needs root and the programs, as the smoke test does.

use chaos::injector::{Calls, Effect};
use chaos::testbed::{Choice, Endpoint, Options, Probe, Testbed, connect};
use rpc::etcd::etcdserverpb as pb;
use rpc::etcd::etcdserverpb::kv_client::KvClient;
use rpc::etcd::etcdserverpb::lease_client::LeaseClient;
use std::time::{Duration, Instant};
use tokio_stream::StreamExt;
use tonic::transport::Channel;

const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
const TTL: i64 = 3;

async fn masters(members: u8) -> Testbed {
    chaos::kernel::own_mounts().expect("this needs root");
    let choice = Choice::parse("control").expect("a target");
    let options = Options {
        members,
        with_injector: true,
        ..Options::of(choice).expect("options")
    };
    Testbed::start(options).await.expect("the masters vote")
}

fn channel(bed: &Testbed, name: &str) -> Channel {
    let endpoints: Vec<Endpoint> = bed.endpoints();
    let endpoint = endpoints.iter().find(|endpoint| endpoint.name == name);
    connect(endpoint.expect("a member")).expect("a URL")
}

async fn within<T, E>(call: impl Future<Output = Result<T, E>>) -> Option<T> {
    let answer = tokio::time::timeout(ANSWER_DEADLINE, call).await;
    answer.ok()?.ok()
}

async fn put(channel: &Channel, key: &str, value: &str, lease: i64) -> Option<()> {
    let request = pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        lease,
        ..pb::PutRequest::default()
    };
    let mut client = KvClient::new(channel.clone());
    within(client.put(request)).await.map(drop)
}

/// Puts until it is acknowledged.
async fn put_surely(channel: &Channel, key: &str, value: &str) {
    let until = Instant::now() + Duration::from_secs(15);
    while put(channel, key, value, 0).await.is_none() {
        assert!(Instant::now() < until, "{key} = {value} is never taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A linearizable read: None without an answer, an empty text where there is no key.
async fn read(channel: Channel, key: &str) -> Option<String> {
    let request = pb::RangeRequest {
        key: key.to_owned().into(),
        ..pb::RangeRequest::default()
    };
    let mut client = KvClient::new(channel);
    let answer = tokio::time::timeout(Duration::from_secs(8), client.range(request)).await;
    let found = answer.ok()?.ok()?.into_inner();
    let value = found.kvs.first().map(|kv| kv.value.to_vec());
    Some(String::from_utf8(value.unwrap_or_default()).expect("text"))
}

async fn keep_alive(channel: &Channel, id: i64) -> Option<i64> {
    let one = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
    let mut client = LeaseClient::new(channel.clone());
    let mut answers = within(client.lease_keep_alive(one)).await?.into_inner();
    let answer = within(async { answers.next().await.ok_or(())?.map_err(drop) }).await?;
    Some(answer.ttl)
}

#[tokio::test]
async fn a_leader_that_sleeps_longer_than_a_lease_ends_none_early_and_tells_nothing_old() {
    let mut bed = masters(3).await;
    let asleep = bed.wait_for_leader().await.expect("a leader").name;
    let awake = bed.names().into_iter().find(|name| *name != asleep);
    let awake = channel(&bed, &awake.expect("another"));
    let sleeper = channel(&bed, &asleep);
    let id = 77;
    let grant = pb::LeaseGrantRequest { ttl: TTL, id };
    let granted = within(LeaseClient::new(awake.clone()).lease_grant(grant)).await;
    assert_eq!(granted.expect("a lease").into_inner().ttl, TTL);
    put(&awake, "leased", "here", id).await.expect("a put");
    put(&sleeper, "register", "old", 0).await.expect("a put");

    bed.pause(&asleep).expect("it sleeps");
    let sleeps_until = Instant::now() + Duration::from_secs(TTL as u64 * 2);
    put_surely(&awake, "register", "new").await;
    // These wait in the sleeper's socket, and are answered as soon as it wakes.
    let waiting: Vec<_> = (0..20)
        .map(|_| tokio::spawn(read(sleeper.clone(), "register")))
        .collect();
    let mut kept = 0;
    while Instant::now() < sleeps_until {
        kept += u32::from(keep_alive(&awake, id).await == Some(TTL));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(kept > 3, "the lease was kept alive {kept} times");

    bed.resume(&asleep).expect("it wakes");
    let woke = Instant::now();
    for answer in waiting {
        let answer = answer.await.expect("the read ends");
        assert!(
            answer.as_deref().is_none_or(|value| value == "new"),
            "a read that waited: {answer:?}"
        );
    }
    let mut answered = 0;
    while woke.elapsed() < Duration::from_secs(TTL as u64) {
        if let Some(value) = read(sleeper.clone(), "register").await {
            assert_eq!(value, "new", "{:?} after it woke", woke.elapsed());
            answered += 1;
        }
        let left = read(awake.clone(), "leased").await;
        assert!(
            left.as_deref().is_none_or(|value| value == "here"),
            "the lease was kept alive, and its key is gone {:?} after the leader woke",
            woke.elapsed()
        );
        assert!(keep_alive(&awake, id).await.is_none_or(|ttl| ttl == TTL));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(answered > 0, "{asleep} answered no read");
}

#[tokio::test]
async fn a_leader_with_a_slow_disk_steps_down_says_so_and_lives() {
    let mut bed = masters(3).await;
    let slow = bed.wait_for_leader().await.expect("a leader").name;
    let through = bed.names().into_iter().find(|name| *name != slow);
    let through = channel(&bed, &through.expect("another"));
    let delay = Effect::Delay(Duration::from_millis(800));
    bed.injector(&slow).expect("it").set(Calls::Sync, delay);
    let until = Instant::now() + Duration::from_secs(25);
    let mut number = 0;
    let next = loop {
        number += 1;
        put(&through, "key", &number.to_string(), 0).await;
        let leader = bed.wait_for_leader().await.expect("a leader").name;
        if leader != slow {
            break leader;
        }
        assert!(Instant::now() < until, "{slow} still leads");
    };
    put_surely(&through, "key", "last").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    bed.fail_where_ended().expect("nobody ends");
    let log = std::fs::read_to_string(bed.log(&slow)).expect("its log");
    assert!(
        log.contains("the disk is slow; handing leadership over"),
        "{next} leads, and {slow} says: {log}"
    );
    bed.restore().await.expect("the disk is fast again");
    bed.wait_until_whole().await.expect("all follow");
    assert_eq!(read(through, "key").await.as_deref(), Some("last"));
}

/// Syncs take so long that the change is certainly under way when its leader dies.
#[tokio::test]
async fn a_change_of_members_that_its_leader_left_half_done_is_finished_by_the_next() {
    const ROUNDS: u32 = 4;
    let mut bed = masters(4).await;
    let mut half_done = false;
    for round in 0..ROUNDS {
        let leader = bed.wait_for_leader().await.expect("a leader").name;
        let names = bed.names();
        let mut others = names.iter().filter(|name| **name != leader);
        let leaving = others.next_back().expect("another").clone();
        let through = others.next().expect("a third").clone();
        let through = channel(&bed, &through);
        put_surely(&through, "round", &round.to_string()).await;
        for name in &names {
            let delay = Effect::Delay(Duration::from_millis(250));
            bed.injector(name).expect("it").set(Calls::Sync, delay);
        }
        // The leader itself is asked: nobody hands the change to the next one.
        let mut asked = bed.endpoints();
        asked.retain(|endpoint| endpoint.name == leader);
        let probe = Probe::new(&asked).expect("a probe");
        let name = leaving.clone();
        let change = tokio::spawn(async move { probe.member_remove(&name).await });
        tokio::time::sleep(Duration::from_millis(120 + 60 * u64::from(round))).await;
        bed.kill(&leader).await.expect("it is killed");
        for name in names.iter().filter(|name| **name != leader) {
            bed.injector(name).expect("it").heal();
        }
        put_surely(&through, "after", &round.to_string()).await;
        drop(change.await.expect("the change ends"));
        let is_left = settled(&bed, &leader, &leaving).await;
        half_done |= names.iter().any(|name| {
            let log = std::fs::read_to_string(bed.log(name)).unwrap_or_default();
            log.contains("the change of the members that was half done is done")
        });
        if is_left {
            if bed.is_running(&leaving) {
                bed.kill(&leaving).await.expect("it is killed");
            }
            bed.start_member(&leader).expect("it starts");
            bed.rejoin(&leaving).await.expect("it joins");
        }
        bed.restore().await.expect("all run");
        bed.wait_until_whole().await.expect("all vote again");
        let value = read(through, "round").await;
        assert_eq!(value, Some(round.to_string()), "nothing is lost by it");
        if half_done {
            return;
        }
    }
    panic!("in {ROUNDS} rounds no change was ever left half done");
}

/// Waits until the living members agree on who belongs to them; whether the one that was to leave did.
async fn settled(bed: &Testbed, dead: &str, leaving: &str) -> bool {
    let until = Instant::now() + Duration::from_secs(15);
    let probe = bed.probe().expect("a probe");
    let mut before = None;
    loop {
        let known = probe.members().await.ok();
        let names: Option<Vec<String>> =
            known.map(|known| known.into_iter().map(|member| member.name).collect());
        let leader = probe.leader().await.filter(|leader| leader.name != dead);
        if let (Some(names), Some(_)) = (&names, leader)
            && names.contains(&dead.to_owned())
        {
            // The same twice, a while apart: nothing is under way any more.
            if before.as_ref() == Some(names) {
                return !names.contains(&leaving.to_owned());
            }
            before = Some(names.clone());
        }
        assert!(
            Instant::now() < until,
            "the members do not agree: {names:?}"
        );
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}
