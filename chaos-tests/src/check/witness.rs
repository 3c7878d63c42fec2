//! The second, independent checker: the store names a revision with every answer, and revisions claim to be the order. This
//! takes the claim at its word and verifies it: values follow from it, and it agrees with real time. O(n log n), at any
//! concurrency; where the search of `wgl` gives up, this still decides.

use super::anomaly::{Anomaly, Class};
use super::classify;
use super::register::{ABSENT, Action, INITIAL, Op, Value};
use std::collections::{BTreeMap, HashMap};

/// All contradictions found, at most `max`.
pub fn check(keys: &BTreeMap<String, Vec<Op>>, max: usize) -> Vec<Anomaly> {
    let mut found = Vec::new();
    for (key, ops) in keys {
        if found.len() >= max {
            break;
        }
        found.extend(check_key(key, ops));
    }
    found.truncate(max);
    found
}

fn check_key(key: &str, ops: &[Op]) -> Vec<Anomaly> {
    let writes = Writes::of(ops);
    let mut found = Vec::new();
    for op in ops.iter().filter(|op| op.returned_ns.is_some()) {
        found.extend(writes.contradiction(key, ops, op));
    }
    found.extend(against_real_time(key, ops));
    found
}

/// The first contradiction of a key that came before the answer of `until`.
pub fn first_of_key(key: &str, ops: &[Op], until: &Op) -> Option<Anomaly> {
    check_key(key, ops)
        .into_iter()
        .filter(|anomaly| anomaly.offending.until_ns < until.returned_ns)
        .min_by_key(|anomaly| anomaly.offending.until_ns)
}

/// The writes of a key, by value and by revision.
struct Writes<'a> {
    by_value: HashMap<Value, &'a Op>,
    by_revision: BTreeMap<u64, &'a Op>,
}

impl<'a> Writes<'a> {
    fn of(ops: &'a [Op]) -> Self {
        let mut writes = Writes {
            by_value: HashMap::new(),
            by_revision: BTreeMap::new(),
        };
        for op in ops {
            let Some(value) = op.action.writes() else {
                continue;
            };
            writes.by_value.insert(value, op);
            if let Some(revision) = op.revision {
                writes.by_revision.insert(revision, op);
            }
        }
        writes
    }

    /// What `op` was told against what the revisions say.
    fn contradiction(&self, key: &str, ops: &[Op], op: &Op) -> Option<Anomaly> {
        match op.action {
            Action::Read(ABSENT) => {
                let (class, why) = classify::classify_absent(ops, op);
                Some(Anomaly::new(class, key, op, [], why))
            }
            Action::Read(value) => self.read(key, op, value),
            Action::Cas {
                from,
                swapped: true,
                ..
            } => self.swap(key, op, from),
            Action::Write(_) | Action::Cas { swapped: false, .. } => None,
        }
    }

    fn read(&self, key: &str, op: &Op, value: Value) -> Option<Anomaly> {
        if value == INITIAL {
            return None; // Who read an overwritten one is told by real time.
        }
        let Some(writer) = self.by_value.get(&value) else {
            let why = format!("nobody wrote what was read: {}", Action::Read(value));
            return Some(Anomaly::new(Class::Phantom, key, op, [], why));
        };
        if op
            .returned_ns
            .is_some_and(|returned| returned < writer.invoked_ns)
        {
            let why = format!("{value} was read before anybody wrote it");
            return Some(Anomaly::new(Class::Phantom, key, op, [*writer], why));
        }
        match (op.revision, writer.revision) {
            (Some(read), Some(written)) if read != written => {
                let why = format!(
                    "{value} was written at revision {written} and read at revision {read}: it was applied again"
                );
                Some(Anomaly::new(Class::Duplicate, key, op, [*writer], why))
            }
            _ => None,
        }
    }

    /// Between what a compare-and-swap compared with and what it wrote there is no other write.
    fn swap(&self, key: &str, op: &Op, from: Value) -> Option<Anomaly> {
        let revision = op.revision?;
        let compared = self.by_value.get(&from).and_then(|writer| writer.revision);
        let since = match compared {
            Some(compared) => compared + 1,
            None if from == INITIAL => 0,
            None => return None, // The write compared with is of unknown outcome, so its revision is not known.
        };
        if since > revision {
            return None; // Told by real time.
        }
        let (_, between) = self.by_revision.range(since..revision).next_back()?;
        let why = format!(
            "the swap at revision {revision} compared with {from}, but another write was acknowledged in between"
        );
        Some(Anomaly::new(Class::LostWrite, key, op, [*between], why))
    }
}

/// What is over before something else begins must not have a higher revision; nor, where that writes, the same.
fn against_real_time(key: &str, ops: &[Op]) -> Vec<Anomaly> {
    let mut ended: Vec<&Op> = ops
        .iter()
        .filter(|op| op.returned_ns.is_some() && op.revision.is_some())
        .collect();
    ended.sort_by_key(|op| op.returned_ns);
    let mut ended = ended.into_iter().peekable();
    let mut newest: Option<&Op> = None;
    let mut found = Vec::new();
    let mut begun: Vec<&Op> = ops.iter().filter(|op| op.revision.is_some()).collect();
    begun.sort_by_key(|op| op.invoked_ns);
    for op in begun {
        while let Some(before) = ended.next_if(|before| before.returned_ns < Some(op.invoked_ns)) {
            if newest.is_none_or(|newest| newest.revision < before.revision) {
                newest = Some(before);
            }
        }
        let Some(newest) = newest else { continue };
        let writes = op.action.writes().is_some();
        let is_late = op.revision < newest.revision || writes && op.revision == newest.revision;
        if !is_late || matches!(op.action, Action::Cas { swapped: false, .. }) {
            continue;
        }
        let (class, why) = if writes {
            let why = "a write was given a revision that was over before it was sent";
            (Class::LostWrite, why.to_owned())
        } else {
            let (Some(seen), Some(newest)) = (op.revision, newest.revision) else {
                continue;
            };
            let why = format!(
                "revision {seen} was read after revision {newest} had been acknowledged or read"
            );
            (classify::stale_or_lost(ops, op), why)
        };
        found.push(Anomaly::new(class, key, op, [newest], why));
    }
    found
}
