//! Services and endpoint slices, reduced to what rules and names need. Pure.
//!
//! Rules: an endpoint takes traffic when it is ready; when none is, those that still serve while they end do. Without
//! known readiness an endpoint counts as ready.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use network::dns::{DnsEndpoint, DnsPort, DnsRecord, DnsTarget};
use network::{Protocol, Service, ServicePort};
use serde_json::Value;

/// `namespace/name`.
pub type Key = String;

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFacts {
    namespace: String,
    name: String,
    cluster_ip: Option<Ipv4Addr>,
    external_name: Option<String>,
    external_ips: Vec<Ipv4Addr>,
    ports: Vec<PortFacts>,
    affinity_s: Option<u32>,
    internal_local: bool,
    external_local: bool,
    publish_not_ready: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PortFacts {
    name: String,
    protocol: Protocol,
    port: u16,
    node_port: Option<u16>,
}

/// An endpoint slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceFacts {
    service: Key,
    ports: Vec<(String, Protocol, u16)>,
    endpoints: Vec<EndpointFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct EndpointFacts {
    ips: Vec<Ipv4Addr>,
    ready: bool,
    serving: bool,
    hostname: Option<String>,
}

/// `namespace/name` of an object.
pub fn key(object: &Value) -> Key {
    format!(
        "{}/{}",
        text(&object["metadata"]["namespace"]),
        text(&object["metadata"]["name"])
    )
}

/// Reads a Service.
pub fn service(object: &Value) -> ServiceFacts {
    let spec = &object["spec"];
    let addresses = |list: &Value| {
        list.as_array()
            .into_iter()
            .flatten()
            .filter_map(|ip| ip.as_str()?.parse().ok())
            .collect::<Vec<Ipv4Addr>>()
    };
    let mut external_ips = addresses(&spec["externalIPs"]);
    let ingress = object["status"]["loadBalancer"]["ingress"].as_array();
    external_ips.extend(
        ingress
            .into_iter()
            .flatten()
            .filter_map(|entry| entry["ip"].as_str()?.parse::<Ipv4Addr>().ok()),
    );
    let affinity = (spec["sessionAffinity"] == "ClientIP").then(|| {
        spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"]
            .as_u64()
            .unwrap_or(10_800)
    });
    ServiceFacts {
        namespace: text(&object["metadata"]["namespace"]),
        name: text(&object["metadata"]["name"]),
        cluster_ip: spec["clusterIP"].as_str().and_then(|ip| ip.parse().ok()),
        external_name: (spec["type"] == "ExternalName").then(|| text(&spec["externalName"])),
        external_ips,
        ports: spec["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(port)
            .collect(),
        affinity_s: affinity.and_then(|seconds| u32::try_from(seconds).ok()),
        internal_local: spec["internalTrafficPolicy"] == "Local",
        external_local: spec["externalTrafficPolicy"] == "Local",
        publish_not_ready: spec["publishNotReadyAddresses"] == true,
    }
}

fn port(port: &Value) -> Option<PortFacts> {
    Some(PortFacts {
        name: text(&port["name"]),
        protocol: protocol(&port["protocol"]),
        port: number(&port["port"])?,
        node_port: number(&port["nodePort"]).filter(|port| *port > 0),
    })
}

/// Reads an EndpointSlice; none for one of no service or of another address family.
pub fn slice(object: &Value) -> Option<SliceFacts> {
    let service = object["metadata"]["labels"]["kubernetes.io/service-name"].as_str()?;
    if object["addressType"]
        .as_str()
        .is_some_and(|kind| kind != "IPv4")
    {
        return None;
    }
    let port = |port: &Value| {
        Some((
            text(&port["name"]),
            protocol(&port["protocol"]),
            number(&port["port"])?,
        ))
    };
    Some(SliceFacts {
        service: format!("{}/{service}", text(&object["metadata"]["namespace"])),
        ports: object["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(port)
            .collect(),
        endpoints: object["endpoints"]
            .as_array()
            .into_iter()
            .flatten()
            .map(endpoint)
            .collect(),
    })
}

fn endpoint(endpoint: &Value) -> EndpointFacts {
    let conditions = &endpoint["conditions"];
    let ready = conditions["ready"].as_bool().unwrap_or(true);
    EndpointFacts {
        ips: endpoint["addresses"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|ip| ip.as_str()?.parse().ok())
            .collect(),
        ready,
        serving: conditions["serving"].as_bool().unwrap_or(ready),
        hostname: endpoint["hostname"].as_str().map(str::to_owned),
    }
}

/// All services that have an address, with their endpoints.
pub fn rules(
    services: &BTreeMap<Key, ServiceFacts>,
    slices: &BTreeMap<Key, SliceFacts>,
) -> Vec<Service> {
    let by_service = by_service(slices);
    let rule = |(key, facts): (&Key, &ServiceFacts)| {
        let slices = by_service
            .get(key.as_str())
            .map(Vec::as_slice)
            .unwrap_or_default();
        Some(Service {
            key: key.clone(),
            cluster_ip: facts.cluster_ip.filter(|_| facts.external_name.is_none())?,
            external_ips: facts.external_ips.clone(),
            ports: facts
                .ports
                .iter()
                .map(|port| ServicePort {
                    protocol: port.protocol,
                    port: port.port,
                    node_port: port.node_port,
                    endpoints: backends(port, slices),
                })
                .collect(),
            affinity_s: facts.affinity_s,
            internal_local: facts.internal_local,
            external_local: facts.external_local,
        })
    };
    services.iter().filter_map(rule).collect()
}

fn by_service(slices: &BTreeMap<Key, SliceFacts>) -> BTreeMap<&str, Vec<&SliceFacts>> {
    let mut map: BTreeMap<&str, Vec<&SliceFacts>> = BTreeMap::new();
    for slice in slices.values() {
        map.entry(slice.service.as_str()).or_default().push(slice);
    }
    map
}

fn backends(port: &PortFacts, slices: &[&SliceFacts]) -> Vec<SocketAddrV4> {
    let collect = |takes: fn(&EndpointFacts) -> bool| {
        let mut found = vec![];
        for slice in slices {
            let Some((_, _, target)) = slice
                .ports
                .iter()
                .find(|(name, protocol, _)| *name == port.name && *protocol == port.protocol)
            else {
                continue;
            };
            let ips = slice
                .endpoints
                .iter()
                .filter(|endpoint| takes(endpoint))
                .flat_map(|endpoint| &endpoint.ips);
            found.extend(ips.map(|ip| SocketAddrV4::new(*ip, *target)));
        }
        found.sort();
        found.dedup();
        found
    };
    let ready = collect(|endpoint| endpoint.ready);
    if ready.is_empty() {
        collect(|endpoint| endpoint.serving)
    } else {
        ready
    }
}

/// The names of all services.
pub fn names(
    services: &BTreeMap<Key, ServiceFacts>,
    slices: &BTreeMap<Key, SliceFacts>,
) -> Vec<DnsRecord> {
    let by_service = by_service(slices);
    let record = |(key, facts): (&Key, &ServiceFacts)| {
        let target = match (&facts.external_name, facts.cluster_ip) {
            (Some(name), _) => DnsTarget::ExternalName(name.clone()),
            (None, Some(ip)) => DnsTarget::ClusterIp {
                ip,
                ports: facts
                    .ports
                    .iter()
                    .map(|port| dns_port(&port.name, port.protocol, port.port))
                    .collect(),
            },
            (None, None) => DnsTarget::Headless {
                endpoints: headless(
                    facts,
                    by_service
                        .get(key.as_str())
                        .map(Vec::as_slice)
                        .unwrap_or_default(),
                ),
            },
        };
        DnsRecord {
            namespace: facts.namespace.clone(),
            name: facts.name.clone(),
            target,
        }
    };
    services.iter().map(record).collect()
}

fn headless(facts: &ServiceFacts, slices: &[&SliceFacts]) -> Vec<DnsEndpoint> {
    let mut endpoints = vec![];
    for slice in slices {
        let ports: Vec<DnsPort> = slice
            .ports
            .iter()
            .map(|(name, protocol, port)| dns_port(name, *protocol, *port))
            .collect();
        for endpoint in slice
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.ready || facts.publish_not_ready)
        {
            endpoints.extend(endpoint.ips.iter().map(|ip| DnsEndpoint {
                ip: *ip,
                hostname: endpoint.hostname.clone(),
                ports: ports.clone(),
            }));
        }
    }
    endpoints
}

fn dns_port(name: &str, protocol: Protocol, port: u16) -> DnsPort {
    DnsPort {
        name: name.to_owned(),
        protocol,
        port,
    }
}

/// A transport protocol by its API word.
pub fn protocol(word: &Value) -> Protocol {
    match word.as_str() {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slices(ready: [bool; 2]) -> BTreeMap<Key, SliceFacts> {
        let object = json!({
            "metadata": { "name": "web-1", "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
            "endpoints": [
                { "addresses": ["10.244.1.2"], "conditions": { "ready": ready[0] }, "hostname": "web-0" },
                { "addresses": ["10.244.1.3"], "conditions": { "ready": ready[1], "serving": true, "terminating": true } },
            ],
        });
        [(key(&object), slice(&object).expect("a slice"))].into()
    }

    fn services(spec: Value) -> BTreeMap<Key, ServiceFacts> {
        let object = json!({ "metadata": { "name": "web", "namespace": "shop" }, "spec": spec });
        [(key(&object), service(&object))].into()
    }

    #[test]
    fn ready_endpoints_get_the_traffic_else_those_that_still_serve() {
        let ports =
            json!([{ "name": "http", "port": 80, "targetPort": "http", "nodePort": 30080 }]);
        let services = services(
            json!({ "clusterIP": "10.96.0.7", "ports": ports, "sessionAffinity": "ClientIP" }),
        );
        let endpoints = |ready| {
            rules(&services, &slices(ready))[0].ports[0]
                .endpoints
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(endpoints([true, false]), ["10.244.1.2:8080"]);
        assert_eq!(endpoints([false, false]), ["10.244.1.3:8080"]);
        let rule = &rules(&services, &slices([true, true]))[0];
        assert_eq!(
            (rule.affinity_s, rule.ports[0].node_port, rule.ports[0].port),
            (Some(10_800), Some(30_080), 80)
        );
    }

    #[test]
    fn headless_and_external_services_have_only_names() {
        let headless =
            services(json!({ "clusterIP": "None", "ports": [{ "name": "http", "port": 80 }] }));
        assert!(rules(&headless, &slices([true, true])).is_empty());
        let DnsTarget::Headless { endpoints } = &names(&headless, &slices([true, false]))[0].target
        else {
            panic!("is headless")
        };
        assert_eq!(endpoints.len(), 1);
        assert_eq!(endpoints[0].hostname.as_deref(), Some("web-0"));
        let external = services(json!({ "type": "ExternalName", "externalName": "example.org" }));
        assert_eq!(
            names(&external, &BTreeMap::new())[0].target,
            DnsTarget::ExternalName("example.org".into())
        );
    }
}
