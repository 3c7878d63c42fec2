//! Services and endpoint slices, reduced to what rules and names need. Pure.
//!
//! Rules: an endpoint takes traffic when it is ready; when none is, those that still serve while they end do; this holds
//! anew among the endpoints of this node where a policy is `Local`. Without known readiness an endpoint counts as ready.
//! Hints narrow to this node or zone where every ready endpoint has them and one of them is for here, as kube-proxy does.

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
    node: Option<String>,
    for_nodes: Vec<String>,
    for_zones: Vec<String>,
}

/// Where this node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub node: String,
    /// Its zone, by its label.
    pub zone: Option<String>,
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
    let hints = |kind: &str| {
        let places = endpoint["hints"][kind].as_array().into_iter().flatten();
        places.map(|place| text(&place["name"])).collect()
    };
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
        node: endpoint["nodeName"].as_str().map(str::to_owned),
        for_nodes: hints("forNodes"),
        for_zones: hints("forZones"),
    }
}

/// All services that have an address, with their endpoints.
pub fn rules(
    services: &BTreeMap<Key, ServiceFacts>,
    slices: &BTreeMap<Key, SliceFacts>,
    place: &Place,
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
                .map(|port| service_port(port, slices, place))
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

fn service_port(port: &PortFacts, slices: &[&SliceFacts], place: &Place) -> ServicePort {
    let all = backends(port, slices);
    let ready = usable(&all);
    let here = all
        .iter()
        .filter(|backend| backend.endpoint.node.as_deref() == Some(&place.node));
    let here: Vec<Backend<'_>> = here.copied().collect();
    ServicePort {
        protocol: port.protocol,
        port: port.port,
        node_port: port.node_port,
        endpoints: addresses(&nearest(ready, place)),
        local_endpoints: addresses(&usable(&here)),
    }
}

/// An endpoint and the port at which it listens.
#[derive(Clone, Copy)]
struct Backend<'a> {
    endpoint: &'a EndpointFacts,
    port: u16,
}

fn backends<'a>(port: &PortFacts, slices: &[&'a SliceFacts]) -> Vec<Backend<'a>> {
    let of_slice = |slice: &&'a SliceFacts| {
        let target = slice
            .ports
            .iter()
            .find(|(name, protocol, _)| *name == port.name && *protocol == port.protocol)?;
        let (port, endpoints) = (target.2, slice.endpoints.iter());
        Some(endpoints.map(move |endpoint| Backend { endpoint, port }))
    };
    slices.iter().filter_map(of_slice).flatten().collect()
}

/// Those that are ready; without any those that still serve.
fn usable<'a>(all: &[Backend<'a>]) -> Vec<Backend<'a>> {
    let takes = |test: fn(&EndpointFacts) -> bool| -> Vec<Backend<'a>> {
        all.iter()
            .filter(|backend| test(backend.endpoint))
            .copied()
            .collect()
    };
    let ready = takes(|endpoint| endpoint.ready);
    if ready.is_empty() {
        takes(|endpoint| endpoint.serving)
    } else {
        ready
    }
}

/// Those that the hints keep for this node, else for its zone, else all.
fn nearest<'a>(all: Vec<Backend<'a>>, place: &Place) -> Vec<Backend<'a>> {
    let narrowed = |hints: fn(&EndpointFacts) -> &Vec<String>, here: &String| {
        let is_hinted = |backend: &Backend<'_>| !hints(backend.endpoint).is_empty();
        let is_for_here = |backend: &&Backend<'_>| hints(backend.endpoint).contains(here);
        let found: Vec<Backend<'a>> = all.iter().filter(is_for_here).copied().collect();
        (all.iter().all(is_hinted) && !found.is_empty()).then_some(found)
    };
    let by_node = narrowed(|endpoint| &endpoint.for_nodes, &place.node);
    let by_zone = || narrowed(|endpoint| &endpoint.for_zones, place.zone.as_ref()?);
    by_node.or_else(by_zone).unwrap_or(all)
}

