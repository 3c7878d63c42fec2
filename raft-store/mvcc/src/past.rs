//! A range as it was at a revision.
//!
//! Most such reads are a list's next page, a moment after the first: then the newest state is read and only the keys that
//! changed since are looked up in `Versions`. Only a read of long ago scans all versions of its range.

use crate::read::Limit;
use crate::record::{Bounds, Header, Record, Version, history_key, misplaced, version_key};
use crate::store::{KeyRange, KeyValue, RangeResponse};
use crate::tables::{Table, Tables, TablesError, try_scan};
use bytes::Bytes;
use objects::Revision;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

/// How many changes since a revision are looked at before all versions of a range are.
pub const RECENT_CHANGES_MAX: u64 = 4096;

/// The range at `revision`, which must neither be compacted nor later than `newest`, the store's; without its revision.
pub(crate) fn at_revision<T: Tables + ?Sized>(
    tables: &T,
    range: &KeyRange,
    (revision, newest): (Revision, Revision),
    limit: Limit,
    recent_changes_max: u64,
) -> Result<RangeResponse, TablesError> {
    let is_recent = newest.0 - revision.0 <= recent_changes_max;
    let changed = if is_recent {
        changed_since(tables, range, revision, recent_changes_max)?
    } else {
        None
    };
    let found = match changed {
        Some(changed) => from_latest(tables, range, changed, limit)?,
        None => from_versions(tables, range, revision, limit)?,
    };
    let mut kvs = Vec::with_capacity(found.rows.len());
    for row in found.rows {
        kvs.push(match row {
            Row::Now(kv) => kv,
            Row::Past(version) => record(tables, version)?.kv,
        });
    }
    Ok(RangeResponse {
        revision,
        more: (kvs.len() as u64) < found.count,
        kvs,
        count: found.count,
    })
}

/// The last version of `key` before `revision`, a delete too.
pub(crate) fn version_before<T: Tables + ?Sized>(
    tables: &T,
    key: &[u8],
    revision: Revision,
) -> Result<Option<Version>, TablesError> {
    let (start, end) = (version_key(key, Revision(0)), version_key(key, revision));
    let bounds = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
    let mut found = None;
    try_scan(tables, Table::Versions, bounds, true, |row, value| {
        found = Some(Version::read(row, value)?.1);
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// The record of a version.
pub(crate) fn record<T: Tables + ?Sized>(
    tables: &T,
    version: Version,
) -> Result<Record, TablesError> {
    let at = version.history_key();
    let record = tables
        .get(Table::History, &at)?
        .ok_or_else(|| misplaced(Table::History, &at))?;
    Record::read(Table::History, &at, record)
}

/// Keys that changed, each with what it was before; None for one that did not exist.
type Changed = BTreeMap<Vec<u8>, Option<Version>>;

/// A key of the answer.
enum Row {
    Now(KeyValue),
    Past(Version),
}

/// The keys of the answer, as far as the limit goes.
struct Found {
    limit: Limit,
    count: u64,
    rows: Vec<Row>,
}

impl Found {
    fn new(limit: Limit) -> Self {
        Found {
            limit,
            count: 0,
            rows: vec![],
        }
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= self.limit.keys
    }

    /// Whether to look on.
    fn flow(&self) -> ControlFlow<()> {
        match self.count > self.rows.len() as u64 {
            true => self.limit.after_one_more(),
            false => ControlFlow::Continue(()),
        }
    }

    /// Counts a key as it was; None for one that did not exist.
    fn add_past(&mut self, version: Option<Version>) {
        if let Some(version) = version.filter(|version| !version.is_delete) {
            self.count += 1;
            if !self.is_full() {
                self.rows.push(Row::Past(version));
            }
        }
    }
}

/// The keys of `range` that changed after `revision`, each with what it was then. None when too much has changed.
fn changed_since<T: Tables + ?Sized>(
    tables: &T,
    range: &KeyRange,
    revision: Revision,
    changes_max: u64,
) -> Result<Option<Changed>, TablesError> {
    let start = history_key(revision.next(), 0);
    let mut changed = Changed::new();
    let mut seen = 0;
    try_scan(
        tables,
        Table::History,
        (Bound::Included(&start), Bound::Unbounded),
        false,
        |row, record| {
            seen += 1;
            if seen > changes_max {
                return Ok(ControlFlow::Break(()));
            }
            let key = Header::read(Table::History, row, record)?.key(record);
            if range.contains(key) && !changed.contains_key(key) {
                changed.insert(key.to_vec(), None);
            }
            Ok(ControlFlow::Continue(()))
        },
    )?;
    if seen > changes_max {
        return Ok(None);
    }
    for (key, version) in &mut changed {
        *version = version_before(tables, key, revision.next())?;
    }
    Ok(Some(changed))
}

/// The newest state of the range, but for the keys that changed.
fn from_latest<T: Tables + ?Sized>(
    tables: &T,
    range: &KeyRange,
    changed: Changed,
    limit: Limit,
) -> Result<Found, TablesError> {
    let mut found = Found::new(limit);
    let mut changed = changed.into_iter().peekable();
    try_scan(
        tables,
        Table::Latest,
        range.bounds(),
        false,
        |key, record| {
            while let Some((_, version)) = changed.next_if(|(changed, _)| &changed[..] < key) {
                found.add_past(version);
            }
            if let Some((_, version)) = changed.next_if(|(changed, _)| &changed[..] == key) {
                found.add_past(version);
                return Ok(found.flow());
            }
            found.count += 1;
            if !found.is_full() {
                let record = Record::read(Table::Latest, key, Bytes::copy_from_slice(record))?;
                found.rows.push(Row::Now(record.kv));
            }
            Ok(found.flow())
        },
    )?;
    changed.for_each(|(_, version)| found.add_past(version));
    Ok(found)
}

/// The last version of each key of the range up to `revision`.
fn from_versions<T: Tables + ?Sized>(
    tables: &T,
    range: &KeyRange,
    revision: Revision,
    limit: Limit,
) -> Result<Found, TablesError> {
    let mut found = Found::new(limit);
    let mut key: Vec<u8> = vec![];
    let mut last = None;
    let bounds = Bounds::of_versions(range);
    try_scan(
        tables,
        Table::Versions,
        (bounds.start(), bounds.end()),
        false,
        |row, value| {
            let (row_key, version) = Version::read(row, value)?;
            if key != row_key {
                found.add_past(last.take());
                key.clear();
                key.extend_from_slice(row_key);
            }
            if version.revision <= revision {
                last = Some(version);
            }
            Ok(found.flow())
        },
    )?;
    found.add_past(last);
    Ok(found)
}
