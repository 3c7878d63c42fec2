//! Members that applied the same entries have the same state, and it is that of the oracle (state machine safety).

use super::Invariant;
use crate::facts::Facts;
use crate::judge::{Event, Written};

#[derive(Default)]
pub struct Check;

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "same_index_same_state"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        let Event::Written {
            member, written, ..
        } = event
        else {
            return Ok(());
        };
        for change in *written {
            let Written::Applied {
                log_id: Some(log_id),
                revision,
                hash,
                ..
            } = change
            else {
                continue;
            };
            let right = &facts.committed[&log_id.index];
            if (right.hash, right.revision) != (*hash, *revision) {
                return Err(format!(
                    "after entry {log_id} m{member} is at revision {revision} with hash {hash:016x}; right is revision {} with {:016x}",
                    right.revision, right.hash
                ));
            }
        }
        Ok(())
    }
}
