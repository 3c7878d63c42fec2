//! What is known of revisions beside their changes: when they were, and who wrote them.
//!
//! Both stand in [`Table::Notes`] and are part of the state, so that all members agree on them, and a new leader or a member
//! fed by a snapshot knows them too. Times of a member's own would be lost with it, and two members would answer `--at 10m`
//! differently.
//!
//! - A *sample* says: at this time the store was at this revision. The leader proposes one every few seconds in which something
//!   was written ([`Command::Tick`](crate::Command::Tick)). It holds the wall clock, for people, and the leases' clock, which
//!   runs with the leader's monotonic one and never goes back: only that decides what is old, so that a wall clock that jumps
//!   forgets nothing early. Time in which nobody led does not count: history then stays longer than it must.
//! - An *author* says who wrote a revision, through which program, and when by the clock of the member that took the request.
//!   It costs one small row in the same batch, goes with the last change of its revision, and makes the times between samples
//!   exact where writes came through the API.
//!
//! Never asks a clock: times come in commands.

use crate::codec;
use crate::meta::{FIRST_REVISION, Meta};
use crate::overlay::Overlay;
use crate::read::ReadError;
use crate::record::{history_key, misplaced};
use crate::store::StoreError;
use crate::tables::{Table, Tables, TablesError, try_scan};
use bytes::Bytes;
use objects::Revision;
use serde::{Deserialize, Serialize};
use std::ops::{Bound, ControlFlow};

const KIND_SAMPLE: u8 = 1;
const KIND_AUTHOR: u8 = 2;

/// The bytes of an author's texts; requests with more are refused.
pub const AUTHOR_BYTES_MAX: usize = 1024;

/// How many authors are looked at to find a time between two samples; beyond that the answer is a sample's, up to its interval
/// too early.
const AUTHORS_LOOKED_AT_MAX: usize = 100_000;

/// Who wrote a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// When, in milliseconds since 1970, by the clock of the member that took the request.
    pub at_ms: u64,
    /// Who was authenticated.
    pub user: String,
    /// The program or field manager.
    pub manager: String,
    /// What was asked: `patch`, `update status`.
    pub action: String,
}

impl Author {
    /// The bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        self.user.len() + self.manager.len() + self.action.len()
    }
}

/// How much of the past is kept; whatever exceeds either goes, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryLimits {
    /// For how long, in milliseconds.
    pub keep_ms: u64,
    /// The bytes of changes written since the oldest revision that is kept.
    pub keep_bytes: u64,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        HistoryLimits {
            keep_ms: 24 * 3600 * 1000,
            keep_bytes: 2 << 30,
        }
    }
}

/// A revision, and when it was the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The revision.
    pub revision: Revision,
    /// Milliseconds since 1970; None for a revision too new for a sample.
    pub at_ms: Option<u64>,
}

/// What of the past is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// The oldest revision that can be read.
    pub oldest: Moment,
    /// The newest.
    pub newest: Moment,
    /// The bytes of changes written between the two.
    pub bytes: u64,
    /// What bounds it; None when nothing was set for this cluster.
    pub limits: Option<HistoryLimits>,
}

/// A point in the past, as one asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// As of this revision.
    Revision(Revision),
    /// As of this time, in milliseconds since 1970.
    TimeMs(u64),
}

/// Why history before a revision is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// It is too old.
    Age,
    /// There is too much of it.
    Size,
}

/// When a revision was the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sample {
    wall_ms: u64,
    clock_ms: u64,
    /// [`Meta::written_bytes`] then.
    written_bytes: u64,
}

fn row(kind: u8, revision: Revision) -> [u8; 9] {
    let mut key = [kind; 9];
    key[1..].copy_from_slice(&revision.0.to_be_bytes());
    key
}

fn read_row<V: serde::de::DeserializeOwned>(
    key: &[u8],
    value: &[u8],
) -> Result<(Revision, V), TablesError> {
    let revision = key
        .get(1..)
        .and_then(|revision| revision.try_into().ok())
        .map(|revision| Revision(u64::from_be_bytes(revision)))
        .ok_or_else(|| misplaced(Table::Notes, key))?;
    let (value, _) = codec::decode_bare(value).map_err(|source| TablesError::Record {
        table: Table::Notes,
        key: key.to_vec(),
        source,
    })?;
    Ok((revision, value))
}

fn record<V: Serialize>(value: &V) -> Bytes {
    let mut bytes = vec![];
    codec::encode_bare(value, &mut bytes).expect("a vector takes any numbers and texts");
    bytes.into()
}

