//! The text of a pod's `resolv.conf` and `hosts`, as the kubelet writes them. Pure.
//!
//! Rules: Kubernetes' "DNS for Services and Pods" and "Adding entries to Pod /etc/hosts with HostAliases".

use std::fmt::Write as _;
use std::net::IpAddr;

/// Limits of the resolver in libc, which Kubernetes takes over.
const NAMESERVERS_MAX: usize = 3;
/// Kubernetes' limit on search domains.
const SEARCHES_MAX: usize = 32;
/// Kubernetes' limit on the length of all search domains together.
const SEARCH_LEN_MAX: usize = 2048;

/// `dnsPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsPolicy {
    /// The cluster's server and search domains.
    ClusterFirst,
    /// The node's own.
    Default,
    /// Nothing but the pod's `dnsConfig`.
    None,
}

/// What a `resolv.conf` says: a file's content, or a pod's `dnsConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Servers in order.
    pub nameservers: Vec<String>,
    /// Search domains in order.
    pub searches: Vec<String>,
    /// `name` or `name:value`.
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads a file's text; what it does not know it leaves out, as libc does.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => conf.nameservers.extend(words.next()),
                // The last line wins.
                Some("search" | "domain") => conf.searches = words.collect(),
                Some("options") => conf.options.extend(words),
                _ => {}
            }
        }
        conf
    }

    /// The servers that are addresses.
    pub fn servers(&self) -> Vec<IpAddr> {
        self.nameservers
            .iter()
            .filter_map(|server| server.parse().ok())
            .collect()
    }

    fn extend(&mut self, other: &ResolvConf) {
        extend_new(&mut self.nameservers, &other.nameservers);
        extend_new(&mut self.searches, &other.searches);
        for option in &other.options {
            let name = option_name(option);
            self.options.retain(|present| option_name(present) != name);
            self.options.push(option.clone());
        }
    }

    fn render(&self) -> String {
        let mut text = String::new();
        let mut len = 0;
        let fits = |domain: &&str| {
            len += domain.len() + 1;
            len <= SEARCH_LEN_MAX
        };
        let searches: Vec<&str> = self
            .searches
            .iter()
            .map(String::as_str)
            .take(SEARCHES_MAX)
            .take_while(fits)
            .collect();
        if !searches.is_empty() {
            text += &format!("search {}\n", searches.join(" "));
        }
        for nameserver in self.nameservers.iter().take(NAMESERVERS_MAX) {
            text += &format!("nameserver {nameserver}\n");
        }
        if !self.options.is_empty() {
            text += &format!("options {}\n", self.options.join(" "));
        }
        text
    }
}

fn extend_new(present: &mut Vec<String>, more: &[String]) {
    for item in more {
        if !present.contains(item) {
            present.push(item.clone());
        }
    }
}

fn option_name(option: &str) -> &str {
    option.split(':').next().unwrap_or(option)
}

/// A pod's `resolv.conf`. A pod on the host's network with `ClusterFirst` is to be given [`DnsPolicy::Default`], and one
/// with `ClusterFirstWithHostNet` [`DnsPolicy::ClusterFirst`].
pub fn resolv_conf(
    policy: DnsPolicy,
    namespace: &str,
    domain: &str,
    server: IpAddr,
    node: &ResolvConf,
    pod: &ResolvConf,
) -> String {
    let mut conf = match policy {
        DnsPolicy::None => ResolvConf::default(),
        DnsPolicy::Default => node.clone(),
        DnsPolicy::ClusterFirst => {
            let cluster = [
                format!("{namespace}.svc.{domain}"),
                format!("svc.{domain}"),
                domain.to_owned(),
            ];
            let mut searches = cluster.to_vec();
            extend_new(&mut searches, &node.searches);
            ResolvConf {
                nameservers: vec![server.to_string()],
                searches,
                options: vec!["ndots:5".into()],
            }
        }
    };
    conf.extend(pod);
    conf.render()
}

/// Where a pod's `hosts` begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostsBase<'a> {
    /// A pod with its own network: its addresses, its name, its domain if it has a subdomain.
    Pod {
        /// The pod's addresses.
        ips: &'a [IpAddr],
        /// Its host name.
        hostname: &'a str,
        /// `subdomain.namespace.svc.cluster.local`.
        domain: Option<&'a str>,
    },
    /// A pod on the host's network: the node's file.
    Host {
        /// The text of the node's file.
        text: &'a str,
    },
}

