//! The few netlink requests that this crate makes, in its own words, each with a deadline.
//!
//! A request speaks to the network namespace in which [`Netlink::connect`] was called, from whatever thread it is made.
//! Nothing is decided here.

mod message;

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;
use std::time::Duration;

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{InfoData, InfoVeth};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;
use nix::errno::Errno;
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan,
    RouteMessageBuilder,
};
use tokio::task::JoinHandle;

use message::{link, neighbour, route, route_message};

/// How long the kernel may take for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The routing protocol number that marks our routes; outside the numbers that `rt_protos` gives away.
const OUR_ROUTES: RouteProtocol = RouteProtocol::Other(84);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Connect(#[source] io::Error),
    /// The kernel said no.
    #[error("cannot {action}: {source}")]
    Refused {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        source: Box<rtnetlink::Error>,
    },
    /// The kernel said nothing.
    #[error("cannot {action}: no answer from the kernel within {} s", ANSWER_WITHIN.as_secs())]
    Timeout {
        /// What was tried.
        action: String,
    },
    /// A link that must be there is not.
    #[error("there is no link {0:?}")]
    NoLink(String),
}

type Result<T> = std::result::Result<T, Error>;

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

/// What is known of a link.
#[derive(Clone, Debug)]
pub struct Link {
    pub index: u32,
    pub mtu: u32,
    pub mac: Option<Mac>,
    pub controller: Option<u32>,
    pub up: bool,
    /// The kind of a virtual link with its data.
    pub data: Option<InfoData>,
}

/// A route, ours or to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination.
    pub to: Ipv4Net,
    /// The link by which it is reached.
    pub link: u32,
    /// The next hop.
    pub via: Option<Ipv4Addr>,
    /// The address that the node's own packets leave with.
    pub source: Option<Ipv4Addr>,
    /// `via` is reached through `link` though no address there says so.
    pub onlink: bool,
}

/// What a VXLAN link is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// The network identifier.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
    /// The link that carries it.
    pub uplink: u32,
    /// The address that packets leave with.
    pub local: Ipv4Addr,
    /// Its own hardware address.
    pub mac: Mac,
    /// Its MTU.
    pub mtu: u32,
}

