//! The bytes of everything that is on disk and on the wire between members of different versions: once written, they stay the same.
//!
//! Each enum's variants are listed with a value of each. A variant that is not listed does not compile; one that is listed and has
//! no bytes in `testdata/bytes.txt`, or others, fails. New lines may be added there, and none changed.

use crate::codec;
use crate::lease::Lease;
use crate::store::*;
use crate::tables::{MemTables, Table, Tables};
use crate::{
    Applied, Author, Batch, Command, Done, HistoryLimits, Meta, Overlay, Reply, apply_batch,
};
use bytes::Bytes;
use objects::{Revision, Term};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::{Debug, Write as _};
use std::ops::{Bound, ControlFlow};

/// `variants!(Type: pattern => value, ...)`: the bytes of a value of each variant, one line each.
macro_rules! variants {
    ($type:ident: $($pattern:pat => $value:expr,)*) => {{
        let exhaustive = |value: &$type| match value {
            $($pattern => (),)*
        };
        let mut lines = String::new();
        $({
            let value: $type = $value;
            exhaustive(&value);
            assert!(
                matches!(&value, $pattern),
                "{value:?} stands for {}",
                stringify!($pattern)
            );
            let name = format!("{}::{}", stringify!($type), name_of(&value));
            line(&mut lines, &name, &value);
        })*
        lines
    }};
}

/// The variant's name alone.
fn name_of(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    let end = text.find(|letter: char| !letter.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}

fn line<V>(lines: &mut String, name: &str, value: &V)
where
    V: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let mut bytes = vec![];
    codec::encode_bare(value, &mut bytes).expect("it can be written");
    let (read, length): (V, usize) = codec::decode_bare(&bytes).expect("it can be read");
    assert_eq!((&read, length), (value, bytes.len()));
    writeln!(lines, "{name} {}", hex(&bytes)).expect("a string takes it");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes it");
        text
    })
}

fn author() -> Author {
    Author {
        at_ms: 8,
        user: "u".to_owned(),
        manager: "m".to_owned(),
        action: "a".to_owned(),
    }
}

fn limits() -> HistoryLimits {
    HistoryLimits {
        keep_ms: 6,
        keep_bytes: 7,
    }
}

fn key_value() -> KeyValue {
    KeyValue {
        key: Bytes::from("/k"),
        value: Bytes::from("v"),
        create_revision: Revision(2),
        mod_revision: Revision(300),
        version: 4,
        lease: LeaseId(-5),
    }
}

fn compare() -> Compare {
    Compare::unchanged("/k", Revision(300))
}

fn txn() -> Txn {
    Txn {
        compare: vec![compare()],
        success: vec![Op::put("/k", "v")],
        failure: vec![Op::get("/k")],
        fence: Some(Term(3)),
    }
}

fn range_response() -> RangeResponse {
    RangeResponse {
        revision: Revision(9),
        kvs: vec![key_value()],
        more: true,
        count: 10,
    }
}

fn txn_response() -> TxnResponse {
    TxnResponse {
        revision: Revision(9),
        succeeded: true,
        results: vec![OpResult::Signed],
    }
}

fn query() -> Query {
    Query {
        range: KeyRange::prefix("/k"),
        revision: Some(Revision(11)),
        limit: Some(12),
        keys_only: true,
        count_only: false,
        selection: Selection {
            sort: SortTarget::Value,
            is_descending: true,
            mod_revision_min: Revision(1),
            mod_revision_max: Revision(2),
            create_revision_min: Revision(3),
            create_revision_max: Revision(4),
        },
    }
}

