//! `ctl keys`: the cluster's key ring.

use crate::cli::Keys;
use crate::context::Context;
use anyhow::Result;
use client::{Deadline, Payload};
use http::Method;
use objects::cluster::{KeyRotation, KeysRotated};
use std::time::Duration;

/// Every secret is read and written for the answer.
const ROTATE_DEADLINE: Deadline = Deadline(Duration::from_secs(600));

/// Does what was typed.
pub async fn run(context: &Context, command: Keys) -> Result<()> {
    let Keys::Rotate { secrets, tokens } = command;
    let both = !secrets && !tokens;
    let rotation = KeyRotation {
        secrets: secrets || both,
        tokens: tokens || both,
    };
    let done: KeysRotated = context
        .client
        .call(
            Method::POST,
            "/cluster/v1/keys/rotate",
            Payload::json(&rotation),
            ROTATE_DEADLINE,
        )
        .await?;
    if rotation.secrets {
        println!(
            "a new key seals secrets; {} were sealed again, {} keys are kept for them and their history",
            done.secrets_sealed, done.secret_keys_kept
        );
    }
    if rotation.tokens {
        println!(
            "a new key signs tokens; {} keys are kept to verify them",
            done.token_keys_kept
        );
    }
    Ok(())
}
