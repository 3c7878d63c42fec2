//! Which fault when. Pure: all of it follows from the seed.

use super::Kind;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt, SeedableRng};
use serde::Serialize;
use std::time::Duration;

/// One fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// What.
    pub kind: Kind,
    /// For how long.
    pub lasts: Duration,
    /// How long the healed cluster is then left alone.
    pub rest: Duration,
    /// Decides whom it meets and how hard.
    pub seed: u64,
    /// Bad links that are in force beside it.
    pub beside: Option<Kind>,
}

/// Endless rounds, each with every kind once but what ends a run, in an order of its own.
pub fn schedule(seed: u64, kinds: &[Kind]) -> impl Iterator<Item = Planned> {
    let mut rng = StdRng::seed_from_u64(seed);
    let of_rounds = kinds.iter().filter(|kind| !kind.is_last());
    let kinds: Vec<Kind> = of_rounds.copied().collect();
    let rounds = if kinds.is_empty() { 0 } else { usize::MAX };
    (0..rounds).flat_map(move |_| {
        let mut round = kinds.clone();
        round.shuffle(&mut rng);
        let planned = round.into_iter().map(|kind| Planned {
            kind,
            lasts: lasts(kind, &mut rng),
            rest: Duration::from_millis(rng.random_range(500..1500)),
            seed: rng.next_u64(),
            beside: None,
        });
        planned.collect::<Vec<_>>()
    })
}

/// The same faults, but that those which bear it have bad links beside them, of a kind that `kinds` has.
pub fn combined(
    planned: impl Iterator<Item = Planned>,
    kinds: &[Kind],
) -> impl Iterator<Item = Planned> {
    let of_links: Vec<Kind> = kinds
        .iter()
        .copied()
        .filter(|kind| kind.is_of_links())
        .collect();
    planned.map(move |mut planned| {
        let mut rng = StdRng::seed_from_u64(planned.seed);
        if planned.kind.bears_bad_links() {
            planned.beside = of_links.choose(&mut rng).copied();
        }
        planned
    })
}

/// How long a fault is in force; those that take the time that they take last for no time of their own.
fn lasts(kind: Kind, rng: &mut StdRng) -> Duration {
    let millis = match kind {
        Kind::Rolling | Kind::MemberReplace => 0..1,
        Kind::TornLog | Kind::ZeroedSector | Kind::FlippedBit => 300..1000,
        Kind::Kill | Kind::KillRandom | Kind::KillMajority | Kind::KillAll | Kind::Restart => {
            1500..3000
        }
        Kind::PowerLoss
        | Kind::PowerLossMajority
        | Kind::PowerLossAll
        | Kind::PowerLossElection => 500..1500,
        Kind::SyncError | Kind::WriteError | Kind::NoSpace | Kind::MemberAdd => 1500..3000,
        _ => 3000..5000,
    };
    Duration::from_millis(rng.random_range(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_schedule_and_a_round_has_every_kind() {
        let mut in_round = Kind::ALL.to_vec();
        in_round.retain(|kind| !kind.is_last());
        let of = |seed| {
            schedule(seed, Kind::ALL)
                .take(3 * in_round.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        for round in of(7).chunks(in_round.len()) {
            let mut seen: Vec<Kind> = round.iter().map(|planned| planned.kind).collect();
            seen.sort();
            assert_eq!(seen, in_round);
        }
        assert_eq!(schedule(7, &[]).count(), 0);
        assert_eq!(schedule(7, &[Kind::Restore]).count(), 0);
    }

    #[test]
    fn bad_links_come_beside_what_bears_them() {
        let plain = schedule(7, Kind::ALL).take(Kind::ALL.len());
        for planned in combined(plain, Kind::ALL) {
            let beside = planned.beside;
            assert_eq!(beside.is_some(), planned.kind.bears_bad_links());
            assert!(beside.is_none_or(Kind::is_of_links));
        }
        let kinds = [Kind::Kill, Kind::Pause];
        let mut without = combined(schedule(7, &kinds).take(4), &kinds);
        assert!(without.all(|planned| planned.beside.is_none()));
    }
}
