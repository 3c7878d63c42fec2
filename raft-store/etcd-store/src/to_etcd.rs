//! The store's requests as etcd's.

use bytes::Bytes;
use mvcc::{
    Compare, CompareOp, CompareTarget, Consistency, KeyRange, KeyRangeEnd, Op, Query, RangeRequest,
    Selection, SortTarget, Txn, WatchRequest,
};
use objects::Revision;
use rpc::etcd::etcdserverpb as pb;

/// The least key that there is: etcd knows no empty one.
const FIRST_KEY: &[u8] = b"\0";
/// As the end of a range it means that there is none.
const NO_END: &[u8] = b"\0";

/// A range's key and end.
pub fn key_range(range: KeyRange) -> (Bytes, Bytes) {
    let end = match range.end {
        KeyRangeEnd::Single => return (range.start, Bytes::new()),
        KeyRangeEnd::Before(end) => end,
        KeyRangeEnd::Unbounded => Bytes::from_static(NO_END),
    };
    match range.start.is_empty() {
        true => (Bytes::from_static(FIRST_KEY), end),
        false => (range.start, end),
    }
}

/// A read.
pub fn range(request: RangeRequest) -> pb::RangeRequest {
    let (key, range_end) = key_range(request.range);
    let Selection {
        sort,
        is_descending,
        mod_revision_min,
        mod_revision_max,
        create_revision_min,
        create_revision_max,
    } = request.selection;
    use pb::range_request::{SortOrder, SortTarget as Target};
    let sort_target = match sort {
        SortTarget::Key => Target::Key,
        SortTarget::Version => Target::Version,
        SortTarget::CreateRevision => Target::Create,
        SortTarget::ModRevision => Target::Mod,
        SortTarget::Value => Target::Value,
    };
    let sort_order = match is_descending {
        true => SortOrder::Descend,
        false => SortOrder::Ascend,
    };
    pb::RangeRequest {
        key,
        range_end,
        limit: number(request.limit.map_or(0, |limit| limit as u64)),
        revision: request.revision.map_or(0, revision),
        sort_order: sort_order.into(),
        sort_target: sort_target.into(),
        serializable: request.consistency == Consistency::Stale,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: revision(mod_revision_min),
        max_mod_revision: revision(mod_revision_max),
        min_create_revision: revision(create_revision_min),
        max_create_revision: revision(create_revision_max),
    }
}

/// A transaction without its fence, which is a comparison around it.
pub fn txn(txn: Txn) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: txn.compare.into_iter().map(compare).collect(),
        success: txn.success.into_iter().filter_map(op).collect(),
        failure: txn.failure.into_iter().filter_map(op).collect(),
    }
}

/// A step; None for a signature, of which etcd has no notion.
fn op(op: Op) -> Option<pb::RequestOp> {
    use pb::request_op::Request;
    let request = match op {
        Op::Put {
            key,
            value,
            lease,
            prev_kv,
        } => Request::RequestPut(pb::PutRequest {
            key,
            value,
            lease: lease.0,
            prev_kv,
            ..pb::PutRequest::default()
        }),
        Op::Update {
            key,
            value,
            lease,
            prev_kv,
        } => Request::RequestPut(pb::PutRequest {
            key,
            ignore_value: value.is_none(),
            value: value.unwrap_or_default(),
            ignore_lease: lease.is_none(),
            lease: lease.unwrap_or_default().0,
            prev_kv,
        }),
        Op::DeleteRange { range, prev_kv } => {
            let (key, range_end) = key_range(range);
            Request::RequestDeleteRange(pb::DeleteRangeRequest {
                key,
                range_end,
                prev_kv,
            })
        }
        Op::Range { range: keys, limit } => {
            let query = Query {
                range: keys,
                revision: None,
                limit,
                keys_only: false,
                count_only: false,
                selection: Selection::default(),
            };
            Request::RequestRange(range(query.request()))
        }
        Op::Query(query) => Request::RequestRange(range(query.request())),
        Op::Txn(inner) => Request::RequestTxn(txn(*inner)),
        Op::Sign(_) => return None,
    };
    Some(pb::RequestOp {
        request: Some(request),
    })
}

fn compare(compare: Compare) -> pb::Compare {
    use pb::compare::{CompareResult, CompareTarget as Target, TargetUnion};
    let (key, range_end) = key_range(compare.range);
    let result = match compare.op {
        CompareOp::Equal => CompareResult::Equal,
        CompareOp::NotEqual => CompareResult::NotEqual,
        CompareOp::Greater => CompareResult::Greater,
        CompareOp::Less => CompareResult::Less,
    };
    let (target, union) = match compare.target {
        CompareTarget::ModRevision(at) => (Target::Mod, TargetUnion::ModRevision(revision(at))),
        CompareTarget::CreateRevision(at) => {
            (Target::Create, TargetUnion::CreateRevision(revision(at)))
        }
        CompareTarget::Version(version) => (Target::Version, TargetUnion::Version(number(version))),
        CompareTarget::Value(value) => (Target::Value, TargetUnion::Value(value)),
        CompareTarget::Lease(lease) => (Target::Lease, TargetUnion::Lease(lease.0)),
    };
    pb::Compare {
        result: result.into(),
        target: target.into(),
        key,
        range_end,
        target_union: Some(union),
    }
}

/// `key` came into being at `at`; 0 for a key that does not exist.
pub fn created_at(key: &'static str, at: Revision) -> pb::Compare {
    compare(Compare {
        range: KeyRange::key(key),
        op: CompareOp::Equal,
        target: CompareTarget::CreateRevision(at),
    })
}

/// One step.
pub fn step(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

/// Begins a watch that tells what was before each change, and now and then how far it is.
pub fn watch(request: WatchRequest) -> pb::WatchRequest {
    let (key, range_end) = key_range(request.range);
    let create = pb::WatchCreateRequest {
        key,
        range_end,
        start_revision: revision(request.start),
        progress_notify: true,
        prev_kv: true,
        ..pb::WatchCreateRequest::default()
    };
    pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
    }
}

/// A revision as etcd writes it.
pub fn revision(revision: Revision) -> i64 {
    number(revision.0)
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
