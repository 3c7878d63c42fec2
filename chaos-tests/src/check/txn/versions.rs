//! The versions of one key: which revision made each, who wrote it, who read it. Pure.

use super::super::anomaly::{Anomaly, Class};
use super::Tx;
use crate::history::Seen;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A version of a key.
#[derive(Default)]
pub(super) struct Version {
    /// The transaction that made it; None for what was there first.
    pub writer: Option<usize>,
    /// The transactions that read it.
    pub readers: Vec<usize>,
    /// The list, or the one value, as the first reader saw it.
    values: Option<Vec<u64>>,
}

/// All versions of a key that anybody saw or was acknowledged to have made.
#[derive(Default)]
pub(super) struct Versions {
    by_revision: BTreeMap<u64, Version>,
    /// Who put a value into the key, be it refused, unknown or acknowledged.
    putters: HashMap<u64, usize>,
    /// Whether any transaction appends; else it is a register.
    is_list: bool,
}

impl Versions {
    /// The versions of all keys.
    pub fn by_key<'a>(txs: &[Tx<'a>]) -> BTreeMap<&'a str, Versions> {
        let mut keys: BTreeMap<&str, Versions> = BTreeMap::new();
        for (at, tx) in txs.iter().enumerate() {
            for step in tx.steps {
                let versions = keys.entry(step.key()).or_default();
                if let Some(value) = step.value() {
                    versions.putters.insert(value, at);
                    versions.is_list |= matches!(step, crate::history::Step::Append { .. });
                }
            }
            for key in tx.makes().keys() {
                if let (Some(revision), Some(versions)) = (tx.revision, keys.get_mut(key)) {
                    versions.by_revision.entry(revision).or_default().writer = Some(at);
                }
            }
        }
        for (at, tx) in txs.iter().enumerate() {
            for seen in tx.seen {
                if let Some(versions) = keys.get_mut(seen.key.as_str()) {
                    versions.read(at, seen);
                }
            }
        }
        keys
    }

    fn read(&mut self, at: usize, seen: &Seen) {
        let putter = seen
            .values
            .last()
            .and_then(|value| self.putters.get(value).copied());
        let version = self.by_revision.entry(seen.revision).or_default();
        version.readers.push(at);
        version.writer = version.writer.or(putter);
        version.values.get_or_insert_with(|| seen.values.clone());
    }

    /// From the oldest.
    pub fn in_order(&self) -> impl Iterator<Item = &Version> {
        self.by_revision.values()
    }

    /// What cannot be, whatever the order of transactions.
    pub fn contradictions(&self, key: &str, txs: &[Tx]) -> Vec<Anomaly> {
        let mut found = Vec::new();
        let mut made_at: HashMap<u64, u64> = HashMap::new();
        let mut earlier: Option<(u64, &Version)> = None;
        for (revision, version) in &self.by_revision {
            found.extend(self.of_version(key, *revision, version, txs));
            if let Some(anomaly) = again(key, *revision, version, &mut made_at, txs) {
                found.push(anomaly);
            }
            if self.is_list && version.values.is_some() {
                if let Some(earlier) = earlier {
                    found.extend(discontinued(key, earlier, (*revision, version), txs));
                }
                earlier = Some((*revision, version));
            }
        }
        found
    }

    /// Whether what was read at a revision was put there by somebody, whole.
    fn of_version(
        &self,
        key: &str,
        revision: u64,
        version: &Version,
        txs: &[Tx],
    ) -> Option<Anomaly> {
        let (values, reader) = (version.values.as_ref()?, *version.readers.first()?);
        let reader = txs[reader].attempt;
        let differs = version.readers.iter().find(|other| {
            let seen = txs[**other].seen.iter().find(|seen| seen.key == key);
            seen.is_some_and(|seen| seen.values != *values)
        });
        if let Some(other) = differs {
            let why = format!("two reads differ about the version of revision {revision}");
            let other = txs[*other].attempt;
            return Some(Anomaly::new(Class::Divergent, key, other, [reader], why));
        }
        let mut known = HashSet::new();
        for value in values {
            let Some(putter) = self.putters.get(value) else {
                let why = format!("{value} was read, and nobody put it there");
                return Some(Anomaly::new(Class::Phantom, key, reader, [], why));
            };
            let putter = &txs[*putter];
            if putter.is_refused() {
                let why = format!("{value} was read, though its transaction was refused");
                let against = [putter.attempt];
                return Some(Anomaly::new(Class::G1a, key, reader, against, why));
            }
            if reader.is_before(putter.attempt) {
                let why = format!("{value} was read before anybody sent it");
                let against = [putter.attempt];
                return Some(Anomaly::new(Class::Phantom, key, reader, against, why));
            }
            if !known.insert(value) {
                let why = format!("{value} is there twice");
                let against = [putter.attempt];
                return Some(Anomaly::new(Class::Duplicate, key, reader, against, why));
            }
        }
        self.whole(key, values, txs).map(|(value, putter)| {
            let why = format!("{value} was read, which is only a part of its transaction");
            Anomaly::new(Class::G1b, key, reader, [txs[putter].attempt], why)
        })
    }

    /// The last value of a version, where its transaction put more into the key.
    fn whole(&self, key: &str, values: &[u64], txs: &[Tx]) -> Option<(u64, usize)> {
        let value = *values.last()?;
        let putter = *self.putters.get(&value)?;
        let last = txs[putter].makes().get(key).copied();
        (last != Some(value)).then_some((value, putter))
    }
}

/// Whether a version's value was there at another revision already.
fn again(
    key: &str,
    revision: u64,
    version: &Version,
    made_at: &mut HashMap<u64, u64>,
    txs: &[Tx],
) -> Option<Anomaly> {
    let (reader, writer) = (version.readers.first().copied(), version.writer);
    let value = match (&version.values, writer) {
        (Some(values), _) => *values.last()?,
        (None, Some(writer)) => *txs[writer].makes().get(key)?,
        (None, None) => return None,
    };
    let before = made_at.insert(value, revision)?;
    let why =
        format!("{value} made a version at revision {before} and again at revision {revision}");
    let offending = txs[reader.or(writer)?].attempt;
    let against = writer.map(|writer| txs[writer].attempt);
    Some(Anomaly::new(Class::Duplicate, key, offending, against, why))
}

/// Whether a list goes on where the one before it ended.
fn discontinued(
    key: &str,
    (before, earlier): (u64, &Version),
    (after, later): (u64, &Version),
    txs: &[Tx],
) -> Option<Anomaly> {
    let (old, new) = (earlier.values.as_ref()?, later.values.as_ref()?);
    if new.starts_with(old) {
        return None;
    }
    let lost = old.iter().find(|value| !new.contains(value));
    let (class, what) = match lost {
        Some(value) => (Class::LostWrite, format!("{value} is gone")),
        None => (
            Class::IncompatibleOrder,
            "elements changed places".to_owned(),
        ),
    };
    let why =
        format!("the list of revision {after} does not continue that of revision {before}: {what}");
    let offending = txs[*later.readers.first()?].attempt;
    let against = txs[*earlier.readers.first()?].attempt;
    Some(Anomaly::new(class, key, offending, [against], why))
}
