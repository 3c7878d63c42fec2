//! Full disks: puts are refused when a quorum is full, what frees room is taken, a full leader hands over to one with room, and all
//! of it ends by itself when there is room.

use super::{delete, leader_of, play, put, store, within};
use crate::world::{RESERVE_BYTES, World};
use mvcc::{Store, StoreError};
use objects::Revision;
use objects::cluster::Alarm;
use raft_store::types::MemberId;
use std::time::Duration;

async fn is_taken(world: &World) -> bool {
    match world.leader() {
        Some(leader) => put(world, leader).await.is_ok(),
        None => false,
    }
}

async fn is_refused(world: &World, at: MemberId) -> bool {
    put(world, at).await == Err(StoreError::NoSpace)
}

fn fill(world: &World, members: &[MemberId]) {
    for member in members {
        world.disk(*member).fill(RESERVE_BYTES / 2);
    }
}

fn make_room(world: &World) {
    for member in world.members() {
        world.disk(member).make_room();
    }
}

#[test]
fn when_all_disks_are_full_only_what_frees_room_is_taken() {
    play(|world: World| async move {
        let leader = leader_of(&world).await;
        for _ in 0..50 {
            assert!(is_taken(&world).await);
        }
        fill(&world, &world.members());
        for at in world.members() {
            let refused = async || is_refused(&world, at).await;
            within(Duration::from_secs(2), "puts are refused", refused).await;
            assert_eq!(delete(&world, at).await, Ok(()));
        }
        let asked = store(&world, leader);
        assert_eq!(asked.compact(Revision(20)).await, Ok(()));
        let alarms = asked.alarms().await;
        let of_all = world.members().into_iter();
        assert_eq!(
            alarms,
            of_all.map(|id| (id, Alarm::NoSpace)).collect::<Vec<_>>()
        );
        make_room(&world);
        let taken = async || is_taken(&world).await;
        within(Duration::from_secs(4), "puts are taken again", taken).await;
        within(Duration::from_secs(4), "no alarm is left", async || {
            asked.alarms().await.is_empty()
        })
        .await;
    });
}

#[test]
fn when_a_quorum_is_full_its_leader_refuses_though_it_has_room() {
    play(|world: World| async move {
        let leader = leader_of(&world).await;
        let others: Vec<MemberId> = world
            .members()
            .into_iter()
            .filter(|id| *id != leader)
            .collect();
        fill(&world, &others);
        let refused = async || is_refused(&world, leader).await;
        within(Duration::from_secs(5), "puts are refused", refused).await;
        assert_eq!(delete(&world, leader).await, Ok(()));
        world.disk(others[0]).make_room();
        let taken = async || is_taken(&world).await;
        within(Duration::from_secs(5), "puts are taken again", taken).await;
    });
}

#[test]
fn a_full_leader_hands_over_to_one_with_room() {
    play(|world: World| async move {
        let full = leader_of(&world).await;
        fill(&world, &[full]);
        let leads_another = async || world.leader().is_some_and(|leader| leader != full);
        within(Duration::from_secs(10), "another leads", leads_another).await;
        for _ in 0..50 {
            let taken = async || is_taken(&world).await;
            within(Duration::from_secs(5), "puts are taken", taken).await;
        }
        assert!(store(&world, full).failed().is_none());
    });
}

#[test]
fn a_member_without_any_room_ends_and_comes_back_with_room() {
    play(|world: World| async move {
        let leader = leader_of(&world).await;
        let members = world.members();
        let full = *members
            .iter()
            .find(|id| **id != leader)
            .expect("there are three");
        world.disk(full).fill(0);
        assert!(is_taken(&world).await, "a quorum has room");
        let ended = async || store(&world, full).failed().is_some();
        within(Duration::from_secs(10), "it ends", ended).await;
        world.end_life(full, crate::disk::Crash::PowerCut);
        world.start(full).await;
        world.disk(full).make_room();
        if world
            .store(full)
            .is_none_or(|store| store.failed().is_some())
        {
            world.end_life(full, crate::disk::Crash::PowerCut);
            world.start(full).await;
        }
        let behind = store(&world, full);
        let newest = store(&world, leader).applied_revision();
        within(Duration::from_secs(20), "it catches up", async || {
            behind.applied_revision() >= newest
        })
        .await;
    });
}
