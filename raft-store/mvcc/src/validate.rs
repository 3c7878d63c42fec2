//! What a transaction may be, before anybody proposes it.
//!
//! The rules are etcd's: at most 128 operations, 1.5 MiB in all, no empty key, no key that one transaction changes twice.
//! `apply` asks again, so that a log written by a later or earlier version can never break an invariant.

use crate::notes::AUTHOR_BYTES_MAX;
use crate::store::{Compare, CompareTarget, KeyRange, KeyRangeEnd, Op, StoreError, Txn};
use bytes::Bytes;
use std::collections::BTreeSet;

/// The operations that a transaction may hold: comparisons, steps if they hold, steps otherwise, whichever are most;
/// those of transactions within count too.
pub const TXN_OPS_MAX: usize = 128;

/// The bytes of keys and values that a transaction may hold.
pub const TXN_BYTES_MAX: usize = 1536 << 10;

/// Whether `txn` may be proposed.
pub fn validate(txn: &Txn) -> Result<(), StoreError> {
    check_shape(txn, TXN_OPS_MAX)?;
    if txn.success.len() > 1
        || txn.failure.len() > 1
        || txn.success.iter().chain(&txn.failure).any(is_txn)
    {
        Changes::of(&txn.success)?;
        Changes::of(&txn.failure)?;
    }
    let size = txn_bytes(txn);
    if size > TXN_BYTES_MAX {
        return Err(StoreError::TooLarge {
            size,
            limit: TXN_BYTES_MAX,
        });
    }
    Ok(())
}

/// Whether `txn` can only make the store smaller: it passes even when the disk is full.
pub fn only_frees(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match op {
        Op::Put { .. } | Op::Update { .. } => false,
        Op::DeleteRange { .. } | Op::Range { .. } | Op::Query(_) | Op::Sign(_) => true,
        Op::Txn(inner) => only_frees(inner),
    })
}

/// The bytes of keys and values.
fn txn_bytes(txn: &Txn) -> usize {
    let compares = txn.compare.iter().map(|compare| {
        range_bytes(&compare.range)
            + if let CompareTarget::Value(value) = &compare.target {
                value.len()
            } else {
                0
            }
    });
    let ops = txn.success.iter().chain(&txn.failure).map(|op| match op {
        Op::Put { key, value, .. } => key.len() + value.len(),
        Op::Update { key, value, .. } => key.len() + value.as_ref().map_or(0, Bytes::len),
        Op::DeleteRange { range, .. } | Op::Range { range, .. } => range_bytes(range),
        Op::Query(query) => range_bytes(&query.range),
        Op::Txn(inner) => txn_bytes(inner),
        Op::Sign(author) => author.text_bytes(),
    });
    compares.chain(ops).sum()
}

fn range_bytes(range: &KeyRange) -> usize {
    range.start.len()
        + if let KeyRangeEnd::Before(end) = &range.end {
            end.len()
        } else {
            0
        }
}

/// Checks the count of operations, and each for itself.
fn check_shape(txn: &Txn, ops_max: usize) -> Result<(), StoreError> {
    let ops = txn
        .compare
        .len()
        .max(txn.success.len())
        .max(txn.failure.len());
    if ops > ops_max {
        return Err(StoreError::TooManyOps { limit: TXN_OPS_MAX });
    }
    for Compare { range, .. } in &txn.compare {
        check_range(range)?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Put { key, .. } | Op::Update { key, .. } if key.is_empty() => {
                return Err(StoreError::EmptyKey);
            }
            Op::Put { .. } | Op::Update { .. } => {}
            Op::DeleteRange { range, .. } | Op::Range { range, .. } => check_range(range)?,
            Op::Query(query) => check_range(&query.range)?,
            Op::Txn(inner) if inner.fence.is_some() => {
                return Err(refused(
                    "a txn within a txn cannot have a fence of its own; set it on the outer one",
                ));
            }
            Op::Txn(inner) => check_shape(inner, ops_max - ops)?,
            Op::Sign(author) if author.text_bytes() > AUTHOR_BYTES_MAX => {
                return Err(refused(format!(
                    "who writes is told in {} bytes, at most {AUTHOR_BYTES_MAX} are allowed",
                    author.text_bytes()
                )));
            }
            Op::Sign(_) => {}
        }
    }
    Ok(())
}

/// A range is one key or has a beginning; etcd says "from the first key" with a zero byte, and so may an empty start here.
fn check_range(range: &KeyRange) -> Result<(), StoreError> {
    match range.end {
        KeyRangeEnd::Single if range.start.is_empty() => Err(StoreError::EmptyKey),
        _ => Ok(()),
    }
}

/// The keys and ranges that the steps of a transaction may change.
#[derive(Default)]
struct Changes<'t> {
    puts: BTreeSet<&'t Bytes>,
    deletes: Vec<&'t KeyRange>,
}

