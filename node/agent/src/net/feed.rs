//! Follows nodes, services and endpoint slices and gives each whole state to the network.
//!
//! Changes that come together are given together. What the network refuses is given again after a pause.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use client::{Change, Client, Reflected, reflect};
use network::Network;
use serde_json::Value;
use tokio::sync::mpsc;

use super::services::{self, Key, ServiceFacts, SliceFacts};

/// Changes that wait; a reflector waits when there are more.
const QUEUED_MAX: usize = 64;
/// Changes within this time are given together.
const TOGETHER: Duration = Duration::from_millis(15);
const RETRY_AFTER: Duration = Duration::from_secs(2);
const REPAIR_EVERY: Duration = Duration::from_secs(60);

/// A collection that is followed, reduced by `reduce` to what is needed.
struct Followed<T> {
    receiver: mpsc::Receiver<Reflected>,
    reduce: fn(&Value) -> Option<T>,
    items: BTreeMap<Key, T>,
    complete: bool,
}

impl<T: PartialEq> Followed<T> {
    fn start(client: &Client, path: &str, reduce: fn(&Value) -> Option<T>) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUED_MAX);
        tokio::spawn(reflect(client.clone(), path.to_owned(), sender));
        Self {
            receiver,
            reduce,
            items: BTreeMap::new(),
            complete: false,
        }
    }

    /// Waits for a change, and takes those that came with it.
    async fn changed(&mut self) {
        match self.receiver.recv().await {
            Some(reflected) => self.take(reflected),
            // A reflector ends only with its receiver.
            None => std::future::pending().await,
        }
        while let Ok(reflected) = self.receiver.try_recv() {
            self.take(reflected);
        }
    }

    fn take(&mut self, reflected: Reflected) {
        match reflected {
            Reflected::All(objects) => {
                self.complete = true;
                self.items = objects
                    .iter()
                    .filter_map(|object| Some((services::key(object), (self.reduce)(object)?)))
                    .collect();
            }
            Reflected::Change(Change::Set(object)) => match (self.reduce)(&object) {
                Some(item) => drop(self.items.insert(services::key(&object), item)),
                None => drop(self.items.remove(&services::key(&object))),
            },
            Reflected::Change(Change::Removed(object)) => {
                drop(self.items.remove(&services::key(&object)))
            }
        }
    }
}

/// Tells this node's pod network as soon as a controller has assigned it.
pub async fn own_pod_cidr(client: &Client, node: &str) -> String {
    let selector = client::encode_segment(&format!("metadata.name={node}"));
    let mut own = Followed::start(
        client,
        &format!("/api/v1/nodes?fieldSelector={selector}"),
        |node| {
            node["spec"]["podCIDR"]
                .as_str()
                .filter(|cidr| !cidr.is_empty())
                .map(str::to_owned)
        },
    );
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
        nodes.changed().await;
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
    let mut repair = tokio::time::interval(REPAIR_EVERY);
    loop {
        tokio::select! {
            () = known.changed() => {}
            () = slices.changed() => {}
            _ = repair.tick() => {
                if let Err(error) = network.repair().await {
                    tracing::warn!(%error, "cannot repair the network");
                }
                continue;
            }
        }
        if !known.complete || !slices.complete {
            continue;
        }
        tokio::time::sleep(TOGETHER).await;
        while let Ok(reflected) = known.receiver.try_recv() {
            known.take(reflected);
        }
        while let Ok(reflected) = slices.receiver.try_recv() {
            slices.take(reflected);
        }
        network.update_dns(&services::names(&known.items, &slices.items));
        let rules = services::rules(&known.items, &slices.items);
        while let Err(error) = network.sync_services(rules.clone()).await {
            tracing::warn!(%error, "cannot set the rules for services; trying again");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}
