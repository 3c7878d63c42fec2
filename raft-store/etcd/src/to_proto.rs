//! The store's answers as etcd's. Keys and values are handles of the bytes that were read; they are copied once, into the
//! message that goes out.

use crate::header::{Headers, signed};
use mvcc::{Event, OpResult, RangeResponse, TxnResponse};
use objects::Revision;
use rpc::etcd::{etcdserverpb as pb, mvccpb};

/// A key.
pub fn key_value(kv: mvcc::KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: signed(kv.create_revision),
        mod_revision: signed(kv.mod_revision),
        version: number(kv.version),
        value: kv.value,
        lease: kv.lease.0,
    }
}

/// What a read found.
pub fn range_response(headers: &Headers, response: RangeResponse) -> pb::RangeResponse {
    pb::RangeResponse {
        header: headers.at(response.revision),
        kvs: response.kvs.into_iter().map(key_value).collect(),
        more: response.more,
        count: number(response.count),
    }
}

/// What a transaction did. Only the outermost answer has a whole header; its steps say the revision alone, as etcd's do.
pub fn txn_response(headers: &Headers, response: TxnResponse) -> pb::TxnResponse {
    let revision = response.revision;
    let mut steps = Steps::of(&response);
    pb::TxnResponse {
        header: headers.at(revision),
        ..steps.txn(response)
    }
}

/// The revision as the steps of a transaction saw it, one after the other: the new one from the first that wrote.
struct Steps {
    now: Revision,
    written: Revision,
}

impl Steps {
    fn of(response: &TxnResponse) -> Self {
        let written = response.revision;
        let before = Revision(written.0.saturating_sub(1));
        Steps {
            now: if wrote(response) { before } else { written },
            written,
        }
    }

    fn txn(&mut self, response: TxnResponse) -> pb::TxnResponse {
        let steps = response.results.into_iter();
        pb::TxnResponse {
            // As in etcd, a transaction within has a header that says nothing.
            header: Some(pb::ResponseHeader::default()),
            succeeded: response.succeeded,
            responses: steps.map(|result| self.step(result)).collect(),
        }
    }

    fn step(&mut self, result: OpResult) -> pb::ResponseOp {
        use pb::response_op::Response;
        if is_write(&result) {
            self.now = self.written;
        }
        let header = revision_only(self.now);
        let response = match result {
            OpResult::Put(prev) => Response::ResponsePut(pb::PutResponse {
                header,
                prev_kv: prev.map(key_value),
            }),
            OpResult::Deleted(deleted, prev) => {
                Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                    header,
                    deleted: number(deleted),
                    prev_kvs: prev.into_iter().map(key_value).collect(),
                })
            }
            OpResult::Range(range) => Response::ResponseRange(pb::RangeResponse {
                header: revision_only(range.revision),
                kvs: range.kvs.into_iter().map(key_value).collect(),
                more: range.more,
                count: number(range.count),
            }),
            OpResult::Txn(inner) => Response::ResponseTxn(self.txn(inner)),
            // No request of etcd's signs what it writes.
            OpResult::Signed => return pb::ResponseOp { response: None },
        };
        pb::ResponseOp {
            response: Some(response),
        }
    }
}

fn wrote(response: &TxnResponse) -> bool {
    response.results.iter().any(|result| match result {
        OpResult::Txn(inner) => wrote(inner),
        other => is_write(other),
    })
}

fn is_write(result: &OpResult) -> bool {
    match result {
        OpResult::Put(_) => true,
        OpResult::Deleted(deleted, _) => *deleted > 0,
        OpResult::Range(_) | OpResult::Txn(_) | OpResult::Signed => false,
    }
}

fn revision_only(revision: Revision) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        revision: signed(revision),
        ..pb::ResponseHeader::default()
    })
}

/// A change, with what the key was where that is wanted.
pub fn event(event: &Event, with_prev: bool) -> mvccpb::Event {
    let previous = |prev: &Option<mvcc::KeyValue>| match with_prev {
        true => prev.clone().map(key_value),
        false => None,
    };
    match event {
        Event::Put { kv, prev } => mvccpb::Event {
            r#type: mvccpb::event::EventType::Put.into(),
            kv: Some(key_value(kv.clone())),
            prev_kv: previous(prev),
        },
        Event::Delete {
            key,
            revision,
            prev,
        } => mvccpb::Event {
            r#type: mvccpb::event::EventType::Delete.into(),
            kv: Some(mvccpb::KeyValue {
                key: key.clone(),
                mod_revision: signed(*revision),
                ..mvccpb::KeyValue::default()
            }),
            prev_kv: previous(prev),
        },
    }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