/// One netlink connection; its task ends with it.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Netlink {
    /// A connection to the calling thread's network namespace.
    pub fn connect() -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Connect)?;
        Ok(Self {
            handle,
            task: tokio::spawn(connection),
        })
    }

    /// The link of that name.
    pub async fn find_link(&self, name: &str) -> Result<Option<Link>> {
        let request = self.handle.link().get().match_name(name).execute();
        let found = ask(
            || format!("look up link {name}"),
            request.try_collect::<Vec<_>>(),
        )
        .await;
        Ok(absent_is_none(found, &[Errno::ENODEV])?.and_then(|links| links.first().map(link)))
    }

    /// As [`Self::find_link`], for a link that must be there.
    pub async fn link(&self, name: &str) -> Result<Link> {
        self.find_link(name)
            .await?
            .ok_or_else(|| Error::NoLink(name.into()))
    }

    /// The link with that index.
    pub async fn link_at(&self, index: u32) -> Result<Link> {
        let request = self.handle.link().get().match_index(index).execute();
        let found = ask(
            || format!("look up link {index}"),
            request.try_collect::<Vec<_>>(),
        )
        .await?;
        found
            .first()
            .map(link)
            .ok_or_else(|| Error::NoLink(format!("number {index}")))
    }

    /// Makes a bridge that is up.
    pub async fn add_bridge(&self, name: &str, mac: Mac, mtu: u32) -> Result<()> {
        let message = LinkBridge::new(name)
            .address(mac.0.to_vec())
            .mtu(mtu)
            .build();
        ask(
            || format!("add bridge {name}"),
            self.handle.link().add(message).execute(),
        )
        .await
    }

    /// Makes a veth pair whose other end, `peer` with the hardware address `mac`, is in the namespace `namespace`.
    pub async fn add_veth(
        &self,
        name: &str,
        peer: &str,
        mac: Mac,
        namespace: RawFd,
        mtu: u32,
    ) -> Result<()> {
        let other = LinkUnspec::new_with_name(peer)
            .setns_by_fd(namespace)
            .address(mac.0.to_vec())
            .mtu(mtu)
            .build();
        let message = LinkVeth::new(name, peer)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(other)))
            .mtu(mtu)
            .build();
        ask(
            || format!("add veth pair {name}"),
            self.handle.link().add(message).execute(),
        )
        .await
    }

    /// Makes a VXLAN link that is up and learns nothing by itself.
    pub async fn add_vxlan(&self, name: &str, vxlan: &Vxlan) -> Result<()> {
        let message = LinkVxlan::new(name, vxlan.vni)
            .port(vxlan.port)
            .dev(vxlan.uplink)
            .local(vxlan.local)
            .learning(false)
            .address(vxlan.mac.0.to_vec())
            .mtu(vxlan.mtu)
            .up()
            .build();
        ask(
            || format!("add VXLAN link {name}"),
            self.handle.link().add(message).execute(),
        )
        .await
    }

    /// Puts the link on a bridge, up, with hairpin mode, and apart from the other ports: what goes from one pod to another
    /// passes the node's rules, whatever hardware address it is sent to.
    pub async fn attach_port(&self, port: u32, bridge: u32) -> Result<()> {
        let action = || format!("put link {port} on bridge {bridge}");
        let message = LinkUnspec::new_with_index(port)
            .controller(bridge)
            .up()
            .build();
        ask(action, self.handle.link().set(message).execute()).await?;
        let mode = LinkBridgePort::new(port)
            .hairpin(true)
            .isolated(true)
            .build();
        ask(
            || format!("set hairpin mode and isolation of link {port}"),
            self.handle.link().set_port(mode).execute(),
        )
        .await
    }

    /// Sets the link up.
    pub async fn set_up(&self, index: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).up().build();
        ask(
            || format!("set link {index} up"),
            self.handle.link().set(message).execute(),
        )
        .await
    }

    /// Sets the MTU.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        let message = LinkMessageBuilder::<LinkUnspec>::new()
            .index(index)
            .mtu(mtu)
            .build();
        ask(
            || format!("set the MTU of link {index} to {mtu}"),
            self.handle.link().set(message).execute(),
        )
        .await
    }

    /// Deletes the link of that name; false if there was none.
    pub async fn delete_link(&self, name: &str) -> Result<bool> {
        let Some(link) = self.find_link(name).await? else {
            return Ok(false);
        };
        let deleted = ask(
            || format!("delete link {name}"),
            self.handle.link().del(link.index).execute(),
        )
        .await;
        Ok(absent_is_none(deleted, &[Errno::ENODEV])?.is_some())
    }

    /// All addresses with the link that carries them.
    pub async fn addresses(&self) -> Result<Vec<(u32, Ipv4Net)>> {
        let request = self.handle.address().get().execute();
        let messages = ask(|| "list addresses".into(), request.try_collect::<Vec<_>>()).await?;
        Ok(messages
            .iter()
            .filter_map(|message| {
                let local = message
                    .attributes
                    .iter()
                    .find_map(|attribute| match attribute {
                        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                        _ => None,
                    })?;
                Some((
                    message.header.index,
                    Ipv4Net::new(local, message.header.prefix_len).ok()?,
                ))
            })
            .collect())
    }

    /// Gives the link an address; having it already is success.
    pub async fn add_address(&self, link: u32, address: Ipv4Net) -> Result<()> {
        let request =
            self.handle
                .address()
                .add(link, IpAddr::V4(address.addr()), address.prefix_len());
        let added = ask(
            || format!("add address {address} to link {link}"),
            request.execute(),
        )
        .await;
        absent_is_none(added, &[Errno::EEXIST]).map(drop)
    }

    /// Takes an address from the link; not having it is success.
    pub async fn delete_address(&self, link: u32, address: Ipv4Net) -> Result<()> {
        let message = rtnetlink::AddressMessageBuilder::<Ipv4Addr>::new()
            .index(link)
            .address(address.addr(), address.prefix_len())
            .build();
        let request = self.handle.address().del(message);
        let deleted = ask(
            || format!("delete address {address} of link {link}"),
            request.execute(),
        )
        .await;
        absent_is_none(deleted, &[Errno::EADDRNOTAVAIL, Errno::ENODEV]).map(drop)
    }

    /// The routes that carry our mark.
    pub async fn our_routes(&self) -> Result<Vec<Route>> {
        let request = self
            .handle
            .route()
            .get(RouteMessageBuilder::<Ipv4Addr>::new().build())
            .execute();
        let messages = ask(|| "list routes".into(), request.try_collect::<Vec<_>>()).await?;
        Ok(messages
            .iter()
            .filter(|message| message.header.protocol == OUR_ROUTES)
            .filter_map(route)
            .collect())
    }

    /// Adds the route, in place of the one to the same destination.
    pub async fn replace_route(&self, route: &Route) -> Result<()> {
        let request = self.handle.route().add(route_message(route)).replace();
        ask(|| format!("add route {route:?}"), request.execute()).await
    }

    /// Deletes the route; not having it is success.
    pub async fn delete_route(&self, route: &Route) -> Result<()> {
        let request = self.handle.route().del(route_message(route));
        let deleted = ask(|| format!("delete route {route:?}"), request.execute()).await;
        absent_is_none(deleted, &[Errno::ESRCH, Errno::ENODEV]).map(drop)
    }

    /// The link's permanent neighbours: address to hardware address.
    pub async fn neighbours(&self, link: u32) -> Result<Vec<(Ipv4Addr, Mac)>> {
        self.permanent_entries(link, AddressFamily::Inet).await
    }

    /// The link's permanent forwarding entries: far end to hardware address.
    pub async fn forwarding(&self, link: u32) -> Result<Vec<(Ipv4Addr, Mac)>> {
        self.permanent_entries(link, AddressFamily::Bridge).await
    }

    /// Sets a neighbour's hardware address for good.
    pub async fn replace_neighbour(&self, link: u32, address: Ipv4Addr, mac: Mac) -> Result<()> {
        let request = self
            .handle
            .neighbours()
            .add(link, IpAddr::V4(address))
            .link_layer_address(&mac.0)
            .replace();
        ask(|| format!("set neighbour {address}"), request.execute()).await
    }

    /// Sets to which far end frames for `mac` go.
    pub async fn replace_forwarding(&self, link: u32, far_end: Ipv4Addr, mac: Mac) -> Result<()> {
        let request = self
            .handle
            .neighbours()
            .add_bridge(link, &mac.0)
            .destination(IpAddr::V4(far_end))
            .flags(NeighbourFlags::Own)
            .replace();
        ask(|| format!("set forwarding to {far_end}"), request.execute()).await
    }

    /// Forgets a neighbour; not knowing it is success.
    pub async fn delete_neighbour(&self, link: u32, address: Ipv4Addr) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = link;
        message
            .attributes
            .push(NeighbourAttribute::Destination(NeighbourAddress::Inet(
                address,
            )));
        let deleted = ask(
            || format!("delete neighbour {address}"),
            self.handle.neighbours().del(message).execute(),
        )
        .await;
        absent_is_none(deleted, &[Errno::ENOENT, Errno::ENODEV]).map(drop)
    }

    /// Forgets a forwarding entry; not knowing it is success.
    pub async fn delete_forwarding(&self, link: u32, far_end: Ipv4Addr, mac: Mac) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = link;
        message.header.flags = NeighbourFlags::Own;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        message
            .attributes
            .push(NeighbourAttribute::Destination(NeighbourAddress::Inet(
                far_end,
            )));
        let deleted = ask(
            || format!("delete forwarding to {far_end}"),
            self.handle.neighbours().del(message).execute(),
        )
        .await;
        absent_is_none(deleted, &[Errno::ENOENT, Errno::ENODEV]).map(drop)
    }

    async fn permanent_entries(
        &self,
        link: u32,
        family: AddressFamily,
    ) -> Result<Vec<(Ipv4Addr, Mac)>> {
        let mut request = self.handle.neighbours().get().set_address_family(family);
        // The bridge family's dump goes by the link in the header; without it every bridge's entries come too.
        request.message_mut().header.ifindex = link;
        let messages = ask(
            || "list neighbours".into(),
            request.execute().try_collect::<Vec<_>>(),
        )
        .await?;
        Ok(messages
            .iter()
            .filter(|message| {
                message.header.ifindex == link && message.header.state == NeighbourState::Permanent
            })
            .filter_map(neighbour)
            .collect())
    }
}

/// Waits for the kernel's answer, but not for ever.
async fn ask<T>(
    action: impl Fn() -> String,
    request: impl Future<Output = std::result::Result<T, rtnetlink::Error>>,
) -> Result<T> {
    match tokio::time::timeout(ANSWER_WITHIN, request).await {
        Ok(answer) => answer.map_err(|source| Error::Refused {
            action: action(),
            source: Box::new(source),
        }),
        Err(_) => Err(Error::Timeout { action: action() }),
    }
}

/// Turns the error codes that mean "it is so already" into `None`.
fn absent_is_none<T>(answer: Result<T>, codes: &[Errno]) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if errno(&error).is_some_and(|errno| codes.contains(&errno)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn errno(error: &Error) -> Option<Errno> {
    match error {
        Error::Refused { source, .. } => match source.as_ref() {
            rtnetlink::Error::NetlinkError(message) => {
                message.code.map(|code| Errno::from_raw(-code.get()))
            }
            _ => None,
        },
        _ => None,
    }
}
