//! The cluster's names as a snapshot: built from plain records, then only read.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::services::Protocol;

/// A service as DNS sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsRecord {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it leads.
    pub target: DnsTarget,
}

/// Where a service's name leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsTarget {
    /// To its cluster address.
    ClusterIp {
        /// The address.
        ip: Ipv4Addr,
        /// Its ports; those with a name get SRV records.
        ports: Vec<DnsPort>,
    },
    /// To the addresses of its endpoints: those that are ready, or all with `publishNotReadyAddresses`.
    Headless {
        /// The endpoints.
        endpoints: Vec<DnsEndpoint>,
    },
    /// To a name.
    ExternalName(String),
}

/// An endpoint of a headless service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsEndpoint {
    /// Its address.
    pub ip: Ipv4Addr,
    /// The pod's hostname, if it has one of its own in the service's subdomain.
    pub hostname: Option<String>,
    /// Its ports.
    pub ports: Vec<DnsPort>,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsPort {
    /// Its name; may be empty.
    pub name: String,
    /// The transport.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// What belongs to one name. Empty where the name only leads to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// A records.
    pub addresses: Vec<Ipv4Addr>,
    /// SRV records: port and full target.
    pub services: Vec<(u16, String)>,
    /// CNAME record.
    pub alias: Option<String>,
    /// TXT record.
    pub text: Option<String>,
}

/// All names of the cluster. Names are in lower case and without the last dot.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    domain: String,
    entries: HashMap<String, Entry>,
    names: HashMap<Ipv4Addr, Vec<String>>,
    own: Vec<Ipv4Net>,
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// The name is ours and exists.
    Found(std::borrow::Cow<'a, Entry>),
    /// The name is ours and does not exist.
    Missing,
    /// The name is that of an address of ours, and these names belong to it.
    Reverse(&'a [String]),
    /// The name is somebody else's.
    Foreign,
}

impl Zone {
    /// Builds the snapshot. `own` are the address ranges whose reverse names nobody else knows.
    pub fn build(domain: &str, own: Vec<Ipv4Net>, records: &[DnsRecord]) -> Self {
        let mut zone = Self {
            domain: domain.to_lowercase(),
            own,
            ..Self::default()
        };
        zone.entry("svc");
        zone.entry("pod");
        zone.entry("ns.dns");
        zone.entry("dns-version").text = Some("1.1.0".into());
        for record in records {
            zone.add(record);
        }
        zone
    }

    /// The cluster's domain.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// What is known of `name`, which is in lower case and without the last dot.
    pub fn lookup(&self, name: &str) -> Lookup<'_> {
        if let Some(ip) = reverse_address(name) {
            return match self.names.get(&ip) {
                Some(names) => Lookup::Reverse(names),
                None if self.own.iter().any(|own| own.contains(&ip)) => Lookup::Missing,
                None => Lookup::Foreign,
            };
        }
        let Some(relative) = name.strip_suffix(&self.domain) else {
            return Lookup::Foreign;
        };
        let relative = match relative.strip_suffix('.') {
            Some(relative) => relative,
            None if relative.is_empty() => {
                return Lookup::Found(std::borrow::Cow::Owned(Entry::default()));
            }
            None => return Lookup::Foreign,
        };
        if let Some(entry) = self.entries.get(relative) {
            return Lookup::Found(std::borrow::Cow::Borrowed(entry));
        }
        match pod_address(relative) {
            Some(ip) => Lookup::Found(std::borrow::Cow::Owned(Entry {
                addresses: vec![ip],
                ..Entry::default()
            })),
            None => Lookup::Missing,
        }
    }

    fn add(&mut self, record: &DnsRecord) {
        let base = format!("{}.{}.svc", record.name, record.namespace).to_lowercase();
        self.entry(&base);
        match &record.target {
            DnsTarget::ExternalName(target) => {
                self.entry(&base).alias = Some(target.trim_end_matches('.').to_lowercase());
            }
            DnsTarget::ClusterIp { ip, ports } => {
                self.entry(&base).addresses.push(*ip);
                self.add_ports(&base, &base, ports);
                let full = self.full(&base);
                self.names.entry(*ip).or_default().push(full);
            }
            DnsTarget::Headless { endpoints } => {
                for endpoint in endpoints {
                    self.add_endpoint(&base, endpoint);
                }
            }
        }
    }

    fn add_endpoint(&mut self, base: &str, endpoint: &DnsEndpoint) {
        let label = match &endpoint.hostname {
            Some(hostname) => hostname.to_lowercase(),
            None => endpoint.ip.to_string().replace('.', "-"),
        };
        let own = format!("{label}.{base}");
        for name in [base, &own] {
            let addresses = &mut self.entry(name).addresses;
            if !addresses.contains(&endpoint.ip) {
                addresses.push(endpoint.ip);
            }
        }
        self.add_ports(base, &own, &endpoint.ports);
        let full = self.full(&own);
        let names = self.names.entry(endpoint.ip).or_default();
        if !names.contains(&full) {
            names.push(full);
        }
    }

    fn add_ports(&mut self, base: &str, target: &str, ports: &[DnsPort]) {
        let target = self.full(target);
        for port in ports.iter().filter(|port| !port.name.is_empty()) {
            let name = format!("_{}._{}.{base}", port.name.to_lowercase(), port.protocol);
            let services = &mut self.entry(&name).services;
            let service = (port.port, target.clone());
            if !services.contains(&service) {
                services.push(service);
            }
        }
    }

    /// The entry of a relative name; its parents come into being with it, so that they are empty and not missing.
    fn entry(&mut self, name: &str) -> &mut Entry {
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if self.entries.contains_key(parent) {
                break;
            }
            self.entries.insert(parent.to_owned(), Entry::default());
            rest = parent;
        }
        self.entries.entry(name.to_owned()).or_default()
    }

    fn full(&self, relative: &str) -> String {
        format!("{relative}.{}", self.domain)
    }
}

/// `4.3.2.1.in-addr.arpa` to `1.2.3.4`.
fn reverse_address(name: &str) -> Option<Ipv4Addr> {
    let reversed: Ipv4Addr = name.strip_suffix(".in-addr.arpa")?.parse().ok()?;
    let [a, b, c, d] = reversed.octets();
    Some(Ipv4Addr::new(d, c, b, a))
}

/// `1-2-3-4.namespace.pod` to `1.2.3.4`.
fn pod_address(relative: &str) -> Option<Ipv4Addr> {
    let (label, rest) = relative.split_once('.')?;
    let (namespace, kind) = rest.split_once('.')?;
    if kind != "pod" || namespace.is_empty() {
        return None;
    }
    label.replace('-', ".").parse().ok()
}