fn commands() -> String {
    let id = LeaseId(-2);
    variants!(Command:
        Command::Txn(_) => Command::Txn(txn()),
        Command::Compact { .. } => Command::Compact { revision: Revision(5) },
        Command::LeaseGrant { .. } => Command::LeaseGrant { id, ttl_ms: 1000, now_ms: 70_000 },
        Command::LeaseRevoke { .. } => Command::LeaseRevoke { id },
        Command::LeaseKeepAlive { .. } => Command::LeaseKeepAlive { id, now_ms: 1 },
        Command::LeaseExpire { .. } => Command::LeaseExpire { ids: vec![id, LeaseId(9)], now_ms: 2 },
        Command::LeaseRenewAll { .. } => Command::LeaseRenewAll { now_ms: 3 },
        Command::RaiseRevision { .. } => Command::RaiseRevision { by: 4 },
        Command::Tick { .. } => Command::Tick { wall_ms: 70_001, now_ms: 5 },
        Command::KeepHistory { .. } => Command::KeepHistory { limits: limits() },
    )
}

fn ops() -> String {
    let key = || Bytes::from("/k");
    variants!(Op:
        Op::Put { .. } => Op::Put { key: key(), value: Bytes::from("v"), lease: LeaseId(7), prev_kv: true },
        Op::DeleteRange { .. } => Op::DeleteRange { range: KeyRange::prefix("/k"), prev_kv: true },
        Op::Range { .. } => Op::Range { range: KeyRange::prefix(""), limit: Some(300) },
        Op::Txn(_) => Op::Txn(Box::new(txn())),
        Op::Sign(_) => Op::Sign(author()),
        Op::Update { .. } => Op::Update { key: key(), value: None, lease: Some(LeaseId(7)), prev_kv: true },
        Op::Query(_) => Op::Query(Box::new(query())),
    )
}

fn parts_of_ops() -> String {
    let ends = variants!(KeyRangeEnd:
        KeyRangeEnd::Single => KeyRangeEnd::Single,
        KeyRangeEnd::Before(_) => KeyRangeEnd::Before(Bytes::from("/l")),
        KeyRangeEnd::Unbounded => KeyRangeEnd::Unbounded,
    );
    let targets = variants!(CompareTarget:
        CompareTarget::ModRevision(_) => CompareTarget::ModRevision(Revision(1)),
        CompareTarget::CreateRevision(_) => CompareTarget::CreateRevision(Revision(2)),
        CompareTarget::Version(_) => CompareTarget::Version(3),
        CompareTarget::Value(_) => CompareTarget::Value(Bytes::from("v")),
        CompareTarget::Lease(_) => CompareTarget::Lease(LeaseId(4)),
    );
    let comparisons = variants!(CompareOp:
        CompareOp::Equal => CompareOp::Equal,
        CompareOp::NotEqual => CompareOp::NotEqual,
        CompareOp::Greater => CompareOp::Greater,
        CompareOp::Less => CompareOp::Less,
    );
    let orders = variants!(SortTarget:
        SortTarget::Key => SortTarget::Key,
        SortTarget::Version => SortTarget::Version,
        SortTarget::CreateRevision => SortTarget::CreateRevision,
        SortTarget::ModRevision => SortTarget::ModRevision,
        SortTarget::Value => SortTarget::Value,
    );
    [ends, targets, comparisons, orders].concat()
}

