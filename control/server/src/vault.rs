//! Who can open a snapshot: whoever knows a passphrase, or has a key file. What they open are the cluster's keys, and among these the
//! one that seals this snapshot's state.
//!
//! Both come down to an X25519 key pair, and sealing (HPKE, RFC 9180, base mode) needs only its public half: so the masters can seal
//! a snapshot each night, and none of them can open it. A key file holds the 32 random bytes of which the pair is made; a
//! passphrase gives such bytes by Argon2id (its crate's defaults, RFC 9106's second recommendation class: 19 MiB, two passes).
//!
//! ```text
//! sealed := 2: u8, holder, encapsulated key: 32 bytes, ChaCha20-Poly1305 of the keys' JSON
//! holder := 0: u8 (a key file) | 1: u8, salt: 16 bytes (a passphrase)
//! ```
//!
//! Format 1, a passphrase's key used directly, is opened and no longer written.

use crate::clock;
use crate::pki::Authority;
use anyhow::{Context, Result, anyhow, bail, ensure};
use argon2::Argon2;
use chacha20poly1305::aead::Aead;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use hpke::{Deserializable, Kem as _, OpModeR, OpModeS, Serializable};
use objects::cluster::ClusterSettings;
use objects::snapshots::SnapshotSeal;
use raft_store::archive::StateKey;
use sha2::{Digest, Sha256};
use std::path::Path;

const FORMAT_PASSPHRASE: u8 = 1;
const FORMAT: u8 = 2;
const FOR_KEY_FILE: u8 = 0;
const FOR_PASSPHRASE: u8 = 1;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const KEY_BYTES: usize = 32;
const PASSPHRASE_BYTES_MIN: usize = 8;
/// What the sealed bytes are for, so that those of another use cannot be passed off as these.
const INFO: &[u8] = b"trireme snapshot keys";
const INFO_MASTERS: &[u8] = b"trireme secret of the masters";
const WRONG: &str = "the passphrase or key file is wrong, or the snapshot's keys were damaged";

type Kem = hpke::kem::X25519HkdfSha256;
type PrivateKey = <Kem as hpke::Kem>::PrivateKey;
type PublicKey = <Kem as hpke::Kem>::PublicKey;

/// What a restored cluster needs beside the store's state.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Keys {
    /// The authority, so that nodes and clients go on trusting.
    pub authority: Authority,
    /// The settings that all masters share.
    pub settings: ClusterSettings,
    /// What opens the state in the snapshot, in hexadecimal; None in one that was saved before states were sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state_key: Option<String>,
}

impl Keys {
    /// The cluster's keys, and a new one for the state of one snapshot.
    pub fn new(authority: Authority, settings: ClusterSettings) -> (Self, StateKey) {
        let state_key = StateKey::new(clock::random());
        let keys = Keys {
            authority,
            settings,
            state_key: Some(hex::encode(state_key.bytes())),
        };
        (keys, state_key)
    }

    /// What opens the snapshot's state.
    pub fn state_key(&self) -> Result<Option<StateKey>> {
        let text = self.state_key.as_deref();
        let bytes = text.map(from_hex).transpose();
        let bytes = bytes.context("the key of the snapshot's state is malformed")?;
        Ok(bytes.map(StateKey::new))
    }
}

/// For whom keys are sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Whoever has the key file with this public key.
    KeyFile([u8; KEY_BYTES]),
    /// Whoever knows the passphrase from which, with the salt, this public key follows.
    Passphrase([u8; SALT_BYTES], [u8; KEY_BYTES]),
}

/// What somebody opens them with.
pub enum Opener {
    /// A passphrase.
    Passphrase(String),
    /// The secret bytes of a key file.
    KeyFile([u8; KEY_BYTES]),
}

impl Holder {
    /// Whoever knows the passphrase. Takes a good part of a second by design.
    pub fn of_passphrase(passphrase: &str) -> Result<Self> {
        ensure!(
            passphrase.len() >= PASSPHRASE_BYTES_MIN,
            "the passphrase is too short: give at least {PASSPHRASE_BYTES_MIN} characters"
        );
        let salt = clock::random();
        let (_, public) = Kem::derive_keypair(&stretch(passphrase, &salt)?);
        Ok(Holder::Passphrase(salt, public.to_bytes().into()))
    }