/// Notes the time at which the store is at its revision, unless it was noted before.
pub(crate) fn tick<T: Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    wall_ms: u64,
    clock_ms: u64,
) -> Result<Revision, TablesError> {
    let meta = overlay.meta_mut();
    meta.lease_clock_ms = meta.lease_clock_ms.max(clock_ms);
    let revision = meta.revision;
    let sample = Sample {
        wall_ms,
        clock_ms: meta.lease_clock_ms,
        written_bytes: meta.written_bytes,
    };
    let key = row(KIND_SAMPLE, revision);
    if overlay.get(Table::Notes, &key)?.is_none() {
        overlay.put(Table::Notes, Bytes::copy_from_slice(&key), record(&sample));
    }
    Ok(revision)
}

/// Notes who wrote `revision`.
pub(crate) fn sign<T: Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    revision: Revision,
    author: &Author,
) {
    let key = row(KIND_AUTHOR, revision);
    overlay.put(Table::Notes, Bytes::copy_from_slice(&key), record(author));
}

/// Who wrote `revision`, if it was noted.
pub(crate) fn author<T: Tables + ?Sized>(
    tables: &T,
    revision: Revision,
) -> Result<Option<Author>, TablesError> {
    let key = row(KIND_AUTHOR, revision);
    match tables.get(Table::Notes, &key)? {
        Some(value) => Ok(Some(read_row(&key, &value)?.1)),
        None => Ok(None),
    }
}

/// Drops the author of a revision of which a change was deleted, if that was its last.
pub(crate) fn drop_author<T: Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    revision: Revision,
) -> Result<(), TablesError> {
    let key = row(KIND_AUTHOR, revision);
    if overlay.get(Table::Notes, &key)?.is_none() {
        return Ok(());
    }
    let (start, end) = (history_key(revision, 0), history_key(revision.next(), 0));
    let bounds = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
    let mut is_last = true;
    try_scan(overlay, Table::History, bounds, false, |_, _| {
        is_last = false;
        Ok(ControlFlow::Break(()))
    })?;
    if is_last {
        overlay.delete(Table::Notes, Bytes::copy_from_slice(&key));
    }
    Ok(())
}

/// Drops the samples of revisions that are forgotten, at most `samples_max`; tells whether all are.
pub(crate) fn drop_samples<T: Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    samples_max: usize,
) -> Result<bool, TablesError> {
    let end = row(KIND_SAMPLE, overlay.meta().compacted);
    let bounds = (
        Bound::Included(&[KIND_SAMPLE][..]),
        Bound::Excluded(&end[..]),
    );
    let mut old = vec![];
    try_scan(overlay, Table::Notes, bounds, false, |key, _| {
        if old.len() == samples_max {
            return Ok(ControlFlow::Break(()));
        }
        old.push(Bytes::copy_from_slice(key));
        Ok(ControlFlow::Continue(()))
    })?;
    let is_done = old.len() < samples_max;
    old.into_iter()
        .for_each(|key| overlay.delete(Table::Notes, key));
    Ok(is_done)
}

