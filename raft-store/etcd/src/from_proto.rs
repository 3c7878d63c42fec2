//! etcd's requests as the store's. Whatever etcd refuses by looking at a request alone is refused here, in etcd's order and
//! words; the rest is checked by `mvcc::validate`.

use crate::error::{
    EMPTY_KEY, EtcdError, KEY_NOT_FOUND, LEASE_PROVIDED, TOO_MANY_OPS, VALUE_PROVIDED,
};
use bytes::Bytes;
use mvcc::{
    CompareOp, CompareTarget, Consistency, KeyRange, KeyRangeEnd, LeaseId, Op, Query, RangeRequest,
    Selection, SortTarget, TXN_OPS_MAX, Txn,
};
use objects::Revision;
use rpc::etcd::etcdserverpb as pb;

/// `range_end` as etcd means it: empty for the key alone, a zero byte for no end.
pub fn key_range(key: Bytes, range_end: Bytes) -> KeyRange {
    let end = match &range_end[..] {
        [] => KeyRangeEnd::Single,
        [0] => KeyRangeEnd::Unbounded,
        _ => KeyRangeEnd::Before(range_end),
    };
    KeyRange { start: key, end }
}

/// A read.
pub fn range_request(request: pb::RangeRequest) -> Result<RangeRequest, EtcdError> {
    let consistency = match request.serializable {
        true => Consistency::Stale,
        false => Consistency::Linearizable,
    };
    Ok(RangeRequest {
        consistency,
        ..query(request)?.request()
    })
}

fn query(request: pb::RangeRequest) -> Result<Query, EtcdError> {
    if request.key.is_empty() {
        return Err(EMPTY_KEY);
    }
    let selection = selection(&request);
    Ok(Query {
        range: key_range(request.key, request.range_end),
        revision: u64::try_from(request.revision)
            .ok()
            .filter(|revision| *revision > 0)
            .map(Revision),
        limit: u64::try_from(request.limit).ok().filter(|limit| *limit > 0),
        keys_only: request.keys_only,
        count_only: request.count_only,
        selection,
    })
}

fn selection(request: &pb::RangeRequest) -> Selection {
    use pb::range_request::{SortOrder, SortTarget as Target};
    // A negative bound bounds nothing that exists: revisions are positive. An upper one leaves nothing.
    let min = |bound: i64| Revision(u64::try_from(bound).unwrap_or(0));
    let max = |bound: i64| match bound {
        0 => Revision(0),
        bound => Revision(u64::try_from(bound).unwrap_or(1)),
    };
    let sort = match request.sort_target() {
        Target::Key => SortTarget::Key,
        Target::Version => SortTarget::Version,
        Target::Create => SortTarget::CreateRevision,
        Target::Mod => SortTarget::ModRevision,
        Target::Value => SortTarget::Value,
    };
    Selection {
        sort,
        is_descending: request.sort_order() == SortOrder::Descend,
        mod_revision_min: min(request.min_mod_revision),
        mod_revision_max: max(request.max_mod_revision),
        create_revision_min: min(request.min_create_revision),
        create_revision_max: max(request.max_create_revision),
    }
}

/// A put, as the one step of a transaction.
pub fn put(request: pb::PutRequest) -> Result<Op, EtcdError> {
    let pb::PutRequest {
        key,
        value,
        lease,
        prev_kv,
        ignore_value,
        ignore_lease,
    } = request;
    if key.is_empty() {
        return Err(EMPTY_KEY);
    }
    if ignore_value && !value.is_empty() {
        return Err(VALUE_PROVIDED);
    }
    if ignore_lease && lease != 0 {
        return Err(LEASE_PROVIDED);
    }
    let lease = LeaseId(lease);
    Ok(match ignore_value || ignore_lease {
        false => Op::Put {
            key,
            value,
            lease,
            prev_kv,
        },
        true => Op::Update {
            key,
            value: (!ignore_value).then_some(value),
            lease: (!ignore_lease).then_some(lease),
            prev_kv,
        },
    })
}

/// A delete, as the one step of a transaction.
pub fn delete_range(request: pb::DeleteRangeRequest) -> Result<Op, EtcdError> {
    let pb::DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    } = request;
    if key.is_empty() {
        return Err(EMPTY_KEY);
    }
    Ok(Op::DeleteRange {
        range: key_range(key, range_end),
        prev_kv,
    })
}

/// One step alone, as a transaction.
pub fn only(op: Op) -> Txn {
    Txn {
        success: vec![op],
        ..Txn::default()
    }
}

/// A transaction.
pub fn txn(request: pb::TxnRequest) -> Result<Txn, EtcdError> {
    inner_txn(request, TXN_OPS_MAX)
}

/// A transaction of at most `ops_max` operations, those within it included; so depth is bounded too.
fn inner_txn(request: pb::TxnRequest, ops_max: usize) -> Result<Txn, EtcdError> {
    let pb::TxnRequest {
        compare,
        success,
        failure,
    } = request;
    let ops = compare.len().max(success.len()).max(failure.len());
    if ops > ops_max {
        return Err(TOO_MANY_OPS);
    }
    let left = ops_max - ops;
    let steps = |ops: Vec<pb::RequestOp>| {
        ops.into_iter()
            .map(|op| step(op, left))
            .collect::<Result<Vec<Op>, EtcdError>>()
    };
    let compare: Vec<Option<mvcc::Compare>> = compare
        .into_iter()
        .map(self::compare)
        .collect::<Result<_, _>>()?;
    Ok(Txn {
        compare: compare.into_iter().flatten().collect(),
        success: steps(success)?,
        failure: steps(failure)?,
        fence: None,
    })
}

