//! Bearer tokens: whose they are. Service accounts' (signed with the cluster's own keys, bound to what lives or kept in a secret), an OpenID Connect
//! issuer's, and bootstrap tokens. Rules: Kubernetes' authenticators; where two could know a token, its issuer decides.

mod account;
mod bootstrap;
pub mod input;
mod jwt;
mod oidc;
mod secret;

pub use account::grant;
pub use jwt::JwtError;
pub use oidc::{Oidc, OidcConfig, OidcError};

use crate::ApiServer;
use jwt::{SigningKey, Verifier};
use objects::Status;
use registry::Caller;
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError, RwLock};
use tracing::debug;

/// The keys that sign service accounts' tokens; cheap to clone, and all clones follow [`TokenKeys::replace`].
#[derive(Clone)]
pub struct TokenKeys(Arc<RwLock<Option<Arc<KeySet>>>>);

struct KeySet {
    signing: SigningKey,
    verifying: Vec<Verifier>,
}

impl KeySet {
    fn read(kept: &[String]) -> Result<Self, JwtError> {
        let keys = kept
            .iter()
            .map(|kept| SigningKey::read(kept))
            .collect::<Result<Vec<_>, _>>()?;
        let verifying = keys.iter().map(SigningKey::verifier).collect();
        let signing = keys.into_iter().next();
        Ok(KeySet {
            signing: signing.ok_or_else(|| JwtError::Key("there is none".to_owned()))?,
            verifying,
        })
    }
}

impl TokenKeys {
    /// A new key, as it is kept: whoever has it can sign.
    pub fn generate() -> Result<String, JwtError> {
        SigningKey::generate()
    }

    /// None yet: tokens are neither made nor refused until [`TokenKeys::replace`] gives some.
    pub fn none() -> Self {
        TokenKeys(Arc::default())
    }

    /// From now on these kept keys count: the first signs, all verify.
    pub fn replace(&self, kept: &[String]) -> Result<(), JwtError> {
        let keys = Arc::new(KeySet::read(kept)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(keys);
        Ok(())
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> Result<String, Status> {
        let signed = self.current()?.signing.sign(claims);
        signed.map_err(Status::internal)
    }

    /// Whether one of the keys signed the token, whatever it says.
    pub fn signed(&self, token: &str) -> bool {
        let keys = self.current();
        keys.is_ok_and(|keys| jwt::verified_claims(token, &keys.verifying).is_ok())
    }

    fn current(&self) -> Result<Arc<KeySet>, Status> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone().ok_or_else(|| {
            Status::unavailable("the keys of tokens have not been read yet; try again")
        })
    }
}

/// Who a token is of, and for whom it was made.
#[derive(Clone, Debug)]
pub struct Known {
    /// Who.
    pub caller: Caller,
    /// Those of the asked audiences for which the token is good.
    pub audiences: Vec<String>,
}

/// Why a token is not taken; for a `TokenReview` and the log, never for whoever sent it.
pub type Refused = String;

/// The name of the cluster as an issuer, which is also the audience of the API.
pub fn issuer(server: &ApiServer) -> String {
    let domain = &server.pipeline().settings().cluster_domain;
    format!("https://kubernetes.default.svc.{domain}")
}

/// `GET /.well-known/openid-configuration`
pub fn configuration(server: &ApiServer) -> Value {
    let issuer = issuer(server);
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

/// `GET /openid/v1/jwks`
pub fn key_set(server: &ApiServer) -> Result<Value, Status> {
    let keys = server.token_keys().current()?;
    let keys: Vec<Value> = keys.verifying.iter().filter_map(Verifier::to_jwk).collect();
    Ok(json!({ "keys": keys }))
}

impl ApiServer {
    /// Who sent this token; 401 for one that is not taken.
    pub(crate) async fn authenticate(&self, token: &str) -> Result<Caller, Status> {
        // A token that cannot be judged yet is not refused.
        self.token_keys().current()?;
        match self.review_token(token, &[]).await {
            Ok(known) => Ok(known.caller),
            Err(why) => {
                debug!(why, "a bearer token was refused");
                Err(Status::unauthorized())
            }
        }
    }

    /// Whose the token is, if it is good for one of the audiences; for the API itself where none is asked.
    pub(crate) async fn review_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Known, Refused> {
        let own = issuer(self);
        let asked = match audiences {
            [] => std::slice::from_ref(&own),
            asked => asked,
        };
        if let Some((id, secret)) = bootstrap::parts(token) {
            return for_the_api(bootstrap::review(self, id, secret).await?, &own, asked);
        }
        let claims = jwt::unverified_claims(token).map_err(|error| error.to_string())?;
        let named = claims.get("iss").and_then(Value::as_str);
        let named = named.unwrap_or_default().to_owned();
        if named == own {
            return account::review(self, token, asked).await;
        }
        if named == secret::ISSUER {
            return for_the_api(secret::review(self, token).await?, &own, asked);
        }
        match self.oidc() {
            Some(oidc) if oidc.issuer() == named => {
                let now = self.pipeline().shell().now();
                let caller = oidc.review(token, now).await;
                for_the_api(caller.map_err(|error| error.to_string())?, &own, asked)
            }
            _ => Err(format!("no issuer {named:?} is trusted here")),
        }
    }
}

/// What knows no audience is good for the API alone.
fn for_the_api(caller: Caller, own: &str, asked: &[String]) -> Result<Known, Refused> {
    if !asked.iter().any(|audience| audience == own) {
        return Err("the token is good for the API alone".to_owned());
    }
    Ok(Known {
        caller,
        audiences: vec![own.to_owned()],
    })
}
