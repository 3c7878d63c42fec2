//! How long something took, counted in buckets: those of etcd's histograms, and finer ones below a millisecond, where a good disk is.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds; the last bucket has none.
pub const BOUNDS_US: [u64; 17] = [
    125, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000,
    1_024_000, 2_048_000, 4_096_000, 8_192_000,
];

/// Counts while others read.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    total_us: AtomicU64,
}

impl Histogram {
    /// Something took so long.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < micros);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.total_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// The counts as they are.
    pub fn distribution(&self) -> Distribution {
        Distribution {
            counts: self
                .counts
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .collect(),
            total_us: self.total_us.load(Ordering::Relaxed),
        }
    }
}

/// What a histogram counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// How many took up to the bound of the same place in [`BOUNDS_US`]; the last ones longer than all.
    pub counts: Vec<u64>,
    /// The time of all of them, in microseconds.
    pub total_us: u64,
}

impl Distribution {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The time in microseconds that the share `share` of them did not exceed, taking those of a bucket as spread evenly over it;
    /// None when there were none.
    pub fn quantile_us(&self, share: f64) -> Option<u64> {
        let rank = share * self.count() as f64;
        let mut below = 0.0;
        for (bucket, count) in self.counts.iter().enumerate() {
            let count = *count as f64;
            if count > 0.0 && below + count >= rank {
                let from = bucket.checked_sub(1).map_or(0, |before| BOUNDS_US[before]);
                let Some(to) = BOUNDS_US.get(bucket) else {
                    return Some(from); // No bound: at least so long.
                };
                let within = ((rank - below) / count).clamp(0.0, 1.0);
                return Some(from + ((to - from) as f64 * within) as u64);
            }
            below += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_in_their_bucket() {
        let histogram = Histogram::default();
        assert_eq!(histogram.distribution().quantile_us(0.5), None);
        for _ in 0..99 {
            histogram.record(Duration::from_micros(700));
        }
        histogram.record(Duration::from_secs(60));
        let told = histogram.distribution();
        assert_eq!((told.count(), told.total_us), (100, 99 * 700 + 60_000_000));
        let p50 = told.quantile_us(0.5).expect("there are some");
        assert!((500..=1_000).contains(&p50), "{p50}");
        assert_eq!(told.quantile_us(0.999), Some(8_192_000));
    }
}
