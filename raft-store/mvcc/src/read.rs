//! Reading: ranges, now and at a revision, and history.
//!
//! Reads see one consistent view of the tables and are bounded by what they were asked for; whether the view is fresh
//! enough is the caller's care.

use crate::meta::Meta;
use crate::record::{Bounds, Header, Record, Version, history_key, parse_history_key, version_key};
use crate::store::{
    Event, KeyRange, KeyRangeEnd, KeyValue, RangeRequest, RangeResponse, StoreError,
};
use crate::tables::{Table, Tables, TablesError};
use bytes::Bytes;
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
    let meta = Meta::load(tables)?;
    let limit = if request.count_only {
        Some(0)
    } else {
        request.limit
    };
    let mut response = match request.revision.filter(|revision| *revision != Revision(0)) {
        Some(requested) if requested > meta.revision => {
            return Err(StoreError::FutureRevision {
                requested,
                current: meta.revision,
            }
            .into());
        }
        Some(requested) if requested < meta.compacted => {
            return Err(StoreError::Compacted {
                requested,
                oldest: meta.compacted,
            }
            .into());
        }
        Some(requested) if requested < meta.revision => {
            at_revision(tables, &request.range, requested, limit, request.keys_only)?
        }
        _ => latest(tables, &request.range, limit, request.keys_only)?,
    };
    response.revision = meta.revision;
    response.more &= !request.count_only;
    Ok(response)
}

/// The newest state of a range, without its revision.
pub(crate) fn latest<T: Tables + ?Sized>(
    tables: &T,
    range: &KeyRange,
    limit: Option<usize>,
    keys_only: bool,
) -> Result<RangeResponse, TablesError> {
    let end = match &range.end {
        KeyRangeEnd::Single => {
            let record = tables.get(Table::Latest, &range.start)?;
            let kv = record
                .map(|record| Record::read(Table::Latest, &range.start, record))
                .transpose()?;
            return Ok(cut(
                kv.map(|record| {
                    if keys_only {
                        without_value(record.kv)
                    } else {
                        record.kv
                    }
                }),
                limit,
            ));
        }
        KeyRangeEnd::Before(end) => Bound::Excluded(&end[..]),
        KeyRangeEnd::Unbounded => Bound::Unbounded,
    };
    let mut response = RangeResponse::default();
    let mut broken = None;
    tables.scan(
        Table::Latest,
        Bound::Included(&range.start),
        end,
        false,
        &mut |key, record| {
            response.count += 1;
            if limit.is_some_and(|limit| response.kvs.len() >= limit) {
                response.more = true;
                return ControlFlow::Continue(());
            }
            match read_latest(key, record, keys_only) {
                Ok(kv) => {
                    response.kvs.push(kv);
                    ControlFlow::Continue(())
                }
                Err(err) => {
                    broken = Some(err);
                    ControlFlow::Break(())
                }
            }
        },
    )?;
    broken.map_or(Ok(response), Err)
}

fn read_latest(key: &[u8], record: &[u8], keys_only: bool) -> Result<KeyValue, TablesError> {
    if keys_only {
        let header = Header::read(Table::Latest, key, record)?;
        return Ok(header.key_value(Bytes::copy_from_slice(key), Bytes::new()));
    }
    Ok(Record::read(Table::Latest, key, Bytes::copy_from_slice(record))?.kv)
}

/// The answer to a range of one key.
fn cut(kv: Option<KeyValue>, limit: Option<usize>) -> RangeResponse {
    let count = u64::from(kv.is_some());
    let kvs: Vec<KeyValue> = kv.into_iter().take(limit.unwrap_or(1)).collect();
    RangeResponse {
        revision: Revision(0),
        more: (kvs.len() as u64) < count,
        kvs,
        count,
    }
}

/// A range as it was at `revision`, which must not be compacted.
fn at_revision<T: Tables + ?Sized>(
    tables: &T,
    range: &KeyRange,
    revision: Revision,
    limit: Option<usize>,
    keys_only: bool,
) -> Result<RangeResponse, TablesError> {
    let mut found = VersionsAt {
        limit: limit.unwrap_or(usize::MAX),
        ..VersionsAt::default()
    };
    let bounds = Bounds::of_versions(range);
    let mut broken = None;
    tables.scan(
        Table::Versions,
        bounds.start(),
        bounds.end(),
        false,
        &mut |row, value| match Version::read(row, value) {
            Ok((key, version)) => {
                found.see(key, (version.revision <= revision).then_some(version));
                ControlFlow::Continue(())
            }
            Err(err) => {
                broken = Some(err);
                ControlFlow::Break(())
            }
        },
    )?;
    if let Some(err) = broken {
        return Err(err);
    }
    found.close_key();
    let mut kvs = Vec::with_capacity(found.versions.len());
    for version in found.versions {
        let kv = change(tables, version)?.kv;
        kvs.push(if keys_only { without_value(kv) } else { kv });
    }
    Ok(RangeResponse {
        revision,
        more: (kvs.len() as u64) < found.count,
        kvs,
        count: found.count,
    })
}

/// The newest version of each key of a scan over `Versions`.
#[derive(Default)]
struct VersionsAt {
    limit: usize,
    count: u64,
    versions: Vec<Version>,
    key: Vec<u8>,
    newest: Option<Version>,
}

