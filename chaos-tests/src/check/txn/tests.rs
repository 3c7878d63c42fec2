//! Circles against trying every order of few transactions.

use super::*;
use crate::history::{Failure, Reply};
use proptest::prelude::*;

const KEYS: usize = 2;

/// A transaction: when it was sent and over, the revision that it made, which keys it writes, and of the others which
/// version it read.
#[derive(Clone, Debug)]
struct Small {
    invoked: u64,
    lasts: Option<u64>,
    writes: [bool; KEYS],
    reads: [Option<usize>; KEYS],
}

fn small() -> impl Strategy<Value = Small> {
    let reads = [prop::option::of(0..6_usize), prop::option::of(0..6_usize)];
    (
        0..20_u64,
        prop::option::weighted(0.9, 1..12_u64),
        any::<[bool; KEYS]>(),
        reads,
    )
        .prop_map(|(invoked, lasts, writes, reads)| Small {
            invoked,
            lasts,
            writes,
            reads,
        })
}

fn key(number: usize) -> String {
    format!("k{number}")
}

/// The version of a key that a choice names: none, or the one that a transaction wrote.
fn version(smalls: &[Small], number: usize, choice: usize) -> Option<usize> {
    let writers: Vec<usize> = (0..smalls.len())
        .filter(|at| smalls[*at].writes[number])
        .collect();
    choice
        .checked_sub(1)
        .and_then(|choice| writers.get(choice % writers.len().max(1)).copied())
}

/// Transaction `at` makes revision `at + 1`; its value in every key that it writes is the same.
fn attempts(smalls: &[Small]) -> Vec<Attempt> {
    let of = |(at, small): (usize, &Small)| {
        let mut steps = Vec::new();
        let mut seen = Vec::new();
        for number in 0..KEYS {
            let key = key(number);
            if small.writes[number] {
                let value = at as u64 + 1;
                steps.push(Step::Write { key, value });
            } else if let Some(choice) = small.reads[number] {
                let read = version(smalls, number, choice).map_or(0, |at| at as u64 + 1);
                steps.push(Step::Read { key: key.clone() });
                seen.push(Seen {
                    key,
                    values: Some(read).filter(|read| *read > 0).into_iter().collect(),
                    revision: read,
                });
            }
        }
        let outcome = match small.lasts {
            Some(_) => Outcome::Ok(Reply::at(at as u64 + 1, Told::Read { seen })),
            None => Outcome::Info(Failure::new("lost", "the answer was lost")),
        };
        Attempt {
            id: at as u64,
            process: at as u64,
            server: String::new(),
            request: Request::Txn { steps },
            invoked_ns: small.invoked,
            ended_ns: small.invoked + small.lasts.unwrap_or(1000),
            outcome,
        }
    };
    smalls.iter().enumerate().map(of).collect()
}

/// Whether some order of all transactions explains every read, writes each key's versions by revision, and respects real
/// time.
fn by_brute_force(smalls: &[Small], order: &mut Vec<usize>) -> bool {
    if order.len() == smalls.len() {
        return true;
    }
    for next in 0..smalls.len() {
        if order.contains(&next) || !may_follow(smalls, order, next) {
            continue;
        }
        order.push(next);
        if by_brute_force(smalls, order) {
            return true;
        }
        order.pop();
    }
    false
}

fn may_follow(smalls: &[Small], order: &[usize], next: usize) -> bool {
    let small = &smalls[next];
    // Nobody left may have been over before this one was sent.
    let is_due = (0..smalls.len()).all(|other| {
        let over = smalls[other]
            .lasts
            .map(|lasts| smalls[other].invoked + lasts);
        order.contains(&other) || other == next || over.is_none_or(|over| over >= small.invoked)
    });
    is_due
        && (0..KEYS).all(|number| {
            let last = order.iter().rev().find(|at| smalls[**at].writes[number]);
            if small.writes[number] {
                return last.is_none_or(|last| *last < next);
            }
            match small.reads[number] {
                Some(choice) if small.lasts.is_some() => {
                    version(smalls, number, choice) == last.copied()
                }
                _ => true,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn agrees_with_trying_every_order(smalls in prop::collection::vec(small(), 1..6)) {
        // A version that nobody was told of is in no place of the order, so all writers are acknowledged here.
        let smalls: Vec<Small> = smalls
            .into_iter()
            .map(|mut small| {
                if small.writes.contains(&true) {
                    small.lasts = small.lasts.or(Some(5));
                }
                small
            })
            .collect();
        let attempts = attempts(&smalls);
        let txs: Vec<Tx> = attempts.iter().filter_map(Tx::of).collect();
        let found = circles(&txs, &Versions::by_key(&txs));
        let expected = by_brute_force(&smalls, &mut Vec::new());
        prop_assert_eq!(found.is_empty(), expected, "{:?}", found);
    }
}
