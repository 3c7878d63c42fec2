//! Reading: ranges, now and at a revision, and history.
//!
//! Reads see one consistent view of the tables and are bounded by what they were asked for; whether the view is fresh
//! enough is the caller's care.

use crate::meta::Meta;
use crate::past::{self, RECENT_CHANGES_MAX};
use crate::record::{Header, Record, history_key, parse_history_key};
use crate::store::{
    Event, KeyRange, KeyRangeEnd, KeyValue, RangeRequest, RangeResponse, Selection, SortTarget,
    StoreError,
};
use crate::tables::{Table, Tables, TablesError, try_scan};
use bytes::{Bytes, BytesMut};
use objects::Revision;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The request cannot be answered.
    #[error(transparent)]
    Refused(#[from] StoreError),
    /// The tables cannot be read: the member must stop.
    #[error(transparent)]
    Tables(#[from] TablesError),
}

/// Reads a range, at the newest revision or at the one asked for; revision 0 means the newest, as in etcd.
pub fn range<T: Tables + ?Sized>(
    tables: &T,
    request: &RangeRequest,
) -> Result<RangeResponse, ReadError> {
    range_with(tables, request, RECENT_CHANGES_MAX)
}

/// How much of a range is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// At most so many keys.
    pub keys: usize,
    /// Whether nothing is looked at beyond them but whether there is one more.
    pub stops: bool,
}

impl Limit {
    /// All keys.
    pub const NONE: Limit = Limit {
        keys: usize::MAX,
        stops: false,
    };

