//! Tokens of one OpenID Connect issuer. Its keys are fetched with a deadline, kept, and fetched anew when a token names an unknown
//! one, at most every few seconds. Rules and flags: Kubernetes' `--oidc-*`. A user or group that begins with `system:` is
//! never taken from an issuer: those names are the cluster's own.

use super::jwt::{self, JwtError, Verifier};
use objects::Timestamp;
use objects::identities::AUTHENTICATED_GROUP;
use registry::Caller;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

const FETCH_MAX: Duration = Duration::from_secs(10);
const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Unknown keys make the server ask again this often at most.
const REFETCH_AFTER: Duration = Duration::from_secs(10);
/// Keys that an issuer withdraws are believed no longer than this.
const KEEP_MAX: Duration = Duration::from_secs(3600);
const RESERVED_PREFIX: &str = "system:";

/// An issuer, and how its claims are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OidcConfig {
    /// Its URL, as its tokens name it.
    pub issuer_url: String,
    /// The audience that a token must have.
    pub client_id: String,
    /// The claim that is the user's name; `sub` where nothing is said.
    pub username_claim: String,
    /// What is put before the name; `-` for nothing, and where nothing is said the issuer and `#`, except for `email`.
    pub username_prefix: Option<String>,
    /// The claim that lists the groups.
    pub groups_claim: Option<String>,
    /// What is put before each group.
    pub groups_prefix: String,
    /// Claims that must have these values.
    pub required_claims: BTreeMap<String, String>,
    /// The CAs that the issuer's certificate may come from, as PEM.
    pub ca_pem: String,
}

/// Why a token is not taken, or the issuer cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// The configuration cannot be used.
    #[error("the OpenID Connect issuer cannot be used: {0}")]
    Config(String),
    /// The issuer could not be asked.
    #[error("the issuer could not be asked for its keys: {0}")]
    Fetch(String),
    /// The token itself.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// What it claims.
    #[error("the token's claims are refused: {0}")]
    Claims(String),
}

/// An issuer that is trusted.
pub struct Oidc {
    config: OidcConfig,
    http: reqwest::Client,
    keys: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    keys: Arc<[Verifier]>,
    fetched: Option<Instant>,
    /// When the issuer was asked last, whether it answered or not.
    asked: Option<Instant>,
}

