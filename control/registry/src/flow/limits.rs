//! How many seats each priority level has: its share, and what it lends and borrows. Semantics: Kubernetes' priority and fairness:
//! a level that asks for its own share gets it, what others leave is divided in proportion to what is asked.

use objects::Object;
use serde::Deserialize;
use serde_json::Value;

/// A priority level as it is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelConfig {
    /// Its name.
    pub name: String,
    /// Its uid; empty for one that is not stored.
    pub uid: String,
    /// Its part of the server's seats, against the sum of all.
    pub shares: u32,
    /// The percent of its seats that others may use.
    pub lendable_percent: u32,
    /// How much it may use of others', in percent of its own; None for whatever there is.
    pub borrowing_percent: Option<u32>,
    /// What it does with a request that finds no seat.
    pub response: Response,
}

/// What is done with a request that finds no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// It runs anyway.
    Exempt,
    /// It is refused.
    Reject,
    /// It waits in one of so many queues.
    Queue {
        /// How many there are.
        queues: usize,
        /// Among how many of them a flow chooses the shortest.
        hand_size: usize,
        /// How many requests may wait in each.
        length_max: usize,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "type")]
    kind: String,
    limited: Option<Shares>,
    exempt: Option<Shares>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Shares {
    nominal_concurrency_shares: u32,
    lendable_percent: u32,
    borrowing_limit_percent: Option<u32>,
    limit_response: LimitResponse,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LimitResponse {
    queuing: Option<Queuing>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Queuing {
    queues: usize,
    hand_size: usize,
    queue_length_limit: usize,
}

/// The bounds of a configuration: no object makes the server keep more.
const QUEUES_MAX: usize = 10_000;
const LENGTH_MAX: usize = 10_000;

impl LevelConfig {
    /// Reads a stored one; None for one that cannot be read.
    pub fn read(object: &Object) -> Option<LevelConfig> {
        let spec = object.body.get("spec").cloned().unwrap_or(Value::Null);
        let spec: Spec = serde_json::from_value(spec).ok()?;
        let is_exempt = spec.kind == "Exempt";
        let shares = if is_exempt { spec.exempt } else { spec.limited };
        let shares = shares.unwrap_or_default();
        let response = match shares.limit_response.queuing {
            _ if is_exempt => Response::Exempt,
            None => Response::Reject,
            Some(queuing) => {
                let queues = queuing.queues.clamp(1, QUEUES_MAX);
                Response::Queue {
                    queues,
                    hand_size: queuing.hand_size.clamp(1, queues),
                    length_max: queuing.queue_length_limit.min(LENGTH_MAX),
                }
            }
        };
        Some(LevelConfig {
            name: object.metadata.name.clone(),
            uid: object.metadata.uid.to_string(),
            shares: shares.nominal_concurrency_shares,
            lendable_percent: shares.lendable_percent.min(100),
            borrowing_percent: shares.borrowing_limit_percent,
            response,
        })
    }

    /// Its seats, when all levels together have `seats` and `sum` shares.
    pub fn bounds(&self, seats: u32, sum: u32) -> Bounds {
        if sum == 0 {
            return Bounds::default();
        }
        let nominal = (f64::from(seats) * f64::from(self.shares) / f64::from(sum)).ceil();
        let part = |percent: u32| (nominal * f64::from(percent) / 100.0).round();
        let upper = match self.borrowing_percent {
            Some(percent) => nominal + part(percent),
            None => f64::from(seats),
        };
        Bounds {
            nominal: nominal as u32,
            lower: (nominal - part(self.lendable_percent)) as u32,
            upper: upper.min(f64::from(seats)).max(nominal) as u32,
        }
    }
}

/// Between what a level's seats lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Its own.
    pub nominal: u32,
    /// What it keeps when others need the rest.
    pub lower: u32,
    /// What it has when nobody else needs any.
    pub upper: u32,
}

/// What a level asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// Its bounds.
    pub bounds: Bounds,
    /// The most seats that its requests wanted at once lately.
    pub wanted: f64,
    /// The same, sinking slowly.
    pub target: f64,
}

