//! Which way the pods of other nodes are reached, and keeping the kernel so.
//!
//! A peer on the uplink's own subnet is a plain route by its address. Any other is reached through one VXLAN link, with
//! the neighbour and forwarding entries written out: a node's hardware address on that link follows from its address, so
//! that nodes need not tell it to one another, and nothing is flooded or learnt. [`desired`] and [`plan`] are pure.

mod execute;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::config::OverlayMode;
pub use crate::kernel::{Mac, Route, Vxlan};
pub use execute::SyncError;
pub(crate) use execute::sync;

/// What VXLAN over IPv4 adds to a frame.
pub const VXLAN_OVERHEAD: u32 = 50;

/// A node as its peers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name; only for logs.
    pub name: String,
    /// The address of its uplink.
    pub address: Ipv4Addr,
    /// The addresses of its pods.
    pub pod_cidr: Ipv4Net,
}

/// The link to the other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its number.
    pub index: u32,
    /// Its MTU.
    pub mtu: u32,
    /// This node's address there with the subnet.
    pub address: Ipv4Net,
}

/// Everything that [`desired`] depends on.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// This node.
    pub me: &'a Node,
    /// This node's gateway address: the source of its own packets into the overlay.
    pub gateway: Ipv4Addr,
    /// The link to the others.
    pub uplink: &'a Uplink,
    /// When VXLAN is used.
    pub mode: OverlayMode,
    /// The VXLAN network identifier.
    pub vni: u32,
    /// The VXLAN port.
    pub port: u16,
    /// All other nodes.
    pub peers: &'a [Node],
}

/// How a peer's pods are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the uplink, through the peer.
    Direct(Ipv4Addr),
    /// By VXLAN, through the peer's first pod address.
    Vxlan(Ipv4Addr),
}

/// The state that the kernel shall have, or has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The VXLAN link, if there is one.
    pub vxlan: Option<Vxlan>,
    /// Destination to way.
    pub routes: BTreeMap<Ipv4Net, Way>,
    /// On the VXLAN link: next hop to hardware address.
    pub neighbours: BTreeMap<Ipv4Addr, Mac>,
    /// On the VXLAN link: hardware address to node.
    pub forwarding: BTreeMap<Mac, Ipv4Addr>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Delete a route.
    DeleteRoute(Ipv4Net),
    /// Delete the VXLAN link with all that is on it.
    DeleteVxlan,
    /// Make the VXLAN link.
    AddVxlan(Vxlan),
    /// Forget a neighbour.
    DeleteNeighbour(Ipv4Addr),
    /// Forget a forwarding entry.
    DeleteForwarding(Mac, Ipv4Addr),
    /// Set a forwarding entry.
    SetForwarding(Mac, Ipv4Addr),
    /// Set a neighbour.
    SetNeighbour(Ipv4Addr, Mac),
    /// Set a route.
    SetRoute(Ipv4Net, Way),
}

/// The hardware address of a node on the VXLAN link: local, unicast, with the node's address inside.
pub fn vxlan_mac(node: Ipv4Addr) -> Mac {
    let [a, b, c, d] = node.octets();
    Mac([0x02, 0x54, a, b, c, d])
}

/// What the kernel shall have, and the peers that cannot be served since their pods' addresses are already taken.
pub fn desired<'a>(input: &Input<'a>) -> (State, Vec<&'a Node>) {
    let mut state = State::default();
    let mut refused = vec![];
    let mut taken: BTreeSet<Ipv4Net> = BTreeSet::from([input.me.pod_cidr]);
    // By name, so that the same peer wins on every node and after every restart.
    let mut peers: Vec<&Node> = input
        .peers
        .iter()
        .filter(|peer| peer.address != input.me.address)
        .collect();
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    for peer in peers {
        if taken.iter().any(|cidr| overlap(cidr, &peer.pod_cidr)) {
            refused.push(peer);
            continue;
        }
        taken.insert(peer.pod_cidr);
        if input.mode == OverlayMode::Auto && input.uplink.address.contains(&peer.address) {
            state
                .routes
                .insert(peer.pod_cidr.trunc(), Way::Direct(peer.address));
            continue;
        }
        let hop = Ipv4Addr::from(u32::from(peer.pod_cidr.network()).wrapping_add(1));
        state.routes.insert(peer.pod_cidr.trunc(), Way::Vxlan(hop));
        state.neighbours.insert(hop, vxlan_mac(peer.address));
        state
            .forwarding
            .insert(vxlan_mac(peer.address), peer.address);
    }
    if !state.neighbours.is_empty() {
        state.vxlan = Some(Vxlan {
            vni: input.vni,
            port: input.port,
            uplink: input.uplink.index,
            local: input.me.address,
            mac: vxlan_mac(input.me.address),
            mtu: input.uplink.mtu.saturating_sub(VXLAN_OVERHEAD),
        });
    }
    (state, refused)
}

fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(b) || b.contains(a)
}

