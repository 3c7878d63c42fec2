//! SPDY/3 header blocks: names and values with their lengths, zlib-compressed against the draft's dictionary.
//! The compression's state lasts as long as the connection, so every block must pass through here, in order.
//! Pure. Layout from the SPDY/3 draft, section 2.6.10.

use bytes::{Buf, BufMut, Bytes};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::{CHECKSUM, DICTIONARY};

/// A block may inflate to this; those of kubectl have some hundred bytes.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
const GROW_BYTES: usize = 1024;

/// A stream's headers; names are lower-case on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers(Vec<(String, String)>);

/// A block that does not hold headers: the connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("a header block does not inflate: {0}")]
    Inflate(String),
    #[error("a header block was compressed with another dictionary (checksum {0:08x})")]
    Dictionary(u32),
    #[error("a header block inflates to more than {BLOCK_BYTES_MAX} bytes")]
    TooLong,
    #[error("a header block ends in the middle of a header")]
    Short,
}

impl Headers {
    /// The value of a header.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    #[cfg(test)]
    pub(crate) fn new(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    fn parse(mut block: &[u8]) -> Result<Self, HeaderError> {
        let count = block.try_get_u32().map_err(|_| HeaderError::Short)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = take_text(&mut block)?;
            let value = take_text(&mut block)?;
            headers.push((name, value));
        }
        Ok(Self(headers))
    }

    fn encode(&self) -> Vec<u8> {
        let mut block = Vec::new();
        block.put_u32(self.0.len() as u32);
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(text.len() as u32);
            block.put_slice(text.as_bytes());
        }
        block
    }
}

fn take_text(block: &mut &[u8]) -> Result<String, HeaderError> {
    let length = block.try_get_u32().map_err(|_| HeaderError::Short)? as usize;
    let (text, rest) = block.split_at_checked(length).ok_or(HeaderError::Short)?;
    *block = rest;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Reads the blocks of one connection.
#[derive(Debug)]
pub(crate) struct Inflater(Decompress);

impl Inflater {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The headers of the next block.
    pub(crate) fn read(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        Headers::parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, HeaderError> {
        let start = self.0.total_in();
        let mut plain = Vec::with_capacity(GROW_BYTES);
        loop {
            let done = ((self.0.total_in() - start) as usize).min(block.len());
            let rest = &block[done..];
            match self
                .0
                .decompress_vec(rest, &mut plain, FlushDecompress::Sync)
            {
                Ok(Status::StreamEnd) => return Ok(plain),
                // Room that was not needed: all that the block holds is out.
                Ok(_) if plain.len() < plain.capacity() => return Ok(plain),
                Ok(_) if plain.len() >= BLOCK_BYTES_MAX => return Err(HeaderError::TooLong),
                Ok(_) => plain.reserve(GROW_BYTES),
                Err(error) => match error.needs_dictionary() {
                    Some(CHECKSUM) => self.set_dictionary()?,
                    Some(other) => return Err(HeaderError::Dictionary(other)),
                    None => return Err(HeaderError::Inflate(error.to_string())),
                },
            }
        }
    }

    fn set_dictionary(&mut self) -> Result<(), HeaderError> {
        self.0
            .set_dictionary(&DICTIONARY)
            .map(drop)
            .map_err(|error| HeaderError::Inflate(error.to_string()))
    }
}

/// Writes the blocks of one connection.
#[derive(Debug)]
pub(crate) struct Deflater(Compress);

impl Deflater {
    pub(crate) fn new() -> Self {
        let mut zlib = Compress::new(Compression::default(), true);
        zlib.set_dictionary(&DICTIONARY)
            .expect("a fresh compressor takes a dictionary");
        Self(zlib)
    }

    /// The block of these headers.
    pub(crate) fn write(&mut self, headers: &Headers) -> Bytes {
        let plain = headers.encode();
        let start = self.0.total_in();
        let mut block = Vec::with_capacity(GROW_BYTES);
        loop {
            let done = (self.0.total_in() - start) as usize;
            self.0
                .compress_vec(&plain[done..], &mut block, FlushCompress::Sync)
                .expect("compressing bytes in memory cannot fail");
            if block.len() < block.capacity() {
                return block.into();
            }
            block.reserve(GROW_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn blocks_survive_one_connection(
            blocks in prop::collection::vec(prop::collection::vec(("[a-z-]{1,12}", ".{0,80}"), 0..30), 1..6),
        ) {
            let mut deflater = Deflater::new();
            let mut inflater = Inflater::new();
            for headers in blocks.into_iter().map(Headers) {
                let block = deflater.write(&headers);
                prop_assert_eq!(inflater.read(&block), Ok(headers));
            }
        }

        #[test]
        fn random_blocks_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Inflater::new().read(&bytes);
            let _ = Headers::parse(&bytes);
        }

        #[test]
        fn damaged_blocks_never_panic(at in 0usize..60, bits: u8) {
            let headers = Headers(vec![("streamtype".into(), "stdin".into()), ("port".into(), "80".into())]);
            let mut block = Deflater::new().write(&headers).to_vec();
            let at = at % block.len();
            block[at] ^= bits;
            let _ = Inflater::new().read(&block);
        }
    }

    #[test]
    fn a_block_that_inflates_without_end_is_refused() {
        let headers = Headers(vec![("a".into(), "x".repeat(10 * BLOCK_BYTES_MAX))]);
        let block = Deflater::new().write(&headers);
        assert!(block.len() < BLOCK_BYTES_MAX);
        assert_eq!(Inflater::new().read(&block), Err(HeaderError::TooLong));
    }
}