    /// Whoever has the key file with this public key in hexadecimal.
    pub fn of_public_key(text: &str) -> Result<Self> {
        let key =
            from_hex(text).context("the snapshot's public key is not 64 hexadecimal digits")?;
        public_key(&key)?;
        Ok(Holder::KeyFile(key))
    }

    /// As it is kept in a schedule; None where the keys are left out.
    pub fn of_seal(seal: &SnapshotSeal) -> Result<Option<Self>> {
        Ok(match seal {
            SnapshotSeal::LeftOut => None,
            SnapshotSeal::KeyFile { public_key } => Some(Holder::of_public_key(public_key)?),
            SnapshotSeal::Passphrase { salt, public_key } => {
                let salt = from_hex(salt).context("the schedule's salt is malformed")?;
                let key = from_hex(public_key).context("the schedule's public key is malformed")?;
                Some(Holder::Passphrase(salt, key))
            }
        })
    }

    /// As a schedule keeps it.
    pub fn to_seal(&self) -> SnapshotSeal {
        match self {
            Holder::KeyFile(key) => SnapshotSeal::KeyFile {
                public_key: hex::encode(key),
            },
            Holder::Passphrase(salt, key) => SnapshotSeal::Passphrase {
                salt: hex::encode(salt),
                public_key: hex::encode(key),
            },
        }
    }
}

/// Seals the keys.
pub fn lock(keys: &Keys, holder: &Holder) -> Result<Vec<u8>> {
    let (head, key) = match holder {
        Holder::KeyFile(key) => (vec![FORMAT, FOR_KEY_FILE], key),
        Holder::Passphrase(salt, key) => ([&[FORMAT, FOR_PASSPHRASE][..], salt].concat(), key),
    };
    let sealed = seal(&public_key(key)?, INFO, &head, &serde_json::to_vec(keys)?)?;
    Ok([head, sealed].concat())
}

/// Opens them; a wrong passphrase or key and a changed byte look alike.
pub fn unlock(locked: &[u8], opener: &Opener) -> Result<Keys> {
    let plain = match (locked, opener) {
        ([FORMAT_PASSPHRASE, rest @ ..], Opener::Passphrase(passphrase)) => {
            unlock_format_1(rest, passphrase)?
        }
        ([FORMAT, FOR_PASSPHRASE, rest @ ..], Opener::Passphrase(passphrase)) => {
            let salt: &[u8; SALT_BYTES] = rest
                .first_chunk()
                .context("the snapshot's keys are cut short")?;
            let (head, sealed) = locked.split_at(2 + SALT_BYTES);
            open(&stretch(passphrase, salt)?, INFO, head, sealed)?
        }
        ([FORMAT, FOR_KEY_FILE, sealed @ ..], Opener::KeyFile(secret)) => {
            open(secret, INFO, &locked[..2], sealed)?
        }
        ([FORMAT, FOR_KEY_FILE, ..], Opener::Passphrase(_)) => {
            bail!("the snapshot's keys are sealed for a key file; give it with --key-file")
        }
        ([FORMAT_PASSPHRASE, ..] | [FORMAT, FOR_PASSPHRASE, ..], Opener::KeyFile(_)) => {
            bail!(
                "the snapshot's keys are sealed under a passphrase; give it with --passphrase-file"
            )
        }
        _ => bail!("the snapshot's keys have an unknown format; use the version that saved it"),
    };
    serde_json::from_slice(&plain).context("the snapshot's keys are unreadable")
}

/// For whom the keys are sealed, for people.
pub fn describe(locked: Option<&[u8]>) -> &'static str {
    match locked {
        None => "left out",
        Some([FORMAT_PASSPHRASE, ..] | [FORMAT, FOR_PASSPHRASE, ..]) => "sealed under a passphrase",
        Some([FORMAT, FOR_KEY_FILE, ..]) => "sealed for a key file",
        Some(_) => "sealed in an unknown way",
    }
}

/// Locks a text that only masters of this cluster, and of one that is restored from it, can read: all of them hold the CA's key.
pub fn lock_for_masters(authority: &Authority, text: &str) -> Result<String> {
    let (_, public) = Kem::derive_keypair(&masters_secret(authority));
    seal(&public, INFO_MASTERS, b"", text.as_bytes()).map(hex::encode)
}

