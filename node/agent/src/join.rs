//! Becomes a member of the cluster: a key of its own, a signing request, and the masters' answer, which is saved.

use std::time::Duration;

use anyhow::{Context, bail};
use client::JoinToken;
use objects::cluster::{JoinRequest, JoinResponse};

use crate::cli::Run;
use crate::data_dir::{Credentials, DataDir, Settings};

const RETRY_MAX: Duration = Duration::from_secs(5);

/// The saved membership, or a new one by the join token.
pub async fn membership(
    data: &DataDir,
    args: &Run,
    name: &str,
    cgroup_root: &str,
) -> anyhow::Result<(Settings, Credentials)> {
    if let Some(mut settings) = data.settings()? {
        if settings.name != name {
            bail!(
                "{} belongs to node {:?}, not {name:?}; use another --data-dir for another node",
                data.path("").display(),
                settings.name
            );
        }
        for server in &args.server {
            if !settings.masters.contains(server) {
                settings.masters.push(server.clone());
            }
        }
        (settings.cgroup_root, settings.address) =
            (cgroup_root.to_owned(), args.address.to_string());
        data.save_settings(&settings)?;
        return Ok((settings, data.credentials()?));
    }
    let token = token(args)?;
    if args.server.is_empty() {
        bail!(
            "this node has not joined yet: give the masters with --server https://ADDRESS:6443[,..]"
        );
    }
    let (request, key_pem) = request(name, &args.address.to_string())?;
    let answer = ask(&args.server, &token, &request).await?;
    let JoinResponse::Node {
        cluster_id,
        ca_pem,
        certificate_pem,
        masters,
        cluster_cidr,
        service_cidr,
        dns_address,
        cluster_domain,
    } = answer
    else {
        bail!("the masters answered the join as if this were a master; are both of one version?");
    };
    let credentials = Credentials {
        ca_pem,
        certificate_pem,
        serving_pem: None,
        key_pem,
    };
    let masters = if masters.is_empty() {
        args.server.clone()
    } else {
        masters
    };
    let (name, cgroup_root, address) = (
        name.to_owned(),
        cgroup_root.to_owned(),
        args.address.to_string(),
    );
    let settings = Settings {
        name,
        cluster_id,
        masters,
        cluster_cidr,
        service_cidr,
        dns_address,
        cluster_domain,
        pod_cidr: None,
        cgroup_root,
        address,
    };
    data.save_credentials(&credentials)?;
    data.save_settings(&settings)?;
    tracing::info!(node = %settings.name, cluster = %settings.cluster_id, "joined the cluster");
    Ok((settings, credentials))
}

fn token(args: &Run) -> anyhow::Result<JoinToken> {
    let Some(path) = &args.token_file else {
        bail!(
            "this node has not joined yet: give a token with --token-file; a master keeps one in its data directory, as `join-token`"
        );
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the join token {}", path.display()))?;
    Ok(text.parse()?)
}

fn request(name: &str, address: &str) -> anyhow::Result<(JoinRequest, String)> {
    let key = rcgen::KeyPair::generate().context("cannot make a key")?;
    let mut params = rcgen::CertificateParams::new(vec![address.to_owned()])
        .context("cannot ask for a certificate")?;
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, format!("system:node:{name}"));
    params
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "system:nodes");
    let csr = params
        .serialize_request(&key)
        .context("cannot sign the request for a certificate")?;
    let csr_pem = csr
        .pem()
        .context("cannot encode the request for a certificate")?;
    Ok((
        JoinRequest::Node {
            name: name.to_owned(),
            address: address.to_owned(),
            csr_pem,
        },
        key.serialize_pem(),
    ))
}

/// Asks until a master answers; a refusal is final.
async fn ask(
    servers: &[String],
    token: &JoinToken,
    request: &JoinRequest,
) -> anyhow::Result<JoinResponse> {
    let mut pause = Duration::from_millis(200);
    loop {
        match client::join(servers, token, request).await {
            Ok(answer) => return Ok(answer),
            Err(error)
                if error.status().is_some_and(|status| {
                    (400..500).contains(&status.code) && status.code != 429
                }) =>
            {
                return Err(error).context("the cluster refused the join; a master keeps the present token in its data directory, as `join-token`");
            }
            Err(error @ client::Error::Untrusted { .. }) => {
                return Err(error).context("this node could not join");
            }
            Err(error) => tracing::warn!(%error, "cannot join yet; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}
