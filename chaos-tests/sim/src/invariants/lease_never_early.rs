//! A lease lives for its whole time to live after its holder was last heard and told so, by the clock of the leader that ends it:
//! no leader can know that its own clock runs fast, but no other clock may matter, nor any leader's before it.

use super::Invariant;
use crate::facts::{Clocks, Facts};
use crate::judge::Event;
use raft_store::types::MemberId;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Default)]
pub struct Check {
    held: BTreeMap<i64, (Duration, Clocks)>,
    seen: usize,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "lease_never_early"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::LeaseHeld { lease, ttl, asked } => {
                self.held.insert(*lease, (*ttl, (*asked).clone()));
            }
            Event::LeaseLeft { lease } => {
                self.held.remove(lease);
            }
            _ => {}
        }
        for (lease, term) in &facts.expired[self.seen..] {
            let Some((ttl, asked)) = self.held.get(lease) else {
                continue;
            };
            let lived = lived(facts, asked, *term);
            if lived < *ttl {
                return Err(format!(
                    "lease {lease} of {ttl:?} was ended in term {term}, after {lived:?} by the clock of a leader"
                ));
            }
        }
        self.seen = facts.expired.len();
        Ok(())
    }
}

/// The longest time that passed since on the clock of a member that led meanwhile.
fn lived(facts: &Facts, asked: &Clocks, term: u64) -> Duration {
    let now = facts.read_clocks();
    let led = facts.leaders.range(asked.term..=term.max(asked.term));
    let passed = |member: &MemberId| {
        let shown = now.shown.get(member)?;
        Some(shown.saturating_duration_since(*asked.shown.get(member)?))
    };
    let passed = led.filter_map(|(_, member)| passed(member));
    passed.max().unwrap_or_default()
}