fn answers() -> String {
    let done = variants!(Done:
        Done::Txn(_) => Done::Txn(txn_response()),
        Done::Compacted(_) => Done::Compacted(Revision(5)),
        Done::Lease { .. } => Done::Lease { id: LeaseId(7), ttl_ms: 1000 },
        Done::LeasesEnded(_) => Done::LeasesEnded(2),
        Done::LeasesRenewed(_) => Done::LeasesRenewed(3),
        Done::Raised(_) => Done::Raised(Revision(4)),
        Done::Ticked(_) => Done::Ticked(Revision(5)),
        Done::HistoryKept(_) => Done::HistoryKept(limits()),
    );
    let results = variants!(OpResult:
        OpResult::Put(_) => OpResult::Put(Some(key_value())),
        OpResult::Deleted(..) => OpResult::Deleted(300, vec![key_value()]),
        OpResult::Range(_) => OpResult::Range(range_response()),
        OpResult::Txn(_) => OpResult::Txn(txn_response()),
        OpResult::Signed => OpResult::Signed,
    );
    let (requested, oldest, current) = (Revision(1), Revision(2), Revision(3));
    let errors = variants!(StoreError:
        StoreError::Compacted { .. } => StoreError::Compacted { requested, oldest },
        StoreError::FutureRevision { .. } => StoreError::FutureRevision { requested, current },
        StoreError::Fenced { .. } => StoreError::Fenced { held: Term(1), current: Term(2) },
        StoreError::Unavailable(_) => StoreError::Unavailable("w".to_owned()),
        StoreError::Refused(_) => StoreError::Refused("w".to_owned()),
        StoreError::TooLarge { .. } => StoreError::TooLarge { size: 300, limit: 2 },
        StoreError::NoSpace => StoreError::NoSpace,
        StoreError::LeaseNotFound => StoreError::LeaseNotFound,
        StoreError::SlowWatcher => StoreError::SlowWatcher,
        StoreError::ShuttingDown => StoreError::ShuttingDown,
        StoreError::Busy => StoreError::Busy,
        StoreError::EmptyKey => StoreError::EmptyKey,
        StoreError::KeyNotFound => StoreError::KeyNotFound,
        StoreError::DuplicateKey => StoreError::DuplicateKey,
        StoreError::TooManyOps { .. } => StoreError::TooManyOps { limit: 2 },
        StoreError::LeaseExists => StoreError::LeaseExists,
    );
    let (mut replies, done_of): (_, Reply) = (String::new(), Ok(Done::LeasesEnded(1)));
    line(&mut replies, "Reply::Ok", &done_of);
    line(&mut replies, "Reply::Err", &Reply::Err(StoreError::Busy));
    [done, results, errors, replies].concat()
}

/// A put, a delete, a lease with a key, a time, an author and limits, as the tables hold them.
fn records() -> String {
    let (id, wall_ms) = (LeaseId(7), 70_001);
    let put = |key: &'static str, lease| Op::Put {
        key: key.into(),
        value: "v".into(),
        lease,
        prev_kv: false,
    };
    let write = |op| {
        Command::Txn(Txn {
            success: vec![op, Op::Sign(author())],
            ..Txn::default()
        })
    };
    let batch = Batch(vec![
        Command::LeaseGrant {
            id,
            ttl_ms: 1000,
            now_ms: 1,
        },
        Command::Tick { wall_ms, now_ms: 2 },
        write(put("/k", id)),
        write(put("/l", LeaseId(0))),
        write(Op::delete("/l")),
        Command::KeepHistory { limits: limits() },
    ]);
    let mut tables = MemTables::default();
    let mut overlay = Overlay::new(&tables).expect("memory can be read");
    let at = Applied {
        index: 1,
        term: Term(1),
    };
    let outcomes = apply_batch(&mut overlay, at, &batch).expect("memory can be read");
    assert!(outcomes.iter().all(|outcome| outcome.reply.is_ok()));
    let writes = overlay.into_writes();
    tables.write(writes);
    assert_eq!(
        Meta::load(&tables).expect("it is there").revision,
        outcomes[5].revision
    );
    let lease: Option<Lease> = crate::lease(&tables, id).expect("it can be read");
    assert!(lease.is_some());
    let mut lines = String::new();
    for table in Table::ALL {
        let before = lines.len();
        let all = (Bound::Unbounded, Bound::Unbounded);
        let mut visit = |key: &[u8], value: &[u8]| {
            writeln!(lines, "{} {} = {}", table.name(), hex(key), hex(value))
                .expect("a string takes it");
            ControlFlow::Continue(())
        };
        tables
            .scan(table, all.0, all.1, false, &mut visit)
            .expect("memory can be read");
        assert!(lines.len() > before, "no record in {}", table.name());
    }
    lines
}

#[test]
fn the_bytes_of_every_command_answer_and_record_stay_the_same() {
    let all = [commands(), ops(), parts_of_ops(), answers(), records()].concat();
    expect_test::expect_file!["../testdata/bytes.txt"].assert_eq(&all);
}
