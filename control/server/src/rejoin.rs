//! A master whose store was lost or is damaged comes back as a new member: what is left is set aside, the others take it in
//! because its certificate says who it is, and feed it.
//!
//! Its old id is never used again, since what that one voted for may be forgotten. Where the others would be no quorum without
//! it, they refuse, and everything stays as it is.

use crate::cli::Run;
use crate::create;
use crate::settings::{DataDir, MasterIdentity};
use anyhow::{Context, Result, bail, ensure};
use client::{Client, Config};
use objects::cluster::{JoinRequest, JoinResponse};
use raft_store::damage;

/// Joins anew; returns who this master is from now on.
pub async fn rejoin(
    dir: &DataDir,
    args: &Run,
    identity: &MasterIdentity,
    reason: &str,
) -> Result<MasterIdentity> {
    tracing::error!(
        reason,
        member = identity.member_id,
        "this master's data cannot be used: it asks the others to feed it again as a new member"
    );
    let member_id = ask_for_new_id(dir, args, identity)
        .await
        .with_context(|| format!("{reason}; and the other masters do not take this one back"))?;
    let aside =
        damage::set_aside(&dir.store(identity)).context("the damaged store cannot be set aside")?;
    if let Some(aside) = aside {
        tracing::warn!(folder = %aside.display(), "the damaged store was set aside; it may be deleted");
    }
    let identity = MasterIdentity {
        member_id,
        founder: false,
        opened: false,
        ..identity.clone()
    };
    dir.keep_identity(&identity)?;
    Ok(identity)
}

async fn ask_for_new_id(dir: &DataDir, args: &Run, identity: &MasterIdentity) -> Result<u64> {
    let member = create::own_addresses(args, &identity.name);
    let path = dir.root().join("admin.kubeconfig");
    let known = Config::load(Some(&path), None).with_context(|| {
        format!(
            "{} does not tell where the other masters are",
            path.display()
        )
    })?;
    let others = known.servers.iter().filter(|url| **url != member.api_url);
    let servers: Vec<String> = others.cloned().collect();
    ensure!(
        !servers.is_empty(),
        "this is the only master, so nobody can feed it: restore a snapshot with `control restore`"
    );
    let authority = dir.authority()?;
    let config = Config {
        servers,
        ca_pem: authority.certificate_pem.clone(),
        identity: Some(create::master_certificate(
            &authority,
            identity,
            args.address,
        )?),
        ..Config::default()
    };
    let client = Client::new(&config)?;
    let request = JoinRequest::Master {
        member,
        replaces: None,
    };
    let answer = create::ask_to_join(async || client.post("/cluster/v1/join", &request).await);
    match answer.await? {
        JoinResponse::Master {
            cluster_id,
            member_id,
            ..
        } => {
            ensure!(
                cluster_id == identity.cluster_id,
                "the masters there belong to another cluster, {cluster_id}"
            );
            Ok(member_id)
        }
        JoinResponse::Node { .. } => bail!("the cluster answered as though this were a node"),
    }
}
