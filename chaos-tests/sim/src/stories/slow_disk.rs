//! A leader whose disk is slow hands over, says so, runs on, and does not lead again while its disk is slow.

use super::{leader_of, play, put, store, throughout, within};
use crate::world::World;
use objects::cluster::Alarm;
use raft_store::types::MemberId;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::sleep;

const HANDS_OVER_WITHIN: Duration = Duration::from_secs(12);
/// A vote goes to disk before it is given: where that takes longer than an election may, it takes several.
const ELECTS_WITHIN: Duration = Duration::from_secs(60);

/// Somebody writes all the time, wherever it works.
fn keep_writing(world: &World) -> JoinHandle<()> {
    let world = world.clone();
    tokio::spawn(async move {
        for turn in 0.. {
            let members = world.members();
            let at = members[turn % members.len()];
            if world.store(at).is_some() {
                // Who leads may change just now.
                let _ = put(&world, at).await;
            }
            sleep(Duration::from_millis(30)).await;
        }
    })
}

async fn says_so(world: &World, slow: MemberId) {
    let others = world.members();
    let other = others.iter().find(|member| **member != slow);
    let asked = store(world, *other.expect("there are three"));
    within(Duration::from_secs(8), "the alarm is told", async || {
        asked.alarms().await.contains(&(slow, Alarm::SlowDisk))
    })
    .await;
    let status = asked.status().await;
    let told = status.members.iter().find(|told| told.member.id == slow);
    let problem = told.and_then(|told| told.problem.as_deref());
    assert_eq!(problem, Some("the disk is slow"));
}

async fn leaves_the_lead(world: World, hangs: bool) {
    let writing = keep_writing(&world);
    let slow = leader_of(&world).await;
    world.disk(slow).slow(true, hangs);
    let leads_another = || world.leader().is_some_and(|leader| leader != slow);
    within(HANDS_OVER_WITHIN, "another leads", async || leads_another()).await;
    says_so(&world, slow).await;
    let is_well = || world.leader() != Some(slow) && store(&world, slow).failed().is_none();
    throughout(Duration::from_secs(20), "it runs and follows", is_well).await;
    writing.abort();
}

#[test]
fn a_leader_whose_writes_are_slow_follows_from_then_on() {
    play(|world| leaves_the_lead(world, false));
}

#[test]
fn a_leader_whose_disk_hangs_follows_from_then_on() {
    play(|world| leaves_the_lead(world, true));
}

#[test]
fn a_slow_member_leaves_the_lead_to_others_even_when_the_leader_is_cut_off() {
    play(|world: World| async move {
        let writing = keep_writing(&world);
        let slow = leader_of(&world).await;
        world.disk(slow).slow(true, false);
        let leads_another = || world.leader().is_some_and(|leader| leader != slow);
        within(HANDS_OVER_WITHIN, "another leads", async || leads_another()).await;
        says_so(&world, slow).await;
        for _ in 0..2 {
            let leader = leader_of(&world).await;
            assert_ne!(leader, slow);
            let others = world.members().into_iter().filter(|id| *id != leader);
            let both_ways = others.flat_map(|other| [(leader, other), (other, leader)]);
            world.weather(|weather| weather.cut.extend(both_ways));
            let follows = || world.leader() != Some(slow);
            let leads = async || {
                assert!(follows(), "the third one leads");
                world.leader().is_some_and(|now| now != leader)
            };
            within(ELECTS_WITHIN, "the third one leads", leads).await;
            world.weather(|weather| weather.cut.clear());
            throughout(Duration::from_secs(3), "the third one leads", follows).await;
        }
        writing.abort();
    });
}

#[test]
fn when_all_disks_are_slow_somebody_leads_on() {
    play(|world: World| async move {
        let writing = keep_writing(&world);
        for member in world.members() {
            world.disk(member).slow(true, false);
        }
        sleep(Duration::from_secs(12)).await;
        for _ in 0..2 {
            // The leader is gone for good, and only slow members are left.
            let leader = leader_of(&world).await;
            world.end_life(leader, crate::disk::Crash::PowerCut);
            let leads = async || world.leader().is_some();
            within(ELECTS_WITHIN, "a slow one leads", leads).await;
            let works = async || {
                let leader = world.leader();
                match leader {
                    Some(leader) => put(&world, leader).await.is_ok(),
                    None => false,
                }
            };
            within(ELECTS_WITHIN, "it writes", works).await;
            world.start(leader).await;
            world.disk(leader).slow(true, false);
            sleep(Duration::from_secs(5)).await;
        }
        writing.abort();
    });
}
