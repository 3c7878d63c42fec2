//! Tokens of service accounts for the pods' projected volumes: asked for by pod, kept in memory, renewed before they end.
//!
//! Rule: kubelet's token manager: a token is renewed when four fifths of its time are over, or after a day. One that cannot be
//! renewed is used as long as it is good.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use client::{Client, encode_segment};
use lifecycle::Desired;
use objects::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock;

const SECONDS_DEFAULT: i64 = 3600;
const RENEW_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// What waits for another asker of the same: nothing is asked twice within this.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// For what a token is.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Wish {
    pod_uid: String,
    account: String,
    audience: Option<String>,
    seconds: i64,
}

#[derive(Clone)]
struct Kept {
    token: String,
    ends: Timestamp,
    renew_at: Timestamp,
}

/// The tokens of this node's pods.
#[derive(Default)]
pub struct Tokens(Mutex<HashMap<Wish, Kept>>);

#[derive(Deserialize)]
struct Granted {
    status: GrantedStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GrantedStatus {
    token: String,
    expiration_timestamp: Timestamp,
}

impl Tokens {
    /// A token of the pod's account, bound to the pod.
    pub async fn get(
        &self,
        client: &Client,
        desired: &Desired,
        audience: Option<&str>,
        seconds: Option<i64>,
    ) -> Result<String, String> {
        let account = desired.spec().service_account_name.as_deref();
        let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
        let wish = Wish {
            pod_uid: desired.uid.clone(),
            account: account.to_owned(),
            audience: audience
                .filter(|audience| !audience.is_empty())
                .map(str::to_owned),
            seconds: seconds.unwrap_or(SECONDS_DEFAULT),
        };
        let now = clock::now();
        let kept = self.lock().get(&wish).cloned();
        if let Some(kept) = &kept
            && now < kept.renew_at
        {
            return Ok(kept.token.clone());
        }
        match (ask(client, desired, &wish).await, kept) {
            (Ok(granted), _) => {
                let token = granted.status.token.clone();
                self.keep(wish, granted, now);
                Ok(token)
            }
            (Err(error), Some(mut kept)) if now < kept.ends => {
                tracing::warn!(pod = %desired.label(), %error, "the token cannot be renewed yet; the old one goes on");
                kept.renew_at = now.plus(ASK_AGAIN_AFTER);
                let token = kept.token.clone();
                self.lock().insert(wish, kept);
                Ok(token)
            }
            (Err(error), _) => Err(format!("failed to fetch token: {error}")),
        }
    }

    /// Forgets those of a pod that is gone.
    pub fn forget(&self, pod_uid: &str) {
        self.lock().retain(|wish, _| wish.pod_uid != pod_uid);
    }

    fn keep(&self, wish: Wish, granted: Granted, now: Timestamp) {
        let GrantedStatus {
            token,
            expiration_timestamp: ends,
        } = granted.status;
        let kept = Kept {
            token,
            ends,
            renew_at: now.plus((ends.since(now) / 5 * 4).min(RENEW_AFTER_MAX)),
        };
        self.lock().insert(wish, kept);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Wish, Kept>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

async fn ask(client: &Client, desired: &Desired, wish: &Wish) -> Result<Granted, client::Error> {
    let path = format!(
        "/api/v1/namespaces/{}/serviceaccounts/{}/token",
        encode_segment(&desired.namespace),
        encode_segment(&wish.account)
    );
    let mut spec = json!({
        "expirationSeconds": wish.seconds,
        "boundObjectRef": {
            "kind": "Pod", "apiVersion": "v1", "name": desired.name, "uid": desired.uid,
        },
    });
    if let Some(audience) = &wish.audience {
        spec["audiences"] = json!([audience]);
    }
    let request: Value = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec,
    });
    client.post(&path, &request).await
}
