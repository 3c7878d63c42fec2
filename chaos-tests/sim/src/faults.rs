//! How the world is broken: draws a fault, lets it last, draws the next; several may hold at once.

use crate::archives;
use crate::disk::Crash;
use crate::facts::HalfDone;
use crate::world::{RESERVE_BYTES, World};
use raft_store::types::MemberId;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long a change of the members may take before the next fault comes anyway.
const CHANGE_MAX: Duration = Duration::from_secs(4);

/// How fast a steady clock may run.
const RATES: [f64; 7] = [0.5, 0.75, 0.95, 1.05, 1.2, 1.5, 2.0];

/// A way to break the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    PowerCut,
    PowerCutOfAll,
    Damage,
    Partition,
    CutOffLeader,
    OneWay,
    Ring,
    BadWeather,
    SlowNetwork,
    SlowDisk,
    HangingDisk,
    FailedSync,
    FullDisk,
    FullDisks,
    LostSynced,
    DamagedNotes,
    ClockJump,
    ClockRate,
    Transfer,
    Replace,
    HalfDone,
    Save,
    Calm,
}

const KINDS: [(Kind, u32); 24] = [
    (Kind::Kill, 8),
    (Kind::PowerCut, 8),
    (Kind::PowerCutOfAll, 5),
    (Kind::Damage, 3),
    (Kind::Partition, 8),
    (Kind::CutOffLeader, 8),
    (Kind::OneWay, 6),
    (Kind::Ring, 4),
    (Kind::BadWeather, 8),
    (Kind::SlowNetwork, 5),
    (Kind::SlowDisk, 5),
    (Kind::HangingDisk, 3),
    (Kind::FailedSync, 4),
    (Kind::FullDisk, 4),
    (Kind::FullDisks, 3),
    (Kind::LostSynced, 3),
    (Kind::DamagedNotes, 3),
    (Kind::ClockJump, 4),
    (Kind::ClockRate, 8),
    (Kind::Transfer, 6),
    (Kind::Replace, 4),
    (Kind::HalfDone, 5),
    (Kind::Save, 4),
    (Kind::Calm, 8),
];

/// Breaks the world for a while.
pub async fn run(world: &World, mut rng: StdRng, lasts: Duration) {
    let until = Instant::now() + lasts;
    while Instant::now() < until {
        let kind = KINDS.choose_weighted(&mut rng, |(_, weight)| *weight);
        let (kind, _) = *kind.expect("the weights are not zero");
        one(world, kind, &mut rng).await;
        let pause = rng.random_range(100..1_200);
        sleep(Duration::from_millis(pause)).await;
        mend_some(world, &mut rng).await;
    }
}

