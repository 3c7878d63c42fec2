//! The node's sign of life: a Lease that is renewed every ten seconds, and the list of masters, looked up anew.
//!
//! A renewal has a short deadline and goes to the next master when one does not answer, so that the loss of a master never
//! makes a node look dead.

use std::time::Duration;

use client::{Client, Deadline, Error, Payload};
use http::Method;
use objects::cluster::MemberList;
use serde_json::{Value, json};

use crate::clock;
use crate::data_dir::DataDir;

const RENEW_EVERY: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_secs(1);
const DEADLINE: Deadline = Deadline(Duration::from_secs(3));
/// After so long without a renewal the node counts as gone.
const LEASE_S: u32 = 40;
const MASTERS_EVERY: Duration = Duration::from_secs(30);
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// Renews the lease for ever.
pub async fn renew(client: Client, node: String) {
    let mut silent = false;
    loop {
        let pause = match renew_once(&client, &node).await {
            Ok(()) => {
                if std::mem::take(&mut silent) {
                    tracing::info!("the lease is renewed again");
                }
                RENEW_EVERY
            }
            Err(error) => {
                if !std::mem::replace(&mut silent, true) {
                    tracing::warn!(%error, "cannot renew the node's lease; pods keep running");
                }
                RETRY_AFTER
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn renew_once(client: &Client, node: &str) -> Result<(), Error> {
    let path = format!("{LEASES}/{node}");
    let renewal = json!({ "spec": { "holderIdentity": node, "leaseDurationSeconds": LEASE_S, "renewTime": clock::now().to_micro_time() } });
    let bytes = || Payload::Bytes("application/merge-patch+json", renewal.to_string().into());
    match client
        .call::<Value>(Method::PATCH, &path, bytes(), DEADLINE)
        .await
    {
        Err(error) if error.is_code(404) => {}
        // Renewing twice is as good as once.
        Err(error) if error.is_ambiguous() => {
            return client
                .call::<Value>(Method::PATCH, &path, bytes(), DEADLINE)
                .await
                .map(drop);
        }
        other => return other.map(drop),
    }
    let mut lease = renewal;
    lease["apiVersion"] = "coordination.k8s.io/v1".into();
    lease["kind"] = "Lease".into();
    lease["metadata"] = json!({ "name": node, "namespace": "kube-node-lease" });
    match client
        .call::<Value>(Method::POST, LEASES, Payload::json(&lease), DEADLINE)
        .await
    {
        Err(error) if !error.is_code(409) => Err(error),
        _ => Ok(()),
    }
}

/// Keeps the client's and the disk's list of masters, for ever.
pub async fn follow_masters(client: Client, data: DataDir) {
    loop {
        match client.get::<MemberList>("/cluster/v1/members").await {
            Ok(list) => {
                let masters: Vec<String> = list
                    .members
                    .into_iter()
                    .map(|member| member.api_url)
                    .filter(|url| !url.is_empty())
                    .collect();
                learn(&client, &data, masters);
            }
            Err(error) => tracing::debug!(%error, "cannot ask for the masters"),
        }
        tokio::time::sleep(MASTERS_EVERY).await;
    }
}

fn learn(client: &Client, data: &DataDir, masters: Vec<String>) {
    if masters.is_empty() {
        return;
    }
    client.set_servers(masters.clone());
    let saved = data.settings().and_then(|settings| match settings {
        Some(settings) if settings.masters != masters => {
            data.save_settings(&crate::data_dir::Settings {
                masters,
                ..settings
            })
        }
        _ => Ok(()),
    });
    if let Err(error) = saved {
        tracing::warn!(%error, "cannot save the list of masters");
    }
}
