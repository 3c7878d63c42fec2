//! Joining a cluster with a token, before any certificate is at hand.
//!
//! A token is `trireme.<SHA-256 of the CA's certificate, hex>.<secret>`: the hash says whom to trust, the secret who asks.

use crate::{Client, Config, ConfigError, Error, tls};
use objects::cluster::{JoinRequest, JoinResponse};
use std::fmt;
use std::str::FromStr;

/// A join token.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the CA's certificate in DER.
    pub ca_sha256: [u8; 32],
    /// The secret.
    pub secret: String,
}

impl FromStr for JoinToken {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = |reason: &str| ConfigError::Unusable {
            what: "the join token".to_owned(),
            reason: reason.to_owned(),
        };
        let mut parts = text.trim().split('.');
        let (Some("trireme"), Some(hash), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed(
                "it must read trireme.<hash>.<secret>, as in the file join-token of a master's data directory",
            ));
        };
        let mut ca_sha256 = [0; 32];
        hex::decode_to_slice(hash, &mut ca_sha256)
            .map_err(|_| malformed("its hash is not 64 hexadecimal digits"))?;
        if secret.is_empty() {
            return Err(malformed("its secret is empty"));
        }
        Ok(JoinToken {
            ca_sha256,
            secret: secret.to_owned(),
        })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trireme.{}.{}", hex::encode(self.ca_sha256), self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(secret not shown)")
    }
}

/// Asks the masters at `servers` to be taken in. Only a server of the token's CA is told the secret.
pub async fn join(
    servers: &[String],
    token: &JoinToken,
    request: &JoinRequest,
) -> Result<JoinResponse, Error> {
    let config = Config {
        servers: servers.to_vec(),
        token: Some(token.to_string().into()),
        ..Config::default()
    };
    let client = Client::with_tls(&config, tls::trusting_hash(token.ca_sha256)?);
    client.post("/cluster/v1/join", request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_hide_their_secret() {
        let token = JoinToken {
            ca_sha256: [7; 32],
            secret: "abc".to_owned(),
        };
        assert_eq!(
            token.to_string().parse::<JoinToken>().expect("parses"),
            token
        );
        assert!(!format!("{token:?}").contains("abc"));
        for text in [
            "",
            "trireme.00.abc",
            "k10.abc",
            &format!("trireme.{}.", hex::encode([7; 32])),
        ] {
            assert!(text.parse::<JoinToken>().is_err(), "{text}");
        }
    }
}
