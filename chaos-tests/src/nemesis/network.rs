//! Packets between members are dropped, delayed, lost, doubled, reordered. Clients reach every member all the time, so that a
//! member that is cut off can be asked for what it must not say.

use super::{Effect, Fault, Kind};
use crate::tunswitch::{Counts, Quality};
use anyhow::Result;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::time::{Duration, Instant};

/// A direction: packets from the first to the second member.
type Direction = (String, String);

impl Fault<'_> {
    pub(super) async fn partition(&mut self) -> Result<Effect> {
        let names = self.bed.names();
        let cuts = cuts(self.planned.kind, &names, &self.leader, &mut self.rng);
        let before = self.bed.network().counts();
        for (from, to) in &cuts {
            self.bed.network().set(from, to, Quality::cut())?;
        }
        self.installed(&told(&cuts));
        self.hold().await?;
        let counts = self.bed.network().counts().since(before);
        Ok(Effect::counted(counts.cut, "packets were dropped"))
    }

    pub(super) async fn flapping(&mut self) -> Result<Effect> {
        let names = self.bed.names();
        let cuts = cuts(Kind::Partition, &names, &self.leader, &mut self.rng);
        let before = self.bed.network().counts();
        self.installed(&told(&cuts));
        let until = self.until();
        let mut flaps = 0;
        while Instant::now() < until {
            for (from, to) in &cuts {
                self.bed.network().set(from, to, Quality::cut())?;
            }
            self.wait(50..500).await?;
            self.bed.network().heal();
            self.wait(50..500).await?;
            flaps += 1;
        }
        let counts = self.bed.network().counts().since(before);
        let what = format!("packets were dropped in {flaps} cuts");
        Ok(Effect::counted(counts.cut, &what))
    }

    pub(super) async fn bad_links(&mut self) -> Result<Effect> {
        let links = self.spoil_links()?;
        self.hold().await?;
        Ok(links.effect(self.bed.network().counts()))
    }

    /// Delay, loss, duplication or reordering on about half of all directions, at least one of them from or to the leader.
    pub(super) fn spoil_links(&mut self) -> Result<BadLinks> {
        let chance = f64::from(self.rng.random_range(5..=40_u32)) / 100.0;
        let delay = Duration::from_millis(self.rng.random_range(20..=150));
        let links = BadLinks {
            kind: self.planned.kind,
            quality: quality(self.planned.kind, chance, delay),
            before: self.bed.network().counts(),
        };
        let directions = some_directions(&self.bed.names(), &self.leader, &mut self.rng);
        for (from, to) in &directions {
            self.bed.network().set(from, to, links.quality)?;
        }
        self.installed(&told(&directions));
        Ok(links)
    }
}

/// Links that are spoiled, and what had happened to packets before.
pub(super) struct BadLinks {
    kind: Kind,
    quality: Quality,
    before: Counts,
}

impl BadLinks {
    /// What was seen of it, by what has happened to packets until now.
    pub(super) fn effect(&self, now: Counts) -> Effect {
        let counts = now.since(self.before);
        let Quality {
            delay,
            loss,
            duplication,
            reordering,
            ..
        } = self.quality;
        let percent = ((loss + duplication + reordering) * 100.0).round();
        match self.kind {
            Kind::Loss => Effect::counted(counts.lost, &format!("packets lost at {percent} %")),
            Kind::Duplication => Effect::counted(
                counts.duplicated,
                &format!("packets doubled at {percent} %"),
            ),
            Kind::Reorder => Effect::counted(
                counts.reordered,
                &format!("packets held back at {percent} %"),
            ),
            _ => Effect::counted(counts.delayed, &format!("packets delayed by {delay:?}")),
        }
    }
}

fn quality(kind: Kind, chance: f64, delay: Duration) -> Quality {
    let good = Quality::default();
    match kind {
        Kind::Loss => Quality {
            loss: chance,
            ..good
        },
        Kind::Duplication => Quality {
            duplication: chance,
            ..good
        },
        Kind::Reorder => Quality {
            reordering: chance,
            ..good
        },
        _ => Quality {
            delay,
            jitter: delay / 4,
            ..good
        },
    }
}

fn told(directions: &[Direction]) -> Vec<String> {
    let told = directions.iter().map(|(from, to)| format!("{from}→{to}"));
    told.collect()
}

