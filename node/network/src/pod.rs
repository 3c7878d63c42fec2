//! A pod's own network: a named namespace, a veth pair to the node's bridge, an address, a way out.
//!
//! The pod's address has no subnet: all that it sends goes to the gateway, the node's bridge, even to a pod beside it. So
//! every packet meets the node's address translation in both directions, and the answer of a service's endpoint on the
//! same bridge finds its way back. Attaching and detaching can be repeated from any half-done state.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use tracing::debug;

use crate::config::{Config, PodUid};
use crate::kernel::{self, Mac, Netlink, Route};
use crate::{netns, sysctl};

/// The name of the pod's link, as every CNI calls it.
const POD_LINK: &str = "eth0";

/// What the names of our namespaces begin with.
const NAMESPACE_PREFIX: &str = "trireme-";

/// Why a pod has no network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A link, address or route.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// The namespace.
    #[error(transparent)]
    Namespace(#[from] netns::Error),
    /// A switch.
    #[error(transparent)]
    Sysctl(#[from] sysctl::Error),
    /// The namespace's file or the runtime inside it.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A pod's network as the container runtime and the pod's status need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNet {
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// The node's address on the bridge; the pod's DNS server too.
    pub gateway: Ipv4Addr,
    /// The namespace, to be joined by path.
    pub netns_path: PathBuf,
    /// The node's end of the veth pair, for statistics.
    pub host_link: String,
    /// The MTU of the pod's link.
    pub mtu: u32,
}

/// Where the namespace of `uid` is bound.
pub fn netns_path(netns_dir: &Path, uid: &PodUid) -> PathBuf {
    netns_dir.join(format!("{NAMESPACE_PREFIX}{uid}"))
}

/// The pods that have a namespace in `netns_dir`. Blocks on the disk.
pub(crate) fn list_namespaces(netns_dir: &Path) -> Vec<PodUid> {
    let Ok(entries) = std::fs::read_dir(netns_dir) else {
        return vec![];
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter_map(|name| PodUid::parse(name.strip_prefix(NAMESPACE_PREFIX)?).ok())
        .collect()
}

/// Makes the bridge with the gateway's address, or corrects the one that is there.
pub(crate) async fn prepare_bridge(
    netlink: &Netlink,
    config: &Config,
    mtu: u32,
) -> Result<u32, Error> {
    let gateway = config.gateway();
    if netlink.find_link(&config.bridge).await?.is_none() {
        netlink
            .add_bridge(&config.bridge, bridge_mac(gateway), mtu)
            .await?;
    }
    let bridge = netlink.link(&config.bridge).await?;
    sysctl::prepare_bridge(&config.bridge)?;
    if bridge.mtu != mtu {
        netlink.set_mtu(bridge.index, mtu).await?;
    }
    netlink.set_up(bridge.index).await?;
    let wanted = Ipv4Net::new(gateway, config.pod_cidr.prefix_len())
        .expect("the length is that of a network");
    for (link, address) in netlink.addresses().await? {
        if link == bridge.index && address != wanted {
            netlink.delete_address(link, address).await?;
        }
    }
    netlink.add_address(bridge.index, wanted).await?;
    // The node's own packets to services leave by this route's address, so that answers come back through the bridge.
    let services = config.service_cidr.trunc();
    let route = Route {
        to: services,
        link: bridge.index,
        via: None,
        source: Some(gateway),
        onlink: false,
    };
    for stale in netlink
        .our_routes()
        .await?
        .iter()
        .filter(|stale| stale.via.is_none() && stale.to != services)
    {
        netlink.delete_route(stale).await?;
    }
    netlink.replace_route(&route).await?;
    Ok(bridge.index)
}

/// A bridge without an address of its own takes its ports', and pods would remember a wrong one.
fn bridge_mac(gateway: Ipv4Addr) -> Mac {
    let [a, b, c, d] = gateway.octets();
    Mac([0x02, 0x55, a, b, c, d])
}

/// A pod's hardware address follows from its address, so that nobody remembers a wrong one when the address moves on.
fn pod_mac(ip: Ipv4Addr) -> Mac {
    let [a, b, c, d] = ip.octets();
    Mac([0x02, 0x56, a, b, c, d])
}

/// Gives the pod its namespace and link; whatever is there already stays.
pub(crate) async fn attach(
    netlink: &Netlink,
    config: &Config,
    uid: &PodUid,
    ip: Ipv4Addr,
    mtu: u32,
) -> Result<PodNet, Error> {
    let path = netns_path(&config.netns_dir, uid);
    let host_link = uid.host_link();
    if !netns::exists(&path) {
        // A link without its namespace leads into one that nobody can name.
        netlink.delete_link(&host_link).await?;
        let path = path.clone();
        blocking(move || netns::create(&path, sysctl::prepare_pod)).await???;
    }
    let bridge = netlink.link(&config.bridge).await?;
    let host_end = match netlink.find_link(&host_link).await? {
        Some(link) => link,
        None => {
            let namespace = open(&path)?;
            netlink
                .add_veth(
                    &host_link,
                    POD_LINK,
                    pod_mac(ip),
                    namespace.as_raw_fd(),
                    mtu,
                )
                .await?;
            netlink.link(&host_link).await?
        }
    };
    netlink.attach_port(host_end.index, bridge.index).await?;
    let gateway = config.gateway();
    let inside = path.clone();
    blocking(move || netns::inside(&inside, || configure_inside(ip, gateway))).await???;
    debug!(%uid, %ip, link = %host_link, "attached");
    Ok(PodNet {
        ip,
        gateway,
        netns_path: path,
        host_link,
        mtu,
    })
}

/// Takes the pod's link and namespace away; not being there is success.
pub(crate) async fn detach(netlink: &Netlink, config: &Config, uid: &PodUid) -> Result<(), Error> {
    netlink.delete_link(&uid.host_link()).await?;
    let path = netns_path(&config.netns_dir, uid);
    blocking(move || netns::remove(&path)).await??;
    debug!(%uid, "detached");
    Ok(())
}

/// Runs on a thread inside the pod's namespace.
fn configure_inside(ip: Ipv4Addr, gateway: Ipv4Addr) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::System {
            action: "start a runtime inside the pod's namespace",
            source,
        })?;
    runtime.block_on(async {
        let netlink = Netlink::connect()?;
        netlink.set_up(netlink.link("lo").await?.index).await?;
        let link = netlink.link(POD_LINK).await?.index;
        netlink.set_up(link).await?;
        netlink.add_address(link, host(ip)).await?;
        let anywhere = Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0).expect("0 is a prefix length");
        let near = Route {
            to: host(gateway),
            link,
            via: None,
            source: None,
            onlink: false,
        };
        let far = Route {
            to: anywhere,
            link,
            via: Some(gateway),
            source: None,
            onlink: false,
        };
        netlink.replace_route(&near).await?;
        netlink.replace_route(&far).await?;
        Ok(())
    })
}

fn host(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::new(address, 32).expect("32 is a prefix length")
}

fn open(path: &Path) -> Result<std::fs::File, Error> {
    std::fs::File::open(path).map_err(|source| Error::System {
        action: "open the pod's namespace",
        source,
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::System {
            action: "wait for a thread",
            source: std::io::Error::other(error),
        })
}
