//! The bytes of an archive: a magic, then sections, each with its length and CRC-32C, the last one the SHA-256 of all before.
//!
//! ```text
//! "trireme archive 2\n"
//! section := kind: u8, length: u32 LE, body, crc32c(kind, length, body): u32 LE
//! 1 header   JSON
//! 2 block    zstd of: table name (length u8), then key (length u32 LE) and value (length u32 LE) again and again
//! 3 extra    bytes of the caller
//! 4 end      SHA-256 of everything before this section
//! 5 sums     JSON: records, bytes and SHA-256 of each table as it was read from the source; from format 2 on
//! ```
//!
//! Format 1, which has no sums, is read too.

use super::ArchiveError;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};

pub const MAGIC: &[u8; 18] = b"trireme archive 2\n";
const MAGIC_VERSION_AT: usize = 16;
/// The formats that are read.
const FORMATS: [u8; 2] = [b'1', b'2'];

/// The largest section that is accepted.
const SECTION_BYTES_MAX: u32 = 128 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Header = 1,
    Block = 2,
    Extra = 3,
    End = 4,
    Sums = 5,
}

/// Writes sections.
pub struct SectionWriter<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> SectionWriter<W> {
    pub fn new(out: W) -> Result<Self, ArchiveError> {
        let mut writer = SectionWriter {
            out,
            hash: Sha256::new(),
        };
        writer.put(MAGIC)?;
        Ok(writer)
    }

    pub fn section(&mut self, kind: Kind, body: &[u8]) -> Result<(), ArchiveError> {
        let length = u32::try_from(body.len())
            .ok()
            .filter(|length| *length <= SECTION_BYTES_MAX);
        let length = length.ok_or(ArchiveError::TooLarge {
            bytes: body.len() as u64,
        })?;
        let mut head = [kind as u8, 0, 0, 0, 0];
        head[1..].copy_from_slice(&length.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head), body);
        self.put(&head)?;
        self.put(body)?;
        self.put(&crc.to_le_bytes())
    }

    pub fn finish(mut self) -> Result<W, ArchiveError> {
        let digest = self.hash.clone().finalize();
        self.section(Kind::End, &digest)?;
        self.out.flush().map_err(ArchiveError::Write)?;
        Ok(self.out)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.hash.update(bytes);
        self.out.write_all(bytes).map_err(ArchiveError::Write)
    }
}

/// Reads sections, checking each.
pub struct SectionReader<R> {
    input: R,
    hash: Sha256,
    offset: u64,
}

impl<R: Read> SectionReader<R> {
    pub fn new(input: R) -> Result<Self, ArchiveError> {
        let mut reader = SectionReader {
            input,
            hash: Sha256::new(),
            offset: 0,
        };
        let magic: [u8; MAGIC.len()] = reader.take("its first line")?;
        reader.hash.update(magic);
        let format = magic[MAGIC_VERSION_AT];
        let mut as_ours = magic;
        as_ours[MAGIC_VERSION_AT] = MAGIC[MAGIC_VERSION_AT];
        match (as_ours == *MAGIC, FORMATS.contains(&format)) {
            (true, true) => Ok(reader),
            (true, false) => Err(ArchiveError::UnknownFormat(char::from(format))),
            (false, _) => Err(ArchiveError::NotAnArchive),
        }
    }

    /// The next section; None after an end whose hash is right.
    pub fn next_section(&mut self) -> Result<Option<(Kind, Vec<u8>)>, ArchiveError> {
        let at = self.offset;
        let head: [u8; 5] = self.take("a section")?;
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length);
        if length > SECTION_BYTES_MAX {
            return Err(ArchiveError::Damaged { offset: at });
        }
        let mut body = vec![0; length as usize];
        self.fill(&mut body, "a section's body")?;
        let crc: [u8; 4] = self.take("a section's checksum")?;
        if crc32c::crc32c_append(crc32c::crc32c(&head), &body) != u32::from_le_bytes(crc) {
            return Err(ArchiveError::Damaged { offset: at });
        }
        let kind = match kind {
            1 => Kind::Header,
            2 => Kind::Block,
            3 => Kind::Extra,
            4 => Kind::End,
            5 => Kind::Sums,
            _ => return Err(ArchiveError::Damaged { offset: at }),
        };
        if kind == Kind::End {
            return match self.hash.clone().finalize()[..] == body[..] {
                true => Ok(None),
                false => Err(ArchiveError::WrongHash),
            };
        }
        self.hash.update(head);
        self.hash.update(&body);
        self.hash.update(crc);
        Ok(Some((kind, body)))
    }

    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ArchiveError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8], what: &'static str) -> Result<(), ArchiveError> {
        self.input
            .read_exact(bytes)
            .map_err(|err| match err.kind() {
                std::io::ErrorKind::UnexpectedEof => ArchiveError::CutShort {
                    offset: self.offset,
                    what,
                },
                _ => ArchiveError::Read(err),
            })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}
