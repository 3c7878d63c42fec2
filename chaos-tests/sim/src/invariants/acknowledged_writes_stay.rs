//! An acknowledged write is committed, at the revision that was told, with what was written.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::{Asked, Event};
use mvcc::{Op, OpResult, Txn, TxnResponse};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Check {
    asked: BTreeMap<u64, Txn>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "acknowledged_writes_stay"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Invoked {
                op,
                asked: Asked::Txn(txn),
                ..
            } => {
                self.asked.insert(*op, txn.clone());
                Ok(())
            }
            Event::Answered { op, result, .. } => match (self.asked.remove(op), result) {
                (Some(txn), Ok(response)) => judge(facts, *op, &txn, response),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

fn judge(facts: &Facts, op: u64, txn: &Txn, response: &TxnResponse) -> Result<(), String> {
    let steps = match response.succeeded {
        true => &txn.success,
        false => &txn.failure,
    };
    if response.revision > facts.revision {
        return Err(format!(
            "write {op} was acknowledged at revision {}, but only {} is committed",
            response.revision, facts.revision
        ));
    }
    for (step, result) in steps.iter().zip(&response.results) {
        let is_there = match (step, result) {
            (Op::Put { key, value, .. }, OpResult::Put(_)) => {
                let events = facts.history.get(&response.revision);
                events.into_iter().flatten().any(|event| match &**event {
                    mvcc::Event::Put { kv, .. } => kv.key == *key && kv.value == *value,
                    mvcc::Event::Delete { .. } => false,
                })
            }
            (Op::DeleteRange { range, .. }, OpResult::Deleted(count, _)) if *count > 0 => {
                let events = facts.history.get(&response.revision).into_iter().flatten();
                let deleted = events.filter(|event| {
                    matches!(&***event, mvcc::Event::Delete { key, .. } if range.contains(key))
                });
                deleted.count() as u64 == *count
            }
            _ => true,
        };
        if !is_there {
            return Err(format!(
                "write {op} was acknowledged at revision {}, where the committed history has something else",
                response.revision
            ));
        }
    }
    Ok(())
}
