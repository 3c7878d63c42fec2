//! What happens to the packets of one direction between two machines. Pure: time is an argument, chance follows from a seed, so
//! that the same packets at the same times meet the same fate.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// A reordered packet is held back for this long, while later ones pass it.
pub const REORDER_HOLD: Duration = Duration::from_millis(10);

/// How good a direction is. Chances lie between 0 and 1 and are drawn for each packet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quality {
    /// Nothing passes.
    pub is_cut: bool,
    /// Each packet takes this much longer.
    pub delay: Duration,
    /// Up to this much is added to the delay, another time for each packet, in order all the same.
    pub jitter: Duration,
    /// The chance to be lost.
    pub loss: f64,
    /// The chance to arrive twice.
    pub duplication: f64,
    /// The chance to be overtaken by the packets that follow within [`REORDER_HOLD`].
    pub reordering: f64,
}

impl Quality {
    /// Nothing passes.
    pub fn cut() -> Self {
        Quality {
            is_cut: true,
            ..Quality::default()
        }
    }
}

/// What befell packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that were to pass.
    pub seen: u64,
    /// Not passed, as the direction was cut.
    pub cut: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Passed twice.
    pub duplicated: u64,
    /// Held back so that others overtake.
    pub reordered: u64,
    /// Passed later than at once.
    pub delayed: u64,
}

impl Counts {
    /// What was added since `earlier`.
    pub fn since(self, earlier: Counts) -> Counts {
        Counts {
            seen: self.seen - earlier.seen,
            cut: self.cut - earlier.cut,
            lost: self.lost - earlier.lost,
            duplicated: self.duplicated - earlier.duplicated,
            reordered: self.reordered - earlier.reordered,
            delayed: self.delayed - earlier.delayed,
        }
    }

    /// The sum of two.
    pub fn plus(self, other: Counts) -> Counts {
        Counts {
            seen: self.seen + other.seen,
            cut: self.cut + other.cut,
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
            delayed: self.delayed + other.delayed,
        }
    }

    /// How many packets met anything but a plain passage.
    pub fn harmed(self) -> u64 {
        self.cut + self.lost + self.duplicated + self.reordered + self.delayed
    }
}

/// When a packet arrives, at most twice; never where both are None.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// The packet.
    pub arrives: Option<Duration>,
    /// Its double.
    pub again: Option<Duration>,
}

/// One direction.
pub struct Link {
    quality: Quality,
    counts: Counts,
    rng: StdRng,
    last: Duration,
}

impl Link {
    /// A direction on which every packet passes at once.
    pub fn new(seed: u64) -> Self {
        Link {
            quality: Quality::default(),
            counts: Counts::default(),
            rng: StdRng::seed_from_u64(seed),
            last: Duration::ZERO,
        }
    }

    /// Changes what happens to later packets.
    pub fn set(&mut self, quality: Quality) {
        self.quality = quality;
    }

    /// What befell packets so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Decides about one packet that is sent at `now`, a time that never goes back.
    pub fn pass(&mut self, now: Duration) -> Passage {
        let quality = self.quality;
        self.counts.seen += 1;
        if quality.is_cut {
            self.counts.cut += 1;
            return Passage::default();
        }
        if self.happens(quality.loss) {
            self.counts.lost += 1;
            return Passage::default();
        }
        let jitter = if quality.jitter.is_zero() {
            Duration::ZERO
        } else {
            self.rng.random_range(Duration::ZERO..quality.jitter)
        };
        let mut arrives = now + quality.delay + jitter;
        if self.happens(quality.reordering) {
            self.counts.reordered += 1;
            arrives += REORDER_HOLD;
        } else {
            arrives = arrives.max(self.last);
            self.last = arrives;
        }
        self.counts.delayed += u64::from(arrives > now);
        let again = self.happens(quality.duplication).then_some(arrives);
        self.counts.duplicated += u64::from(again.is_some());
        Passage {
            arrives: Some(arrives),
            again,
        }
    }

    fn happens(&mut self, chance: f64) -> bool {
        chance > 0.0 && self.rng.random_bool(chance.min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(quality: Quality) -> Link {
        let mut link = Link::new(7);
        link.set(quality);
        link
    }

    fn arrivals(link: &mut Link, packets: u64) -> Vec<Option<Duration>> {
        (0..packets)
            .map(|number| link.pass(Duration::from_micros(number * 100)).arrives)
            .collect()
    }

    #[test]
    fn a_good_link_passes_everything_at_once() {
        let mut link = link(Quality::default());
        let now = Duration::from_secs(3);
        let passage = link.pass(now);
        assert_eq!(passage.arrives, Some(now));
        assert_eq!(passage.again, None);
        assert_eq!(link.counts().harmed(), 0);
    }

    #[test]
    fn a_cut_link_passes_nothing() {
        let mut link = link(Quality::cut());
        assert!(arrivals(&mut link, 100).iter().all(Option::is_none));
        assert_eq!(link.counts().cut, 100);
    }

    #[test]
    fn loss_and_duplication_are_about_as_frequent_as_asked_for() {
        let mut link = link(Quality {
            loss: 0.25,
            duplication: 0.1,
            ..Quality::default()
        });
        let arrived = arrivals(&mut link, 10_000).iter().flatten().count();
        assert!((7_300..7_700).contains(&arrived), "{arrived}");
        let counts = link.counts();
        assert_eq!(counts.lost as usize, 10_000 - arrived);
        assert!((650..850).contains(&counts.duplicated), "{counts:?}");
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let delay = Duration::from_millis(20);
        let mut jittery = link(Quality {
            delay,
            jitter: Duration::from_millis(5),
            ..Quality::default()
        });
        let arrived = arrivals(&mut jittery, 1000);
        assert!(arrived.is_sorted());
        assert!(arrived.iter().flatten().min() >= Some(&delay));
        let mut reordering = link(Quality {
            reordering: 0.1,
            ..Quality::default()
        });
        assert!(!arrivals(&mut reordering, 1000).is_sorted());
    }

    #[test]
    fn a_seed_is_a_fate() {
        let quality = Quality {
            loss: 0.5,
            jitter: Duration::from_millis(5),
            ..Quality::default()
        };
        let of = |seed| {
            let mut link = Link::new(seed);
            link.set(quality);
            arrivals(&mut link, 100)
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
