//! The newest entries of the log in memory, so that replication and apply seldom read the disk.
//!
//! Holds a run of entries without gaps up to the last one. Entries that are not on disk yet are never dropped; older ones
//! are, beyond a bound of bytes.

use crate::types::Entry;
use std::collections::VecDeque;

/// Entries on disk are dropped from memory beyond so many bytes.
const BYTES_MAX: usize = 8 << 20;
/// What an entry costs beside its record.
const ENTRY_OVERHEAD_BYTES: usize = 128;

#[derive(Default)]
pub struct Recent {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    flushed: Option<u64>,
}

impl Recent {
    pub fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|(entry, _)| entry.log_id.index)
    }

    /// Adds the entry that follows the last one.
    pub fn push(&mut self, entry: Entry, record_bytes: usize) {
        let follows = self
            .entries
            .back()
            .is_none_or(|(last, _)| last.log_id.index + 1 == entry.log_id.index);
        assert!(follows, "openraft appends without gaps and truncates first");
        let bytes = record_bytes + ENTRY_OVERHEAD_BYTES;
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
    }

    /// Entries up to `index` are on disk.
    pub fn flushed(&mut self, index: u64) {
        self.flushed = self.flushed.max(Some(index));
        while self.bytes > BYTES_MAX && self.first_index() <= self.flushed && self.entries.len() > 1
        {
            self.pop_front();
        }
    }

    /// Drops the entries from `from` on.
    pub fn truncate(&mut self, from: u64) {
        while self
            .entries
            .back()
            .is_some_and(|(last, _)| last.log_id.index >= from)
        {
            let (_, bytes) = self.entries.pop_back().expect("it was just seen");
            self.bytes -= bytes;
        }
        self.flushed = self.flushed.min(from.checked_sub(1));
    }

    /// Drops the entries up to and with `upto`.
    pub fn purge(&mut self, upto: u64) {
        while self.first_index().is_some_and(|first| first <= upto) {
            self.pop_front();
        }
    }

    /// The entries from `start` to before `end`, cut after `bytes_max` bytes but never before the first.
    pub fn range(&self, start: u64, end: u64, bytes_max: usize) -> Vec<Entry> {
        let Some(first) = self.first_index() else {
            return Vec::new();
        };
        let skip = usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        self.entries
            .iter()
            .skip(skip)
            .take_while(|(entry, size)| {
                let is_first = bytes == 0;
                bytes += size;
                entry.log_id.index < end && (is_first || bytes <= bytes_max)
            })
            .map(|(entry, _)| entry.clone())
            .collect()
    }

    fn pop_front(&mut self) {
        if let Some((_, bytes)) = self.entries.pop_front() {
            self.bytes -= bytes;
        }
    }
}
