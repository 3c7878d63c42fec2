//! Two logs that agree on the term of an entry agree on everything up to it (log matching). Whether entries differ is told by the
//! facts; here a log must also be without gaps.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::{Event, Written};

#[derive(Default)]
pub struct Check;

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "log_matching"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        let Event::Written {
            member, written, ..
        } = event
        else {
            return Ok(());
        };
        if !written
            .iter()
            .any(|change| matches!(change, Written::Entry(_)))
        {
            return Ok(());
        }
        let log = &facts.members[member].now.log;
        let (Some((first, _)), Some((last, _))) = (log.first_key_value(), log.last_key_value())
        else {
            return Ok(());
        };
        match last - first + 1 == log.len() as u64 {
            true => Ok(()),
            false => Err(format!(
                "the log of m{member} has a gap between {first} and {last}"
            )),
        }
    }
}
