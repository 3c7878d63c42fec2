//! JSON web tokens: written with the cluster's own keys (ES256), read with those or with an issuer's published ones.
//!
//! Formats: RFC 7515 (compact), 7517 (key sets), 7518 (algorithms). Never looks at what the claims mean.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The longest token that is read.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Why a token or a key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// It is not three parts of base64 around JSON.
    #[error("the token is malformed")]
    Malformed,
    /// No key of that name is known.
    #[error("the token is signed with a key that is not known")]
    UnknownKey,
    /// The key's algorithm is not the token's, or none that is read.
    #[error("the token's algorithm {0:?} is not accepted")]
    Algorithm(String),
    /// The signature is not that of the key.
    #[error("the token's signature is wrong")]
    Signature,
    /// A key cannot be used.
    #[error("the key cannot be used: {0}")]
    Key(String),
}

/// A key that signs.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    id: String,
}

impl SigningKey {
    /// A new key on P-256, as PKCS#8 in base64: how it is kept.
    pub fn generate() -> Result<String, JwtError> {
        let document = EcdsaKeyPair::generate_pkcs8(
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            &SystemRandom::new(),
        );
        document
            .map(|document| STANDARD.encode(document))
            .map_err(|error| JwtError::Key(error.to_string()))
    }

    /// Reads a kept key.
    pub fn read(kept: &str) -> Result<Self, JwtError> {
        let bytes = STANDARD
            .decode(kept)
            .map_err(|error| JwtError::Key(error.to_string()))?;
        let pair = EcdsaKeyPair::from_pkcs8(
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            &bytes,
            &SystemRandom::new(),
        )
        .map_err(|error| JwtError::Key(error.to_string()))?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(pair.public_key()));
        Ok(SigningKey { pair, id })
    }

    /// What verifies its signatures.
    pub fn verifier(&self) -> Verifier {
        Verifier {
            id: self.id.clone(),
            key: PublicKey::P256(self.pair.public_key().as_ref().to_vec()),
        }
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> Result<String, JwtError> {
        let head = json!({"alg": "ES256", "kid": self.id});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&head), part(claims));
        let signature = self
            .pair
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|error| JwtError::Key(error.to_string()))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// A key that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    /// Its name in tokens and key sets.
    pub id: String,
    key: PublicKey,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PublicKey {
    P256(Vec<u8>),
    P384(Vec<u8>),
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    #[serde(default)]
    kid: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Jwk {
    kty: String,
    kid: String,
    crv: String,
    #[serde(rename = "use")]
    usage: String,
    x: String,
    y: String,
    n: String,
    e: String,
}

impl Verifier {
    /// The keys of a key set that can be used to verify; others are left out.
    pub fn of_key_set(set: &Value) -> Vec<Verifier> {
        let keys = set.get("keys").and_then(Value::as_array);
        keys.into_iter()
            .flatten()
            .filter_map(|key| Verifier::of_jwk(serde_json::from_value(key.clone()).ok()?))
            .collect()
    }

    fn of_jwk(jwk: Jwk) -> Option<Verifier> {
        if !matches!(&*jwk.usage, "" | "sig") {
            return None;
        }
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
        let point = |size: usize| {
            let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
            (x.len() == size && y.len() == size).then(|| [&[4][..], &x, &y].concat())
        };
        let key = match (&*jwk.kty, &*jwk.crv) {
            ("EC", "P-256") => PublicKey::P256(point(32)?),
            ("EC", "P-384") => PublicKey::P384(point(48)?),
            ("RSA", _) => PublicKey::Rsa {
                n: bytes(&jwk.n)?,
                e: bytes(&jwk.e)?,
            },
            _ => return None,
        };
        Some(Verifier { id: jwk.kid, key })
    }

    /// The key in a key set. Only keys of the cluster's own kind are published.
    pub fn to_jwk(&self) -> Option<Value> {
        let PublicKey::P256(point) = &self.key else {
            return None;
        };
        let (x, y) = point.get(1..)?.split_at_checked(32)?;
        Some(json!({
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }))
    }

    fn verify(&self, algorithm: &str, signed: &[u8], signature: &[u8]) -> Result<(), JwtError> {
        let checked = match (&self.key, algorithm) {
            (PublicKey::P256(point), "ES256") => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                    .verify(signed, signature)
            }
            (PublicKey::P384(point), "ES384") => {
                UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point)
                    .verify(signed, signature)
            }
            (PublicKey::Rsa { n, e }, algorithm) => {
                let parameters = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    other => return Err(JwtError::Algorithm(other.to_owned())),
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature)
            }
            (_, other) => return Err(JwtError::Algorithm(other.to_owned())),
        };
        checked.map_err(|_| JwtError::Signature)
    }
}