/// The first sample of `from` or later for which `wanted` holds, or the last one before the end when `reverse`.
fn find_sample<T: Tables + ?Sized>(
    tables: &T,
    from: Revision,
    reverse: bool,
    wanted: impl Fn(&Sample) -> bool,
) -> Result<Option<(Revision, Sample)>, TablesError> {
    let start = row(KIND_SAMPLE, from);
    let bounds = (
        Bound::Included(&start[..]),
        Bound::Excluded(&[KIND_AUTHOR][..]),
    );
    let mut found = None;
    try_scan(tables, Table::Notes, bounds, reverse, |key, value| {
        let (revision, sample) = read_row(key, value)?;
        if !wanted(&sample) {
            return Ok(ControlFlow::Continue(()));
        }
        found = Some((revision, sample));
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// What of the past is kept.
pub fn past<T: Tables + ?Sized>(tables: &T) -> Result<Past, TablesError> {
    let meta = Meta::load(tables)?;
    let oldest = meta.compacted.max(FIRST_REVISION);
    let moment = |revision| -> Result<Moment, TablesError> {
        let at_ms = time_of(tables, revision)?;
        Ok(Moment { revision, at_ms })
    };
    let bytes_before = match (
        meta.compacted,
        find_sample(tables, oldest, false, |_| true)?,
    ) {
        (Revision(0), _) => 0,
        (_, Some((_, sample))) => sample.written_bytes,
        (_, None) => meta.written_bytes,
    };
    Ok(Past {
        oldest: moment(oldest)?,
        newest: moment(meta.revision)?,
        bytes: meta.written_bytes.saturating_sub(bytes_before),
        limits: meta.history_limits,
    })
}

/// When `revision` was written, as its author says, or else the time at which the store was first seen to have it: at most the
/// interval between two samples later. None when it is too new for a sample.
pub fn time_of<T: Tables + ?Sized>(
    tables: &T,
    revision: Revision,
) -> Result<Option<u64>, TablesError> {
    if let Some(author) = author(tables, revision)? {
        return Ok(Some(author.at_ms));
    }
    let sample = find_sample(tables, revision, false, |_| true)?;
    Ok(sample.map(|(_, sample)| sample.wall_ms))
}

/// The revision at which the store was at a point in the past. `Compacted` when that is forgotten.
pub fn moment<T: Tables + ?Sized>(tables: &T, at: At) -> Result<Moment, ReadError> {
    let meta = Meta::load(tables)?;
    let revision = match at {
        At::Revision(revision) => revision,
        At::TimeMs(at_ms) => match revision_at(tables, &meta, at_ms)? {
            // Before the beginning there was nothing, and nothing of that is forgotten.
            Revision(0) if meta.compacted == Revision(0) => FIRST_REVISION,
            revision => revision,
        },
    };
    if revision > meta.revision {
        return Err(StoreError::FutureRevision {
            requested: revision,
            current: meta.revision,
        }
        .into());
    }
    if revision < meta.compacted.max(FIRST_REVISION) {
        return Err(StoreError::Compacted {
            requested: revision,
            oldest: meta.compacted.max(FIRST_REVISION),
        }
        .into());
    }
    let at_ms = time_of(tables, revision)?;
    Ok(Moment { revision, at_ms })
}

/// The last revision written by `at_ms`; 0 when nothing that is known was.
fn revision_at<T: Tables + ?Sized>(
    tables: &T,
    meta: &Meta,
    at_ms: u64,
) -> Result<Revision, TablesError> {
    // From the newest back: a wall clock that jumped once leaves odd samples behind, and those after it must count.
    let before = find_sample(tables, meta.compacted, true, |sample| {
        sample.wall_ms <= at_ms
    })?;
    let sampled = before.map_or(Revision(0), |(revision, _)| revision);
    let from = sampled.max(Revision(meta.compacted.0.saturating_sub(1)));
    let after = find_sample(tables, from.next(), false, |_| true)?;
    let until = after.map_or(meta.revision, |(revision, _)| revision);
    let (start, end) = (row(KIND_AUTHOR, from.next()), row(KIND_AUTHOR, until));
    let bounds = (Bound::Included(&start[..]), Bound::Included(&end[..]));
    let (mut found, mut looked_at) = (sampled, 0);
    try_scan(tables, Table::Notes, bounds, false, |key, value| {
        let (revision, author): (Revision, Author) = read_row(key, value)?;
        if author.at_ms <= at_ms {
            found = revision;
        }
        looked_at += 1;
        Ok(match looked_at < AUTHORS_LOOKED_AT_MAX {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        })
    })?;
    Ok(found)
}

/// Before which revision history is to be forgotten, and why, when the leases' clock says `clock_ms`. Only revisions with a
/// sample come into question.
pub fn to_forget<T: Tables + ?Sized>(
    tables: &T,
    limits: HistoryLimits,
    clock_ms: u64,
) -> Result<Option<(Revision, Excess)>, TablesError> {
    let meta = Meta::load(tables)?;
    let start = row(KIND_SAMPLE, meta.compacted.next());
    let bounds = (
        Bound::Included(&start[..]),
        Bound::Excluded(&[KIND_AUTHOR][..]),
    );
    let mut forget = None;
    let mut is_within = past(tables)?.bytes <= limits.keep_bytes;
    try_scan(tables, Table::Notes, bounds, false, |key, value| {
        let (revision, sample): (Revision, Sample) = read_row(key, value)?;
        let is_old = clock_ms.saturating_sub(sample.clock_ms) >= limits.keep_ms;
        match (is_within, is_old) {
            (true, false) => return Ok(ControlFlow::Break(())),
            (true, true) => forget = Some((revision, Excess::Age)),
            (false, _) => forget = Some((revision, Excess::Size)),
        }
        is_within = meta.written_bytes.saturating_sub(sample.written_bytes) <= limits.keep_bytes;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(forget)
}
