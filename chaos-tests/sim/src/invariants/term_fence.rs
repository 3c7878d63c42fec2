//! What was written under a term is refused in every later one, so that two leaders of anything never both act.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::{Asked, Event};
use objects::Term;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Check {
    held: BTreeMap<u64, Term>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "term_fence"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Invoked {
                op,
                asked: Asked::Txn(txn),
                ..
            } => {
                if let Some(held) = txn.fence {
                    self.held.insert(*op, held);
                }
                Ok(())
            }
            Event::Answered { op, result, .. } => {
                let (Some(held), Ok(response)) = (self.held.remove(op), result) else {
                    return Ok(());
                };
                match facts.terms.get(&response.revision) {
                    Some(term) if *term > held => {
                        Err(format!("write {op} of term {held} was done in term {term}"))
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
