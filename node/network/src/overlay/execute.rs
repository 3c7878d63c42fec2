//! Reads what the kernel has of the overlay and carries out a plan. Decides nothing.

use ipnet::Ipv4Net;
use netlink_packet_route::link::{InfoData, InfoVxlan};
use tracing::{debug, warn};

use super::{Input, State, Step, Vxlan, Way, desired, plan};
use crate::kernel::{Error, Link, Netlink, Route};
use crate::sysctl;

/// Why the overlay is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] Error),
    /// A switch of the VXLAN link.
    #[error(transparent)]
    Sysctl(#[from] sysctl::Error),
}

/// Makes the kernel's routes and VXLAN link those that `input` asks for, and removes those of ours that it does not.
pub(crate) async fn sync(
    netlink: &Netlink,
    name: &str,
    input: &Input<'_>,
) -> Result<usize, SyncError> {
    let (desired, refused) = desired(input);
    for peer in refused {
        warn!(peer = %peer.name, pod_cidr = %peer.pod_cidr, "the peer's pod addresses overlap another node's; no route to it");
    }
    let present = observe(netlink, name, input.uplink.index).await?;
    let steps = plan(&present, &desired);
    for step in &steps {
        debug!(?step, "overlay");
        execute(netlink, name, input, step).await?;
    }
    Ok(steps.len())
}

async fn observe(netlink: &Netlink, name: &str, uplink: u32) -> Result<State, Error> {
    let mut state = State::default();
    let link = netlink.find_link(name).await?;
    if let Some(link) = &link {
        state.vxlan = Some(vxlan(link));
        state.neighbours = netlink.neighbours(link.index).await?.into_iter().collect();
        state.forwarding = netlink
            .forwarding(link.index)
            .await?
            .into_iter()
            .map(|(node, mac)| (mac, node))
            .collect();
    }
    for route in netlink.our_routes().await? {
        let Some(via) = route.via else { continue };
        if route.link == uplink {
            state.routes.insert(route.to, Way::Direct(via));
        } else if link.as_ref().is_some_and(|link| link.index == route.link) {
            state.routes.insert(route.to, Way::Vxlan(via));
        }
    }
    Ok(state)
}

async fn execute(
    netlink: &Netlink,
    name: &str,
    input: &Input<'_>,
    step: &Step,
) -> Result<(), SyncError> {
    match *step {
        Step::DeleteRoute(to) => {
            for route in netlink
                .our_routes()
                .await?
                .iter()
                .filter(|route| route.to == to)
            {
                netlink.delete_route(route).await?;
            }
        }
        Step::DeleteVxlan => drop(netlink.delete_link(name).await?),
        Step::AddVxlan(vxlan) => {
            netlink.add_vxlan(name, &vxlan).await?;
            let link = netlink.link(name).await?;
            let address = Ipv4Net::new(input.gateway, 32).expect("32 is a prefix length");
            netlink.add_address(link.index, address).await?;
            sysctl::loosen_reverse_path(name)?;
        }
        Step::DeleteNeighbour(address) => {
            netlink
                .delete_neighbour(netlink.link(name).await?.index, address)
                .await?;
        }
        Step::DeleteForwarding(mac, node) => {
            netlink
                .delete_forwarding(netlink.link(name).await?.index, node, mac)
                .await?;
        }
        Step::SetForwarding(mac, node) => {
            netlink
                .replace_forwarding(netlink.link(name).await?.index, node, mac)
                .await?;
        }
        Step::SetNeighbour(hop, mac) => {
            netlink
                .replace_neighbour(netlink.link(name).await?.index, hop, mac)
                .await?;
        }
        Step::SetRoute(to, way) => {
            let route = match way {
                Way::Direct(via) => Route {
                    to,
                    link: input.uplink.index,
                    via: Some(via),
                    source: None,
                    onlink: false,
                },
                Way::Vxlan(via) => {
                    let link = netlink.link(name).await?.index;
                    Route {
                        to,
                        link,
                        via: Some(via),
                        source: Some(input.gateway),
                        onlink: true,
                    }
                }
            };
            netlink.replace_route(&route).await?;
        }
    }
    Ok(())
}

/// What the present link is made of; what cannot be read differs from all that is wanted, so the link is made anew.
fn vxlan(link: &Link) -> Vxlan {
    let mut vxlan = Vxlan {
        vni: 0,
        port: 0,
        uplink: 0,
        local: std::net::Ipv4Addr::UNSPECIFIED,
        mac: link.mac.unwrap_or(super::Mac([0; 6])),
        mtu: link.mtu,
    };
    let Some(InfoData::Vxlan(infos)) = &link.data else {
        return vxlan;
    };
    for info in infos {
        match info {
            InfoVxlan::Id(id) => vxlan.vni = *id,
            InfoVxlan::Port(port) => vxlan.port = *port,
            InfoVxlan::Link(index) => vxlan.uplink = *index,
            InfoVxlan::Local(local) => vxlan.local = *local,
            _ => {}
        }
    }
    if !link.up {
        vxlan.vni = 0;
    }
    vxlan
}
