//! Only what would make the store larger is refused for want of room, only when a disk is full or was just now, and what was refused
//! so is never done.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::{Asked, Event};
use bytes::Bytes;
use mvcc::{Op, StoreError, Txn};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// A leader asks the others every two seconds, waits a while for those that do not answer, and may be told by one that was just full.
const FORGETS_WITHIN: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Check {
    asked: BTreeMap<u64, Asked>,
    /// Values that were to be written and were refused; each is written once.
    refused: BTreeSet<Bytes>,
    /// Up to where the history was looked at.
    seen: objects::Revision,
    last_full: Option<Instant>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "full_disk_is_told_truly"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        if !facts.full_since.is_empty() {
            self.last_full = Some(Instant::now());
        }
        self.look_for_refused(facts)?;
        match event {
            Event::Invoked { op, asked, .. } => {
                self.asked.insert(*op, (*asked).clone());
                Ok(())
            }
            Event::Answered { op, result, .. } => self.answered(*op, result.as_ref().err()),
            Event::Done { op, result, .. } => self.answered(*op, result.as_ref().err()),
            Event::Read { op, .. } => {
                self.asked.remove(op);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Check {
    fn answered(&mut self, op: u64, err: Option<&StoreError>) -> Result<(), String> {
        let asked = self.asked.remove(&op);
        if err != Some(&StoreError::NoSpace) {
            return Ok(());
        }
        if self
            .last_full
            .is_none_or(|last| last.elapsed() > FORGETS_WITHIN)
        {
            return Err(format!(
                "request {op} was refused for want of room, though no disk has been full for {FORGETS_WITHIN:?}"
            ));
        }
        match asked {
            Some(Asked::Txn(txn)) if mvcc::only_frees(&txn) => Err(format!(
                "write {op}, which only frees room, was refused for want of it"
            )),
            Some(Asked::Txn(txn)) => {
                self.refused.extend(values(&txn));
                Ok(())
            }
            Some(Asked::Other(what)) if !what.starts_with("lease ") => {
                Err(format!("request {op} was refused for want of room: {what}"))
            }
            _ => Ok(()),
        }
    }

    fn look_for_refused(&mut self, facts: &Facts) -> Result<(), String> {
        if self.seen == facts.revision {
            return Ok(());
        }
        let seen = std::mem::replace(&mut self.seen, facts.revision);
        for (revision, events) in facts.history.range(seen.next()..) {
            for event in events {
                if let mvcc::Event::Put { kv, .. } = &**event
                    && self.refused.contains(&kv.value)
                {
                    return Err(format!(
                        "what revision {revision} wrote had been refused for want of room"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn values(txn: &Txn) -> impl Iterator<Item = Bytes> {
    let steps = txn.success.iter().chain(&txn.failure);
    steps.filter_map(|step| match step {
        Op::Put { value, .. } => Some(value.clone()),
        _ => None,
    })
}
