//! The node's certificates are renewed before they end: one for the API's client, one for the kubelet's server, each by a
//! certificate signing request that the masters approve because it is the node's own. The key stays.
//!
//! ```text
//! wait until 4/5 of the life are over ──> two requests ──> certificates ──> saved, and shown from the next connection on
//! ```

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Client, Identity};
use objects::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::clock;
use crate::data_dir::{Credentials, DataDir};
use crate::tls::Serving;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// Between two looks at the clock, which may have been set.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// How long a request may take to be signed.
const SIGNED_WITHIN: Duration = Duration::from_secs(120);
const POLL_EVERY: Duration = Duration::from_millis(500);

/// Renews the certificates for ever; at once if `now`.
pub async fn keep(
    client: Client,
    data: DataDir,
    node: String,
    address: String,
    serving: Arc<Serving>,
    mut now: bool,
) {
    loop {
        let due = match data.credentials() {
            Ok(credentials) => due(&credentials),
            Err(error) => {
                tracing::error!(%error, "the node's certificates cannot be read");
                tokio::time::sleep(RETRY_AFTER).await;
                continue;
            }
        };
        let wait = match due {
            _ if now => Duration::ZERO,
            Ok(due) => due.since(clock::now()),
            Err(error) => {
                tracing::error!(%error, "the node's certificate cannot be read");
                Duration::ZERO
            }
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(LOOK_EVERY)).await;
            continue;
        }
        match renew(&client, &data, &node, &address, &serving).await {
            Ok(()) => {
                now = false;
                tracing::info!(%node, "the node's certificates were renewed");
            }
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "the node's certificates could not be renewed; trying again");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// When to renew: after four fifths of the life of whichever certificate ends first.
fn due(credentials: &Credentials) -> anyhow::Result<Timestamp> {
    let mut due: Option<Timestamp> = None;
    for pem in [
        Some(&credentials.certificate_pem),
        credentials.serving_pem.as_ref(),
    ]
    .into_iter()
    .flatten()
    {
        let (from, to) = life(pem)?;
        let at = from.plus(to.since(from) / 5 * 4);
        due = Some(due.map_or(at, |known| known.min(at)));
    }
    due.context("there is no certificate")
}

fn life(pem: &str) -> anyhow::Result<(Timestamp, Timestamp)> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).context("it is no PEM")?;
    let (_, certificate) =
        x509_parser::parse_x509_certificate(&der).context("it is no certificate")?;
    let validity = certificate.validity();
    Ok((
        Timestamp::from_unix(validity.not_before.timestamp()),
        Timestamp::from_unix(validity.not_after.timestamp()),
    ))
}

async fn renew(
    client: &Client,
    data: &DataDir,
    node: &str,
    address: &str,
    serving: &Serving,
) -> anyhow::Result<()> {
    let mut credentials = data.credentials()?;
    let key = KeyPair::from_pem(&credentials.key_pem).context("node.key is damaged")?;
    let client_request = request(node, vec![], &key)?;
    let certificate_pem = signed(
        client,
        node,
        "kubernetes.io/kube-apiserver-client-kubelet",
        "client auth",
        &client_request,
    )
    .await?;
    let names = vec![address.to_owned(), node.to_owned()];
    let serving_request = request(node, names, &key)?;
    let serving_pem = signed(
        client,
        node,
        "kubernetes.io/kubelet-serving",
        "server auth",
        &serving_request,
    )
    .await?;
    credentials.certificate_pem = certificate_pem;
    credentials.serving_pem = Some(serving_pem);
    // What cannot be shown is not saved either.
    serving.replace(&credentials)?;
    client.replace_identity(&Identity {
        certificate_pem: credentials.certificate_pem.clone(),
        key_pem: credentials.key_pem.clone(),
    })?;
    data.save_credentials(&credentials)
}

fn request(node: &str, names: Vec<String>, key: &KeyPair) -> anyhow::Result<String> {
    let mut params = CertificateParams::new(names).context("cannot ask for a certificate")?;
    params.distinguished_name = DistinguishedName::new();
    let subject = &mut params.distinguished_name;
    subject.push(DnType::OrganizationName, "system:nodes");
    subject.push(DnType::CommonName, format!("system:node:{node}"));
    let request = params
        .serialize_request(key)
        .context("cannot sign the request for a certificate")?;
    request
        .pem()
        .context("cannot encode the request for a certificate")
}

/// Asks and waits.
async fn signed(
    client: &Client,
    node: &str,
    signer: &str,
    usage: &str,
    request_pem: &str,
) -> anyhow::Result<String> {
    let request = json!({
        "kind": "CertificateSigningRequest", "apiVersion": "certificates.k8s.io/v1",
        "metadata": {"generateName": format!("node-{node}-")},
        "spec": {
            "request": STANDARD.encode(request_pem), "signerName": signer,
            "usages": ["digital signature", usage],
        },
    });
    let made: Value = client
        .post(REQUESTS, &request)
        .await
        .with_context(|| format!("cannot ask {signer} for a certificate"))?;
    let name = made["metadata"]["name"].as_str().unwrap_or_default();
    let path = format!("{REQUESTS}/{}", client::encode_segment(name));
    let wait = async {
        loop {
            let found: Value = client.get(&path).await?;
            if let Some(certificate) = found["status"]["certificate"].as_str() {
                let pem = STANDARD.decode(certificate).context("it is no base64")?;
                return String::from_utf8(pem).context("it is no PEM");
            }
            let conditions = found["status"]["conditions"].as_array();
            for condition in conditions.into_iter().flatten() {
                if let Some(refused @ ("Denied" | "Failed")) = condition["type"].as_str() {
                    bail!(
                        "the request {name} was answered {refused}: {}",
                        condition["message"]
                    );
                }
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    };
    tokio::time::timeout(SIGNED_WITHIN, wait)
        .await
        .with_context(|| format!("the request {name} was not signed within {SIGNED_WITHIN:?}"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_due_when_four_fifths_of_the_shorter_life_are_over() {
        let pem = |from: i64, to: i64| {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(vec![]).expect("params");
            let time = |at: i64| std::time::UNIX_EPOCH + Duration::from_secs(at.unsigned_abs());
            params.not_before = time(from).into();
            params.not_after = time(to).into();
            params.self_signed(&key).expect("signs").pem()
        };
        let mut credentials = Credentials {
            ca_pem: String::new(),
            certificate_pem: pem(1_000_000, 2_000_000),
            serving_pem: None,
            key_pem: String::new(),
        };
        assert_eq!(
            due(&credentials).expect("is read"),
            Timestamp::from_unix(1_800_000)
        );
        credentials.serving_pem = Some(pem(1_000_000, 1_500_000));
        assert_eq!(
            due(&credentials).expect("is read"),
            Timestamp::from_unix(1_400_000)
        );
    }
}
