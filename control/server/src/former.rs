//! A master of a cluster that is no more: after a restore or a recovery the cluster has a new identity, and a master that was down
//! meanwhile still has the old one. It is told so, and taken into the new cluster when it is asked for.

use crate::cli::Run;
use crate::create;
use crate::settings::{DataDir, MasterIdentity};
use anyhow::{Result, bail};
use client::{Client, Config, Deadline, Error, Payload};
use http::Method;
use objects::cluster::MemberList;
use std::time::Duration;

/// The masters may all be starting: then this one goes on without an answer.
const ASK_MAX: Deadline = Deadline(Duration::from_secs(3));

/// Fails with what to do when the data directory is that of a former cluster.
pub async fn refuse(dir: &DataDir, identity: &MasterIdentity, args: &Run) -> Result<()> {
    let Some(now) = cluster_now(dir, identity, args).await? else {
        return Ok(());
    };
    bail!(
        "the data directory {} belongs to a master of the cluster {}, but {} is {now}; if the former cluster is no more, after a \
         restore or a recovery, start this master once with the same command and --rejoin: what the directory holds is set aside \
         within it, nothing is deleted",
        dir.root().display(),
        identity.cluster_id,
        args.join.join(",")
    )
}

/// Sets aside what a directory of a former cluster holds. One of the cluster as it is now is left alone.
pub async fn set_aside(dir: &DataDir, args: &Run) -> Result<()> {
    match dir.identity()? {
        Some(identity) => {
            let Some(now) = cluster_now(dir, &identity, args).await? else {
                return Ok(());
            };
            let folder = dir.set_aside()?;
            tracing::warn!(
                former = identity.cluster_id, %now, folder = %folder.display(),
                "this was a master of a former cluster: what it held was set aside, and may be deleted once it is not missed"
            );
        }
        None if dir.root().join(crate::settings::STORE).exists() => {
            let folder = dir.set_aside()?;
            tracing::warn!(folder = %folder.display(), "what lay in the data directory without a master's identity was set aside");
        }
        None => {}
    }
    Ok(())
}

/// What the cluster to be joined is, when it is surely another than this master's; None when it is the same, or does not answer.
async fn cluster_now(
    dir: &DataDir,
    identity: &MasterIdentity,
    args: &Run,
) -> Result<Option<String>> {
    if args.join.is_empty() {
        return Ok(None);
    }
    let authority = dir.authority()?;
    if create::token(args)
        .is_ok_and(|token| authority.sha256().is_ok_and(|own| own != token.ca_sha256))
    {
        return Ok(Some("a cluster with another CA".to_owned()));
    }
    let config = Config {
        servers: args.join.clone(),
        ca_pem: authority.certificate_pem.clone(),
        identity: Some(create::master_certificate(
            &authority,
            identity,
            args.address,
        )?),
        ..Config::default()
    };
    let client = Client::new(&config)?;
    let asked =
        client.call::<MemberList>(Method::GET, "/cluster/v1/members", Payload::Empty, ASK_MAX);
    Ok(match asked.await {
        Ok(list) if list.cluster_id != identity.cluster_id => {
            Some(format!("the cluster {}", list.cluster_id))
        }
        Err(Error::Untrusted { .. }) => Some("a cluster with another CA".to_owned()),
        Ok(_) | Err(_) => None,
    })
}
