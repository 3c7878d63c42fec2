//! One self-contained file with the whole state: what `snapshot save` writes, what `restore` reads, and what the leader sends
//! to a member whose log is too far behind.
//!
//! Writing needs a consistent view and never stops the store. Reading checks every byte; nothing of a damaged archive is used.

mod chunks;
mod format;
mod rehearse;
mod restore;
mod seal;
mod sums;
#[cfg(test)]
mod tests;

pub(crate) use chunks::ChunkWriter;
pub use rehearse::{Rehearsal, rehearse};
pub(crate) use restore::begin_anew;
pub use restore::{RestoreError, Restored, restore, restore_into};
pub use seal::StateKey;
pub use sums::{TableSum, sums_of};

use crate::types::{LogId, StoredMembership};
use bytes::Bytes;
use format::{Kind, Section, SectionReader, SectionWriter};
use mvcc::{Meta, Table, Tables, TablesError};
use objects::Revision;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::ops::{Bound, ControlFlow};
use sums::Summing;

/// Keys and values of one block before compression.
const BLOCK_BYTES: usize = 256 << 10;
const BLOCK_BYTES_MAX: usize = 16 << 20;
const ZSTD_LEVEL: i32 = 1;

/// Why an archive cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The state cannot be read.
    #[error("the state cannot be read for the archive")]
    State(#[from] TablesError),
    /// The output failed.
    #[error("the archive cannot be written")]
    Write(#[source] std::io::Error),
    /// The input failed.
    #[error("the archive cannot be read")]
    Read(#[source] std::io::Error),
    /// Some other file.
    #[error("this is not an archive of the store")]
    NotAnArchive,
    /// Written by a later version.
    #[error(
        "the archive has format {0}, this program reads formats 1 to 3; use the version that wrote it, or a later one"
    )]
    UnknownFormat(char),
    /// The end is missing.
    #[error("the archive is cut short: {what} is missing at byte {offset}; take another copy")]
    CutShort {
        /// Where.
        offset: u64,
        /// What should be there.
        what: &'static str,
    },
    /// A section's bytes changed.
    #[error("the archive is damaged in the section at byte {offset}; take another copy")]
    Damaged {
        /// Where.
        offset: u64,
    },
    /// All sections are whole, but not those that were written.
    #[error("the archive's SHA-256 is not that of its content; take another copy")]
    WrongHash,
    /// A sealed section is whole, but the key does not open it.
    #[error(
        "the archive's state does not open with this key: it is another archive's, or the archive was changed"
    )]
    NotOpened,
    /// The state is sealed, and there is no key.
    #[error(
        "the archive's state is sealed; give the key file or the passphrase that opens its keys"
    )]
    Sealed,
    /// There is a key, and the state is not sealed.
    #[error("the archive's state is not sealed, and should be: the archive was changed")]
    NotSealed,
    /// A section is whole, but not understood.
    #[error("the archive's {0} cannot be understood")]
    Malformed(&'static str),
    /// The caller's bytes are too many.
    #[error("a section of {bytes} bytes is too large for an archive")]
    TooLarge {
        /// How many.
        bytes: u64,
    },
}

/// What an archive holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The cluster it was taken from.
    pub cluster_id: String,
    /// The revision of the state.
    pub revision: Revision,
    /// The last entry applied.
    pub applied: Option<LogId>,
    /// The members as of that entry.
    pub membership: StoredMembership,
    /// The largest id that any member ever had.
    pub member_id_max: u64,
    /// The program that wrote it, with its version; absent in format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// The format of the records in the tables; absent in format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_format: Option<u8>,
    /// When it was saved, in milliseconds since 1970; absent where it only feeds another member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved_ms: Option<u64>,
}

/// What goes into an archive beside the tables.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The cluster.
    pub cluster_id: &'a str,
    /// The time, where the archive is kept.
    pub saved_ms: Option<u64>,
    /// Bytes of the caller, such as the cluster's CA under a passphrase.
    pub extra: Option<&'a [u8]>,
    /// Seals the state; the caller's bytes must say how to get it back.
    pub key: Option<&'a StateKey>,
}

impl<'a> Origin<'a> {
    /// An archive that only brings the state to another member.
    pub(crate) fn transfer(cluster_id: &'a str) -> Self {
        Origin {
            cluster_id,
            saved_ms: None,
            extra: None,
            key: None,
        }
    }
}