async fn one(world: &World, kind: Kind, rng: &mut StdRng) {
    let members = world.members();
    let any = *members.choose(rng).expect("the world has members");
    match kind {
        Kind::Kill => {
            let victim = leader_or(world, rng, any);
            tell(world, "kill", &format!("kill m{victim}"));
            world.end_life(victim, Crash::Kill);
        }
        Kind::PowerCut => {
            let victim = leader_or(world, rng, any);
            tell(world, "power_cut", &format!("power cut of m{victim}"));
            world.end_life(victim, Crash::PowerCut);
        }
        Kind::PowerCutOfAll => {
            tell(world, "power_cut_of_all", "power cut of all");
            for member in members {
                world.end_life(member, Crash::PowerCut);
            }
        }
        Kind::Damage => damage(world, rng, any),
        Kind::Partition => {
            let mut shuffled = members.clone();
            shuffled.shuffle(rng);
            let (left, right) = shuffled.split_at(shuffled.len() / 2);
            tell(
                world,
                "partition",
                &format!("{left:?} apart from {right:?}"),
            );
            cut(world, pairs(left, right).chain(pairs(right, left)));
        }
        Kind::CutOffLeader => {
            let alone = world.leader().unwrap_or(any);
            tell(world, "leader_cut_off", &format!("m{alone} cut off"));
            let others = without(&members, alone);
            cut(
                world,
                pairs(&[alone], &others).chain(pairs(&others, &[alone])),
            );
        }
        Kind::OneWay => {
            let deaf = leader_or(world, rng, any);
            let others = without(&members, deaf);
            let hears = rng.random_bool(0.5);
            tell(
                world,
                "one_way",
                &format!("m{deaf} {}", if hears { "is mute" } else { "is deaf" }),
            );
            match hears {
                true => cut(world, pairs(&[deaf], &others)),
                false => cut(world, pairs(&others, &[deaf])),
            }
        }
        Kind::Ring => {
            tell(world, "ring", "each hears its neighbours only");
            cut(world, strangers(&members));
        }
        Kind::BadWeather => {
            let (loss, twice) = (rng.random_range(0.02..0.3), rng.random_range(0.0..0.3));
            tell(
                world,
                "loss_and_duplicates",
                &format!("loss {loss:.2}, twice {twice:.2}"),
            );
            world.weather(|weather| (weather.loss, weather.twice) = (loss, twice));
        }
        Kind::SlowNetwork => {
            let max = rng.random_range(10_000..400_000);
            tell(world, "slow_network", &format!("delays up to {max} us"));
            world.weather(|weather| weather.delay = 100..max);
        }
        Kind::SlowDisk | Kind::HangingDisk => {
            let victim = leader_or(world, rng, any);
            let hangs = kind == Kind::HangingDisk;
            let name = if hangs { "hanging_disk" } else { "slow_disk" };
            tell(world, name, &format!("{name} of m{victim}"));
            world.disk(victim).slow(true, hangs);
        }
        Kind::FailedSync => {
            let victim = leader_or(world, rng, any);
            tell(
                world,
                "failed_sync",
                &format!("the next sync of m{victim} fails"),
            );
            world.disk(victim).fail_next_sync();
        }
        Kind::FullDisk => {
            let victim = leader_or(world, rng, any);
            fill(world, rng, &[victim]);
        }
        Kind::FullDisks => fill(world, rng, &members),
        Kind::LostSynced => {
            world.end_life(any, Crash::Kill);
            if world.lose_synced(any, rng) {
                tell(
                    world,
                    "lost_synced",
                    &format!("m{any} lost what it had synced"),
                );
            }
        }
        Kind::DamagedNotes => {
            world.end_life(any, Crash::PowerCut);
            world.damage_notes(any, rng);
            tell(
                world,
                "damaged_notes",
                &format!("a bit of m{any}'s notes flipped"),
            );
        }
        Kind::ClockRate => {
            let victim = leader_or(world, rng, any);
            let rate = *RATES.choose(rng).expect("there are some");
            tell(
                world,
                "clock_rate",
                &format!("the clock of m{victim} runs {rate} times as fast"),
            );
            world.clock(victim).set_rate(rate);
        }
        Kind::ClockJump => {
            let by_ms = rng.random_range(-60_000..60_000);
            tell(
                world,
                "clock_jump",
                &format!("the wall clock jumps {by_ms} ms"),
            );
            raft_store::runtime::jump_wall_clock(by_ms);
        }
        Kind::Transfer => transfer(world, rng, any).await,
        Kind::Replace => replace(world, any).await,
        Kind::HalfDone => half_done(world, rng, any).await,
        Kind::Save => {
            if archives::save(world).await.is_some() {
                tell(world, "save", "an archive was saved");
            }
        }
        Kind::Calm => {
            tell(world, "calm", "the network is well again");
            world.weather(|weather| *weather = Default::default());
        }
    }
}

/// Some of what is broken is repaired now and then, so that the next fault hits a world that works.
async fn mend_some(world: &World, rng: &mut StdRng) {
    if rng.random_bool(0.3) {
        world.weather(|weather| *weather = Default::default());
    }
    for member in world.members() {
        match world.store(member) {
            // What supervises a member starts it anew when it fails.
            Some(store) if store.failed().is_some() => {
                drop(store);
                world.end_life(member, Crash::PowerCut);
            }
            Some(_) => {}
            None if rng.random_bool(0.6) => world.start(member).await,
            None => {}
        }
        if rng.random_bool(0.4) {
            world.disk(member).slow(false, false);
        }
        if rng.random_bool(0.15) {
            world.disk(member).make_room();
        }
        if rng.random_bool(0.15) {
            world.clock(member).set_rate(1.0);
        }
    }
}

