//! The front proxy: the authority whose certificate tells servers of other groups that a master speaks for whom it names. Kept as a
//! Secret, so that all masters have the same one and a snapshot holds it; its certificate is published with the cluster's CA in
//! the ConfigMap from which such servers read whom to trust. Names: kube-apiserver's.

use crate::pki::{Authority, Subject};
use anyhow::{Context, Result};
use api::{ApiServer, PemBundle};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use objects::Reason;
use registry::{Caller, Patch, PatchKind, Pipeline, Target, WriteOptions};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kube-system";
const SECRET: &str = "front-proxy-ca";
const PUBLISHED: &str = "extension-apiserver-authentication";
/// The name in the masters' certificates.
const CLIENT: &str = "front-proxy-client";
/// What somebody changes is put right this soon.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(1);

/// Keeps the authority, this master's certificate and what is published, until `stop`.
pub async fn run(
    pipeline: Arc<Pipeline>,
    server: ApiServer,
    ca_pem: String,
    cluster_id: String,
    stop: CancellationToken,
) {
    let mut used = None;
    loop {
        let wait = match keep(&pipeline, &server, &ca_pem, &cluster_id, &mut used).await {
            Ok(()) => LOOK_EVERY,
            Err(error) => {
                tracing::debug!(
                    error = format!("{error:#}"),
                    "the front proxy is not ready yet"
                );
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn keep(
    pipeline: &Pipeline,
    server: &ApiServer,
    ca_pem: &str,
    cluster_id: &str,
    used: &mut Option<Authority>,
) -> Result<()> {
    let authority = authority(pipeline, cluster_id).await?;
    if used.as_ref() != Some(&authority) {
        let identity = authority.issue(&Subject {
            user: CLIENT,
            ..Subject::default()
        })?;
        server.prove_by(&PemBundle {
            chain_pem: identity.certificate_pem,
            key_pem: identity.key_pem,
            ca_pem: authority.certificate_pem.clone(),
        })?;
        *used = Some(authority.clone());
    }
    publish(pipeline, ca_pem, &authority.certificate_pem).await
}

/// The cluster's front-proxy authority, made first where there is none.
async fn authority(pipeline: &Pipeline, cluster_id: &str) -> Result<Authority> {
    if let Some(secret) = read(pipeline, "secrets", SECRET).await? {
        let part = |name: &str| {
            let text = secret["data"][name].as_str().unwrap_or_default();
            let bytes = STANDARD.decode(text).context("no base64")?;
            String::from_utf8(bytes).context("no text")
        };
        let wrong = || {
            format!("the Secret {NAMESPACE}/{SECRET} is unusable; delete it and a new one is made")
        };
        return Ok(Authority {
            certificate_pem: part("tls.crt").with_context(wrong)?,
            key_pem: part("tls.key").with_context(wrong)?,
        });
    }
    let made = Authority::generate(&format!("front-proxy-{cluster_id}"))?;
    let secret = json!({
        "kind": "Secret", "apiVersion": "v1", "type": "kubernetes.io/tls",
        "metadata": {"name": SECRET, "namespace": NAMESPACE},
        "data": {
            "tls.crt": STANDARD.encode(&made.certificate_pem),
            "tls.key": STANDARD.encode(&made.key_pem),
        },
    });
    create(pipeline, "secrets", secret).await?;
    Ok(made)
}

async fn publish(pipeline: &Pipeline, ca_pem: &str, front_proxy_pem: &str) -> Result<()> {
    // Each is a list, in JSON.
    let list = |word: &str| json!([word]).to_string();
    let data = json!({
        "client-ca-file": ca_pem,
        "requestheader-allowed-names": list(CLIENT),
        "requestheader-client-ca-file": front_proxy_pem,
        "requestheader-extra-headers-prefix": list("X-Remote-Extra-"),
        "requestheader-group-headers": list("X-Remote-Group"),
        "requestheader-uid-headers": list("X-Remote-Uid"),
        "requestheader-username-headers": list("X-Remote-User"),
    });
    let Some(found) = read(pipeline, "configmaps", PUBLISHED).await? else {
        let published = json!({
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": PUBLISHED, "namespace": NAMESPACE},
            "data": data,
        });
        return create(pipeline, "configmaps", published).await;
    };
    if found["data"] == data {
        return Ok(());
    }
    let patch = Patch {
        kind: PatchKind::Json,
        value: json!([{"op": "add", "path": "/data", "value": data}]),
    };
    let target = target(pipeline, "configmaps", Some(PUBLISHED))?;
    let options = WriteOptions::default();
    pipeline
        .patch(&Caller::master(), &target, &patch, &options)
        .await?;
    Ok(())
}

async fn read(pipeline: &Pipeline, resource: &str, name: &str) -> Result<Option<Value>> {
    match pipeline
        .get(&target(pipeline, resource, Some(name))?, None)
        .await
    {
        Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
        Err(status) if status.is(Reason::NotFound) => Ok(None),
        Err(status) => Err(status.into()),
    }
}

async fn create(pipeline: &Pipeline, resource: &str, object: Value) -> Result<()> {
    let target = target(pipeline, resource, None)?;
    // Another master may have been faster; what it made is read the next time.
    pipeline
        .create(&Caller::master(), &target, object, &WriteOptions::default())
        .await?;
    Ok(())
}

fn target(pipeline: &Pipeline, resource: &str, name: Option<&str>) -> Result<Target> {
    let registry = pipeline.registry();
    let row = registry.find("", "v1", resource);
    let row = row.with_context(|| format!("there is no resource {resource}"))?;
    Ok(Target {
        name: name.map(str::to_owned),
        ..Target::collection(row, Some(NAMESPACE))
    })
}