fn some_directions(names: &[String], leader: &str, rng: &mut StdRng) -> Vec<Direction> {
    let mut all = directions(names, |_, _| true);
    all.shuffle(rng);
    // The leader's come first, so that cutting the list keeps one.
    all.sort_by_key(|(from, to)| from != leader && to != leader);
    let of_leader = all
        .iter()
        .filter(|(from, to)| from == leader || to == leader)
        .count();
    let kept_of_leader = rng.random_range(1..=of_leader.max(1));
    let others = all.split_off(of_leader);
    all.truncate(kept_of_leader);
    all.extend(others.into_iter().filter(|_| rng.random_bool(0.5)));
    all.sort();
    all
}

fn directions(names: &[String], is_wanted: impl Fn(usize, usize) -> bool) -> Vec<Direction> {
    let mut wanted = Vec::new();
    for (i, from) in names.iter().enumerate() {
        for (j, to) in names.iter().enumerate() {
            if i != j && is_wanted(i, j) {
                wanted.push((from.clone(), to.clone()));
            }
        }
    }
    wanted
}

/// Which directions a partition cuts.
fn cuts(kind: Kind, names: &[String], leader: &str, rng: &mut StdRng) -> Vec<Direction> {
    let mut order = names.to_vec();
    order.shuffle(rng);
    let count = order.len();
    let between = |side: &dyn Fn(usize) -> u8| directions(&order, |i, j| side(i) != side(j));
    match kind {
        Kind::PartitionHalves => between(&|i| u8::from(i < count / 2)),
        Kind::PartitionRing if count == 3 => directions(&order, |i, j| (i + 1) % count != j),
        Kind::PartitionRing => {
            let majority = count / 2 + 1;
            let reach = majority.div_ceil(2).max(1);
            let reach = if majority % 2 == 1 {
                (majority - 1) / 2
            } else {
                reach
            };
            directions(&order, |i, j| {
                let distance = i.abs_diff(j);
                distance.min(count - distance) > reach
            })
        }
        Kind::PartitionBridge => {
            let middle = count / 2;
            directions(&order, |i, j| {
                i != middle && j != middle && (i < middle) != (j < middle)
            })
        }
        Kind::OneWay => {
            let is_mute = rng.random_bool(0.5);
            directions(&order, |i, j| {
                let side = if is_mute { i } else { j };
                order[side] == leader
            })
        }
        // The leader with as many others as do not make a majority.
        _ => {
            order.sort_by_key(|name| name != leader);
            let minority = (count.saturating_sub(1) / 2).max(1);
            directions(&order, |i, j| (i < minority) != (j < minority))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn names(count: usize) -> Vec<String> {
        (1..=count).map(|number| format!("m{number}")).collect()
    }

    /// How many of the other members each member hears.
    fn heard(kind: Kind, count: usize) -> Vec<usize> {
        let names = names(count);
        let cuts = cuts(kind, &names, "m1", &mut StdRng::seed_from_u64(3));
        names
            .iter()
            .map(|to| count - 1 - cuts.iter().filter(|(_, cut)| cut == to).count())
            .collect()
    }

    #[test]
    fn partitions_have_their_shapes() {
        assert_eq!(heard(Kind::Partition, 3), [0, 1, 1]);
        let five = heard(Kind::Partition, 5);
        assert_eq!((five[0], five.iter().sum::<usize>()), (1, 1 + 1 + 3 * 2));
        assert_eq!(heard(Kind::PartitionRing, 3), [1, 1, 1]);
        assert_eq!(heard(Kind::PartitionRing, 5), [2, 2, 2, 2, 2]);
        let mut bridge = heard(Kind::PartitionBridge, 5);
        bridge.sort_unstable();
        assert_eq!(bridge, [2, 2, 2, 2, 4]);
        let mut halves = heard(Kind::PartitionHalves, 5);
        halves.sort_unstable();
        assert_eq!(halves, [1, 1, 2, 2, 2]);
    }

    #[test]
    fn one_way_cuts_the_leader_in_one_direction() {
        for seed in 0..10 {
            let cuts = cuts(
                Kind::OneWay,
                &names(3),
                "m1",
                &mut StdRng::seed_from_u64(seed),
            );
            assert_eq!(cuts.len(), 2);
            let is_mute = cuts.iter().all(|(from, _)| from == "m1");
            assert!(is_mute || cuts.iter().all(|(_, to)| to == "m1"), "{cuts:?}");
        }
    }

    #[test]
    fn bad_links_touch_the_leader_and_leave_some_links_good() {
        for seed in 0..50 {
            let some = some_directions(&names(3), "m2", &mut StdRng::seed_from_u64(seed));
            assert!(some.iter().any(|(from, to)| from == "m2" || to == "m2"));
            assert!(some.is_sorted());
        }
    }
}