/// What a check of an archive found.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its header.
    pub header: Header,
    /// What its tables hold; None where they are sealed.
    pub state: Option<StateSummary>,
    /// The caller's own bytes.
    pub extra: Option<Bytes>,
}

/// What the tables in an archive hold.
#[derive(Clone, Debug, Default)]
pub struct StateSummary {
    /// How many records.
    pub records: u64,
    /// The bytes of these records.
    pub bytes: u64,
    /// What each table held at the source; None in an archive of format 1.
    pub sums: Option<Vec<TableSum>>,
}

/// One part of an archive, in the order in which they come.
pub enum Part {
    /// Records of a table.
    Block(Table, Vec<(Bytes, Bytes)>),
    /// The caller's own bytes.
    Extra(Bytes),
    /// What each table held at the source.
    Sums(Vec<TableSum>),
    /// Some of the state, which is sealed.
    Sealed,
}

/// Writes the state of `view`.
pub fn write<T, W>(view: &T, origin: Origin<'_>, out: W) -> Result<Header, ArchiveError>
where
    T: Tables,
    W: Write,
{
    let own = crate::state::OwnRecords::load(view)?;
    let header = Header {
        cluster_id: origin.cluster_id.to_owned(),
        revision: Meta::load(view)?.revision,
        applied: own.applied,
        membership: own.membership,
        member_id_max: own.member_id_max,
        program: Some(format!("trireme {}", env!("CARGO_PKG_VERSION"))),
        record_format: Some(mvcc::codec::FORMAT),
        saved_ms: origin.saved_ms,
    };
    let mut sections = SectionWriter::new(out, origin.key)?;
    let json = serde_json::to_vec(&header).expect("a header is plain data with string keys");
    sections.section(Kind::Header, &json)?;
    // Before the state where it says how to open that, so that a reader needs one pass.
    let (first, last) = match origin.key {
        Some(_) => (origin.extra, None),
        None => (None, origin.extra),
    };
    if let Some(extra) = first {
        sections.section(Kind::Extra, extra)?;
    }
    let mut sums = Vec::new();
    for table in Table::ALL {
        sums.push(write_table(view, table, &mut sections)?);
    }
    let json = serde_json::to_vec(&sums).expect("sums are plain data");
    sections.section(Kind::Sums, &json)?;
    if let Some(extra) = last {
        sections.section(Kind::Extra, extra)?;
    }
    sections.finish()?;
    Ok(header)
}

fn write_table<T: Tables, W: Write>(
    view: &T,
    table: Table,
    sections: &mut SectionWriter<W>,
) -> Result<TableSum, ArchiveError> {
    let start = block_of(table);
    let mut block = start.clone();
    let mut summing = Summing::new(table);
    let mut result = Ok(());
    view.scan(
        table,
        Bound::Unbounded,
        Bound::Unbounded,
        false,
        &mut |key, value| {
            summing.add(key, value);
            put_bytes(&mut block, key);
            put_bytes(&mut block, value);
            if block.len() < BLOCK_BYTES {
                return ControlFlow::Continue(());
            }
            result = write_block(&block, sections);
            block.clone_from(&start);
            match result {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        },
    )?;
    result?;
    if block.len() > start.len() {
        write_block(&block, sections)?;
    }
    Ok(summing.finish())
}

fn write_block<W: Write>(
    block: &[u8],
    sections: &mut SectionWriter<W>,
) -> Result<(), ArchiveError> {
    let packed = zstd::bulk::compress(block, ZSTD_LEVEL).map_err(ArchiveError::Write)?;
    sections.section(Kind::Block, &packed)
}

fn block_of(table: Table) -> Vec<u8> {
    let name = table.name().as_bytes();
    let mut block = Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 4);
    block.push(u8::try_from(name.len()).expect("a table's name is short"));
    block.extend_from_slice(name);
    block
}

fn put_bytes(block: &mut Vec<u8>, bytes: &[u8]) {
    block.extend_from_slice(&length_of(bytes).to_le_bytes());
    block.extend_from_slice(bytes);
}

fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a record is smaller than a request, which is bounded")
}

/// Reads an archive part by part. Nothing may be put to use before `next_part` returned None: only then is the whole known to be
/// intact.
pub struct Reader<R> {
    sections: SectionReader<R>,
    header: Header,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn new(input: R) -> Result<Self, ArchiveError> {
        let mut sections = SectionReader::new(input)?;
        let header = match sections.next_section()? {
            Some(section) if section.kind == Kind::Header => section.body,
            _ => return Err(ArchiveError::Malformed("header")),
        };
        let header =
            serde_json::from_slice(&header).map_err(|_| ArchiveError::Malformed("header"))?;
        Ok(Reader { sections, header })
    }

