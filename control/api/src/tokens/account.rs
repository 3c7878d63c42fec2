//! Tokens of service accounts: made for an account, for audiences, for a time, and bound to what must still live: the account,
//! and a pod, secret or node. Claims and checks: Kubernetes' bound service account tokens.

use super::{Known, Refused, issuer, jwt};
use crate::ApiServer;
use objects::identities::{service_account_groups, service_account_user};
use objects::{Cause, GroupResource, Reason, Status, Timestamp, Uid};
use registry::rbac::node_of;
use registry::{Caller, Target};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const SECONDS_DEFAULT: i64 = 3600;
const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;
/// Clocks of masters differ by this at most.
const SKEW: Duration = Duration::from_secs(10);

/// What stands in a token beside the registered claims.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Private {
    namespace: String,
    serviceaccount: Named,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Named>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Named {
    pub name: String,
    pub uid: Uid,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Claims {
    aud: Vec<String>,
    exp: i64,
    nbf: i64,
    sub: String,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    private: Private,
}

/// What a `TokenRequest` asks.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    audiences: Option<Vec<String>>,
    expiration_seconds: Option<i64>,
    bound_object_ref: Option<Bound>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
struct Bound {
    kind: String,
    api_version: String,
    name: String,
    uid: Uid,
}

/// Answers a `TokenRequest` for the account that the target names.
pub async fn grant(
    server: &ApiServer,
    caller: &Caller,
    target: &Target,
    body: Value,
    dry_run: bool,
) -> Result<Value, Status> {
    let key = target.key()?;
    let namespace = key.namespace.clone().unwrap_or_default();
    let account = server
        .read("", "v1", "serviceaccounts", Some(&namespace), &key.name)
        .await?;
    let account = uid_of(&account)?;
    let asked = body.get("spec").cloned().unwrap_or_else(|| json!({}));
    let spec: Spec = serde_json::from_value(asked).map_err(|error| {
        Status::bad_request(format!(
            "TokenRequest in version \"v1\" is malformed: {error}"
        ))
    })?;
    let seconds = spec.expiration_seconds.unwrap_or(SECONDS_DEFAULT);
    check_seconds(seconds)?;
    let audiences = match spec.audiences {
        Some(audiences) if !audiences.is_empty() => audiences,
        _ => vec![issuer(server)],
    };
    let mut private = Private {
        namespace: namespace.clone(),
        serviceaccount: Named {
            name: key.name.clone(),
            uid: account,
        },
        ..Private::default()
    };
    restrict_node(server, caller, &namespace, &spec.bound_object_ref)?;
    if let Some(bound) = &spec.bound_object_ref {
        bind(server, &mut private, bound).await?;
    }
    let now = server.pipeline().shell().now();
    let end = now.plus(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    let token = if dry_run {
        String::new()
    } else {
        let claims = json!({
            "iss": issuer(server), "sub": service_account_user(&namespace, &key.name),
            "aud": audiences, "jti": server.pipeline().shell().uid(),
            "iat": unix(now), "nbf": unix(now), "exp": unix(end), "kubernetes.io": private,
        });
        let keys = server.token_keys().current()?;
        keys.signing.sign(&claims).map_err(Status::internal)?
    };
    let mut answer = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": key.name, "namespace": namespace, "creationTimestamp": now},
        "spec": {"audiences": audiences, "expirationSeconds": seconds},
        "status": {"token": token, "expirationTimestamp": end},
    });
    if let Some(bound) = &spec.bound_object_ref {
        answer["spec"]["boundObjectRef"] = json!(bound);
    }
    Ok(answer)
}

fn check_seconds(seconds: i64) -> Result<(), Status> {
    let why = match seconds {
        ..SECONDS_MIN => "may not specify a duration less than 10 minutes",
        SECONDS_MIN..=SECONDS_MAX => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let cause = Cause {
        reason: "FieldValueInvalid".to_owned(),
        message: format!("Invalid value: {seconds}: {why}"),
        field: "spec.expirationSeconds".to_owned(),
    };
    let group = "authentication.k8s.io";
    Err(Status::invalid(group, "TokenRequest", "", vec![cause]))
}

/// A node gets tokens only for pods that are bound to it.
fn restrict_node(
    server: &ApiServer,
    caller: &Caller,
    namespace: &str,
    bound: &Option<Bound>,
) -> Result<(), Status> {
    let Some(node) = node_of(caller) else {
        return Ok(());
    };
    let refused = |why: String| {
        let resource = GroupResource::new("", "serviceaccounts");
        Err(Status::forbidden(&resource, "", &why))
    };
    let Some(bound) = bound
        .as_ref()
        .filter(|bound| bound.kind == "Pod" && !bound.name.is_empty())
    else {
        return refused("node requested token not bound to a pod".to_owned());
    };
    if bound.uid.0.is_empty() {
        return refused("node requested token with a pod binding without a uid".to_owned());
    }
    let pod = server.pipeline().access().pod(namespace, &bound.name);
    match pod {
        Some(pod) if pod.uid == bound.uid && pod.node == node => Ok(()),
        Some(pod) if pod.uid != bound.uid => refused(format!(
            "the UID in the bound object reference ({}) does not match the UID in record ({})",
            bound.uid, pod.uid
        )),
        _ => refused(format!(
            "node requested token bound to a pod scheduled on a different node or not known: {}",
            bound.name
        )),
    }
}

/// Notes in the token what it is bound to.
async fn bind(server: &ApiServer, private: &mut Private, bound: &Bound) -> Result<(), Status> {
    let namespace = private.namespace.clone();
    let (resource, home) = match &*bound.kind {
        "Pod" => ("pods", Some(&*namespace)),
        "Secret" => ("secrets", Some(&*namespace)),
        "Node" => ("nodes", None),
        other => {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to type {:?}; use a Pod, Secret or Node",
                private.serviceaccount.name, other
            )));
        }
    };
    let object = server.read("", "v1", resource, home, &bound.name).await?;
    let uid = uid_of(&object)?;
    if !bound.uid.0.is_empty() && bound.uid != uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            bound.uid
        );
        let resource = GroupResource::new("", resource);
        return Err(Status::conflict(&resource, &bound.name, &why));
    }
    let named = Named {
        name: bound.name.clone(),
        uid,
    };
    match &*bound.kind {
        "Pod" => {
            let pod: Value = serde_json::from_slice(&object).map_err(Status::internal)?;
            let spec = |member: &str| {
                let text = pod.pointer(&format!("/spec/{member}"));
                text.and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            if spec("serviceAccountName") != private.serviceaccount.name {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    private.serviceaccount.name
                )));
            }
            private.pod = Some(named);
            let node = spec("nodeName");
            if !node.is_empty()
                && let Ok(object) = server.read("", "v1", "nodes", None, &node).await
            {
                private.node = Some(Named {
                    name: node,
                    uid: uid_of(&object)?,
                });
            }
        }
        "Secret" => private.secret = Some(named),
        _ => private.node = Some(named),
    }
    Ok(())
}

