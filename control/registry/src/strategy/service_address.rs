//! Which address and ports a service gets: a free one of its pool, found from a seed on, so that masters that allocate at
//! the same time seldom choose the same. Rules: Kubernetes' service allocators: the low part of each range is left to those
//! who name what they want.

use super::Taken;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// The pool of services' addresses.
pub const ADDRESS_POOL: &str = "clusterip";
/// The pool of node ports.
pub const NODE_PORT_POOL: &str = "nodeport";
/// The first node port.
pub const NODE_PORT_FIRST: u16 = 30000;
/// The last node port.
pub const NODE_PORT_LAST: u16 = 32767;
/// Node ports below are given only to those who ask for them.
const NODE_PORT_DYNAMIC: u16 = NODE_PORT_FIRST + 86;

/// Whether a service may have the address: in the network, neither its first nor its last address.
pub fn is_usable(network: &Ipv4Net, address: Ipv4Addr) -> bool {
    network.contains(&address) && address != network.network() && address != network.broadcast()
}

/// A free address; None when all are taken.
pub fn free_address(network: &Ipv4Net, taken: &dyn Taken, seed: u64) -> Option<Ipv4Addr> {
    let first = u32::from(network.network());
    let size = u64::from(u32::from(network.broadcast()) - first); // The broadcast address itself is left out.
    let reserved = (size / 16).clamp(16, 256).min(size);
    let free = |offset: u64| {
        let address = Ipv4Addr::from(first + u32::try_from(offset).ok()?);
        let usable = is_usable(network, address);
        (usable && !taken.is_taken(ADDRESS_POOL, &address.to_string())).then_some(address)
    };
    // The second address is the API's own, the tenth that of DNS: the low part comes last and without them.
    let low = (11..reserved).chain(2..10.min(reserved));
    from_seed(reserved, size, seed)
        .find_map(free)
        .or_else(|| low.into_iter().find_map(free))
}

/// A free node port; None when all are taken.
pub fn free_node_port(taken: &dyn Taken, own: &[u16], seed: u64) -> Option<u16> {
    let free = |port: u64| {
        let port = u16::try_from(port).ok()?;
        let is_taken = own.contains(&port) || taken.is_taken(NODE_PORT_POOL, &port.to_string());
        (!is_taken).then_some(port)
    };
    let end = u64::from(NODE_PORT_LAST) + 1;
    from_seed(u64::from(NODE_PORT_DYNAMIC), end, seed)
        .find_map(free)
        .or_else(|| (u64::from(NODE_PORT_FIRST)..u64::from(NODE_PORT_DYNAMIC)).find_map(free))
}

/// The numbers from `start` to before `end`, beginning somewhere in between.
fn from_seed(start: u64, end: u64, seed: u64) -> impl Iterator<Item = u64> {
    let count = end.saturating_sub(start);
    (0..count).map(move |step| start + (seed % count + step) % count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    struct Pool(BTreeSet<String>);

    impl Taken for Pool {
        fn is_taken(&self, _pool: &str, value: &str) -> bool {
            self.0.contains(value)
        }
    }

    #[test]
    fn a_small_network_is_used_up_but_for_the_reserved() {
        let network: Ipv4Net = "10.0.0.0/27".parse().expect("a network");
        let mut pool = Pool(BTreeSet::new());
        while let Some(address) = free_address(&network, &pool, 7) {
            assert!(
                pool.0.insert(address.to_string()),
                "{address} was given twice"
            );
        }
        assert_eq!(pool.0.len(), 28);
        assert!(!pool.0.contains("10.0.0.1") && !pool.0.contains("10.0.0.10"));
    }

    proptest! {
        #[test]
        fn what_is_given_is_usable(seed: u64) {
            let network: Ipv4Net = "10.96.0.0/16".parse().expect("a network");
            let pool = Pool(BTreeSet::new());
            let address = free_address(&network, &pool, seed).expect("nothing is taken");
            prop_assert!(is_usable(&network, address));
            prop_assert!(address >= Ipv4Addr::new(10, 96, 1, 0));
            let port = free_node_port(&pool, &[], seed).expect("nothing is taken");
            prop_assert!((NODE_PORT_FIRST..=NODE_PORT_LAST).contains(&port));
        }
    }
}