/// A pod's `hosts` file; `aliases` are its `hostAliases`.
pub fn hosts_file(base: &HostsBase<'_>, aliases: &[(String, Vec<String>)]) -> String {
    let mut text = String::new();
    match base {
        HostsBase::Pod {
            ips,
            hostname,
            domain,
        } => {
            text += "# Kubernetes-managed hosts file.\n\
                127.0.0.1\tlocalhost\n\
                ::1\tlocalhost ip6-localhost ip6-loopback\n\
                fe00::0\tip6-localnet\n\
                fe00::0\tip6-mcastprefix\n\
                fe00::1\tip6-allnodes\n\
                fe00::2\tip6-allrouters\n";
            for ip in *ips {
                match domain {
                    Some(domain) => text += &format!("{ip}\t{hostname}.{domain}\t{hostname}\n"),
                    None => text += &format!("{ip}\t{hostname}\n"),
                }
            }
        }
        HostsBase::Host { text: node } => {
            text += "# Kubernetes-managed hosts file (host network).\n";
            text += node;
        }
    }
    if !aliases.is_empty() {
        text += "\n# Entries added by HostAliases.\n";
        for (ip, names) in aliases {
            writeln!(text, "{ip}\t{}", names.join("\t")).expect("writing to a string cannot fail");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::net::Ipv4Addr;

    const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10));

    fn node() -> ResolvConf {
        ResolvConf::parse(
            "# the node's\nnameserver 192.0.2.1\nsearch example.org\noptions timeout:1\n",
        )
    }

    fn pod() -> ResolvConf {
        ResolvConf {
            nameservers: vec!["192.0.2.7".into()],
            searches: vec!["own.example".into(), "example.org".into()],
            options: vec!["ndots:2".into(), "edns0".into()],
        }
    }

    fn conf(policy: DnsPolicy, pod: &ResolvConf) -> String {
        resolv_conf(policy, "shop", "cluster.local", SERVER, &node(), pod)
    }

    #[test]
    fn each_policy_as_the_kubelet_writes_it() {
        expect![[r#"
            search shop.svc.cluster.local svc.cluster.local cluster.local example.org
            nameserver 10.96.0.10
            options ndots:5
        "#]]
        .assert_eq(&conf(DnsPolicy::ClusterFirst, &ResolvConf::default()));
        expect![[r#"
            search shop.svc.cluster.local svc.cluster.local cluster.local example.org own.example
            nameserver 10.96.0.10
            nameserver 192.0.2.7
            options ndots:2 edns0
        "#]]
        .assert_eq(&conf(DnsPolicy::ClusterFirst, &pod()));
        expect![[r#"
            search example.org
            nameserver 192.0.2.1
            options timeout:1
        "#]]
        .assert_eq(&conf(DnsPolicy::Default, &ResolvConf::default()));
        expect![[r#"
            search own.example example.org
            nameserver 192.0.2.7
            options ndots:2 edns0
        "#]]
        .assert_eq(&conf(DnsPolicy::None, &pod()));
    }

    #[test]
    fn hosts_of_a_pod_with_aliases() {
        let ips = [IpAddr::V4(Ipv4Addr::new(10, 244, 1, 5))];
        let base = HostsBase::Pod {
            ips: &ips,
            hostname: "db-0",
            domain: Some("db.shop.svc.cluster.local"),
        };
        expect![[r#"
            # Kubernetes-managed hosts file.
            127.0.0.1	localhost
            ::1	localhost ip6-localhost ip6-loopback
            fe00::0	ip6-localnet
            fe00::0	ip6-mcastprefix
            fe00::1	ip6-allnodes
            fe00::2	ip6-allrouters
            10.244.1.5	db-0.db.shop.svc.cluster.local	db-0

            # Entries added by HostAliases.
            192.0.2.9	foo	bar
        "#]]
        .assert_eq(&hosts_file(
            &base,
            &[("192.0.2.9".into(), vec!["foo".into(), "bar".into()])],
        ));
    }
}
