//! The only place of a master that asks for the time, for ids and for randomness; everything else gets them as arguments.

use jiff::Timestamp as Moment;
use objects::{Timestamp, Uid};
use rand::RngExt;

/// Letters that cannot spell a word, as Kubernetes uses them for generated names.
const SAFE_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LEN: usize = 5;

/// The present.
#[expect(clippy::disallowed_methods, reason = "this module is the clock")]
pub fn now() -> Timestamp {
    Timestamp(Moment::now())
}

/// A uid that no object had before.
#[expect(clippy::disallowed_methods, reason = "this module makes the ids")]
pub fn new_uid() -> Uid {
    Uid(uuid::Uuid::new_v4().to_string())
}

/// Five letters that end a generated name.
pub fn name_suffix() -> String {
    let mut random = rand::rng();
    (0..SUFFIX_LEN)
        .map(|_| char::from(SAFE_LETTERS[random.random_range(0..SAFE_LETTERS.len())]))
        .collect()
}

/// Randomness for cryptography.
pub fn rng() -> rand::rngs::ThreadRng {
    rand::rng()
}

/// So many random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rng().fill(&mut bytes[..]);
    bytes
}

/// So many random bytes, as hexadecimal digits.
pub fn secret(bytes: usize) -> String {
    let mut secret = vec![0; bytes];
    rand::rng().fill(&mut secret[..]);
    hex::encode(secret)
}