/// Whose the token is, if it is signed here, in time, for one of the audiences, and what it is bound to lives.
pub async fn review(
    server: &ApiServer,
    token: &str,
    audiences: &[String],
) -> Result<Known, Refused> {
    let keys = server.token_keys().current();
    let keys = keys.map_err(|status| status.to_string())?;
    let claims = jwt::verified_claims(token, &keys.verifying).map_err(|error| error.to_string())?;
    let claims = read(claims)?;
    let now = server.pipeline().shell().now();
    if claims.exp <= unix(now) {
        return Err("the token has expired".to_owned());
    }
    if claims.nbf > unix(now.plus(SKEW)) {
        return Err("the token is not valid yet".to_owned());
    }
    let audiences: Vec<String> = audiences
        .iter()
        .filter(|audience| claims.aud.contains(audience))
        .cloned()
        .collect();
    if audiences.is_empty() {
        return Err(format!("the token is for {:?}", claims.aud));
    }
    let private = claims.private;
    let (namespace, name) = (&private.namespace, &private.serviceaccount.name);
    if claims.sub != service_account_user(namespace, name) {
        return Err("the token's subject is not its service account".to_owned());
    }
    check_alive(server, &private).await?;
    let mut extra = BTreeMap::new();
    let mut tell = |key: &str, value: String| {
        extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
    };
    if !claims.jti.is_empty() {
        tell("credential-id", format!("JTI={}", claims.jti));
    }
    for (kind, named) in [("pod", &private.pod), ("node", &private.node)] {
        if let Some(Named { name, uid }) = named {
            tell(&format!("{kind}-name"), name.clone());
            tell(&format!("{kind}-uid"), uid.to_string());
        }
    }
    Ok(Known {
        caller: Caller {
            user: claims.sub,
            groups: service_account_groups(namespace),
            uid: private.serviceaccount.uid.to_string(),
            extra,
            fence: None,
        },
        audiences,
    })
}

/// The claims of one of the cluster's own tokens.
pub fn read(claims: Value) -> Result<Claims, Refused> {
    serde_json::from_value(claims).map_err(|error| error.to_string())
}

/// Whether the account and what the token is bound to are still those.
async fn check_alive(server: &ApiServer, private: &Private) -> Result<(), Refused> {
    let namespace = Some(&*private.namespace);
    let access = server.pipeline().access();
    let account = &private.serviceaccount;
    let known = access.account(&private.namespace, &account.name);
    if known.as_ref() != Some(&account.uid) {
        is_still(server, "serviceaccounts", namespace, account).await?;
    }
    if let Some(pod) = &private.pod {
        let known = access.pod(&private.namespace, &pod.name);
        if known.is_none_or(|known| known.uid != pod.uid) {
            is_still(server, "pods", namespace, pod).await?;
        }
    } else if let Some(secret) = &private.secret {
        is_still(server, "secrets", namespace, secret).await?;
    } else if let Some(node) = &private.node {
        is_still(server, "nodes", None, node).await?;
    }
    Ok(())
}

/// Asks a quorum, since the index may be behind.
pub async fn is_still(
    server: &ApiServer,
    resource: &str,
    namespace: Option<&str>,
    named: &Named,
) -> Result<(), Refused> {
    let found = match server
        .read("", "v1", resource, namespace, &named.name)
        .await
    {
        Ok(found) => uid_of(&found).map_err(|status| status.to_string())?,
        Err(status) if status.is(Reason::NotFound) => Uid::default(),
        Err(status) => return Err(status.to_string()),
    };
    match found == named.uid {
        true => Ok(()),
        false => Err(format!(
            "the token is bound to {resource} {} with the uid {}, which is gone",
            named.name, named.uid
        )),
    }
}

fn uid_of(object: &[u8]) -> Result<Uid, Status> {
    let object: Value = serde_json::from_slice(object).map_err(Status::internal)?;
    let uid = object.pointer("/metadata/uid").and_then(Value::as_str);
    Ok(Uid(uid.unwrap_or_default().to_owned()))
}

fn unix(time: Timestamp) -> i64 {
    time.unix_ms() / 1000
}
