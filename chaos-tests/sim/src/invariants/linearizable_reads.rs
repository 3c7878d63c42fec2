//! A read shows the store exactly as it was at the revision that it tells; a linearizable one tells none that is older than what was
//! acknowledged before it was asked.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::{Asked, Event};
use bytes::Bytes;
use mvcc::{Consistency, KeyValue, RangeRequest, RangeResponse};
use objects::Revision;
use std::collections::BTreeMap;
use std::ops::Bound;

#[derive(Default)]
pub struct Check {
    /// Up to where `versions` are known.
    known: Revision,
    versions: BTreeMap<Bytes, BTreeMap<Revision, Option<KeyValue>>>,
    acknowledged: Revision,
    /// What was acknowledged before a read was asked.
    asked: BTreeMap<u64, (RangeRequest, Revision)>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "linearizable_reads"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Invoked {
                op,
                asked: Asked::Range(request),
                ..
            } => {
                let floor = match request.consistency {
                    Consistency::Linearizable => self.acknowledged,
                    Consistency::Stale => Revision(0),
                };
                self.asked.insert(*op, (request.clone(), floor));
                Ok(())
            }
            Event::Answered {
                result: Ok(response),
                ..
            } => {
                self.acknowledged = self.acknowledged.max(response.revision);
                Ok(())
            }
            Event::Read { op, result, .. } => {
                let (Some((request, floor)), Ok(response)) = (self.asked.remove(op), result) else {
                    return Ok(());
                };
                self.read_on(facts);
                self.judge(*op, &request, floor, response)?;
                if request.consistency == Consistency::Linearizable {
                    self.acknowledged = self.acknowledged.max(response.revision);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Check {
    fn read_on(&mut self, facts: &Facts) {
        for (revision, events) in facts.history.range(self.known.next()..) {
            for event in events {
                let kv = match &**event {
                    mvcc::Event::Put { kv, .. } => Some(kv.clone()),
                    mvcc::Event::Delete { .. } => None,
                };
                let versions = self.versions.entry(event.key().clone()).or_default();
                versions.insert(*revision, kv);
            }
        }
        self.known = self.known.max(facts.revision);
    }

    fn judge(
        &self,
        op: u64,
        request: &RangeRequest,
        floor: Revision,
        response: &RangeResponse,
    ) -> Result<(), String> {
        if response.revision < floor {
            return Err(format!(
                "read {op} was answered as of revision {}, though {floor} had been acknowledged before",
                response.revision
            ));
        }
        if response.revision > self.known {
            return Err(format!(
                "read {op} shows revision {}, but only {} is committed",
                response.revision, self.known
            ));
        }
        let at = request.revision.unwrap_or(response.revision);
        let (start, end) = request.range.bounds();
        let expected = self
            .versions
            .range::<[u8], (Bound<&[u8]>, Bound<&[u8]>)>((start, end))
            .filter_map(|(_, versions)| versions.range(..=at).next_back()?.1.as_ref());
        match expected.eq(&response.kvs) {
            true => Ok(()),
            false => Err(format!(
                "read {op} shows other keys or values than there were at revision {at}"
            )),
        }
    }
}
