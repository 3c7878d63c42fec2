//! Transactions over lists and registers, judged as Elle does (Kingsbury and Alvaro, 2020): who read what, who overwrote it,
//! and who was over before whom began make a graph, and a circle in it is an anomaly with a name (Adya, 1999).
//!
//! The order of a key's versions need not be guessed: each names the revision that made it. For lists this is checked, since
//! a list tells its own past. Linear in the history but for the circles that are told.

mod graph;
mod versions;

use super::Checked;
use super::anomaly::{Anomaly, Class};
use crate::history::{Attempt, Outcome, Request, Seen, Step, Timeline, Told};
use graph::{Edge, Graph, Kind};
use std::collections::{BTreeMap, HashMap};
use versions::Versions;

/// A transaction of the history.
pub(super) struct Tx<'a> {
    attempt: &'a Attempt,
    steps: &'a [Step],
    /// What it read before its own writes; nothing where nobody knows.
    seen: &'a [Seen],
    /// The revision that it made.
    revision: Option<u64>,
}

impl<'a> Tx<'a> {
    fn of(attempt: &'a Attempt) -> Option<Self> {
        let Request::Txn { steps } = &attempt.request else {
            return None;
        };
        let reply = attempt.reply();
        let seen: &[Seen] = match reply.map(|reply| &reply.told) {
            Some(Told::Read { seen }) => seen,
            _ => &[],
        };
        Some(Tx {
            attempt,
            steps,
            seen,
            revision: reply.and_then(|reply| reply.revision),
        })
    }

    fn is_refused(&self) -> bool {
        matches!(self.attempt.outcome, Outcome::Fail(_))
    }

    /// The last value that it puts into each key: what names the version that it makes.
    fn makes(&self) -> BTreeMap<&'a str, u64> {
        self.steps
            .iter()
            .filter_map(|step| Some((step.key(), step.value()?)))
            .collect()
    }
}

pub(super) fn check(timeline: &Timeline) -> Checked {
    let txs: Vec<Tx> = timeline.attempts.iter().filter_map(Tx::of).collect();
    let keys = Versions::by_key(&txs);
    let mut checked = Checked {
        subjects: keys.len(),
        ops: txs.len(),
        ..Checked::default()
    };
    for (key, versions) in &keys {
        checked.anomalies.extend(versions.contradictions(key, &txs));
    }
    checked.anomalies.extend(lost_updates(&txs));
    checked.anomalies.extend(circles(&txs, &keys));
    checked
}

/// Two acknowledged transactions that read one version of a key and both overwrote it.
fn lost_updates(txs: &[Tx]) -> Vec<Anomaly> {
    let mut overwrote: HashMap<(&str, u64), &Tx> = HashMap::new();
    let mut found = Vec::new();
    for tx in txs.iter().filter(|tx| tx.attempt.reply().is_some()) {
        let makes = tx.makes();
        for seen in tx.seen {
            let key = seen.key.as_str();
            if !makes.contains_key(key) {
                continue;
            }
            let Some(other) = overwrote.insert((key, seen.revision), tx) else {
                continue;
            };
            let why = format!(
                "both read the version of revision {} and both overwrote it",
                seen.revision
            );
            found.push(Anomaly::new(
                Class::LostUpdate,
                key,
                tx.attempt,
                [other.attempt],
                why,
            ));
        }
    }
    found
}

fn circles(txs: &[Tx], keys: &BTreeMap<&str, Versions>) -> Vec<Anomaly> {
    let mut graph = Graph::new(txs.len());
    for (key, versions) in keys {
        add_dependencies(&mut graph, key, versions);
    }
    let spans: Vec<(u64, Option<u64>)> = txs
        .iter()
        .map(|tx| {
            let returned = tx.attempt.reply().map(|_| tx.attempt.ended_ns);
            (tx.attempt.invoked_ns, returned)
        })
        .collect();
    graph.add_real_time(&spans);
    let told = graph.circles().into_iter().map(|(class, circle)| {
        let arrows: Vec<String> = circle.iter().map(|edge| told_of(edge, txs)).collect();
        let members: Vec<&Attempt> = circle.iter().map(|edge| txs[edge.from].attempt).collect();
        let key = circle
            .iter()
            .find_map(|edge| edge.key)
            .unwrap_or("real time");
        let last = members.len() - 1;
        Anomaly::new(
            class,
            key,
            members[last],
            members[..last].iter().copied(),
            arrows.join("; "),
        )
    });
    told.collect()
}

fn told_of(edge: &Edge, txs: &[Tx]) -> String {
    let id = |at: usize| format!("request {}", txs[at].attempt.id);
    let (from, to) = (id(edge.from), id(edge.to));
    let key = edge.key.unwrap_or("");
    match edge.kind {
        Kind::Overwrote => format!("{to} overwrote {key} of {from}"),
        Kind::WasRead => format!("{to} read {key} of {from}"),
        Kind::ReadBefore => format!("{to} overwrote {key} as {from} had read it"),
        Kind::RealTime => format!("{from} was over before {to} was sent"),
    }
}

/// The arrows of one key: from each version's writer to its readers and to the next writer, and from its readers there.
fn add_dependencies<'a>(graph: &mut Graph<'a>, key: &'a str, versions: &Versions) {
    let mut earlier: Option<&versions::Version> = None;
    let mut add = |kind, from: Option<usize>, to: Option<usize>| {
        if let (Some(from), Some(to)) = (from, to)
            && from != to
        {
            graph.add(Edge {
                from,
                to,
                kind,
                key: Some(key),
            });
        }
    };
    for version in versions.in_order() {
        for reader in &version.readers {
            add(Kind::WasRead, version.writer, Some(*reader));
        }
        if let Some(earlier) = earlier {
            add(Kind::Overwrote, earlier.writer, version.writer);
            for reader in &earlier.readers {
                add(Kind::ReadBefore, Some(*reader), version.writer);
            }
        }
        earlier = Some(version);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
