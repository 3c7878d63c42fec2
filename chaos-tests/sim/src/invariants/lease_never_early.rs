//! A lease lives for its whole time to live after its holder was last heard and told so.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::Event;
use std::collections::BTreeMap;
use tokio::time::Instant;

#[derive(Default)]
pub struct Check {
    held: BTreeMap<i64, Instant>,
    seen: usize,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "lease_never_early"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::LeaseHeld { lease, until } => {
                let held = self.held.entry(*lease).or_insert(*until);
                *held = (*held).max(*until);
            }
            Event::LeaseLeft { lease } => {
                self.held.remove(lease);
            }
            _ => {}
        }
        let now = Instant::now();
        for lease in &facts.expired[self.seen..] {
            if let Some(until) = self.held.get(lease).filter(|until| now < **until) {
                return Err(format!(
                    "lease {lease} was ended {} ms too early",
                    (*until - now).as_millis()
                ));
            }
        }
        self.seen = facts.expired.len();
        Ok(())
    }
}
