//! Leases and clocks: only the time on the clock of the leader counts, and only that of the one who leads.

use super::{leader_of, play, store, within};
use crate::facts::Facts;
use crate::judge::Event;
use crate::world::World;
use mvcc::{Command, LeaseId};
use raft_store::types::MemberId;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const TTL: Duration = Duration::from_secs(2);

async fn command(world: &World, at: MemberId, lease: i64, is_new: bool) -> bool {
    let asked = world.judge().facts(Facts::read_clocks);
    let store = store(world, at);
    let (id, now_ms) = (LeaseId(lease), store.lease_now_ms());
    let command = match is_new {
        true => Command::LeaseGrant {
            id,
            ttl_ms: 2_000,
            now_ms,
        },
        false => Command::LeaseKeepAlive { id, now_ms },
    };
    let done = store.command(command).await.is_ok();
    if done {
        world.judge().see(&Event::LeaseHeld {
            lease,
            ttl: TTL,
            asked: &asked,
        });
    }
    done
}

fn cut_off(world: &World, one: MemberId) {
    let others = world.members().into_iter().filter(|id| *id != one);
    let both_ways = others.flat_map(|other| [(one, other), (other, one)]);
    world.weather(|weather| weather.cut.extend(both_ways));
}

async fn is_alive(world: &World, at: MemberId, lease: i64) -> bool {
    let leases = store(world, at).leases().await.expect("a quorum is there");
    leases.iter().any(|found| found.id == LeaseId(lease))
}

/// What a former leader had measured reaches the next one after that has renewed all leases.
#[test]
fn the_clock_of_a_former_leader_ends_no_lease() {
    for late_ms in [1_500, 1_700, 1_900] {
        play(move |world: World| async move {
            let former = leader_of(&world).await;
            sleep(Duration::from_secs(1)).await;
            assert!(command(&world, former, 7, true).await);
            // Its time is over by the former leader's clock just when nobody hears that leader any more.
            sleep(Duration::from_millis(late_ms)).await;
            cut_off(&world, former);
            let leads_another = async || world.leader().is_some_and(|leader| leader != former);
            within(Duration::from_secs(4), "another leads", leads_another).await;
            let leader = leader_of(&world).await;
            let kept = async || command(&world, leader, 7, false).await;
            within(Duration::from_secs(1), "the lease is kept alive", kept).await;
            world.weather(|weather| weather.cut.clear());
            let until = Instant::now() + TTL - Duration::from_millis(200);
            while Instant::now() < until {
                assert!(is_alive(&world, leader, 7).await, "{late_ms}");
                sleep(Duration::from_millis(50)).await;
            }
        });
    }
}

#[test]
fn a_fast_leader_gives_a_lease_its_time_by_its_own_clock_and_a_slow_one_more() {
    for rate in [0.5, 2.0] {
        play(move |world: World| async move {
            let leader = leader_of(&world).await;
            world.clock(leader).set_rate(rate);
            sleep(Duration::from_secs(1)).await;
            let granted = Instant::now();
            assert!(command(&world, leader, 7, true).await);
            let is_over = async || !is_alive(&world, leader, 7).await;
            within(Duration::from_secs(8), "the lease ends", is_over).await;
            let lived = granted.elapsed().mul_f64(rate);
            assert!(lived >= TTL, "{lived:?} at {rate}");
        });
    }
}