impl VersionsAt {
    /// Takes the next row; None for a version that came later than the revision asked for.
    fn see(&mut self, key: &[u8], version: Option<Version>) {
        if self.key != key {
            self.close_key();
            self.key.clear();
            self.key.extend_from_slice(key);
        }
        self.newest = version.or(self.newest);
    }

    fn close_key(&mut self) {
        if let Some(version) = self.newest.take()
            && !version.is_delete
        {
            self.count += 1;
            if self.versions.len() < self.limit {
                self.versions.push(version);
            }
        }
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

/// What happened to `range` from revision `from` on: looks at about `changes_max` changes, never stopping within a revision.
/// When `from` is in the future, the page is empty and its revision is the store's.
pub fn history<T: Tables + ?Sized>(
    tables: &T,
    range: &KeyRange,
    from: Revision,
    changes_max: usize,
) -> Result<HistoryPage, ReadError> {
    let meta = Meta::load(tables)?;
    if from < meta.compacted {
        return Err(StoreError::Compacted {
            requested: from,
            oldest: meta.compacted,
        }
        .into());
    }
    let mut page = Page {
        revision: from,
        seen: 0,
        changes: vec![],
    };
    let start = history_key(from, 0);
    let mut stopped_before = None;
    let mut broken = None;
    tables.scan(
        Table::History,
        Bound::Included(&start),
        Bound::Unbounded,
        false,
        &mut |row, record| match page.see(range, row, record, changes_max) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(revision)) => {
                stopped_before = Some(revision);
                ControlFlow::Break(())
            }
            Err(err) => {
                broken = Some(err);
                ControlFlow::Break(())
            }
        },
    )?;
    if let Some(err) = broken {
        return Err(err.into());
    }
    let events = page
        .changes
        .into_iter()
        .map(|record| event(tables, record))
        .collect::<Result<_, _>>()?;
    let revision = if stopped_before.is_some() {
        page.revision
    } else {
        meta.revision
    };
    Ok(HistoryPage { events, revision })
}

/// A page of history while it is read.
struct Page {
    revision: Revision,
    seen: usize,
    changes: Vec<Record>,
}

impl Page {
    /// Takes the next change; returns its revision instead if the page is full before it.
    fn see(
        &mut self,
        range: &KeyRange,
        row: &[u8],
        record: &[u8],
        changes_max: usize,
    ) -> Result<Option<Revision>, TablesError> {
        let (revision, _) = parse_history_key(row)?;
        if revision != self.revision && self.seen >= changes_max.max(1) {
            return Ok(Some(revision));
        }
        self.revision = revision;
        self.seen += 1;
        if range.contains(Header::read(Table::History, row, record)?.key(record)) {
            self.changes.push(Record::read(
                Table::History,
                row,
                Bytes::copy_from_slice(record),
            )?);
        }
        Ok(None)
    }
}

/// The event of a change, with what the key was before.
fn event<T: Tables + ?Sized>(tables: &T, record: Record) -> Result<Arc<Event>, TablesError> {
    let Record { is_delete, kv, .. } = record;
    let prev = if is_delete || kv.version > 1 {
        before(tables, &kv.key, kv.mod_revision)?
    } else {
        None
    };
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

/// The key as it was before `revision`.
fn before<T: Tables + ?Sized>(
    tables: &T,
    key: &[u8],
    revision: Revision,
) -> Result<Option<KeyValue>, TablesError> {
    let (start, end) = (version_key(key, Revision(0)), version_key(key, revision));
    let mut found = None;
    tables.scan(
        Table::Versions,
        Bound::Included(&start),
        Bound::Excluded(&end),
        true,
        &mut |row, value| {
            found = Some(Version::read(row, value).map(|(_, version)| version));
            ControlFlow::Break(())
        },
    )?;
    match found.transpose()? {
        Some(version) if !version.is_delete => Ok(Some(change(tables, version)?.kv)),
        _ => Ok(None),
    }
}

/// The record of a version.
fn change<T: Tables + ?Sized>(tables: &T, version: Version) -> Result<Record, TablesError> {
    let at = version.history_key();
    let record = tables
        .get(Table::History, &at)?
        .ok_or_else(|| crate::record::misplaced(Table::History, &at))?;
    Record::read(Table::History, &at, record)
}

fn without_value(kv: KeyValue) -> KeyValue {
    KeyValue {
        value: Bytes::new(),
        ..kv
    }
}

/// A checksum over the newest state and the store's numbers: two members at the same revision must have the same.
pub fn fingerprint<T: Tables + ?Sized>(tables: &T) -> Result<(Revision, u32), TablesError> {
    let meta = Meta::load(tables)?;
    let mut crc = crc32c::crc32c(&meta.revision.0.to_be_bytes());
    crc = crc32c::crc32c_append(crc, &meta.compacted.0.to_be_bytes());
    for table in [Table::Latest, Table::Leases, Table::LeaseKeys] {
        tables.scan(
            table,
            Bound::Unbounded,
            Bound::Unbounded,
            false,
            &mut |key, value| {
                crc = crc32c::crc32c_append(crc, &(key.len() as u64).to_be_bytes());
                crc = crc32c::crc32c_append(crc, key);
                crc = crc32c::crc32c_append(crc, value);
                ControlFlow::Continue(())
            },
        )?;
    }
    Ok((meta.revision, crc))
}
