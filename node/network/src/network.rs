//! The one door to the crate: a node's network, opened once by its agent.
//!
//! Every method is level-based: it is given the whole wanted state and may be called again at any time, also after a
//! restart. Peers, services and host ports are each behind a lock of their own; pods may be attached side by side. While
//! a restarted agent has not yet heard of all services and all host ports, the rules of its former self stay in force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};

use tokio::sync::Mutex;
use tracing::{debug, info, warn};

use crate::config::{Config, PodUid};
use crate::dns::{DnsHandle, Zone};
use crate::ipam::{self, Ledger};
use crate::kernel::{self, Netlink};
use crate::overlay::{self, Node, Uplink, VXLAN_OVERHEAD};
use crate::pod::{self, PodNet};
use crate::policy::{self, Isolation};
use crate::services::{self, HostPort, NodeFacts, Service, TABLE};
use crate::{conntrack, nft, sysctl};

/// The chain by which the services' table is known to be whole: its last base chain.
const SERVICES_CHAIN: &str = "postrouting";
/// As [`SERVICES_CHAIN`], of the policies' table.
const POLICIES_CHAIN: &str = "forward_ingress";

/// The smallest MTU that IPv4 hosts must take.
const MTU_MIN: u32 = 576;

/// Why the network is not as it was asked to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot work.
    #[error("the network's configuration is invalid: {0}")]
    Config(String),
    /// No link carries the node's address.
    #[error("no link carries the node address {0}; give the uplink's name or the right address")]
    NoUplink(Ipv4Addr),
    /// An address for a pod.
    #[error(transparent)]
    Ipam(#[from] ipam::Error),
    /// A link, address or route.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// A pod's namespace or link.
    #[error(transparent)]
    Pod(#[from] pod::Error),
    /// Routes to peers.
    #[error(transparent)]
    Overlay(#[from] overlay::SyncError),
    /// A kernel switch.
    #[error(transparent)]
    Sysctl(#[from] sysctl::Error),
    /// The rules for services, host ports and policies.
    #[error("cannot set the rules for services and policies: {0}")]
    Nft(#[from] nft::Error),
    /// The DNS server's sockets.
    #[error("cannot serve DNS at {address}: {source}; is another server bound there?")]
    Dns {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

type Result<T> = std::result::Result<T, Error>;

/// A node's network.
#[derive(Debug)]
pub struct Network {
    config: Config,
    netlink: Netlink,
    uplink: Uplink,
    mtu: u32,
    ledger: Arc<SyncMutex<Ledger>>,
    peers: Mutex<Vec<Node>>,
    rules: Mutex<Rules>,
    policies: Mutex<Policies>,
    dns: Option<DnsHandle>,
}

/// What is known of services and host ports, and what the kernel has of it.
#[derive(Debug, Default)]
struct Rules {
    services: Option<Vec<Service>>,
    host_ports: Option<Vec<HostPort>>,
    /// The table as committed last; none before the first commit and after a failed one.
    committed: Option<nft::Table>,
    /// The endpoints of UDP ports as committed last.
    udp: BTreeMap<SocketAddrV4, Vec<SocketAddrV4>>,
}

/// What is known of network policies, and what the kernel has of it.
#[derive(Debug, Default)]
struct Policies {
    isolations: Option<Vec<Isolation>>,
    /// The table as committed last; none while the rules of the agent's former self are in force, and after a failure.
    committed: Option<nft::Table>,
}

impl Network {
    /// Prepares the node: switches, bridge, base rules, DNS server. Pods that are attached already stay so.
    pub async fn open(config: Config) -> Result<Self> {
        config.validate().map_err(Error::Config)?;
        let netlink = Netlink::connect()?;
        let uplink = find_uplink(&netlink, &config).await?;
        let mtu = config
            .mtu
            .unwrap_or(uplink.mtu.saturating_sub(VXLAN_OVERHEAD))
            .max(MTU_MIN);
        sysctl::prepare_host()?;
        pod::prepare_bridge(&netlink, &config, mtu).await?;
        let (path, cidr) = (config.state_dir.join("leases.json"), config.pod_cidr);
        let ledger = blocking(move || Ledger::open(path, cidr)).await?;
        let dns = start_dns(&config).await?;
        let network = Self {
            netlink,
            uplink,
            mtu,
            ledger: Arc::new(SyncMutex::new(ledger)),
            peers: Mutex::new(vec![]),
            rules: Mutex::new(Rules::default()),
            policies: Mutex::new(Policies::default()),
            dns,
            config,
        };
        if !nft::is_present(TABLE, SERVICES_CHAIN).await? {
            let rules = &mut *network.rules.lock().await;
            network.commit(rules, &[], &[]).await?;
        }
        if !nft::is_present(policy::TABLE, POLICIES_CHAIN).await? {
            commit_policies(&mut *network.policies.lock().await, &[]).await?;
        }
        info!(node = %network.config.node_name, pod_cidr = %network.config.pod_cidr, mtu, "network open");
        Ok(network)
    }

    /// The configuration that the network was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The DNS server, if the configuration has one: [`DnsHandle::update`] gives it names.
    pub fn dns(&self) -> Option<&DnsHandle> {
        self.dns.as_ref()
    }

    /// Gives the cluster's names to the DNS server.
    pub fn update_dns(&self, records: &[crate::dns::DnsRecord]) {
        if let (Some(handle), Some(dns)) = (&self.dns, &self.config.dns) {
            handle.update(Zone::build(&dns.domain, self.own_ranges(), records));
        }
    }

    /// The address of a pod that was attached, now or by the agent's former self.
    pub async fn pod_ip(&self, uid: &PodUid) -> Option<Ipv4Addr> {
        let owner = uid.clone();
        self.with_ledger(move |ledger| ledger.pool().get(&owner))
            .await
    }

    /// The addresses of all pods that have one or will get it, by [`Network::reserve_ip`] or [`Network::attach_pod`].
    pub async fn pod_ips(&self) -> BTreeMap<PodUid, Ipv4Addr> {
        let copy = |ledger: &mut Ledger| {
            let owners = ledger.pool().owners();
            owners.map(|(uid, ip)| (uid.clone(), ip)).collect()
        };
        self.with_ledger(copy).await
    }

    /// Gives the pod its address ahead of its link, so that rules can be there before its first packet.
    pub async fn reserve_ip(&self, uid: &PodUid) -> Result<Ipv4Addr> {
        let owner = uid.clone();
        Ok(self
            .with_ledger(move |ledger| ledger.allocate(&owner))
            .await?)
    }

    /// Gives the pod a network namespace, a link and an address; the same again for a pod that has them.
    pub async fn attach_pod(&self, uid: &PodUid) -> Result<PodNet> {
        let ip = self.reserve_ip(uid).await?;
        Ok(pod::attach(&self.netlink, &self.config, uid, ip, self.mtu).await?)
    }

    /// Takes the pod's network away and frees its address; success if it had none.
    pub async fn detach_pod(&self, uid: &PodUid) -> Result<()> {
        pod::detach(&self.netlink, &self.config, uid).await?;
        let owner = uid.clone();
        self.with_ledger(move |ledger| ledger.release(&owner))
            .await?;
        Ok(())
    }

    /// Detaches every pod that is not in `live`, and says which.
    pub async fn retain_pods(&self, live: &BTreeSet<PodUid>) -> Result<Vec<PodUid>> {
        let (netns_dir, keep) = (self.config.netns_dir.clone(), live.clone());
        let gone = self.with_ledger(move |ledger| {
            let unnamed = pod::list_namespaces(&netns_dir)
                .into_iter()
                .filter(|uid| !keep.contains(uid));
            unnamed
                .chain(ledger.leaked(&keep))
                .collect::<BTreeSet<PodUid>>()
        });
        let gone = gone.await;
        for uid in &gone {
            warn!(%uid, "the pod is gone and its network was left; detaching");
            self.detach_pod(uid).await?;
        }
        Ok(gone.into_iter().collect())
    }

    /// Makes the routes those to `peers`, all other nodes. Returns how many changes that took.
    pub async fn sync_peers(&self, peers: &[Node]) -> Result<usize> {
        let mut present = self.peers.lock().await;
        *present = peers.to_vec();
        self.route_to(&present).await
    }

    /// Makes the rules those for `services`, all services that have a cluster address.
    pub async fn sync_services(&self, services: Vec<Service>) -> Result<()> {
        let mut rules = self.rules.lock().await;
        rules.services = Some(services);
        self.apply(&mut rules).await
    }

    /// Makes the rules those for `host_ports`, all host ports of this node's pods.
    pub async fn sync_host_ports(&self, host_ports: Vec<HostPort>) -> Result<()> {
        let mut rules = self.rules.lock().await;
        rules.host_ports = Some(host_ports);
        self.apply(&mut rules).await
    }

    /// Makes the rules those for `isolations`, all of this node's pods that policies select. Until the first call those of
    /// the agent's former self are in force.
    pub async fn sync_policies(&self, isolations: Vec<Isolation>) -> Result<()> {
        let mut policies = self.policies.lock().await;
        let done = commit_policies(&mut policies, &isolations).await;
        policies.isolations = Some(isolations);
        done
    }

    /// Puts back the kernel's switches that other software sets when it starts, and without which pods beside each other are
    /// not reached through services. Cheap; to be called every second or so.
    pub fn keep_switches(&self) -> Result<()> {
        Ok(sysctl::prepare_host()?)
    }

    /// Puts back what other software removed behind our back: switches, bridge, routes, rules. To be called now and then.
    pub async fn repair(&self) -> Result<()> {
        sysctl::prepare_host()?;
        pod::prepare_bridge(&self.netlink, &self.config, self.mtu).await?;
        let peers = self.peers.lock().await;
        if !peers.is_empty() {
            self.route_to(&peers).await?;
        }
        drop(peers);
        let mut rules = self.rules.lock().await;
        if rules.committed.is_some() && !nft::is_present(TABLE, SERVICES_CHAIN).await? {
            warn!("the rules for services were removed by somebody else; setting them anew");
            rules.committed = None;
            let (services, host_ports) = (rules.services.clone(), rules.host_ports.clone());
            self.commit(
                &mut rules,
                &services.unwrap_or_default(),
                &host_ports.unwrap_or_default(),
            )
            .await?;
        }
        drop(rules);
        let mut policies = self.policies.lock().await;
        if policies.committed.is_some() && !nft::is_present(policy::TABLE, POLICIES_CHAIN).await? {
            warn!("the rules for policies were removed by somebody else; setting them anew");
            policies.committed = None;
            let isolations = policies.isolations.clone().unwrap_or_default();
            commit_policies(&mut policies, &isolations).await?;
        }
        Ok(())
    }

    /// Removes all that was made: pods' namespaces and links, bridge, routes, VXLAN link, rules, leases.
    pub async fn teardown(self) -> Result<()> {
        self.retain_pods(&BTreeSet::new()).await?;
        nft::commit(&nft::remove(TABLE)).await?;
        nft::commit(&nft::remove(policy::TABLE)).await?;
        for route in self.netlink.our_routes().await? {
            self.netlink.delete_route(&route).await?;
        }
        self.netlink.delete_link(&self.config.vxlan).await?;
        if let Some(dns) = self.dns {
            dns.stop().await;
        }
        self.netlink.delete_link(&self.config.bridge).await?;
        info!(node = %self.config.node_name, "network removed");
        Ok(())
    }

    async fn route_to(&self, peers: &[Node]) -> Result<usize> {
        let me = Node {
            name: self.config.node_name.clone(),
            address: self.config.node_address,
            pod_cidr: self.config.pod_cidr,
        };
        let input = overlay::Input {
            me: &me,
            gateway: self.config.gateway(),
            uplink: &self.uplink,
            mode: self.config.overlay,
            vni: self.config.vxlan_vni,
            port: self.config.vxlan_port,
            peers,
        };
        Ok(overlay::sync(&self.netlink, &self.config.vxlan, &input).await?)
    }

    /// Commits what is known, once everything is known or nothing older is in force.
    async fn apply(&self, rules: &mut Rules) -> Result<()> {
        if rules.committed.is_none() && (rules.services.is_none() || rules.host_ports.is_none()) {
            debug!("services or host ports are not known yet; the present rules stay");
            return Ok(());
        }
        let (services, host_ports) = (rules.services.take(), rules.host_ports.take());
        let done = self
            .commit(
                rules,
                services.as_deref().unwrap_or(&[]),
                host_ports.as_deref().unwrap_or(&[]),
            )
            .await;
        (rules.services, rules.host_ports) = (services, host_ports);
        done
    }

    async fn commit(
        &self,
        rules: &mut Rules,
        services: &[Service],
        host_ports: &[HostPort],
    ) -> Result<()> {
        let table = services::render(&self.facts(), services, host_ports);
        if !commit_table(TABLE, &mut rules.committed, table).await? {
            return Ok(());
        }
        let udp = services::udp_endpoints(services, host_ports);
        let stale = conntrack::lost(&rules.udp, &udp);
        rules.udp = udp;
        if let Err(error) = conntrack::forget(&stale).await {
            warn!(%error, "clients of removed UDP endpoints may wait until their flows time out");
        }
        Ok(())
    }

    /// Works on the ledger on a thread that may wait for the disk.
    async fn with_ledger<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> T + Send + 'static,
    ) -> T {
        let ledger = self.ledger.clone();
        blocking(move || work(&mut ledger.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    fn facts(&self) -> NodeFacts {
        let server = |dns: &crate::config::DnsConfig| {
            Some((
                dns.service_ip?,
                SocketAddrV4::new(self.config.gateway(), dns.port),
            ))
        };
        NodeFacts {
            pod_cidr: self.config.pod_cidr,
            cluster_cidr: self.config.cluster_cidr,
            service_cidr: self.config.service_cidr,
            bridge: self.config.bridge.clone(),
            vxlan: self.config.vxlan.clone(),
            dns: self.config.dns.as_ref().and_then(server),
        }
    }

    fn own_ranges(&self) -> Vec<ipnet::Ipv4Net> {
        vec![self.config.cluster_cidr, self.config.service_cidr]
    }
}

async fn commit_policies(policies: &mut Policies, isolations: &[Isolation]) -> Result<()> {
    let table = policy::render(isolations);
    commit_table(policy::TABLE, &mut policies.committed, table).await?;
    Ok(())
}

/// Takes the kernel from `committed` to `table` by their difference, or wholly where that is not known or was refused.
/// False if there was nothing to do.
async fn commit_table(
    name: &str,
    committed: &mut Option<nft::Table>,
    table: nft::Table,
) -> std::result::Result<bool, nft::Error> {
    match committed.take() {
        Some(old) => {
            let change = nft::diff(name, &old, &table);
            if change.is_empty() {
                *committed = Some(old);
                return Ok(false);
            }
            if let Err(error) = nft::commit(&change).await {
                warn!(%error, "a change of the rules was refused; setting all of them anew");
                nft::commit(&nft::replace(name, &table)).await?;
            }
        }
        None => nft::commit(&nft::replace(name, &table)).await?,
    }
    *committed = Some(table);
    Ok(true)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // The only other end is the runtime's, and then nobody waits here.
    tokio::task::spawn_blocking(work)
        .await
        .expect("work on the ledger does not panic")
}

async fn find_uplink(netlink: &Netlink, config: &Config) -> Result<Uplink> {
    let named = match &config.uplink {
        Some(name) => Some(netlink.link(name).await?.index),
        None => None,
    };
    let addresses = netlink.addresses().await?;
    let carries = |(link, address): &&(u32, ipnet::Ipv4Net)| {
        address.addr() == config.node_address && named.is_none_or(|named| named == *link)
    };
    let (index, address) = *addresses
        .iter()
        .find(carries)
        .ok_or(Error::NoUplink(config.node_address))?;
    Ok(Uplink {
        index,
        mtu: netlink.link_at(index).await?.mtu,
        address,
    })
}

async fn start_dns(config: &Config) -> Result<Option<DnsHandle>> {
    let Some(dns) = &config.dns else {
        return Ok(None);
    };
    let address = SocketAddr::from((config.gateway(), dns.port));
    let zone = Zone::build(
        &dns.domain,
        vec![config.cluster_cidr, config.service_cidr],
        &[],
    );
    let handle = DnsHandle::start(address, &dns.upstreams, zone).await;
    handle
        .map(Some)
        .map_err(|source| Error::Dns { address, source })
}