/// Reads it.
pub fn unlock_for_masters(authority: &Authority, locked: &str) -> Result<String> {
    let locked = hex::decode(locked).context("a secret in the store is malformed")?;
    let plain = open(&masters_secret(authority), INFO_MASTERS, b"", &locked).map_err(|_| {
        anyhow!("a secret in the store was locked by masters with another CA; set it again")
    })?;
    String::from_utf8(plain).context("a secret in the store is malformed")
}

fn masters_secret(authority: &Authority) -> [u8; KEY_BYTES] {
    let parts = [INFO_MASTERS, authority.key_pem.as_bytes()].concat();
    Sha256::digest(parts).into()
}

/// The text of a new key file, and its public key in hexadecimal.
pub fn new_key_file() -> (String, String) {
    let secret: [u8; KEY_BYTES] = clock::random();
    let (_, public) = Kem::derive_keypair(&secret);
    let public = hex::encode(public.to_bytes());
    let text = format!(
        "# Opens the keys in snapshots of a Trireme cluster. Keep it apart from the snapshots, and keep a copy of it: nobody can\n\
         # restore a cluster from them without it. Sealing needs only the line of the public key.\n\
         secret-key: {}\npublic-key: {public}\n",
        hex::encode(secret)
    );
    (text, public)
}

/// Reads what opens a snapshot's keys from the one of the two files that is given.
pub fn opener(passphrase_file: Option<&Path>, key_file: Option<&Path>) -> Result<Opener> {
    let read = |what: &str, path: &Path| {
        std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the {what} file {}", path.display()))
    };
    match (passphrase_file, key_file) {
        (Some(path), None) => {
            let text = read("passphrase", path)?;
            Ok(Opener::Passphrase(
                text.trim_end_matches(['\n', '\r']).to_owned(),
            ))
        }
        (None, Some(path)) => {
            let text = read("key", path)?;
            let secret = text
                .lines()
                .find_map(|line| line.strip_prefix("secret-key:"));
            let secret = secret.and_then(|secret| from_hex(secret.trim()).ok());
            secret.map(Opener::KeyFile).with_context(|| {
                format!(
                    "{} holds no secret key, as `ctl snapshot keygen` writes it",
                    path.display()
                )
            })
        }
        _ => bail!("give either --passphrase-file or --key-file"),
    }
}

fn seal(key: &PublicKey, info: &[u8], head: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
    let (encapsulated, sealed) = hpke::single_shot_seal_with_rng::<
        hpke::aead::ChaCha20Poly1305,
        hpke::kdf::HkdfSha256,
        Kem,
    >(&OpModeS::Base, key, info, plain, head, &mut clock::rng())
    .map_err(|error| anyhow!("the keys could not be sealed: {error}"))?;
    Ok([&encapsulated.to_bytes()[..], &sealed].concat())
}

fn open(secret: &[u8; KEY_BYTES], info: &[u8], head: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
    let (private, _): (PrivateKey, _) = Kem::derive_keypair(secret);
    let (encapsulated, sealed) = sealed
        .split_at_checked(KEY_BYTES)
        .context("the snapshot's keys are cut short")?;
    let encapsulated =
        <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| anyhow!(WRONG))?;
    hpke::single_shot_open::<hpke::aead::ChaCha20Poly1305, hpke::kdf::HkdfSha256, Kem>(
        &OpModeR::Base,
        &private,
        &encapsulated,
        info,
        sealed,
        head,
    )
    .map_err(|_| anyhow!(WRONG))
}

fn public_key(bytes: &[u8; KEY_BYTES]) -> Result<PublicKey> {
    PublicKey::from_bytes(bytes).map_err(|_| anyhow!("the snapshot's public key is no X25519 key"))
}

fn stretch(passphrase: &str, salt: &[u8]) -> Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    Argon2::default()
        .hash_password_into(passphrase.as_bytes(), salt, &mut key)
        .map_err(|error| anyhow!("no key could be derived from the passphrase: {error}"))?;
    Ok(key)
}

