//! Join tokens: the store keeps only the hash of a token's secret, so that whoever reads the store cannot join.

use crate::clock;
use anyhow::{Context, Result};
use client::JoinToken;
use mvcc::{KeyRange, Op, RangeRequest, Store, StoreError, Txn};
use sha2::{Digest, Sha256};

const PREFIX: &str = "/trireme/join-tokens/";
const SECRET_BYTES: usize = 24;

/// Makes a token and remembers it.
pub async fn create(store: &dyn Store, ca_sha256: [u8; 32]) -> Result<JoinToken> {
    let token = JoinToken {
        ca_sha256,
        secret: clock::secret(SECRET_BYTES),
    };
    let created = format!("{{\"created\":\"{}\"}}", clock::now());
    let put = Op::put(key_of(&token.secret), created.into_bytes());
    store
        .txn(Txn {
            success: vec![put],
            ..Txn::default()
        })
        .await
        .context("the join token could not be stored")?;
    Ok(token)
}

/// Whether the store remembers the token's secret.
pub async fn is_known(store: &dyn Store, token: &JoinToken) -> Result<bool, StoreError> {
    let found = store
        .range(RangeRequest::new(KeyRange::key(key_of(&token.secret))))
        .await?;
    Ok(!found.kvs.is_empty())
}

fn key_of(secret: &str) -> Vec<u8> {
    format!("{PREFIX}{}", hex::encode(Sha256::digest(secret))).into_bytes()
}
