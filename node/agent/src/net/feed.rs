//! Follows nodes, services and endpoint slices and gives each whole state to the network.
//!
//! Changes that come together are given together. What the network refuses is given again after a pause.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use network::Network;
use serde_json::Value;

use super::followed::{Followed, TOGETHER};
use super::services::{self, Place, ServiceFacts, SliceFacts};

const RETRY_AFTER: Duration = Duration::from_secs(2);
const REPAIR_EVERY: Duration = Duration::from_secs(60);
const KEEP_SWITCHES_EVERY: Duration = Duration::from_secs(1);

/// The collection that holds this node alone.
fn own_path(node: &str) -> String {
    let selector = client::encode_segment(&format!("metadata.name={node}"));
    format!("/api/v1/nodes?fieldSelector={selector}")
}

/// Tells this node's pod network as soon as a controller has assigned it.
pub async fn own_pod_cidr(client: &Client, node: &str) -> String {
    let mut own = Followed::start(client, &own_path(node), |node| {
        node["spec"]["podCIDR"]
            .as_str()
            .filter(|cidr| !cidr.is_empty())
            .map(str::to_owned)
    });
    loop {
        own.changed().await;
        if let Some(cidr) = own.items.values().next() {
            return cidr.clone();
        }
    }
}

/// Routes to the other nodes, for ever.
pub async fn follow_nodes(client: Client, network: Arc<Network>) {
    let mut nodes = Followed::start(&client, "/api/v1/nodes", peer);
    let own = network.config().node_name.clone();
    loop {
        if !nodes.changed().await {
            continue;
        }
        let peers: Vec<network::Node> = nodes
            .items
            .values()
            .filter(|node| node.name != own)
            .cloned()
            .collect();
        while let Err(error) = network.sync_peers(&peers).await {
            tracing::warn!(%error, "cannot set the routes to the other nodes; trying again");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

fn peer(node: &Value) -> Option<network::Node> {
    let addresses = node["status"]["addresses"].as_array()?;
    let internal = addresses
        .iter()
        .find(|address| address["type"] == "InternalIP")?;
    Some(network::Node {
        name: node["metadata"]["name"].as_str()?.to_owned(),
        address: internal["address"].as_str()?.parse::<Ipv4Addr>().ok()?,
        pod_cidr: node["spec"]["podCIDR"].as_str()?.parse().ok()?,
    })
}

/// Rules and names of services, for ever.
pub async fn follow_services(client: Client, network: Arc<Network>) {
    let mut known: Followed<ServiceFacts> =
        Followed::start(&client, "/api/v1/services", |object| {
            Some(services::service(object))
        });
    let mut slices: Followed<SliceFacts> = Followed::start(
        &client,
        "/apis/discovery.k8s.io/v1/endpointslices",
        services::slice,
    );
    let node = network.config().node_name.clone();
    let mut own: Followed<String> = Followed::start(&client, &own_path(&node), |node| {
        let zone = node["metadata"]["labels"]["topology.kubernetes.io/zone"].as_str();
        zone.map(str::to_owned)
    });
    let mut repair = tokio::time::interval(REPAIR_EVERY);
    let mut switches = tokio::time::interval(KEEP_SWITCHES_EVERY);
    let mut due = false;
    loop {
        tokio::select! {
            changed = known.changed() => due |= changed,
            changed = slices.changed() => due |= changed,
            changed = own.changed() => due |= changed,
            _ = switches.tick() => {
                if let Err(error) = network.keep_switches() {
                    tracing::warn!(%error, "cannot keep the kernel's switches");
                }
                continue;
            }
            _ = repair.tick() => {
                if let Err(error) = network.repair().await {
                    tracing::warn!(%error, "cannot repair the network");
                }
                continue;
            }
        }
        if !due || !known.complete || !slices.complete {
            continue;
        }
        due = false;
        tokio::time::sleep(TOGETHER).await;
        known.take_waiting();
        slices.take_waiting();
        network.update_dns(&services::names(&known.items, &slices.items));
        let place = Place {
            node: node.clone(),
            zone: own.items.values().next().cloned(),
        };
        let rules = services::rules(&known.items, &slices.items, &place);
        while let Err(error) = network.sync_services(rules.clone()).await {
            tracing::warn!(%error, "cannot set the rules for services; trying again");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}