/// The steps from `present` to `desired`, in an order in which each can be done.
pub fn plan(present: &State, desired: &State) -> Vec<Step> {
    let mut steps = vec![];
    let mut present = present.clone();
    for to in present
        .routes
        .keys()
        .filter(|to| !desired.routes.contains_key(to))
    {
        steps.push(Step::DeleteRoute(*to));
    }
    if present.vxlan != desired.vxlan {
        if present.vxlan.is_some() {
            steps.push(Step::DeleteVxlan);
            present.neighbours.clear();
            present.forwarding.clear();
            present
                .routes
                .retain(|_, way| matches!(way, Way::Direct(_)));
        }
        steps.extend(desired.vxlan.map(Step::AddVxlan));
    }
    for address in present
        .neighbours
        .keys()
        .filter(|address| !desired.neighbours.contains_key(address))
    {
        steps.push(Step::DeleteNeighbour(*address));
    }
    for (mac, node) in present
        .forwarding
        .iter()
        .filter(|(mac, node)| desired.forwarding.get(mac) != Some(node))
    {
        steps.push(Step::DeleteForwarding(*mac, *node));
    }
    steps.extend(
        missing(&present.forwarding, &desired.forwarding)
            .map(|(mac, node)| Step::SetForwarding(mac, node)),
    );
    steps.extend(
        missing(&present.neighbours, &desired.neighbours)
            .map(|(hop, mac)| Step::SetNeighbour(hop, mac)),
    );
    steps
        .extend(missing(&present.routes, &desired.routes).map(|(to, way)| Step::SetRoute(to, way)));
    steps
}

fn missing<'a, K: Ord + Copy, V: PartialEq + Copy>(
    present: &'a BTreeMap<K, V>,
    desired: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (K, V)> + 'a {
    desired
        .iter()
        .filter(|(key, value)| present.get(key) != Some(value))
        .map(|(key, value)| (*key, *value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(n: u8, address: [u8; 4]) -> Node {
        Node {
            name: format!("node-{n}"),
            address: address.into(),
            pod_cidr: Ipv4Net::new([10, 244, n, 0].into(), 24).expect("a network"),
        }
    }

    fn state(mode: OverlayMode, peers: &[Node]) -> State {
        let me = node(1, [192, 168, 0, 1]);
        let uplink = Uplink {
            index: 2,
            mtu: 1500,
            address: "192.168.0.1/24".parse().expect("a network"),
        };
        let gateway = Ipv4Addr::new(10, 244, 1, 1);
        desired(&Input {
            me: &me,
            gateway,
            uplink: &uplink,
            mode,
            vni: 1,
            port: 4789,
            peers,
        })
        .0
    }

    #[test]
    fn a_neighbour_is_routed_and_a_stranger_tunnelled() {
        let state = state(
            OverlayMode::Auto,
            &[node(2, [192, 168, 0, 2]), node(3, [192, 168, 9, 3])],
        );
        let ways: Vec<String> = state
            .routes
            .iter()
            .map(|(to, way)| format!("{to} {way:?}"))
            .collect();
        assert_eq!(
            ways,
            [
                "10.244.2.0/24 Direct(192.168.0.2)",
                "10.244.3.0/24 Vxlan(10.244.3.1)"
            ]
        );
        assert_eq!(state.vxlan.expect("one peer needs it").mtu, 1450);
        assert_eq!(state.forwarding.len(), 1);
    }

    #[test]
    fn a_peer_with_taken_addresses_is_refused() {
        let me = node(1, [192, 168, 0, 1]);
        let mut thief = node(9, [192, 168, 0, 9]);
        thief.pod_cidr = me.pod_cidr;
        let uplink = Uplink {
            index: 2,
            mtu: 1500,
            address: "192.168.0.1/24".parse().expect("a network"),
        };
        let peers = [thief];
        let (state, refused) = desired(&Input {
            me: &me,
            gateway: Ipv4Addr::new(10, 244, 1, 1),
            uplink: &uplink,
            mode: OverlayMode::Auto,
            vni: 1,
            port: 4789,
            peers: &peers,
        });
        assert_eq!(state, State::default());
        assert_eq!(refused.len(), 1);
    }

    /// The kernel's part, so that a plan can be checked without one.
    fn apply(mut state: State, steps: &[Step]) -> State {
        for step in steps {
            match *step {
                Step::DeleteRoute(to) => drop(state.routes.remove(&to)),
                Step::DeleteVxlan => {
                    state.vxlan = None;
                    state.neighbours.clear();
                    state.forwarding.clear();
                    state.routes.retain(|_, way| matches!(way, Way::Direct(_)));
                }
                Step::AddVxlan(vxlan) => state.vxlan = Some(vxlan),
                Step::DeleteNeighbour(address) => drop(state.neighbours.remove(&address)),
                Step::DeleteForwarding(mac, _) => drop(state.forwarding.remove(&mac)),
                Step::SetForwarding(mac, node) => {
                    assert!(state.vxlan.is_some());
                    state.forwarding.insert(mac, node);
                }
                Step::SetNeighbour(hop, mac) => {
                    assert!(state.vxlan.is_some());
                    state.neighbours.insert(hop, mac);
                }
                Step::SetRoute(to, way) => drop(state.routes.insert(to, way)),
            }
        }
        state
    }

    fn peers() -> impl Strategy<Value = Vec<Node>> {
        prop::collection::btree_map(2..12_u8, (any::<bool>(), 2..6_u8), 0..8).prop_map(|nodes| {
            nodes
                .into_iter()
                .map(|(n, (near, host))| {
                    node(n, [192, 168, if near { 0 } else { 7 }, host * 16 + n])
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn a_plan_reaches_its_goal_and_then_there_is_nothing_to_do(before in peers(), after in peers(), forced in any::<bool>()) {
            let mode = if forced { OverlayMode::Vxlan } else { OverlayMode::Auto };
            let (before, after) = (state(OverlayMode::Auto, &before), state(mode, &after));
            let reached = apply(before.clone(), &plan(&before, &after));
            prop_assert_eq!(&reached, &after);
            prop_assert_eq!(plan(&reached, &after), vec![]);
        }
    }
}