fn step(op: pb::RequestOp, ops_max: usize) -> Result<Op, EtcdError> {
    use pb::request_op::Request;
    match op.request {
        Some(Request::RequestRange(request)) => query(request).map(|query| Op::Query(query.into())),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => {
            inner_txn(request, ops_max).map(|txn| Op::Txn(txn.into()))
        }
        None => Err(KEY_NOT_FOUND),
    }
}

/// A comparison; None for one that holds whatever the store has.
fn compare(request: pb::Compare) -> Result<Option<mvcc::Compare>, EtcdError> {
    use pb::compare::{CompareResult, CompareTarget as Target, TargetUnion};
    if request.key.is_empty() {
        return Err(EMPTY_KEY);
    }
    let op = match request.result() {
        CompareResult::Equal => CompareOp::Equal,
        CompareResult::NotEqual => CompareOp::NotEqual,
        CompareResult::Greater => CompareOp::Greater,
        CompareResult::Less => CompareOp::Less,
    };
    let target = request.target();
    let range = key_range(request.key, request.range_end);
    // What is compared is said by the target; a given number of another kind counts as none, which is zero.
    let number = match (target, &request.target_union) {
        (Target::Version, Some(TargetUnion::Version(number)))
        | (Target::Create, Some(TargetUnion::CreateRevision(number)))
        | (Target::Mod, Some(TargetUnion::ModRevision(number)))
        | (Target::Lease, Some(TargetUnion::Lease(number))) => *number,
        _ => 0,
    };
    let value = match request.target_union {
        Some(TargetUnion::Value(value)) => value,
        _ => Bytes::new(),
    };
    let target = match (target, u64::try_from(number)) {
        (Target::Value, _) => CompareTarget::Value(value),
        (Target::Lease, _) => CompareTarget::Lease(LeaseId(number)),
        (Target::Version, Ok(number)) => CompareTarget::Version(number),
        (Target::Create, Ok(number)) => CompareTarget::CreateRevision(Revision(number)),
        (Target::Mod, Ok(number)) => CompareTarget::ModRevision(Revision(number)),
        // Every number of a key is greater than a negative one.
        (_, Err(_)) => {
            return Ok(match op {
                CompareOp::Greater | CompareOp::NotEqual => None,
                CompareOp::Equal | CompareOp::Less => Some(mvcc::Compare {
                    range,
                    op: CompareOp::Less,
                    target: CompareTarget::Version(0),
                }),
            });
        }
    };
    Ok(Some(mvcc::Compare { range, op, target }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(request: pb::TxnRequest) -> Option<EtcdError> {
        txn(request).err()
    }

    fn nested(inner: pb::TxnRequest) -> pb::TxnRequest {
        let op = pb::RequestOp {
            request: Some(pb::request_op::Request::RequestTxn(inner)),
        };
        pb::TxnRequest {
            success: vec![op],
            ..pb::TxnRequest::default()
        }
    }

    #[test]
    fn a_transaction_is_bounded_in_depth_and_width() {
        let deep = |depth: usize| (0..depth).fold(pb::TxnRequest::default(), |txn, _| nested(txn));
        assert_eq!(refusal(deep(TXN_OPS_MAX)), None);
        assert_eq!(refusal(deep(TXN_OPS_MAX + 1)), Some(TOO_MANY_OPS));
        let empty = pb::TxnRequest {
            failure: vec![pb::RequestOp::default()],
            ..pb::TxnRequest::default()
        };
        assert_eq!(refusal(empty), Some(KEY_NOT_FOUND));
    }

    #[test]
    fn a_negative_number_is_less_than_all_there_are() {
        let with = |result: pb::compare::CompareResult| {
            let request = pb::Compare {
                result: result.into(),
                target: pb::compare::CompareTarget::Mod.into(),
                key: Bytes::from_static(b"/a"),
                target_union: Some(pb::compare::TargetUnion::ModRevision(-3)),
                range_end: Bytes::new(),
            };
            compare(request).expect("it has a key")
        };
        assert_eq!(with(pb::compare::CompareResult::Greater), None);
        let never = with(pb::compare::CompareResult::Equal).expect("it never holds");
        assert_eq!(
            (never.op, never.target),
            (CompareOp::Less, CompareTarget::Version(0))
        );
    }

    #[test]
    fn ignoring_and_giving_at_once_is_refused() {
        let request = pb::PutRequest {
            key: Bytes::from_static(b"/a"),
            value: Bytes::from_static(b"x"),
            ignore_value: true,
            ..pb::PutRequest::default()
        };
        assert_eq!(put(request.clone()), Err(VALUE_PROVIDED));
        let request = pb::PutRequest {
            lease: 7,
            ignore_value: false,
            ignore_lease: true,
            ..request
        };
        assert_eq!(put(request), Err(LEASE_PROVIDED));
    }
}