    /// What the archive holds.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether its state is sealed. Then the caller's own bytes come first.
    pub fn is_sealed(&self) -> bool {
        self.sections.is_sealed()
    }

    /// Opens the state from here on. There must be a key for one that is sealed, and none for one that is not.
    pub fn unlock(&mut self, key: Option<&StateKey>) -> Result<(), ArchiveError> {
        match (self.is_sealed(), key) {
            (true, None) => Err(ArchiveError::Sealed),
            (false, Some(_)) => Err(ArchiveError::NotSealed),
            (_, None) => Ok(()),
            (true, Some(key)) => {
                self.sections.unlock(key);
                Ok(())
            }
        }
    }

    /// The next part; None when all is read and the hash is right.
    pub fn next_part(&mut self) -> Result<Option<Part>, ArchiveError> {
        let Some(Section {
            kind,
            body,
            is_sealed,
        }) = self.sections.next_section()?
        else {
            return Ok(None);
        };
        if is_sealed {
            return Ok(Some(Part::Sealed));
        }
        match kind {
            Kind::Extra => Ok(Some(Part::Extra(body.into()))),
            Kind::Block => read_block(&body).map(Some),
            Kind::Sums => serde_json::from_slice(&body)
                .map(|sums| Some(Part::Sums(sums)))
                .map_err(|_| ArchiveError::Malformed("list of sums")),
            Kind::Header | Kind::End => Err(ArchiveError::Malformed("order of sections")),
        }
    }
}

/// What stands before the state: the header, and the caller's own bytes where the state is sealed. Nothing else is checked yet.
pub fn look<R: Read>(input: R) -> Result<(Header, Option<Bytes>), ArchiveError> {
    let mut reader = Reader::new(input)?;
    let extra = match reader.is_sealed() {
        false => None,
        true => match reader.next_part()? {
            Some(Part::Extra(extra)) => Some(extra),
            _ => return Err(ArchiveError::Malformed("order of sections")),
        },
    };
    Ok((reader.header, extra))
}

fn read_block(packed: &[u8]) -> Result<Part, ArchiveError> {
    const MALFORMED: ArchiveError = ArchiveError::Malformed("block");
    let block = zstd::bulk::decompress(packed, BLOCK_BYTES_MAX).map_err(|_| MALFORMED)?;
    let mut rest = Bytes::from(block);
    let name_bytes = usize::from(*rest.first().ok_or(MALFORMED)?);
    if rest.len() <= name_bytes {
        return Err(MALFORMED);
    }
    let name = rest.slice(1..=name_bytes);
    let table = Table::ALL
        .into_iter()
        .find(|table| table.name().as_bytes() == name)
        .ok_or(MALFORMED)?;
    rest = rest.slice(name_bytes + 1..);
    let mut records = Vec::new();
    while !rest.is_empty() {
        let key = take_bytes(&mut rest).ok_or(MALFORMED)?;
        let value = take_bytes(&mut rest).ok_or(MALFORMED)?;
        records.push((key, value));
    }
    Ok(Part::Block(table, records))
}

fn take_bytes(rest: &mut Bytes) -> Option<Bytes> {
    let length = u32::from_le_bytes(*rest.first_chunk()?) as usize;
    if rest.len() < 4 + length {
        return None;
    }
    let bytes = rest.slice(4..4 + length);
    *rest = rest.slice(4 + length..);
    Some(bytes)
}

/// Checks every checksum of an archive, which needs no key, and tells what it holds.
pub fn verify<R: Read>(input: R) -> Result<Summary, ArchiveError> {
    let mut reader = Reader::new(input)?;
    let mut summary = Summary {
        header: reader.header().clone(),
        state: (!reader.is_sealed()).then(StateSummary::default),
        extra: None,
    };
    while let Some(part) = reader.next_part()? {
        match part {
            Part::Extra(bytes) => summary.extra = Some(bytes),
            Part::Sealed => {}
            Part::Sums(sums) => summary.state.get_or_insert_default().sums = Some(sums),
            Part::Block(_, records) => {
                let state = summary.state.get_or_insert_default();
                state.records += records.len() as u64;
                let bytes = records.iter().map(|(key, value)| key.len() + value.len());
                state.bytes += bytes.sum::<usize>() as u64;
            }
        }
    }
    Ok(summary)
}