/// What a token claims, nothing of it verified: to find out whose token it is.
pub fn unverified_claims(token: &str) -> Result<Value, JwtError> {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(JwtError::Malformed);
    };
    if token.len() > TOKEN_BYTES_MAX {
        return Err(JwtError::Malformed);
    }
    json_of(claims)
}

/// The claims of a token that one of the keys signed. A token without a key's name is tried with every key.
pub fn verified_claims(token: &str, keys: &[Verifier]) -> Result<Value, JwtError> {
    let claims = unverified_claims(token)?;
    let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
    let head = signed.split('.').next().ok_or(JwtError::Malformed)?;
    let head: Head = serde_json::from_value(json_of(head)?).map_err(|_| JwtError::Malformed)?;
    let signature = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| JwtError::Malformed)?;
    let mut last = JwtError::UnknownKey;
    for key in keys {
        if !head.kid.is_empty() && head.kid != key.id {
            continue;
        }
        match key.verify(&head.alg, signed.as_bytes(), &signature) {
            Ok(()) => return Ok(claims),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn json_of(part: &str) -> Result<Value, JwtError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| JwtError::Malformed)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| JwtError::Malformed)?;
    value
        .is_object()
        .then_some(value)
        .ok_or(JwtError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> SigningKey {
        SigningKey::read(&SigningKey::generate().expect("a key")).expect("readable")
    }

    #[test]
    fn only_the_signer_s_key_verifies() {
        let (key, other) = (key(), key());
        let token = key.sign(&json!({"sub": "a"})).expect("signs");
        let verified = verified_claims(&token, &[other.verifier(), key.verifier()]);
        assert_eq!(verified, Ok(json!({"sub": "a"})));
        let unknown = verified_claims(&token, &[other.verifier()]);
        assert_eq!(unknown, Err(JwtError::UnknownKey));
        // Another key under the same name.
        let impostor = Verifier {
            id: key.verifier().id,
            ..other.verifier()
        };
        assert_eq!(
            verified_claims(&token, &[impostor]),
            Err(JwtError::Signature)
        );
    }

    #[test]
    fn a_key_set_gives_the_same_keys() {
        let key = key();
        let set = json!({"keys": [key.verifier().to_jwk(), {"kty": "oct", "k": "x"}]});
        assert_eq!(Verifier::of_key_set(&set), [key.verifier()]);
    }

    #[test]
    fn no_algorithm_is_no_signature() {
        let key = key();
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let (head, claims) = (part(json!({"alg": "none"})), part(json!({"sub": "a"})));
        let token = format!("{head}.{claims}.");
        assert_eq!(
            verified_claims(&token, &[key.verifier()]),
            Err(JwtError::Algorithm("none".to_owned()))
        );
    }

    proptest! {
        #[test]
        fn whatever_is_no_token_is_refused(text in "[A-Za-z0-9_.=-]{0,80}|\\PC{0,40}") {
            prop_assert!(verified_claims(&text, &[key().verifier()]).is_err());
        }

        #[test]
        fn a_changed_token_is_refused(place in 0usize..200, bit in 0u8..6) {
            let key = key();
            let token = key.sign(&json!({"sub": "system:serviceaccount:a:b", "aud": ["x"]})).expect("signs");
            let mut bytes = token.clone().into_bytes();
            let place = place % bytes.len();
            bytes[place] ^= 1 << bit;
            // The last letter of base64 may hold bits that stand for nothing; those are refused too, or mean the same.
            if let Ok(changed) = String::from_utf8(bytes) && changed != token {
                prop_assert!(verified_claims(&changed, &[key.verifier()]).is_err());
            }
        }
    }
}
