//! Fills secrets of type `kubernetes.io/service-account-token` with a token of the account that they name, and deletes those
//! whose account is gone.
//!
//! A token is made once and stays: whoever copied it goes on with it. It is made anew only when no key of the cluster knows it any
//! more. Never touches a secret of another type. Semantics: Kubernetes' tokens controller.

use crate::controller::{Asked, Change, Controller, World};
use crate::plan::{Action, Plan, Precondition};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use objects::identities::service_account_user;
use objects::{GroupResource, Object, ObjectError, ObjectKey, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The type of such secrets.
pub const TYPE: &str = "kubernetes.io/service-account-token";
/// The issuer that such tokens name.
pub const ISSUER: &str = "kubernetes/serviceaccount";

const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// How soon it is tried again where no key is known yet.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is looked whether the token is still known.
const LOOK_EVERY: Duration = Duration::from_secs(24 * 3600);

/// The cluster's keys.
pub trait TokenSigner: Send + Sync {
    /// A token with these claims; why there is none: no key was read yet.
    fn sign(&self, claims: &Value) -> Result<String, String>;

    /// Whether one of the keys signed the token.
    fn knows(&self, token: &str) -> bool;
}

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input<'a> {
    /// The secret.
    pub secret: Arc<Object>,
    /// The account that it names, if there is one.
    pub account: Option<Arc<Object>>,
    /// The cluster's CA as PEM.
    pub ca_pem: &'a str,
    /// The keys.
    pub signer: &'a dyn TokenSigner,
}

/// Fills the secret, or deletes it when its account is gone.
pub fn reconcile(input: &Input<'_>, now: Timestamp) -> Plan {
    let (object, metadata) = (&input.secret, &input.secret.metadata);
    let Some(name) = account_of(object).filter(|_| !metadata.is_deleting()) else {
        return Plan::nothing();
    };
    let key = ObjectKey {
        resource: secrets(),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
    };
    let precondition = Precondition::unchanged(&metadata.uid.0, &metadata.resource_version);
    let claimed = metadata.annotations.get(ACCOUNT_UID);
    let account = input
        .account
        .as_ref()
        .map(|account| &account.metadata.uid.0);
    let Some(uid) = account.filter(|uid| claimed.is_none_or(|claimed| claimed == *uid)) else {
        return Plan::of(vec![Action::Delete {
            key,
            precondition,
            grace_seconds: None,
            propagation: None,
        }]);
    };
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let kept = data(object);
    let text = |member: &str| {
        let bytes = kept.as_ref()?.get(member)?;
        std::str::from_utf8(&bytes.0)
            .ok()
            .filter(|text| !text.is_empty())
    };
    let mut missing = json!({});
    for (member, wanted) in [("ca.crt", input.ca_pem), ("namespace", namespace)] {
        if text(member) != Some(wanted) {
            missing[member] = bytes(wanted);
        }
    }
    if !text("token").is_some_and(|token| input.signer.knows(token)) {
        let Ok(token) = input
            .signer
            .sign(&claims(namespace, &metadata.name, name, uid))
        else {
            return Plan {
                wake_at: Some(now.plus(RETRY)),
                ..Plan::nothing()
            };
        };
        missing["token"] = bytes(&token);
    }
    let mut plan = Plan {
        wake_at: Some(now.plus(LOOK_EVERY)),
        ..Plan::nothing()
    };
    let is_full = missing.as_object().is_none_or(|missing| missing.is_empty());
    if !is_full || claimed.is_none() {
        let annotations = json!({ ACCOUNT_UID: uid });
        plan.actions.push(Action::Patch {
            key,
            precondition,
            merge: json!({"metadata": {"annotations": annotations}, "data": missing}),
            subresource: None,
        });
    }
    plan
}

/// What such a token says. It has no end: it is good for as long as it lies in its secret.
fn claims(namespace: &str, secret: &str, account: &str, uid: &str) -> Value {
    json!({
        "iss": ISSUER,
        "sub": service_account_user(namespace, account),
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": secret,
        "kubernetes.io/serviceaccount/service-account.name": account,
        "kubernetes.io/serviceaccount/service-account.uid": uid,
    })
}

fn bytes(text: &str) -> Value {
    let bytes = ByteString(text.as_bytes().to_vec());
    serde_json::to_value(bytes).expect("bytes are a text in base64")
}

fn data(secret: &Object) -> Option<std::collections::BTreeMap<String, ByteString>> {
    secret.view::<Secret>().ok()?.data
}

/// The account that a secret of the type names.
fn account_of(secret: &Object) -> Option<&str> {
    let is_of_type = secret.body.get("type").and_then(Value::as_str) == Some(TYPE);
    let name = secret.metadata.annotations.get(ACCOUNT_NAME);
    name.map(String::as_str)
        .filter(|name| is_of_type && !name.is_empty())
}

fn secrets() -> GroupResource {
    GroupResource::new("", "secrets")
}