    /// Whether to look on after the first key beyond the limit.
    pub fn after_one_more(self) -> ControlFlow<()> {
        match self.stops {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// As [`range`]; a read of the past scans all versions of its range when more than `recent_changes_max` changes were made
/// since. The answer does not depend on it, only the cost.
pub fn range_with<T: Tables + ?Sized>(
    tables: &T,
    request: &RangeRequest,
    recent_changes_max: u64,
) -> Result<RangeResponse, ReadError> {
    let Meta {
        revision: current,
        compacted: oldest,
        ..
    } = Meta::load(tables)?;
    if let Some(requested) = request.revision {
        check_revision(requested, current, oldest)?;
    }
    Ok(at(tables, request, current, recent_changes_max)?)
}

/// Whether the state at `requested` can be read; 0 means the newest.
pub(crate) fn check_revision(
    requested: Revision,
    current: Revision,
    oldest: Revision,
) -> Result<(), StoreError> {
    if requested > current {
        return Err(StoreError::FutureRevision { requested, current });
    }
    if requested != Revision(0) && requested < oldest {
        return Err(StoreError::Compacted { requested, oldest });
    }
    Ok(())
}

/// Reads a range of tables whose newest revision is `current`; the one asked for must be readable.
pub(crate) fn at<T: Tables + ?Sized>(
    tables: &T,
    request: &RangeRequest,
    current: Revision,
    recent_changes_max: u64,
) -> Result<RangeResponse, TablesError> {
    let RangeRequest {
        range,
        keys_only,
        count_only,
        selection,
        ..
    } = request;
    let order = Order::of(selection);
    let count = match (count_only, order) {
        (true, _) => Some(0),
        (false, Order::AsRead) => request.limit,
        // Which keys come first is known only when all are there.
        (false, _) => None,
    };
    let limit = Limit {
        keys: count.unwrap_or(usize::MAX),
        stops: request.is_uncounted && !count_only,
    };
    let without_values = *keys_only && selection.sort != SortTarget::Value;
    let mut response = match request.revision.filter(|revision| *revision != Revision(0)) {
        Some(requested) if requested < current => {
            let revisions = (requested, current);
            past::at_revision(tables, range, revisions, limit, recent_changes_max)?
        }
        _ => latest(tables, range, limit, without_values)?,
    };
    response.revision = current;
    response.more &= !count_only;
    if order == Order::Selected && !count_only {
        select(&mut response, selection, request.limit);
    }
    if *keys_only {
        response
            .kvs
            .iter_mut()
            .for_each(|kv| kv.value = Bytes::new());
    }
    Ok(response)
}

/// Whether the tables' own order and all keys do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    AsRead,
    Selected,
}

impl Order {
    fn of(selection: &Selection) -> Self {
        match *selection == Selection::default() {
            true => Order::AsRead,
            false => Order::Selected,
        }
    }
}

/// Leaves the keys that are selected, in the order asked for, up to the limit.
fn select(response: &mut RangeResponse, selection: &Selection, limit: Option<usize>) {
    let Selection {
        sort,
        is_descending,
        mod_revision_min,
        mod_revision_max,
        create_revision_min,
        create_revision_max,
    } = *selection;
    let is_within = |revision: Revision, min: Revision, max: Revision| {
        revision >= min && (max == Revision(0) || revision <= max)
    };
    let kvs = &mut response.kvs;
    kvs.retain(|kv| {
        is_within(kv.mod_revision, mod_revision_min, mod_revision_max)
            && is_within(kv.create_revision, create_revision_min, create_revision_max)
    });
    let ascending = |a: &KeyValue, b: &KeyValue| match sort {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::CreateRevision => a.create_revision.cmp(&b.create_revision),
        SortTarget::ModRevision => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    match is_descending {
        true => kvs.sort_by(|a, b| ascending(b, a)),
        false => kvs.sort_by(ascending),
    }
    let limit = limit.unwrap_or(usize::MAX);
    response.more = kvs.len() > limit;
    kvs.truncate(limit);
}

/// The newest state of a range, without its revision.
pub(crate) fn latest<T: Tables + ?Sized>(
    tables: &T,
    range: &KeyRange,
    limit: Limit,
    keys_only: bool,
) -> Result<RangeResponse, TablesError> {
    let mut response = RangeResponse::default();
    if range.end == KeyRangeEnd::Single {
        if let Some(record) = tables.get(Table::Latest, &range.start)? {
            let mut kv = Record::read(Table::Latest, &range.start, record)?.kv;
            if keys_only {
                kv.value = Bytes::new();
            }
            response.count = 1;
            response.more = limit.keys == 0;
            response.kvs.extend((!response.more).then_some(kv));
        }
        return Ok(response);
    }
    let mut copies = Copies::default();
    try_scan(
        tables,
        Table::Latest,
        range.bounds(),
        false,
        |key, record| {
            response.count += 1;
            if response.kvs.len() >= limit.keys {
                response.more = true;
                return Ok(limit.after_one_more());
            } else {
                let kv = read_latest(key, record, keys_only, &mut copies)?;
                response.kvs.push(kv);
            }
            Ok(ControlFlow::Continue(()))
        },
    )?;
    Ok(response)
}

fn read_latest(
    key: &[u8],
    record: &[u8],
    keys_only: bool,
    copies: &mut Copies,
) -> Result<KeyValue, TablesError> {
    if keys_only {
        let header = Header::read(Table::Latest, key, record)?;
        return Ok(header.key_value(copies.of(key), Bytes::new()));
    }
    Ok(Record::read(Table::Latest, key, copies.of(record))?.kv)
}

/// Copies of what a scan visits, many in one piece of memory. A piece is given back when the last copy in it is dropped, so whoever
/// keeps a few of them keeps no more than was read.
#[derive(Default)]
struct Copies(BytesMut);

impl Copies {
    const PIECE_BYTES: usize = 32 << 10;

    fn of(&mut self, bytes: &[u8]) -> Bytes {
        if self.0.capacity() < bytes.len() {
            self.0 = BytesMut::with_capacity(Self::PIECE_BYTES.max(bytes.len()));
        }
        self.0.extend_from_slice(bytes);
        self.0.split().freeze()
    }
}

/// Some of what happened.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    /// The changes that match, in order.
    pub events: Vec<Arc<Event>>,
    /// All changes up to and including this revision are told; read on from the next.
    pub revision: Revision,
}

/// A page of history is cut after so many bytes.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// What happened to `range` from revision `from` on: looks at about `changes_max` changes, and no more than a bounded number
/// of bytes, never stopping within a revision. When `from` is in the future, the page is empty and its revision is the store's.
pub fn history<T: Tables + ?Sized>(
    tables: &T,
    range: &KeyRange,
    from: Revision,
    changes_max: usize,
) -> Result<HistoryPage, ReadError> {
    let Meta {
        revision: newest,
        compacted: oldest,
        ..
    } = Meta::load(tables)?;
    if from < oldest {
        return Err(StoreError::Compacted {
            requested: from,
            oldest,
        }
        .into());
    }
    let start = history_key(from, 0);
    let mut changes = vec![];
    let (mut seen, mut last, mut is_cut) = (0, from, false);
    let mut bytes = 0;
    try_scan(
        tables,
        Table::History,
        (Bound::Included(&start), Bound::Unbounded),
        false,
        |row, record| {
            let (revision, _) = parse_history_key(row)?;
            let is_full = seen >= changes_max.max(1) || bytes >= PAGE_BYTES_MAX;
            if revision != last && is_full {
                is_cut = true;
                return Ok(ControlFlow::Break(()));
            }
            last = revision;
            seen += 1;
            if range.contains(Header::read(Table::History, row, record)?.key(record)) {
                bytes += record.len();
                changes.push(Record::read(
                    Table::History,
                    row,
                    Bytes::copy_from_slice(record),
                )?);
            }
            Ok(ControlFlow::Continue(()))
        },
    )?;
    let events = changes
        .into_iter()
        .map(|record| event(tables, record))
        .collect::<Result<_, _>>()?;
    Ok(HistoryPage {
        events,
        revision: if is_cut { last } else { newest },
    })
}

/// The event of a change, with what the key was before.
fn event<T: Tables + ?Sized>(tables: &T, record: Record) -> Result<Arc<Event>, TablesError> {
    let Record { is_delete, kv, .. } = record;
    let version = if is_delete || kv.version > 1 {
        past::version_before(tables, &kv.key, kv.mod_revision)?.filter(|version| !version.is_delete)
    } else {
        None
    };
    let prev = version
        .map(|version| past::record(tables, version))
        .transpose()?
        .map(|record| record.kv);
    Ok(Arc::new(if is_delete {
        Event::Delete {
            key: kv.key,
            revision: kv.mod_revision,
            prev,
        }
    } else {
        Event::Put { kv, prev }
    }))
}

/// A checksum over the newest state and the store's numbers: two members at the same revision must have the same.
pub fn fingerprint<T: Tables + ?Sized>(tables: &T) -> Result<(Revision, u32), TablesError> {
    let Meta {
        revision,
        compacted,
        ..
    } = Meta::load(tables)?;
    let mut crc = crc32c::crc32c(&revision.0.to_be_bytes());
    crc = crc32c::crc32c_append(crc, &compacted.0.to_be_bytes());
    for table in [Table::Latest, Table::Leases, Table::LeaseKeys] {
        try_scan(
            tables,
            table,
            (Bound::Unbounded, Bound::Unbounded),
            false,
            |key, value| {
                crc = crc32c::crc32c_append(crc, &(key.len() as u64).to_be_bytes());
                crc = crc32c::crc32c_append(crc, key);
                crc = crc32c::crc32c_append(crc, value);
                Ok(ControlFlow::Continue(()))
            },
        )?;
    }
    Ok((revision, crc))
}
