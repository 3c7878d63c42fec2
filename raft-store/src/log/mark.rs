//! How far the log was on disk for certain: a small file beside the database.
//!
//! RocksDB cuts an unfinished write off the end of its write-ahead log, and cannot tell it from an acknowledged one that was
//! damaged later. So after each sync of the log the writer notes here, without a sync of its own, up to where it reached and
//! for whom this member voted. A log that ends before that was damaged, and this member must not vote with it.
//!
//! After a crash of the process the note is the newest one; after a power cut it may be older, never newer than what was
//! synced: a note that must become lower, since entries are about to be cut, is synced before they are.
//!
//! Two slots, a sector apart, are written in turn, each with a checksum: a torn note leaves the one before.

use crate::types::{LogId, Vote, log_id, term_of};
use openraft::vote::RaftLeaderId;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: [u8; 8] = *b"trmark01";
/// Bytes of one note.
pub const SLOT_BYTES: usize = 64;
const SLOT_DISTANCE: u64 = 4096;
/// How many notes there are.
pub const SLOTS: u64 = 2;

/// What is on disk for certain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// For whom this member voted.
    pub vote: Option<Vote>,
    /// The last entry of the log.
    pub last: Option<LogId>,
}

/// Where the notes are: two places that are written in turn.
pub trait Slots: Send + 'static {
    /// What stands there; None where it cannot be read.
    fn read(&self, slot: u64) -> Option<[u8; SLOT_BYTES]>;

    /// Writes without waiting for the disk.
    fn write(&mut self, slot: u64, bytes: &[u8; SLOT_BYTES]) -> io::Result<()>;

    /// Waits until everything written so far is on disk.
    fn sync(&mut self) -> io::Result<()>;
}

/// The notes in a file.
struct FileSlots(File);

impl FileSlots {
    /// Opens the file, or makes it.
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let bytes = SLOT_DISTANCE * (SLOTS - 1) + SLOT_BYTES as u64;
        if file.metadata()?.len() < bytes {
            // So large from the beginning, so that a full disk never keeps a note from being written.
            for slot in 0..SLOTS {
                file.write_all_at(&[0; SLOT_BYTES], slot * SLOT_DISTANCE)?;
            }
            file.sync_all()?;
            if let Some(dir) = path.parent() {
                File::open(dir)?.sync_all()?;
            }
        }
        Ok(FileSlots(file))
    }
}

impl Slots for FileSlots {
    fn read(&self, slot: u64) -> Option<[u8; SLOT_BYTES]> {
        let mut bytes = [0; SLOT_BYTES];
        let read = self.0.read_exact_at(&mut bytes, slot * SLOT_DISTANCE);
        read.ok().map(|()| bytes)
    }

