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
//! Where the state is sealed, the first line says 3, and the bodies of blocks and sums are sealed as `seal` tells; the extra bytes, which
//! say how to get the key, come right after the header, and a tag of 16 bytes follows the end's SHA-256. All checksums are over what
//! is in the file, so that they can be checked without the key. Format 1, which has no sums, is read too.

use super::ArchiveError;
use super::seal::{Sealer, StateKey, TAG_BYTES};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};

pub const MAGIC: &[u8; 18] = b"trireme archive 2\n";
const MAGIC_VERSION_AT: usize = 16;
const FORMAT_SEALED: u8 = b'3';
/// The formats that are read.
const FORMATS: [u8; 3] = [b'1', b'2', FORMAT_SEALED];

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

impl Kind {
    /// Whether it tells of the state, and not of the archive.
    fn is_state(self) -> bool {
        matches!(self, Kind::Block | Kind::Sums)
    }
}

/// A section as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    pub kind: Kind,
    pub body: Vec<u8>,
    /// Whether the body is still sealed, since the reader has no key.
    pub is_sealed: bool,
}

/// Writes sections.
pub struct SectionWriter<W> {
    out: W,
    hash: Sha256,
    sealer: Option<Sealer>,
    /// How many sections were written.
    sections: u64,
}

impl<W: Write> SectionWriter<W> {
    /// Seals the state with `key`, if there is one.
    pub fn new(out: W, key: Option<&StateKey>) -> Result<Self, ArchiveError> {
        let mut writer = SectionWriter {
            out,
            hash: Sha256::new(),
            sealer: key.map(Sealer::new),
            sections: 0,
        };
        let mut magic = *MAGIC;
        if key.is_some() {
            magic[MAGIC_VERSION_AT] = FORMAT_SEALED;
        }
        writer.put(&magic)?;
        Ok(writer)
    }

    pub fn section(&mut self, kind: Kind, body: &[u8]) -> Result<(), ArchiveError> {
        match &self.sealer {
            Some(sealer) if kind.is_state() => {
                let sealed = sealer.seal(kind, self.sections, body);
                self.put_section(kind, &sealed)
            }
            _ => self.put_section(kind, body),
        }
    }

    fn put_section(&mut self, kind: Kind, body: &[u8]) -> Result<(), ArchiveError> {
        self.sections += 1;
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
        let mut end = self.hash.clone().finalize().to_vec();
        if let Some(sealer) = &self.sealer {
            end.extend(sealer.end(self.sections, &end));
        }
        self.put_section(Kind::End, &end)?;
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
    is_sealed: bool,
    sealer: Option<Sealer>,
    /// How many sections were read.
    sections: u64,
}

impl<R: Read> SectionReader<R> {
    pub fn new(input: R) -> Result<Self, ArchiveError> {
        let mut reader = SectionReader {
            input,
            hash: Sha256::new(),
            offset: 0,
            is_sealed: false,
            sealer: None,
            sections: 0,
        };
        let magic: [u8; MAGIC.len()] = reader.take("its first line")?;
        reader.hash.update(magic);
        let format = magic[MAGIC_VERSION_AT];
        reader.is_sealed = format == FORMAT_SEALED;
        let mut as_ours = magic;
        as_ours[MAGIC_VERSION_AT] = MAGIC[MAGIC_VERSION_AT];
        match (as_ours == *MAGIC, FORMATS.contains(&format)) {
            (true, true) => Ok(reader),
            (true, false) => Err(ArchiveError::UnknownFormat(char::from(format))),
            (false, _) => Err(ArchiveError::NotAnArchive),
        }
    }

    /// Whether the state is sealed.
    pub fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// Opens the state from here on.
    pub fn unlock(&mut self, key: &StateKey) {
        self.sealer = Some(Sealer::new(key));
    }

    /// The next section; None after an end whose hash is right, and its tag where there is a key.
    pub fn next_section(&mut self) -> Result<Option<Section>, ArchiveError> {
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
            return self.check_end(&body).map(|()| None);
        }
        self.hash.update(head);
        self.hash.update(&body);
        self.hash.update(crc);
        let number = self.sections;
        self.sections += 1;
        let is_sealed = self.is_sealed && kind.is_state();
        match &self.sealer {
            Some(sealer) if is_sealed => Ok(Some(Section {
                kind,
                body: sealer.open(kind, number, &body)?,
                is_sealed: false,
            })),
            _ => Ok(Some(Section {
                kind,
                body,
                is_sealed,
            })),
        }
    }

    fn check_end(&self, body: &[u8]) -> Result<(), ArchiveError> {
        let digest = self.hash.clone().finalize();
        let tag_bytes = if self.is_sealed { TAG_BYTES } else { 0 };
        let tag = body.strip_prefix(&digest[..]);
        let tag = tag.filter(|tag| tag.len() == tag_bytes);
        let tag = tag.ok_or(ArchiveError::WrongHash)?;
        match &self.sealer {
            Some(sealer) if self.is_sealed && !sealer.is_end(self.sections, &digest, tag) => {
                Err(ArchiveError::NotOpened)
            }
            _ => Ok(()),
        }
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
