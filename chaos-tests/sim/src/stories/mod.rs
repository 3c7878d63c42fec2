//! Single troubles of the simulated store, told as they must go: no chance but the seed's, and every invariant asked meanwhile.

mod full_disk;
mod leases;
mod slow_disk;

use crate::entropy;
use crate::judge::{Event, Judge};
use crate::run::WALL_MS;
use crate::world::World;
use mvcc::{Op, Store, StoreError, Txn};
use raft_store::RaftStore;
use raft_store::types::MemberId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often a story looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Lets a story happen in a cluster of three, for each of some seeds.
fn play<F>(story: impl Fn(World) -> F + Send + Sync)
where
    F: Future<Output = ()>,
{
    for seed in 1..=2 {
        std::thread::scope(|scope| {
            let telling = scope.spawn(|| {
                entropy::seed_this_thread(seed);
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .start_paused(true)
                    .build()
                    .expect("a runtime without sockets can always be built");
                runtime.block_on(tell(seed, &story));
            });
            assert!(telling.join().is_ok(), "seed {seed}");
        });
    }
}

async fn tell<F: Future<Output = ()>>(seed: u64, story: &impl Fn(World) -> F) {
    let mut seeds = StdRng::seed_from_u64(seed);
    let _guard = raft_store::runtime::simulate(seeds.random(), WALL_MS);
    let judge = Judge::new();
    let world = World::of_three(&mut seeds, judge.clone());
    world.begin().await;
    story(world.clone()).await;
    world.end().await;
    let (trace, _, violation) = judge.conclude();
    if let Some(violation) = violation {
        let last: Vec<&str> = trace.lines().rev().take(40).collect();
        panic!("{violation:?}\n{}", last.join("\n"));
    }
}

/// Waits until something is so, and fails when it takes too long; returns how long it took.
async fn within(limit: Duration, what: &str, is_so: impl AsyncFn() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        sleep(LOOK_EVERY).await;
    }
    began.elapsed()
}

/// Fails when something ceases to be so meanwhile.
async fn throughout(time: Duration, what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        assert!(is_so(), "{what}");
        sleep(LOOK_EVERY).await;
    }
}

async fn leader_of(world: &World) -> MemberId {
    within(Duration::from_secs(10), "somebody leads", async || {
        world.leader().is_some()
    })
    .await;
    world.leader().expect("it was just there")
}

fn store(world: &World, member: MemberId) -> RaftStore {
    world.store(member).expect("the member runs")
}

/// Writes as a client does, under the eyes of the judge.
async fn write(world: &World, at: MemberId, op: Op) -> Result<(), StoreError> {
    let number = world.next_op();
    let txn = Txn {
        success: vec![op],
        ..Txn::default()
    };
    world.judge().see(&Event::Invoked {
        client: 9,
        op: number,
        at,
        asked: &crate::judge::Asked::Txn(txn.clone()),
    });
    let result = store(world, at).txn(txn).await;
    world.judge().see(&Event::Answered {
        client: 9,
        op: number,
        result: &result,
    });
    result.map(|_| ())
}

async fn put(world: &World, at: MemberId) -> Result<(), StoreError> {
    let number = world.next_op();
    let op = Op::put(format!("key/{}", number % 20), format!("v{number}"));
    write(world, at, op).await
}

async fn delete(world: &World, at: MemberId) -> Result<(), StoreError> {
    write(world, at, Op::delete("key/1")).await
}