/// Something else takes most of the room on disks.
fn fill(world: &World, rng: &mut StdRng, members: &[MemberId]) {
    let name = match members.len() {
        1 => "full_disk",
        _ => "full_disks",
    };
    tell(world, name, &format!("the disks of {members:?} are full"));
    for member in members {
        world
            .disk(*member)
            .fill(rng.random_range(RESERVE_BYTES / 32..RESERVE_BYTES));
    }
}

fn damage(world: &World, rng: &mut StdRng, victim: MemberId) {
    world.end_life(victim, Crash::Kill);
    if world.damage(victim, rng) {
        tell(
            world,
            "damaged_log",
            &format!("a bit of m{victim}'s log flipped"),
        );
    }
}

async fn transfer(world: &World, rng: &mut StdRng, to: MemberId) {
    let Some(store) = world.store(to) else {
        return;
    };
    let to = rng.random_bool(0.7).then(|| to.to_string());
    tell(world, "transfer", &format!("leadership to {to:?}"));
    // How it goes does not matter.
    let _ = timeout(CHANGE_MAX, store.transfer_leadership(to.as_deref())).await;
}

/// A new member joins and another leaves.
async fn replace(world: &World, leaving: MemberId) {
    tell(world, "replace", &format!("a new member for m{leaving}"));
    let joined = timeout(CHANGE_MAX, world.join()).await;
    if joined == Ok(true) {
        // It leaves only if the cluster lets it.
        let _ = timeout(CHANGE_MAX, world.leave(leaving)).await;
    }
}

/// A new member is to take another's place, and whoever wrote the first of the two steps ends before the second.
async fn half_done(world: &World, rng: &mut StdRng, leaving: MemberId) {
    let last = || world.judge().facts(|facts| facts.half_done);
    let before = last();
    if timeout(CHANGE_MAX, world.join_for(Some(leaving))).await != Ok(true) {
        return;
    }
    let begun = async {
        loop {
            match last() {
                Some(now) if Some(now) != before => return now,
                _ => sleep(Duration::from_micros(500)).await,
            }
        }
    };
    let Ok(HalfDone { index, by }) = timeout(CHANGE_MAX, begun).await else {
        return;
    };
    // It may have got it to none, some or all of the others.
    sleep(Duration::from_micros(rng.random_range(0..8_000))).await;
    let crash = match rng.random_bool(0.5) {
        true => Crash::Kill,
        false => Crash::PowerCut,
    };
    tell(
        world,
        "half_done_change",
        &format!("m{by} ends with change {index} of the members half done"),
    );
    world.end_life(by, crash);
}

fn tell(world: &World, kind: &'static str, what: &str) {
    world.fault(Some(kind), what);
}

fn leader_or(world: &World, rng: &mut StdRng, any: MemberId) -> MemberId {
    match rng.random_bool(0.6) {
        true => world.leader().unwrap_or(any),
        false => any,
    }
}

fn cut(world: &World, directions: impl IntoIterator<Item = (MemberId, MemberId)>) {
    world.weather(|weather| weather.cut.extend(directions));
}

fn pairs(from: &[MemberId], to: &[MemberId]) -> impl Iterator<Item = (MemberId, MemberId)> {
    let all = from
        .iter()
        .flat_map(|from| to.iter().map(|to| (*from, *to)));
    all.collect::<Vec<_>>().into_iter()
}

fn without(members: &[MemberId], one: MemberId) -> Vec<MemberId> {
    members
        .iter()
        .copied()
        .filter(|member| *member != one)
        .collect()
}

/// The pairs that are not next to each other in a ring; of three members, one pair.
fn strangers(members: &[MemberId]) -> BTreeSet<(MemberId, MemberId)> {
    let count = members.len();
    let mut strangers = BTreeSet::new();
    for from in 0..count {
        for to in 0..count {
            let apart = from.abs_diff(to);
            let is_near = apart <= 1 || (apart == count - 1 && count > 3);
            if !is_near {
                strangers.insert((members[from], members[to]));
            }
        }
    }
    strangers
}
