//! Tokens that lie in secrets of type `kubernetes.io/service-account-token`: they name no end and no audience, and are good for the
//! API for as long as their secret holds them and their account lives. Rules: Kubernetes' validator of such tokens.

use super::account::{Named, is_still};
use super::{Refused, jwt};
use crate::ApiServer;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use objects::Uid;
use objects::identities::{service_account_groups, service_account_user};
use registry::Caller;
use serde::Deserialize;
use serde_json::Value;

/// The issuer that they name.
pub const ISSUER: &str = "kubernetes/serviceaccount";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Claims {
    sub: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: Uid,
}

/// Whose the token is.
pub async fn review(server: &ApiServer, token: &str) -> Result<Caller, Refused> {
    let keys = server.token_keys().current();
    let keys = keys.map_err(|status| status.to_string())?;
    let claims = jwt::verified_claims(token, &keys.verifying).map_err(|error| error.to_string())?;
    let claims: Claims = serde_json::from_value(claims).map_err(|error| error.to_string())?;
    let (namespace, name) = (&claims.namespace, &claims.account);
    if claims.sub != service_account_user(namespace, name) {
        return Err("the token's subject is not its service account".to_owned());
    }
    let account = Named {
        name: name.clone(),
        uid: claims.uid.clone(),
    };
    is_still(server, "serviceaccounts", Some(namespace), &account).await?;
    let secret = server
        .read("", "v1", "secrets", Some(namespace), &claims.secret)
        .await
        .map_err(|status| format!("the token's secret cannot be read: {status}"))?;
    let secret: Value = serde_json::from_slice(&secret).map_err(|error| error.to_string())?;
    let held = secret.pointer("/data/token").and_then(Value::as_str);
    let held = held.and_then(|held| STANDARD.decode(held).ok());
    if held.as_deref() != Some(token.as_bytes()) {
        return Err(format!("secret {} holds another token", claims.secret));
    }
    if secret.pointer("/metadata/deletionTimestamp").is_some() {
        return Err(format!("secret {} is being deleted", claims.secret));
    }
    Ok(Caller {
        user: claims.sub,
        groups: service_account_groups(namespace),
        uid: claims.uid.to_string(),
        ..Caller::default()
    })
}
