//! One simulation, from its seed to its verdict.

use crate::facts::Facts;
use crate::judge::{Event, Judge, Violation};
use crate::world::World;
use crate::{archives, clients, entropy, faults, invariants, watchers};
use mvcc::Store;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// The wall clock of a simulation begins here.
pub(crate) const WALL_MS: i64 = 1_800_000_000_000;
/// How long the members have to make a cluster.
const BEGIN_MAX: Duration = Duration::from_secs(60);
/// How long members have after healing until all of them serve writes again.
const HEAL_MAX: Duration = Duration::from_secs(45);

/// What is to be simulated.
#[derive(Clone, Debug)]
pub struct Options {
    /// Fixes everything.
    pub seed: u64,
    /// For how long the world is broken, by the simulation's clock.
    pub broken_for: Duration,
}

impl Options {
    /// The usual simulation of a seed.
    pub fn new(seed: u64) -> Self {
        Options {
            seed,
            broken_for: Duration::from_secs(20),
        }
    }
}

/// What a simulation came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// Events that were judged.
    pub steps: u64,
    /// Requests of clients that were answered.
    pub answered: u64,
    /// Faults, with how often each was done.
    pub faults: std::collections::BTreeMap<String, u64>,
    /// How long it lasted, by the simulation's clock.
    pub simulated_ms: u64,
    /// A mark of the trace: equal traces have equal ones.
    pub mark: String,
    /// Every step in words, one a line.
    #[serde(skip)]
    pub trace: String,
}

/// Runs a simulation to its end, on a thread of its own.
pub fn run(options: &Options) -> Outcome {
    let options = options.clone();
    let seed = options.seed;
    let thread = std::thread::Builder::new()
        .name(format!("seed-{seed}"))
        .spawn(move || {
            entropy::seed_this_thread(seed);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime without sockets can always be built");
            runtime.block_on(simulate(&options))
        })
        .expect("a thread can be started");
    thread.join().expect("the simulation itself does not panic")
}

async fn simulate(options: &Options) -> Outcome {
    let began = Instant::now();
    let mut seeds = StdRng::seed_from_u64(options.seed);
    let _guard = raft_store::runtime::simulate(seeds.random(), WALL_MS);
    let judge = Judge::new();
    let world = World::new(&mut seeds, judge.clone());
    tokio::select! {
        biased;
        () = judge.violated() => {}
        () = live(options, &mut seeds, &world, &judge) => {}
    }
    world.end().await;
    let (trace, steps, violation) = judge.conclude();
    Outcome {
        seed: options.seed,
        violation,
        steps,
        answered: world.answered(),
        faults: world.faults(),
        simulated_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        mark: mark(&trace),
        trace,
    }
}

async fn live(options: &Options, seeds: &mut StdRng, world: &World, judge: &Judge) {
    if timeout(BEGIN_MAX, world.begin()).await.is_err() {
        judge.violate(
            invariants::PROGRESS,
            "the members made no cluster".to_owned(),
        );
        return;
    }
    let load = clients::start(world, seeds.random());
    let watching = watchers::start(world, seeds.random());
    faults::run(
        world,
        StdRng::seed_from_u64(seeds.random()),
        options.broken_for,
    )
    .await;
    world.heal().await;
    judge.see(&Event::Healed);
    if let Err(what) = timeout(HEAL_MAX, serves(world)).await {
        let why = format!(
            "after {HEAL_MAX:?} without faults: {what}; {}",
            world.describe()
        );
        judge.violate(invariants::PROGRESS, why);
        return;
    }
    load.stop().await;
    if timeout(HEAL_MAX, agree(world)).await.is_err() {
        let why = format!(
            "the members do not reach the same state: {}",
            world.describe()
        );
        judge.violate(invariants::PROGRESS, why);
        return;
    }
    watching.finish(world).await;
    if timeout(HEAL_MAX, archives::restore(world)).await.is_err() {
        judge.violate(
            invariants::PROGRESS,
            "an archive was not restored in time".to_owned(),
        );
    }
}

/// Returns when every member takes a write and reads it, and no change of the members is half done. A replacement may only be finished
/// now, so that one of them leaves.
async fn serves(world: &World) {
    for member in world.members() {
        while world.in_cluster().contains(&member) {
            if let Some(store) = world.store(member)
                && clients::probe(world, member, &store).await
            {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
    while !world.judge().facts(Facts::is_settled) {
        world.start_unknown().await;
        sleep(Duration::from_millis(100)).await;
    }
}

/// Returns when all members are at the same revision.
async fn agree(world: &World) {
    loop {
        let mut revisions = world
            .in_cluster()
            .into_iter()
            .filter_map(|member| world.store(member))
            .map(|store| store.applied_revision());
        let first = revisions.next();
        if first.is_some_and(|first| revisions.all(|revision| revision == first)) {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn mark(trace: &str) -> String {
    let mut hasher = DefaultHasher::new();
    trace.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