fn addresses(backends: &[Backend<'_>]) -> Vec<SocketAddrV4> {
    let mut found: Vec<SocketAddrV4> = backends
        .iter()
        .flat_map(|backend| {
            let ips = backend.endpoint.ips.iter();
            ips.map(|ip| SocketAddrV4::new(*ip, backend.port))
        })
        .collect();
    found.sort();
    found.dedup();
    found
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
            rules(&services, &slices(ready), &place())[0].ports[0]
                .endpoints
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(endpoints([true, false]), ["10.244.1.2:8080"]);
        assert_eq!(endpoints([false, false]), ["10.244.1.3:8080"]);
        let rule = &rules(&services, &slices([true, true]), &place())[0];
        assert_eq!(
            (rule.affinity_s, rule.ports[0].node_port, rule.ports[0].port),
            (Some(10_800), Some(30_080), 80)
        );
    }

    #[test]
    fn headless_and_external_services_have_only_names() {
        let headless =
            services(json!({ "clusterIP": "None", "ports": [{ "name": "http", "port": 80 }] }));
        assert!(rules(&headless, &slices([true, true]), &place()).is_empty());
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

    fn place() -> Place {
        Place {
            node: "n1".to_owned(),
            zone: Some("east".to_owned()),
        }
    }

    /// Endpoints as `(last part of the address, node, ready, serving, zones, nodes)`; which get traffic of all and of the
    /// node's own.
    fn chosen(endpoints: Value) -> (Vec<u8>, Vec<u8>) {
        let object = json!({
            "metadata": { "name": "web-1", "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" } },
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
            "endpoints": endpoints,
        });
        let slices = [(key(&object), slice(&object).expect("a slice"))].into();
        let services = services(
            json!({ "clusterIP": "10.96.0.7", "ports": [{ "name": "http", "port": 80 }] }),
        );
        let port = &rules(&services, &slices, &place())[0].ports[0];
        let last = |list: &Vec<SocketAddrV4>| list.iter().map(|at| at.ip().octets()[3]).collect();
        (last(&port.endpoints), last(&port.local_endpoints))
    }

    fn endpoint_at(host: u8, node: &str, ready: bool, hints: Value) -> Value {
        json!({
            "addresses": [format!("10.244.1.{host}")], "nodeName": node, "hints": hints,
            "conditions": { "ready": ready, "serving": true, "terminating": !ready },
        })
    }

    #[test]
    fn ending_endpoints_serve_for_their_node_while_it_has_no_ready_one() {
        let at = |host, node, ready| endpoint_at(host, node, ready, Value::Null);
        let one_here = json!([at(1, "n1", true), at(2, "n1", false), at(3, "n2", true)]);
        assert_eq!(chosen(one_here), (vec![1, 3], vec![1]));
        let ending_here = json!([at(2, "n1", false), at(3, "n2", true)]);
        assert_eq!(chosen(ending_here), (vec![3], vec![2]));
        let ending = json!([at(2, "n1", false), at(3, "n2", false)]);
        assert_eq!(chosen(ending), (vec![2, 3], vec![2]));
        assert_eq!(chosen(json!([at(3, "n2", true)])), (vec![3], vec![]));
    }

    #[test]
    fn hints_keep_traffic_near_where_all_have_them_and_one_is_for_here() {
        let zone = |host, zone: &str| {
            endpoint_at(host, "n2", true, json!({ "forZones": [{ "name": zone }] }))
        };
        let near = json!([zone(1, "east"), zone(2, "west")]);
        assert_eq!(chosen(near), (vec![1], vec![]));
        assert_eq!(chosen(json!([zone(2, "west")])).0, [2]);
        let unhinted = endpoint_at(3, "n2", true, Value::Null);
        assert_eq!(chosen(json!([zone(1, "east"), unhinted])).0, [1, 3]);
        let node = |host, node: &str| {
            let hints = json!({ "forNodes": [{ "name": node }], "forZones": [{ "name": "east" }] });
            endpoint_at(host, node, true, hints)
        };
        assert_eq!(chosen(json!([node(1, "n1"), node(2, "n2")])).0, [1]);
        assert_eq!(chosen(json!([node(2, "n2"), node(3, "n3")])).0, [2, 3]);
    }
}