    fn write(&mut self, slot: u64, bytes: &[u8; SLOT_BYTES]) -> io::Result<()> {
        self.0.write_all_at(bytes, slot * SLOT_DISTANCE)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// The notes of one member.
pub struct Mark {
    slots: Box<dyn Slots>,
    number: u64,
    synced: Synced,
    is_noted: bool,
}

impl Mark {
    /// Opens the file, or makes it.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Mark::over(Box::new(FileSlots::open(path)?)))
    }

    /// The notes that stand there.
    pub fn over(slots: Box<dyn Slots>) -> Self {
        let newest = newest(|slot| slots.read(slot));
        let (number, synced) = newest.unwrap_or_default();
        Mark {
            slots,
            number,
            synced,
            is_noted: newest.is_some(),
        }
    }

    /// What was noted last; nothing in a new file.
    pub fn synced(&self) -> Synced {
        self.synced
    }

    /// Notes what is on disk now.
    pub fn note(&mut self, synced: Synced) -> io::Result<()> {
        match self.is_noted && synced == self.synced {
            true => Ok(()),
            false => self.write(synced),
        }
    }

    /// Before entries after `last` are cut: the notes say no more than what will be left, also after a power cut. Both do, since a
    /// torn one would leave the other.
    pub fn lower(&mut self, last: Option<LogId>) -> io::Result<()> {
        if last >= self.synced.last {
            return Ok(());
        }
        let synced = Synced {
            last,
            ..self.synced
        };
        for _ in 0..SLOTS {
            self.write(synced)?;
        }
        self.slots.sync()
    }

    fn write(&mut self, synced: Synced) -> io::Result<()> {
        self.number += 1;
        let slot = self.number % SLOTS;
        self.slots.write(slot, &encode(self.number, &synced))?;
        self.synced = synced;
        self.is_noted = true;
        Ok(())
    }
}

/// The newest whole note, with its number.
pub fn newest(read: impl Fn(u64) -> Option<[u8; SLOT_BYTES]>) -> Option<(u64, Synced)> {
    let notes = (0..SLOTS).filter_map(|slot| decode(&read(slot)?));
    notes.max_by_key(|(number, _)| *number)
}

fn encode(number: u64, synced: &Synced) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(8, number);
    if let Some(vote) = &synced.vote {
        put(16, vote.leader_id.term());
        put(24, *vote.leader_id.node_id());
    }
    if let Some(last) = &synced.last {
        put(32, term_of(last));
        put(40, last.index);
    }
    bytes[48] = u8::from(synced.vote.is_some());
    bytes[49] = u8::from(synced.vote.is_some_and(|vote| vote.committed));
    bytes[50] = u8::from(synced.last.is_some());
    let crc = crc32c::crc32c(&bytes[..SLOT_BYTES - 4]);
    bytes[SLOT_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<(u64, Synced)> {
    let crc = crc32c::crc32c(&bytes[..SLOT_BYTES - 4]);
    if bytes[..8] != MAGIC || bytes[SLOT_BYTES - 4..] != crc.to_le_bytes() {
        return None;
    }
    let get = |at: usize| {
        let bytes = bytes[at..at + 8].try_into().expect("eight bytes were cut");
        u64::from_le_bytes(bytes)
    };
    let vote = || match bytes[49] {
        0 => Vote::new(get(16), get(24)),
        _ => Vote::new_committed(get(16), get(24)),
    };
    let synced = Synced {
        vote: (bytes[48] == 1).then(vote),
        last: (bytes[50] == 1).then(|| log_id(get(32), get(40))),
    };
    Some((get(8), synced))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synced(term: u64, index: u64) -> Synced {
        let vote = match term.is_multiple_of(2) {
            true => Vote::new(term, 3),
            false => Vote::new_committed(term, 3),
        };
        Synced {
            vote: Some(vote),
            last: Some(log_id(term, index)),
        }
    }

    #[test]
    fn a_note_is_found_again_and_a_torn_one_leaves_the_one_before() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("mark");
        let open = || Mark::open(&path).expect("it opens");
        let mut mark = open();
        assert_eq!(mark.synced(), Synced::default());
        for index in 1..10 {
            mark.note(synced(index / 3, index)).expect("it is noted");
            assert_eq!(open().synced(), synced(index / 3, index));
        }
        let slot = mark.number % SLOTS;
        let bytes = mark.slots.read(slot).expect("it can be read");
        for bit in 0..SLOT_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            mark.slots.write(slot, &damaged).expect("it can be written");
            assert_eq!(open().synced(), synced(2, 8), "bit {bit}");
        }
    }

    #[test]
    fn it_becomes_lower_only_when_entries_are_cut() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("mark");
        let mut mark = Mark::open(&path).expect("it opens");
        mark.note(synced(2, 20)).expect("it is noted");
        mark.lower(Some(log_id(2, 30))).expect("nothing to do");
        assert_eq!(mark.synced(), synced(2, 20));
        mark.lower(Some(log_id(1, 10))).expect("it is noted");
        let lower = Synced {
            last: Some(log_id(1, 10)),
            ..synced(2, 20)
        };
        assert_eq!(Mark::open(&path).expect("it opens").synced(), lower);
        // The note before it, which told of what is cut, must not come back when the newest is torn.
        for slot in 0..SLOTS {
            let whole = mark.slots.read(slot).expect("it can be read");
            let torn = [0; SLOT_BYTES];
            mark.slots.write(slot, &torn).expect("it can be written");
            assert_eq!(Mark::open(&path).expect("it opens").synced(), lower);
            mark.slots.write(slot, &whole).expect("it can be written");
        }
    }
}
