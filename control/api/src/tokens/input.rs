//! Tokens judged as functions of their bytes alone, at a time that stands still: for fuzzing and for tests.

use super::jwt::{self, Verifier};
use super::{OidcConfig, Refused, account, bootstrap, oidc};
use registry::Caller;
use serde_json::Value;

/// 2026-01-01, in seconds.
const NOW: i64 = 1_767_225_600;

fn issuer() -> OidcConfig {
    OidcConfig {
        issuer_url: "https://issuer.example".to_owned(),
        client_id: "cluster".to_owned(),
        username_claim: "email".to_owned(),
        username_prefix: Some("oidc:".to_owned()),
        groups_claim: Some("groups".to_owned()),
        groups_prefix: "oidc:".to_owned(),
        required_claims: [("tenant".to_owned(), "a".to_owned())].into(),
        ca_pem: String::new(),
    }
}

/// The user of a token that a key of the set signed.
pub fn signed(token: &str, key_set: &Value) -> Result<Caller, Refused> {
    let keys = Verifier::of_key_set(key_set);
    let claims = jwt::verified_claims(token, &keys).map_err(|error| error.to_string())?;
    oidc::caller_of(&issuer(), &claims, NOW).map_err(|error| error.to_string())
}

/// The user whom claims describe that nobody verified.
pub fn unsigned(token: &str) -> Result<Caller, Refused> {
    if let Some((id, secret)) = bootstrap::parts(token) {
        return Err(format!("{id} and {} letters", secret.len()));
    }
    let claims = jwt::unverified_claims(token).map_err(|error| error.to_string())?;
    let _ = account::read(claims.clone()); // Whatever it says; it must only not break.
    oidc::caller_of(&issuer(), &claims, NOW).map_err(|error| error.to_string())
}
