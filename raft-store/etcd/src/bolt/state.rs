//! The store's state as etcd lays it out in its buckets.
//!
//! Every change that is kept is an item, the newest one of each key among them, so that an etcd restored from the file has the same
//! keys, numbers and history. Members are left out: a restored etcd has its own.

use super::{Scan, Visit, write};
use bytes::Bytes;
use mvcc::{Change, Lease, Meta, Tables, TablesError};
use objects::Revision;
use prost::Message;
use rpc::etcd::mvccpb;
use std::io;
use std::ops::ControlFlow;

/// Writes the state of `view`, which is as of the entry `applied`.
pub fn write_state<T: Tables>(view: &T, applied: u64, out: &mut dyn io::Write) -> io::Result<()> {
    let compacted = Meta::load(view).map_err(io::Error::other)?.compacted;
    let mut leases = mvcc::leases(view).map_err(io::Error::other)?;
    leases.sort_by_key(|lease| lease.id.0.to_be_bytes());
    let keys = |visit: Visit<'_>| scan_changes(view, visit);
    let lease = |visit: Visit<'_>| scan_leases(&leases, visit);
    let meta = |visit: Visit<'_>| scan_meta(applied, compacted, visit);
    let nothing = |_: Visit<'_>| Ok(());
    let buckets: [(&str, Scan<'_>); 10] = [
        ("alarm", &nothing),
        ("auth", &nothing),
        ("authRoles", &nothing),
        ("authUsers", &nothing),
        ("cluster", &nothing),
        ("key", &keys),
        ("lease", &lease),
        ("members", &nothing),
        ("members_removed", &nothing),
        ("meta", &meta),
    ];
    write(&buckets, out)
}

fn scan_changes<T: Tables>(view: &T, visit: Visit<'_>) -> io::Result<()> {
    let mut taken = Ok(());
    let read: Result<(), TablesError> = mvcc::changes(view, &mut |change| {
        let Change {
            revision,
            sub,
            is_delete,
            kv,
        } = change;
        let mut key = revision_key(revision, sub);
        let value = match is_delete {
            true => {
                key.push(b't');
                mvccpb::KeyValue {
                    key: kv.key,
                    ..mvccpb::KeyValue::default()
                }
            }
            false => crate::to_proto::key_value(kv),
        };
        taken = visit(&key, &value.encode_to_vec());
        match taken {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    read.map_err(io::Error::other)?;
    taken
}

fn scan_leases(leases: &[Lease], visit: Visit<'_>) -> io::Result<()> {
    for lease in leases {
        let seconds = i64::try_from(lease.ttl_ms.div_ceil(1000)).unwrap_or(i64::MAX);
        let mut value = vec![];
        prost::encoding::int64::encode(1, &lease.id.0, &mut value);
        prost::encoding::int64::encode(2, &seconds, &mut value);
        visit(&lease.id.0.to_be_bytes(), &value)?;
    }
    Ok(())
}

fn scan_meta(applied: u64, compacted: Revision, visit: Visit<'_>) -> io::Result<()> {
    let line = Bytes::from(revision_key(compacted, 0));
    visit(b"consistent_index", &applied.to_be_bytes())?;
    if compacted > Revision(0) {
        visit(b"finishedCompactRev", &line)?;
        visit(b"scheduledCompactRev", &line)?;
    }
    Ok(())
}

fn revision_key(revision: Revision, sub: u32) -> Vec<u8> {
    let mut key = revision.0.to_be_bytes().to_vec();
    key.push(b'_');
    key.extend(u64::from(sub).to_be_bytes());
    key
}