impl<'t> Changes<'t> {
    /// Collects what `ops` may change; refuses when a key could be put twice, or put and deleted.
    fn of(ops: &'t [Op]) -> Result<Self, StoreError> {
        let mut all = Changes::default();
        for op in ops {
            match op {
                Op::Put { key, .. } | Op::Update { key, .. } => all.add(Changes {
                    puts: BTreeSet::from([key]),
                    deletes: vec![],
                })?,
                Op::DeleteRange { range, .. } => all.add(Changes {
                    puts: BTreeSet::new(),
                    deletes: vec![range],
                })?,
                Op::Range { .. } | Op::Query(_) | Op::Sign(_) => {}
                Op::Txn(inner) => {
                    // Only one of the branches is run, so they may change the same keys, but none that others change.
                    let mut either = Changes::of(&inner.success)?;
                    let otherwise = Changes::of(&inner.failure)?;
                    either.puts.extend(otherwise.puts);
                    either.deletes.extend(otherwise.deletes);
                    all.add(either)?;
                }
            }
        }
        Ok(all)
    }

    fn add(&mut self, other: Changes<'t>) -> Result<(), StoreError> {
        let twice = other.puts.iter().any(|key| self.changes(key))
            || self
                .puts
                .iter()
                .any(|key| other.deletes.iter().any(|range| range.contains(key)));
        if twice {
            return Err(StoreError::DuplicateKey);
        }
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
        Ok(())
    }

    fn changes(&self, key: &Bytes) -> bool {
        self.puts.contains(key) || self.deletes.iter().any(|range| range.contains(key))
    }
}

fn is_txn(op: &Op) -> bool {
    matches!(op, Op::Txn(_))
}

fn refused(why: impl Into<String>) -> StoreError {
    StoreError::Refused(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(success: Vec<Op>) -> Txn {
        Txn {
            success,
            ..Txn::default()
        }
    }

    fn puts(range: std::ops::Range<usize>) -> Vec<Op> {
        range.map(|n| Op::put(format!("/{n}"), "")).collect()
    }

    fn nested(txn: Txn) -> Op {
        Op::Txn(Box::new(txn))
    }

    #[test]
    fn operations_are_counted_over_all_levels() {
        assert_eq!(validate(&steps(puts(0..128))), Ok(()));
        assert!(matches!(
            validate(&steps(puts(0..129))),
            Err(StoreError::TooManyOps { .. })
        ));
        let inner = |count| steps(vec![nested(steps(puts(0..count)))]);
        assert_eq!(validate(&inner(127)), Ok(()));
        assert!(matches!(
            validate(&inner(128)),
            Err(StoreError::TooManyOps { .. })
        ));
        let deep = (0..200).fold(Txn::default(), |txn, _| steps(vec![nested(txn)]));
        assert!(matches!(
            validate(&deep),
            Err(StoreError::TooManyOps { .. })
        ));
        let compares = Txn {
            compare: vec![Compare::absent("/a"); 129],
            ..Txn::default()
        };
        assert!(matches!(
            validate(&compares),
            Err(StoreError::TooManyOps { .. })
        ));
    }

    #[test]
    fn bytes_are_counted_over_all_levels() {
        let value = |size: usize| vec![0; size];
        assert_eq!(
            validate(&steps(vec![Op::put("/a", value(TXN_BYTES_MAX - 2))])),
            Ok(())
        );
        let large = steps(vec![nested(steps(vec![Op::put(
            "/a",
            value(TXN_BYTES_MAX - 1),
        )]))]);
        assert_eq!(
            validate(&large),
            Err(StoreError::TooLarge {
                size: TXN_BYTES_MAX + 1,
                limit: TXN_BYTES_MAX
            })
        );
    }

    #[test]
    fn an_empty_key_and_an_inner_fence_are_refused() {
        for op in [Op::put("", "x"), Op::get(""), Op::delete("")] {
            assert_eq!(validate(&steps(vec![op])), Err(StoreError::EmptyKey));
        }
        let all = Op::DeleteRange {
            range: KeyRange::prefix(""),
            prev_kv: false,
        };
        assert_eq!(validate(&steps(vec![all])), Ok(()));
        let fenced = Txn {
            fence: Some(objects::Term(1)),
            ..Txn::default()
        };
        assert!(matches!(
            validate(&steps(vec![nested(fenced)])),
            Err(StoreError::Refused(_))
        ));
    }

    #[test]
    fn what_only_frees_is_known() {
        assert!(only_frees(&steps(vec![
            Op::delete("/a"),
            nested(steps(vec![Op::get("/a")]))
        ])));
        assert!(!only_frees(&steps(vec![nested(Txn {
            failure: puts(0..1),
            ..Txn::default()
        })])));
    }
}
