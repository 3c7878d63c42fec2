//! The union of what policies allow, as boxes of addresses and ports that don't overlap: the kernel's sets of ranges
//! refuse elements that do.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::{AddressRange, Allowed, PortRange};
use crate::Protocol;

/// Addresses and ports without overlap, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boxes {
    /// Peers with whom everything may pass.
    pub all: Vec<AddressRange>,
    /// Peers with whom these ports may pass; none of them is in `all`.
    pub ports: Vec<(AddressRange, PortRange)>,
}

/// The union of `allowed`.
pub fn boxes(allowed: &[Allowed]) -> Boxes {
    let peers_of = |takes: &dyn Fn(&Allowed) -> bool| {
        let peers = allowed.iter().filter(|allowed| takes(allowed));
        union(peers.flat_map(|allowed| allowed.peers.clone()).collect())
    };
    let all = peers_of(&|allowed| allowed.ports.is_none());
    let mut ports: Vec<(AddressRange, PortRange)> = vec![];
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        // Between two neighbouring cuts every port has the same peers.
        let mut last: Option<(PortRange, Vec<AddressRange>)> = None;
        for piece in pieces(protocol, allowed) {
            let covers = |range: &PortRange| {
                range.protocol == protocol && range.first <= piece.first && piece.last <= range.last
            };
            let peers = peers_of(&|allowed| allowed.ports.iter().flatten().any(covers));
            let peers = without(&peers, &all);
            match &mut last {
                Some((range, before)) if *before == peers => range.last = piece.last,
                _ => {
                    ports.extend(last.replace((piece, peers)).into_iter().flat_map(spread));
                }
            }
        }
        ports.extend(last.into_iter().flat_map(spread));
    }
    Boxes { all, ports }
}

fn spread(
    (ports, peers): (PortRange, Vec<AddressRange>),
) -> impl Iterator<Item = (AddressRange, PortRange)> {
    peers.into_iter().map(move |peer| (peer, ports))
}

/// All ports of a transport, cut wherever a range begins or ends.
fn pieces(protocol: Protocol, allowed: &[Allowed]) -> Vec<PortRange> {
    let ranges = allowed
        .iter()
        .flat_map(|allowed| allowed.ports.iter().flatten())
        .filter(|range| range.protocol == protocol);
    let mut cuts = BTreeSet::from([0, u32::from(u16::MAX) + 1]);
    for range in ranges {
        cuts.extend([u32::from(range.first), u32::from(range.last) + 1]);
    }
    let cuts: Vec<u32> = cuts.into_iter().collect();
    let port = |number: u32| u16::try_from(number).expect("cuts lie between 0 and 65536");
    cuts.windows(2)
        .map(|pair| PortRange {
            protocol,
            first: port(pair[0]),
            last: port(pair[1] - 1),
        })
        .collect()
}

/// The same addresses in order, without overlap or neighbours.
pub(super) fn union(mut ranges: Vec<AddressRange>) -> Vec<AddressRange> {
    ranges.sort();
    let mut joined: Vec<AddressRange> = vec![];
    for range in ranges {
        match joined.last_mut() {
            Some(before) if u32::from(range.first) <= u32::from(before.last).saturating_add(1) => {
                before.last = before.last.max(range.last);
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// `ranges` less `holes`; both in order and without overlap.
pub(super) fn without(ranges: &[AddressRange], holes: &[AddressRange]) -> Vec<AddressRange> {
    let mut left = vec![];
    for range in ranges {
        let (mut first, last) = (u64::from(u32::from(range.first)), u32::from(range.last));
        let meets = |hole: &&AddressRange| hole.first <= range.last && range.first <= hole.last;
        for hole in holes.iter().filter(meets) {
            let begin = u64::from(u32::from(hole.first));
            if first < begin {
                left.push(range_of(first, begin - 1));
            }
            first = first.max(u64::from(u32::from(hole.last)) + 1);
        }
        if first <= u64::from(last) {
            left.push(range_of(first, u64::from(last)));
        }
    }
    left
}

fn range_of(first: u64, last: u64) -> AddressRange {
    let address = |number: u64| {
        Ipv4Addr::from(u32::try_from(number).expect("both ends lie inside a range of addresses"))
    };
    AddressRange {
        first: address(first),
        last: address(last),
    }
}
