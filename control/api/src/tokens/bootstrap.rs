//! Bootstrap tokens: `ID.SECRET`, kept as a Secret `bootstrap-token-ID` of kube-system. Rule: Kubernetes' bootstrap token
//! authenticator. The secret's text is compared by hash, so that the time tells nothing.

use super::Refused;
use crate::ApiServer;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use objects::Timestamp;
use objects::identities::AUTHENTICATED_GROUP;
use registry::Caller;
use serde_json::Value;
use sha2::{Digest, Sha256};

const GROUP: &str = "system:bootstrappers";
const TYPE: &str = "bootstrap.kubernetes.io/token";

/// Id and secret, of a text that has the form of a bootstrap token.
pub fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
    };
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// Who has the token.
pub async fn review(server: &ApiServer, id: &str, secret: &str) -> Result<Caller, Refused> {
    let name = format!("bootstrap-token-{id}");
    let kept = server
        .read("", "v1", "secrets", Some("kube-system"), &name)
        .await
        .map_err(|status| format!("the bootstrap token {id} cannot be read: {status}"))?;
    let kept: Value = serde_json::from_slice(&kept).map_err(|error| error.to_string())?;
    let text = |key: &str| {
        let value = kept.pointer(&format!("/data/{key}"))?.as_str()?;
        String::from_utf8(STANDARD.decode(value).ok()?).ok()
    };
    let refused = |why: &str| Err(format!("the bootstrap token {id} {why}"));
    if kept.pointer("/metadata/deletionTimestamp").is_some() {
        return refused("is being deleted");
    }
    if kept.get("type").and_then(Value::as_str) != Some(TYPE) {
        return refused("lies in a secret of another type");
    }
    let known = text("token-secret").unwrap_or_default();
    if known.is_empty() || Sha256::digest(&known) != Sha256::digest(secret) {
        return refused("has another secret");
    }
    if text("token-id").as_deref() != Some(id) {
        return refused("has another id in its secret");
    }
    if let Some(expiration) = text("expiration") {
        match Timestamp::parse(&expiration) {
            Some(end) if end > server.pipeline().shell().now() => {}
            Some(_) => return refused("has expired"),
            None => return refused("has an expiration that is no time"),
        }
    }
    if text("usage-bootstrap-authentication").as_deref() != Some("true") {
        return refused("may not be used to authenticate");
    }
    let mut groups = vec![GROUP.to_owned()];
    let extra = text("auth-extra-groups").unwrap_or_default();
    for group in extra.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        if !group.starts_with("system:bootstrappers:") {
            return refused("names a group that is not of bootstrappers");
        }
        groups.push(group.to_owned());
    }
    groups.push(AUTHENTICATED_GROUP.to_owned());
    Ok(Caller {
        user: format!("system:bootstrap:{id}"),
        groups,
        ..Caller::default()
    })
}
