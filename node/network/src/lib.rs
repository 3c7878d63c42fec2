//! The pods' network: links, routes, overlay, addresses, services by nftables, DNS.