impl Claim {
    /// What it gets before anything is divided: its own, as far as it wants it, and one for whoever comes first.
    fn at_least(&self) -> f64 {
        let own = self.wanted.max(1.0).min(f64::from(self.bounds.nominal));
        own.max(f64::from(self.bounds.lower))
    }

    /// What it gets when each gets this multiple of its target.
    fn at(&self, multiple: f64) -> f64 {
        let most = f64::from(self.bounds.upper).max(self.at_least());
        (self.target * multiple).clamp(self.at_least(), most)
    }
}

/// Divides the seats: each level gets the same multiple of its target, within its bounds.
pub fn divide(seats: u32, claims: &[Claim]) -> Vec<u32> {
    const STEPS: usize = 40;
    let total = f64::from(seats);
    let sum = |multiple: f64| claims.iter().map(|claim| claim.at(multiple)).sum::<f64>();
    let (mut low, mut high) = (0.0, total.max(1.0) * 2.0);
    if sum(low) < total {
        for _ in 0..STEPS {
            let middle = (low + high) / 2.0;
            if sum(middle) <= total {
                low = middle;
            } else {
                high = middle;
            }
        }
    }
    claims
        .iter()
        .map(|claim| claim.at(low).round() as u32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(nominal: u32, lower: u32, upper: u32, wanted: f64) -> Claim {
        let bounds = Bounds {
            nominal,
            lower,
            upper,
        };
        Claim {
            bounds,
            wanted,
            target: wanted.max(1.0),
        }
    }

    #[test]
    fn what_one_leaves_the_other_borrows() {
        let claims = [claim(50, 10, 100, 0.0), claim(50, 25, 100, 300.0)];
        assert_eq!(divide(100, &claims), [10, 90]);
        // The lender gets back what is its own.
        let claims = [claim(50, 10, 100, 40.0), claim(50, 25, 100, 300.0)];
        assert_eq!(divide(100, &claims), [40, 60]);
        let claims = [claim(50, 10, 100, 500.0), claim(50, 25, 100, 300.0)];
        assert_eq!(divide(100, &claims), [50, 50]);
        // What may borrow no more than it has leaves the rest.
        let claims = [claim(50, 10, 50, 500.0), claim(50, 25, 100, 0.0)];
        assert_eq!(divide(100, &claims), [50, 50]);
    }

    proptest! {
        #[test]
        fn nobody_gets_less_than_his_own_nor_more_than_there_is(
            levels in prop::collection::vec((0u32..50, 0u32..=100, prop::option::of(0u32..200), 0f64..500.0), 1..8),
        ) {
            let seats = 100;
            let sum = levels.iter().map(|(shares, ..)| shares).sum();
            let claims: Vec<Claim> = levels.iter().map(|(shares, lendable, borrowing, wanted)| {
                let config = LevelConfig {
                    name: String::new(), uid: String::new(), shares: *shares,
                    lendable_percent: *lendable, borrowing_percent: *borrowing, response: Response::Reject,
                };
                Claim { bounds: config.bounds(seats, sum), wanted: *wanted, target: *wanted }
            }).collect();
            let divided = divide(seats, &claims);
            for (got, claim) in divided.iter().zip(&claims) {
                let own = claim.wanted.min(f64::from(claim.bounds.nominal)).floor() as u32;
                prop_assert!(*got >= own.max(claim.bounds.lower));
                prop_assert!(*got <= claim.bounds.upper.max(claim.bounds.nominal));
            }
            // Rounding up and to the nearest adds at most two a level.
            prop_assert!(divided.iter().sum::<u32>() <= seats + 2 * u32::try_from(claims.len()).unwrap());
        }
    }
}
