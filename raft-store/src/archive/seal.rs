//! How the state in an archive is sealed: each section by itself, so that it can be written and read as a stream.
//!
//! The key is one of this archive alone. A section's nonce is its number, so that none can be left out, moved or taken twice; its kind
//! is authenticated with it. The archive's last section carries a tag over the SHA-256 of everything before, so that the plain
//! sections, the first line and the end are authentic too. Who may have the key is the caller's matter.

use super::ArchiveError;
use super::format::Kind;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};

/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// What opens the state in one archive. Never to be used for a second one.
#[derive(Clone, PartialEq, Eq)]
pub struct StateKey([u8; KEY_BYTES]);

impl StateKey {
    /// Of random bytes.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        StateKey(bytes)
    }

    /// Its bytes, to be kept where only those who may restore can read them.
    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl std::fmt::Debug for StateKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("StateKey(..)")
    }
}

/// Seals and opens the sections of one archive.
pub struct Sealer(ChaCha20Poly1305);

impl Sealer {
    pub fn new(key: &StateKey) -> Self {
        Sealer(ChaCha20Poly1305::new(&key.0.into()))
    }

    /// Seals the body of the section of this number.
    pub fn seal(&self, kind: Kind, number: u64, body: &[u8]) -> Vec<u8> {
        let (nonce, aad) = (nonce(number), [kind as u8]);
        let payload = Payload {
            msg: body,
            aad: &aad,
        };
        let sealed = self.0.encrypt(&nonce.into(), payload);
        sealed.expect("a section is far smaller than what may be sealed at once")
    }

    /// Opens it.
    pub fn open(&self, kind: Kind, number: u64, body: &[u8]) -> Result<Vec<u8>, ArchiveError> {
        let (nonce, aad) = (nonce(number), [kind as u8]);
        let payload = Payload {
            msg: body,
            aad: &aad,
        };
        let opened = self.0.decrypt(&nonce.into(), payload);
        opened.map_err(|_| ArchiveError::NotOpened)
    }

    /// The tag of the last section, over the hash of all before it.
    pub fn end(&self, number: u64, digest: &[u8]) -> Vec<u8> {
        let aad = [&[Kind::End as u8], digest].concat();
        let payload = Payload {
            msg: &[],
            aad: &aad,
        };
        let tag = self.0.encrypt(&nonce(number).into(), payload);
        tag.expect("nothing is sealed")
    }

    /// Whether that tag is right.
    pub fn is_end(&self, number: u64, digest: &[u8], tag: &[u8]) -> bool {
        let aad = [&[Kind::End as u8], digest].concat();
        let payload = Payload {
            msg: tag,
            aad: &aad,
        };
        self.0.decrypt(&nonce(number).into(), payload).is_ok()
    }
}

fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_le_bytes());
    nonce
}
