//! When the disks of all voters are full, nothing is done any more that would make the store larger.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::{Asked, Event};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// A member may look at its disk that seldom, with something to spare.
const LOOKS_WITHIN: Duration = Duration::from_millis(1_500);

#[derive(Default)]
pub struct Check {
    /// What was asked though every disk had been full for long enough.
    late: BTreeSet<u64>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "full_disks_take_no_puts"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Invoked {
                op,
                asked: Asked::Txn(txn),
                ..
            } if !mvcc::only_frees(txn) && are_full(facts) => {
                self.late.insert(*op);
                Ok(())
            }
            Event::Answered { op, result, .. } => match (self.late.remove(op), result) {
                (true, Ok(_)) => Err(format!(
                    "write {op} was done though the disks of all voters had been full for {LOOKS_WITHIN:?}"
                )),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

fn are_full(facts: &Facts) -> bool {
    let Some((_, membership)) = facts.memberships.last_key_value() else {
        return false;
    };
    let now = Instant::now();
    let is_full = |member| {
        let since = facts.full_since.get(&member);
        since.is_some_and(|since| now.duration_since(*since) >= LOOKS_WITHIN)
    };
    membership.voter_ids().all(is_full)
}
