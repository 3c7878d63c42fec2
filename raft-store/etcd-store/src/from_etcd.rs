//! etcd's answers as the store's.

use mvcc::{
    Event, KeyValue, LeaseId, Op, OpResult, RangeResponse, StoreError, TXN_OPS_MAX, TxnResponse,
};
use objects::Revision;
use rpc::etcd::{etcdserverpb as pb, mvccpb};
use tonic::{Code, Status};

/// A revision; etcd's are never negative.
pub fn revision(number: i64) -> Revision {
    Revision(unsigned(number))
}

/// The revision that an answer tells.
pub fn told(header: Option<&pb::ResponseHeader>) -> Revision {
    header.map_or(Revision(0), |header| revision(header.revision))
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A key.
pub fn key_value(kv: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: revision(kv.create_revision),
        mod_revision: revision(kv.mod_revision),
        version: unsigned(kv.version),
        lease: LeaseId(kv.lease),
    }
}

/// What a read found.
pub fn range_response(response: pb::RangeResponse) -> RangeResponse {
    RangeResponse {
        revision: told(response.header.as_ref()),
        kvs: response.kvs.into_iter().map(key_value).collect(),
        more: response.more,
        count: unsigned(response.count),
    }
}

/// The steps of a transaction that were asked for: those that etcd was not told of have results too.
pub struct Asked {
    success: Vec<Step>,
    failure: Vec<Step>,
}

enum Step {
    Sign,
    Txn(Asked),
    Other,
}

impl Asked {
    /// Of a transaction.
    pub fn of(txn: &mvcc::Txn) -> Asked {
        let steps = |ops: &[Op]| {
            let step = |op: &Op| match op {
                Op::Sign(_) => Step::Sign,
                Op::Txn(inner) => Step::Txn(Asked::of(inner)),
                _ => Step::Other,
            };
            ops.iter().map(step).collect()
        };
        Asked {
            success: steps(&txn.success),
            failure: steps(&txn.failure),
        }
    }
}

/// What a transaction did; None when the answer has not what was asked. `at` is the revision of the outermost one: those within
/// tell none.
pub fn txn_response(response: pb::TxnResponse, asked: Asked, at: Revision) -> Option<TxnResponse> {
    let steps = match response.succeeded {
        true => asked.success,
        false => asked.failure,
    };
    let mut told = response.responses.into_iter();
    let results: Option<Vec<OpResult>> = steps
        .into_iter()
        .map(|step| match step {
            Step::Sign => Some(OpResult::Signed),
            step => op_result(told.next()?, step, at),
        })
        .collect();
    Some(TxnResponse {
        revision: at,
        succeeded: response.succeeded,
        results: results?,
    })
}

fn op_result(told: pb::ResponseOp, asked: Step, at: Revision) -> Option<OpResult> {
    use pb::response_op::Response;
    Some(match (told.response?, asked) {
        (Response::ResponsePut(put), Step::Other) => OpResult::Put(put.prev_kv.map(key_value)),
        (Response::ResponseDeleteRange(deleted), Step::Other) => OpResult::Deleted(
            unsigned(deleted.deleted),
            deleted.prev_kvs.into_iter().map(key_value).collect(),
        ),
        (Response::ResponseRange(range), Step::Other) => OpResult::Range(range_response(range)),
        (Response::ResponseTxn(inner), Step::Txn(asked)) => {
            OpResult::Txn(txn_response(inner, asked, at)?)
        }
        _ => return None,
    })
}

/// A change; None for one without a key, which etcd never tells.
pub fn event(event: mvccpb::Event) -> Option<Event> {
    let is_delete = event.r#type() == mvccpb::event::EventType::Delete;
    let (kv, prev) = (event.kv?, event.prev_kv.map(key_value));
    Some(match is_delete {
        true => Event::Delete {
            revision: revision(kv.mod_revision),
            key: kv.key,
            prev,
        },
        false => Event::Put {
            kv: key_value(kv),
            prev,
        },
    })
}

/// What a failed call says. `asked` is the revision that it asked for, `current` that of the store as far as is known.
pub fn error(status: &Status, asked: Revision, current: Revision) -> StoreError {
    let text = status.message();
    let known = text.strip_prefix("etcdserver: ").unwrap_or(text);
    match (status.code(), known) {
        (Code::OutOfRange, "mvcc: required revision has been compacted") => StoreError::Compacted {
            requested: asked,
            // etcd does not say; this much is sure.
            oldest: asked.next(),
        },
        (Code::OutOfRange, "mvcc: required revision is a future revision") => {
            StoreError::FutureRevision {
                requested: asked,
                current,
            }
        }
        (Code::ResourceExhausted, "mvcc: database space exceeded") => StoreError::NoSpace,
        (Code::ResourceExhausted, "too many requests") => StoreError::Busy,
        (Code::NotFound, "requested lease not found") => StoreError::LeaseNotFound,
        (Code::InvalidArgument, "key is not provided") => StoreError::EmptyKey,
        (Code::InvalidArgument, "key not found") => StoreError::KeyNotFound,
        (Code::InvalidArgument, "duplicate key given in txn request") => StoreError::DuplicateKey,
        (Code::InvalidArgument, "too many operations in txn request") => {
            StoreError::TooManyOps { limit: TXN_OPS_MAX }
        }
        (Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated, _) => {
            StoreError::Refused(format!("etcd says: {text}"))
        }
        _ => StoreError::Unavailable(format!("etcd says: {text}")),
    }
}
