//! The keys in a snapshot, locked by a passphrase.
//!
//! Layout: format byte, Argon2id salt, nonce, ChaCha20-Poly1305 of the keys' JSON. Argon2's parameters are its crate's defaults
//! (RFC 9106's second recommendation class: 19 MiB, two passes); a new format byte would announce others.

use crate::clock;
use crate::pki::Authority;
use anyhow::{Context, Result, anyhow, ensure};
use argon2::Argon2;
use chacha20poly1305::aead::Aead;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use objects::cluster::ClusterSettings;

const FORMAT: u8 = 1;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const PASSPHRASE_BYTES_MIN: usize = 8;

/// What a restored cluster needs beside the store's state.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Keys {
    /// The authority, so that nodes and clients go on trusting.
    pub authority: Authority,
    /// The settings that all masters share.
    pub settings: ClusterSettings,
}

/// Locks the keys.
pub fn lock(keys: &Keys, passphrase: &str) -> Result<Vec<u8>> {
    ensure!(
        passphrase.len() >= PASSPHRASE_BYTES_MIN,
        "the passphrase is too short: give at least {PASSPHRASE_BYTES_MIN} characters"
    );
    let salt = hex::decode(clock::secret(SALT_BYTES))?;
    let nonce = hex::decode(clock::secret(NONCE_BYTES))?;
    let plain = serde_json::to_vec(keys)?;
    let locked = cipher(passphrase, &salt)?
        .encrypt(nonce.as_slice().try_into()?, plain.as_slice())
        .map_err(|_| anyhow!("the keys could not be encrypted"))?;
    Ok([&[FORMAT][..], &salt, &nonce, &locked].concat())
}

/// Unlocks them; a wrong passphrase and a changed byte look alike.
pub fn unlock(locked: &[u8], passphrase: &str) -> Result<Keys> {
    ensure!(
        locked.first() == Some(&FORMAT),
        "the snapshot's keys have an unknown format; use the version that saved it"
    );
    ensure!(
        locked.len() > 1 + SALT_BYTES + NONCE_BYTES,
        "the snapshot's keys are cut short"
    );
    let (salt, rest) = locked[1..].split_at(SALT_BYTES);
    let (nonce, data) = rest.split_at(NONCE_BYTES);
    let plain = cipher(passphrase, salt)?
        .decrypt(nonce.try_into()?, data)
        .map_err(|_| anyhow!("the passphrase is wrong, or the snapshot's keys were damaged"))?;
    serde_json::from_slice(&plain).context("the snapshot's keys are unreadable")
}

fn cipher(passphrase: &str, salt: &[u8]) -> Result<ChaCha20Poly1305> {
    let mut key = [0; 32];
    Argon2::default()
        .hash_password_into(passphrase.as_bytes(), salt, &mut key)
        .map_err(|error| anyhow!("no key could be derived from the passphrase: {error}"))?;
    Ok(ChaCha20Poly1305::new(&key.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_with_its_passphrase_and_only_unharmed() {
        let settings = crate::settings::defaults();
        let keys = Keys {
            authority: Authority {
                certificate_pem: "C".into(),
                key_pem: "K".into(),
            },
            settings,
        };
        let mut locked = lock(&keys, "correct horse").expect("locks");
        assert!(unlock(&locked, "correct horse").expect("unlocks") == keys);
        assert!(unlock(&locked, "wrong horse").is_err());
        assert!(lock(&keys, "short").is_err());
        *locked.last_mut().expect("not empty") ^= 1;
        assert!(unlock(&locked, "correct horse").is_err());
        assert!(unlock(&locked[..9], "correct horse").is_err());
    }
}
