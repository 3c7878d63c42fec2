//! Which fault when. Pure: all of it follows from the seed.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::{RngExt, seq::SliceRandom};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A kind of fault.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// kill -9 of the leader, then it is started again
    Kill,
    /// SIGSTOP of the leader, then SIGCONT
    Pause,
    /// The leader and a minority are cut off from the other masters, but not from their clients
    Partition,
    /// Every master in turn is stopped in order and started again, the leader last
    Rolling,
}

impl Kind {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::Pause => "pause",
            Kind::Partition => "partition",
            Kind::Rolling => "rolling",
        }
    }

    /// How long it is in force.
    fn lasts(self, rng: &mut StdRng) -> Duration {
        let millis = match self {
            Kind::Kill => rng.random_range(1500..3000),
            Kind::Pause => rng.random_range(3000..5000),
            Kind::Partition => rng.random_range(4000..6000),
            Kind::Rolling => 0,
        };
        Duration::from_millis(millis)
    }
}

/// One fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// What.
    pub kind: Kind,
    /// For how long.
    pub lasts: Duration,
    /// How long the healed cluster is then left alone.
    pub rest: Duration,
}

/// Endless rounds, each with every kind once, in an order of its own.
pub fn schedule(seed: u64, kinds: &[Kind]) -> impl Iterator<Item = Planned> {
    let mut rng = StdRng::seed_from_u64(seed);
    let kinds = kinds.to_vec();
    let rounds = if kinds.is_empty() { 0 } else { usize::MAX };
    (0..rounds).flat_map(move |_| {
        let mut round = kinds.clone();
        round.shuffle(&mut rng);
        let planned = round.into_iter().map(|kind| Planned {
            kind,
            lasts: kind.lasts(&mut rng),
            rest: Duration::from_millis(rng.random_range(1000..2000)),
        });
        planned.collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_schedule_and_a_round_has_every_kind() {
        let kinds = [Kind::Kill, Kind::Pause, Kind::Partition, Kind::Rolling];
        let of = |seed| schedule(seed, &kinds).take(12).collect::<Vec<_>>();
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        for round in of(7).chunks(4) {
            let mut seen: Vec<Kind> = round.iter().map(|planned| planned.kind).collect();
            seen.sort();
            assert_eq!(seen, kinds);
        }
        assert_eq!(schedule(7, &[]).count(), 0);
    }
}