impl Oidc {
    /// Nothing is asked of the issuer yet.
    pub fn new(config: OidcConfig) -> Result<Self, OidcError> {
        let wrong = |why: &str| OidcError::Config(why.to_owned());
        if !config.issuer_url.starts_with("https://") {
            return Err(wrong("its URL must begin with https://"));
        }
        if config.client_id.is_empty() {
            return Err(wrong("a client id is needed: the audience of its tokens"));
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(config.ca_pem.as_bytes()) {
            let certificate = certificate.map_err(|error| OidcError::Config(error.to_string()))?;
            // A bundle of the system may hold some that are not understood.
            let _ = roots.add(certificate);
        }
        if roots.is_empty() {
            return Err(wrong("no CA is known for it"));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| OidcError::Config(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(FETCH_MAX)
            .build()
            .map_err(|error| OidcError::Config(error.to_string()))?;
        Ok(Oidc {
            config,
            http,
            keys: Mutex::default(),
        })
    }

    /// Its name in tokens.
    pub fn issuer(&self) -> &str {
        &self.config.issuer_url
    }

    /// Who has the token.
    pub async fn review(&self, token: &str, now: Timestamp) -> Result<Caller, OidcError> {
        let keys = self.keys(false).await?;
        let claims = match jwt::verified_claims(token, &keys) {
            Err(JwtError::UnknownKey) => jwt::verified_claims(token, &self.keys(true).await?)?,
            claims => claims?,
        };
        caller_of(&self.config, &claims, now.unix_ms() / 1000)
    }

    /// The issuer's keys; `anew` when those that are kept did not do.
    async fn keys(&self, anew: bool) -> Result<Arc<[Verifier]>, OidcError> {
        // Whoever waits here finds what the one before fetched.
        let mut kept = self.keys.lock().await;
        let within = |since: Option<Instant>, time| since.is_some_and(|at| at.elapsed() < time);
        let is_fresh = within(kept.fetched, KEEP_MAX);
        let asked_lately = within(kept.asked, REFETCH_AFTER);
        if is_fresh && (!anew || asked_lately) {
            return Ok(kept.keys.clone());
        }
        if asked_lately && kept.fetched.is_none() {
            return Err(OidcError::Fetch("it failed a moment ago".to_owned()));
        }
        kept.asked = Some(Instant::now());
        let fetched = tokio::time::timeout(FETCH_MAX, self.fetch()).await;
        let late = |_| {
            Err(OidcError::Fetch(format!(
                "it took longer than {FETCH_MAX:?}"
            )))
        };
        // Whoever sent the token is told nothing of it; who runs the cluster must know.
        let keys = fetched.unwrap_or_else(late).inspect_err(|error| {
            warn!(issuer = self.issuer(), %error, "no token of this issuer is accepted");
        })?;
        kept.keys = keys.into();
        kept.fetched = Some(Instant::now());
        Ok(kept.keys.clone())
    }

    async fn fetch(&self) -> Result<Vec<Verifier>, OidcError> {
        let issuer = self.config.issuer_url.trim_end_matches('/');
        let address = format!("{issuer}/.well-known/openid-configuration");
        let configuration = self.document(&address).await?;
        let text = |member: &str| {
            let text = configuration.get(member).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        if text("issuer") != self.config.issuer_url {
            return Err(OidcError::Fetch(format!(
                "{address} names another issuer, {:?}",
                text("issuer")
            )));
        }
        let set = self.document(&text("jwks_uri")).await?;
        Ok(Verifier::of_key_set(&set))
    }

    async fn document(&self, address: &str) -> Result<Value, OidcError> {
        let failed = |why: String| OidcError::Fetch(format!("{address}: {why}"));
        if !address.starts_with("https://") {
            return Err(failed("only https is asked".to_owned()));
        }
        let mut response = self
            .http
            .get(address)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(|error| failed(error.to_string()))?;
        let mut bytes = Vec::new();
        while let Some(part) = response
            .chunk()
            .await
            .map_err(|error| failed(error.to_string()))?
        {
            bytes.extend_from_slice(&part);
            if bytes.len() > DOCUMENT_BYTES_MAX {
                return Err(failed(format!(
                    "it is larger than {DOCUMENT_BYTES_MAX} bytes"
                )));
            }
        }
        serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))
    }
}

/// The user that verified claims describe.
pub fn caller_of(config: &OidcConfig, claims: &Value, now: i64) -> Result<Caller, OidcError> {
    let refused = |why: String| Err(OidcError::Claims(why));
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(&*config.issuer_url) {
        return refused("another issuer".to_owned());
    }
    let for_us = match claims.get("aud") {
        Some(Value::String(one)) => *one == config.client_id,
        Some(Value::Array(many)) => many
            .iter()
            .any(|one| one.as_str() == Some(&*config.client_id)),
        _ => false,
    };
    if !for_us {
        return refused(format!("they are not for {:?}", config.client_id));
    }
    let number = |name: &str| claims.get(name).and_then(Value::as_f64);
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds since 1970 are far below 2^52"
    )]
    let now = now as f64;
    match number("exp") {
        Some(end) if end > now => {}
        Some(_) => return refused("they have expired".to_owned()),
        None => return refused("they have no expiry".to_owned()),
    }
    if number("nbf").is_some_and(|from| from > now + 10.0) {
        return refused("they are not valid yet".to_owned());
    }
    for (name, wanted) in &config.required_claims {
        if text(name) != Some(wanted) {
            return refused(format!("{name} is not what is required"));
        }
    }
    let claim = match &*config.username_claim {
        "" => "sub",
        claim => claim,
    };
    let Some(name) = text(claim).filter(|name| !name.is_empty()) else {
        return refused(format!("{claim} is missing"));
    };
    // What is there and is not `true`, whatever it is, vouches for nothing.
    let verified = claims.get("email_verified").unwrap_or(&Value::Bool(true));
    if claim == "email" && verified != &Value::Bool(true) {
        return refused("email is not verified".to_owned());
    }
    let prefix = match config.username_prefix.as_deref() {
        Some("-") => String::new(),
        Some(prefix) => prefix.to_owned(),
        None if claim == "email" => String::new(),
        None => format!("{}#", config.issuer_url),
    };
    let user = format!("{prefix}{name}");
    if user.starts_with(RESERVED_PREFIX) {
        return refused(format!("the name {user:?} is the cluster's own"));
    }
    let listed = match config
        .groups_claim
        .as_deref()
        .and_then(|name| claims.get(name))
    {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let mut groups: Vec<String> = listed
        .into_iter()
        .map(|group| format!("{}{group}", config.groups_prefix))
        .filter(|group| !group.starts_with(RESERVED_PREFIX))
        .collect();
    groups.push(AUTHENTICATED_GROUP.to_owned());
    Ok(Caller {
        user,
        groups,
        ..Caller::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config() -> OidcConfig {
        OidcConfig {
            issuer_url: "https://issuer.example".to_owned(),
            client_id: "cluster".to_owned(),
            groups_claim: Some("groups".to_owned()),
            ..OidcConfig::default()
        }
    }

    fn claims() -> Value {
        json!({"iss": "https://issuer.example", "aud": ["cluster"], "exp": 200, "sub": "ann",
            "groups": ["devs", "system:masters"]})
    }

    #[test]
    fn a_user_is_told_apart_from_the_cluster_s_own() {
        let caller = caller_of(&config(), &claims(), 100).expect("is taken");
        assert_eq!(caller.user, "https://issuer.example#ann");
        assert_eq!(caller.groups, ["devs", AUTHENTICATED_GROUP]);
        let mut plain = config();
        plain.username_prefix = Some("-".to_owned());
        let mut impostor = claims();
        impostor["sub"] = json!("system:node:n1");
        assert!(caller_of(&plain, &impostor, 100).is_err());
        assert_eq!(
            caller_of(&plain, &claims(), 100).expect("is taken").user,
            "ann"
        );
    }

    #[test]
    fn what_is_late_or_for_others_is_refused() {
        assert!(caller_of(&config(), &claims(), 200).is_err());
        for (member, value) in [
            ("aud", json!("other")),
            ("iss", json!("https://other.example")),
            ("exp", json!(null)),
            ("nbf", json!(150)),
            ("sub", json!("")),
        ] {
            let mut changed = claims();
            changed[member] = value;
            assert!(caller_of(&config(), &changed, 100).is_err(), "{member}");
        }
        let mut strict = config();
        strict
            .required_claims
            .insert("hd".to_owned(), "example.com".to_owned());
        assert!(caller_of(&strict, &claims(), 100).is_err());
    }
}