fn unlock_format_1(rest: &[u8], passphrase: &str) -> Result<Vec<u8>> {
    let cut = || anyhow!("the snapshot's keys are cut short");
    let (salt, rest) = rest.split_at_checked(SALT_BYTES).ok_or_else(cut)?;
    let (nonce, data) = rest.split_at_checked(NONCE_BYTES).ok_or_else(cut)?;
    ChaCha20Poly1305::new(&stretch(passphrase, salt)?.into())
        .decrypt(nonce.try_into()?, data)
        .map_err(|_| anyhow!(WRONG))
}

fn from_hex<const N: usize>(text: &str) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys {
            authority: Authority {
                certificate_pem: "C".into(),
                key_pem: "K".into(),
            },
            settings: crate::settings::defaults(),
            state_key: None,
        }
    }

    fn passphrase(text: &str) -> Opener {
        Opener::Passphrase(text.to_owned())
    }

    /// Opens with nothing else, not cut at any place and not changed at any byte.
    fn check(locked: &[u8], right: &Opener, wrong: &[Opener]) {
        assert!(unlock(locked, right).expect("unlocks") == keys());
        for wrong in wrong {
            assert!(unlock(locked, wrong).is_err());
        }
        for place in [0, 1, 2, 10, 20, 40, 60, locked.len() - 1] {
            let mut changed = locked.to_vec();
            changed[place] ^= 1;
            assert!(unlock(&changed, right).is_err(), "changed at {place}");
            assert!(unlock(&locked[..place], right).is_err(), "cut at {place}");
        }
    }

    #[test]
    fn a_passphrase_opens_what_was_sealed_under_it() {
        let holder = Holder::of_passphrase("correct horse").expect("long enough");
        let kept = Holder::of_seal(&holder.to_seal()).expect("readable");
        assert_eq!(
            kept.as_ref(),
            Some(&holder),
            "a schedule keeps what is needed to seal"
        );
        let locked = lock(&keys(), &holder).expect("locks");
        check(
            &locked,
            &passphrase("correct horse"),
            &[passphrase("wrong horse"), Opener::KeyFile([7; 32])],
        );
        assert!(Holder::of_passphrase("short").is_err());
        assert_eq!(describe(Some(&locked)), "sealed under a passphrase");
    }

    #[test]
    fn a_key_file_opens_what_was_sealed_for_its_public_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let (text, public) = new_key_file();
        std::fs::write(&path, text).expect("writes");
        let locked = lock(&keys(), &Holder::of_public_key(&public).expect("a key")).expect("locks");
        let right = opener(None, Some(&path)).expect("reads");
        check(
            &locked,
            &right,
            &[Opener::KeyFile([7; 32]), passphrase("correct horse")],
        );
        std::fs::write(&path, format!("public-key: {public}\n")).expect("writes");
        let error = opener(None, Some(&path))
            .err()
            .expect("a public key opens nothing");
        assert!(error.to_string().contains("holds no secret key"), "{error}");
        assert!(Holder::of_public_key("abc").is_err());
        assert_eq!(describe(Some(&locked)), "sealed for a key file");
    }

    #[test]
    fn the_key_of_the_state_is_sealed_with_the_others() {
        let Keys {
            authority,
            settings,
            ..
        } = keys();
        let (keys, state_key) = Keys::new(authority, settings);
        let holder = Holder::of_passphrase("correct horse").expect("long enough");
        let locked = lock(&keys, &holder).expect("locks");
        let text = hex::encode(state_key.bytes());
        assert!(!locked.windows(64).any(|part| part == text.as_bytes()));
        let opened = unlock(&locked, &passphrase("correct horse")).expect("unlocks");
        assert_eq!(opened.state_key().expect("readable"), Some(state_key));
        assert_eq!(super::tests::keys().state_key().expect("readable"), None);
    }

    #[test]
    fn masters_read_their_secrets_and_others_do_not() {
        let authority = keys().authority;
        let locked = lock_for_masters(&authority, "s3cret").expect("locks");
        assert!(!locked.contains("s3cret"));
        assert_eq!(
            unlock_for_masters(&authority, &locked).expect("unlocks"),
            "s3cret"
        );
        let other = Authority {
            key_pem: "other".into(),
            ..authority
        };
        assert!(unlock_for_masters(&other, &locked).is_err());
    }
}