/// Runs [`reconcile`] for every secret of the type.
pub struct TokenSecretController {
    ca_pem: String,
    signer: Arc<dyn TokenSigner>,
}

impl TokenSecretController {
    /// With the cluster's CA and its keys.
    pub fn new(ca_pem: &str, signer: Arc<dyn TokenSigner>) -> Self {
        TokenSecretController {
            ca_pem: ca_pem.to_owned(),
            signer,
        }
    }
}

impl Controller for TokenSecretController {
    fn name(&self) -> &'static str {
        "serviceaccount-token"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        if change.is_of("", "secrets") && change.after.is_some() {
            return vec![change.key.clone()];
        }
        // Any of the namespace's may name the account.
        let came_or_went = change.before.map(|it| &it.uid) != change.after.map(|it| &it.uid);
        if change.is_of("", "serviceaccounts") && came_or_went {
            return world.keys(&secrets(), change.key.namespace.as_deref(), &|_| true);
        }
        Vec::new()
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(secret) = asked.world.get(asked.key) else {
            return Ok(Plan::nothing());
        };
        let Some(name) = account_of(&secret) else {
            return Ok(Plan::nothing());
        };
        let accounts = GroupResource::new("", "serviceaccounts");
        let account = ObjectKey::new(accounts, asked.key.namespace.as_deref(), name);
        let account = asked.world.get(&account);
        let (ca_pem, signer) = (&*self.ca_pem, &*self.signer);
        Ok(reconcile(
            &Input {
                secret,
                account,
                ca_pem,
                signer,
            },
            asked.now,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signs by saying what; knows what it signed.
    struct Plain(bool);

    impl TokenSigner for Plain {
        fn sign(&self, claims: &Value) -> Result<String, String> {
            match self.0 {
                true => Ok(format!(
                    "signed {}",
                    claims["sub"].as_str().unwrap_or_default()
                )),
                false => Err("no key".to_owned()),
            }
        }

        fn knows(&self, token: &str) -> bool {
            token.starts_with("signed ")
        }
    }

    fn object(value: Value) -> Arc<Object> {
        Arc::new(Object::from_value(value).expect("an object"))
    }

    fn plan(kind: &str, uid: Option<&str>, data: Value, account: Option<&str>, keys: bool) -> Plan {
        let mut annotations = json!({ ACCOUNT_NAME: "robot" });
        if let Some(uid) = uid {
            annotations[ACCOUNT_UID] = json!(uid);
        }
        let secret = object(
            json!({"kind": "Secret", "apiVersion": "v1", "type": kind, "data": data,
            "metadata": {"name": "s", "namespace": "a", "uid": "u", "resourceVersion": "7", "annotations": annotations}}),
        );
        let account = account.map(|uid| {
            object(json!({"kind": "ServiceAccount", "apiVersion": "v1",
                "metadata": {"name": "robot", "namespace": "a", "uid": uid}}))
        });
        let input = Input {
            secret,
            account,
            ca_pem: "CA",
            signer: &Plain(keys),
        };
        reconcile(&input, Timestamp::from_unix(0))
    }

    #[test]
    fn a_secret_gets_its_token_once() {
        let first = plan(TYPE, None, json!({}), Some("v"), true);
        let [Action::Patch { merge, .. }] = &first.actions[..] else {
            panic!("one patch: {first}");
        };
        assert_eq!(
            merge["metadata"]["annotations"],
            json!({ ACCOUNT_UID: "v" })
        );
        let filled = merge["data"].clone();
        assert_eq!(
            filled["token"],
            bytes("signed system:serviceaccount:a:robot")
        );
        assert_eq!(
            (&filled["ca.crt"], &filled["namespace"]),
            (&bytes("CA"), &bytes("a"))
        );
        assert!(plan(TYPE, Some("v"), filled.clone(), Some("v"), true).is_nothing());
        // A token that nobody knows is replaced, and it alone.
        let mut stale = filled;
        stale["token"] = bytes("of another cluster");
        let mended = plan(TYPE, Some("v"), stale, Some("v"), true);
        let [Action::Patch { merge, .. }] = &mended.actions[..] else {
            panic!("one patch: {mended}");
        };
        let members: Vec<&String> = merge["data"].as_object().expect("a map").keys().collect();
        assert_eq!(members, ["token"]);
    }

    #[test]
    fn it_goes_with_its_account() {
        let is_deleted = |plan: Plan| matches!(&plan.actions[..], [Action::Delete { .. }]);
        assert!(is_deleted(plan(TYPE, None, json!({}), None, true)));
        // An account that was made anew under the same name is another.
        assert!(is_deleted(plan(
            TYPE,
            Some("old"),
            json!({}),
            Some("v"),
            true
        )));
        assert!(plan("Opaque", None, json!({}), None, true).is_nothing());
    }

    #[test]
    fn without_a_key_it_waits() {
        let waits = plan(TYPE, None, json!({}), Some("v"), false);
        assert!(waits.is_nothing());
        assert_eq!(waits.wake_at, Some(Timestamp::from_unix(1)));
    }
}
