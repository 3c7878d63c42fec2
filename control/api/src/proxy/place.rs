//! What a proxied path means: `[SCHEME:]NAME[:PORT]` of a pod, a service or a node becomes the [`Backend`] that is asked.
//!
//! Rules and texts: apiserver's `ResourceLocation` of pods, services and nodes.

use super::backend::{Backend, PodBackend, Reach};
use crate::ApiServer;
use crate::cluster;
use objects::{LabelSelector, Reason, Status};
use registry::{ListOptions, Target};
use serde::Deserialize;
use std::net::IpAddr;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A name with what may stand around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named<'a> {
    https: bool,
    name: &'a str,
    /// A number or a port's name; empty when none is given.
    port: &'a str,
}

impl<'a> Named<'a> {
    /// Reads `NAME`, `NAME:PORT` and `SCHEME:NAME:PORT`, where the scheme is `http`, `https` or empty.
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        let known = matches!(scheme, "" | "http" | "https");
        (known && !name.is_empty()).then_some(Named {
            https: scheme == "https",
            name,
            port,
        })
    }

    fn of(kind: &str, text: &'a str) -> Result<Self, Status> {
        Named::parse(text)
            .ok_or_else(|| Status::bad_request(format!("invalid {kind} request {text:?}")))
    }

    fn number(&self) -> Option<u16> {
        self.port.parse().ok().filter(|port| *port > 0)
    }

    /// The port to ask where no other is meant.
    fn number_or_default(&self) -> u16 {
        self.number().unwrap_or(if self.https { 443 } else { 80 })
    }
}

/// A node: its kubelet port, or another port of the machine.
pub async fn node(server: &ApiServer, text: &str) -> Result<Backend, Status> {
    let named = Named::of("node", text)?;
    let node = server.node_address(named.name).await?;
    let kubelet = named.port.is_empty() || named.number() == Some(node.port);
    if kubelet {
        return Ok(Backend {
            https: false,
            reach: Reach::Kubelet(node),
        });
    }
    let port = named
        .number()
        .ok_or_else(|| Status::bad_request(format!("invalid node request {text:?}")))?;
    Ok(Backend {
        https: named.https,
        reach: Reach::Direct {
            host: node.host,
            port,
        },
    })
}

/// A pod: the given port, else the first that its containers name.
pub async fn pod(server: &ApiServer, namespace: &str, text: &str) -> Result<Backend, Status> {
    let named = Named::of("pod", text)?;
    let json = server
        .read("", "v1", "pods", Some(namespace), named.name)
        .await?;
    let pod: PodView = serde_json::from_slice(&json).map_err(Status::internal)?;
    let port = match named.port {
        "" => pod
            .first_port()
            .unwrap_or_else(|| named.number_or_default()),
        given => named.number().ok_or_else(|| {
            Status::bad_request(format!("invalid port {given:?}: a number is wanted"))
        })?,
    };
    let address = pod.status.pod_ip.parse().ok().filter(is_allowed);
    let address = address.ok_or_else(|| Status::bad_request("address not allowed"))?;
    let node = server.node_address(&pod.spec.node_name).await?;
    Ok(Backend {
        https: named.https,
        reach: Reach::Pod(PodBackend {
            node,
            namespace: namespace.to_owned(),
            name: named.name.to_owned(),
            address,
            port,
        }),
    })
}

/// Why a service leads nowhere.
#[derive(Debug)]
pub struct NoBackend {
    /// One word, as kube-aggregator's conditions have it.
    pub reason: &'static str,
    /// For people.
    pub told: String,
    /// What the service's proxy answers.
    pub status: Status,
}

/// A service: one of its ready endpoints, taken at random.
pub async fn service(server: &ApiServer, namespace: &str, text: &str) -> Result<Backend, Status> {
    let found = service_backend(server, namespace, text).await;
    found.map_err(|none| none.status)
}

/// The same, with the reason where there is none.
pub async fn service_backend(
    server: &ApiServer,
    namespace: &str,
    text: &str,
) -> Result<Backend, NoBackend> {
    let other = |status: Status| NoBackend {
        reason: "ServiceAccessError",
        told: status.message.clone(),
        status,
    };
    let named = Named::of("service", text).map_err(other)?;
    let name = named.name;
    let json = server
        .read("", "v1", "services", Some(namespace), name)
        .await;
    let json = json.map_err(|status| match status.is(Reason::NotFound) {
        true => NoBackend {
            reason: "ServiceNotFound",
            told: format!("service/{name} in {namespace:?} is not present"),
            status,
        },
        false => other(status),
    })?;
    let service: ServiceView = serde_json::from_slice(&json)
        .map_err(Status::internal)
        .map_err(other)?;
    let port = service.port_name(&named).map_err(|status| NoBackend {
        reason: "ServicePortError",
        told: format!(
            "service/{name} in {namespace:?} is not listening on port {}",
            named.port
        ),
        status,
    })?;
    let slices = slices(server, namespace, name).await.map_err(other)?;
    let mut found = candidates(&slices, &port);
    if found.is_empty() {
        let (reason, told) = match slices.is_empty() {
            true => (
                "EndpointsNotFound",
                format!("cannot find endpointslices for service/{name} in {namespace:?}"),
            ),
            false => (
                "MissingEndpoints",
                format!(
                    "endpoints for service/{name} in {namespace:?} have no addresses with port name {port:?}"
                ),
            ),
        };
        let status = unavailable(format!("no endpoints available for service {text:?}"));
        return Err(NoBackend {
            reason,
            told,
            status,
        });
    }
    let (endpoint, port) = found.swap_remove(rand::random_range(..found.len()));
    let reach = reach(server, namespace, endpoint, port).await;
    Ok(Backend {
        https: named.https,
        reach: reach.map_err(other)?,
    })
}

async fn reach(
    server: &ApiServer,
    namespace: &str,
    endpoint: &Endpoint,
    port: u16,
) -> Result<Reach, Status> {
    let address: IpAddr = endpoint
        .addresses
        .first()
        .and_then(|address| address.parse().ok())
        .filter(is_allowed)
        .ok_or_else(|| Status::bad_request("address not allowed"))?;
    Ok(match endpoint.pod() {
        Some((node, name)) => Reach::Pod(PodBackend {
            node: server.node_address(node).await?,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            address,
            port,
        }),
        None => Reach::Direct {
            host: address.to_string(),
            port,
        },
    })
}

async fn slices(
    server: &ApiServer,
    namespace: &str,
    service: &str,
) -> Result<Vec<SliceView>, Status> {
    let registry = server.pipeline().registry();
    let row = registry
        .find("discovery.k8s.io", "v1", "endpointslices")
        .ok_or_else(cluster::not_found)?;
    let target = Target::collection(row, Some(namespace));
    let options = ListOptions {
        label_selector: LabelSelector::parse(&format!("{SERVICE_NAME}={service}"))
            .map_err(Status::internal)?,
        ..ListOptions::default()
    };
    let list = server.pipeline().list(&target, &options);
    let list = server.within_deadline(list).await?;
    list.items
        .iter()
        .map(|json| serde_json::from_slice(json).map_err(Status::internal))
        .collect()
}

/// Ready endpoints with the number of the port so named.
fn candidates<'a>(slices: &'a [SliceView], port: &str) -> Vec<(&'a Endpoint, u16)> {
    let of_slice = |slice: &'a SliceView| {
        let number = slice
            .ports
            .iter()
            .find(|it| it.name.as_deref().unwrap_or_default() == port)
            .and_then(|it| it.port);
        let ready = slice
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.conditions.ready != Some(false));
        number
            .into_iter()
            .flat_map(move |number| ready.clone().map(move |endpoint| (endpoint, number)))
    };
    slices.iter().flat_map(of_slice).collect()
}

/// 503. It names no time to retry, so that clients say at once what is wrong.
pub(super) fn unavailable(message: String) -> Status {
    Status::failure(503, Reason::ServiceUnavailable, message)
}

/// Addresses of the machine itself and of the link are no backends: a proxy would lend the master's own place.
fn is_allowed(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

#[derive(Deserialize)]
struct PodView {
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    #[serde(default)]
    node_name: String,
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    ports: Vec<ContainerPort>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    container_port: u16,
}

#[derive(Default, Deserialize)]
struct PodStatus {
    #[serde(rename = "podIP", default)]
    pod_ip: String,
}

impl PodView {
    fn first_port(&self) -> Option<u16> {
        let mut ports = self.spec.containers.iter().flat_map(|it| &it.ports);
        ports.next().map(|port| port.container_port)
    }
}

#[derive(Deserialize)]
struct ServiceView {
    spec: ServiceSpec,
}

#[derive(Deserialize)]
struct ServiceSpec {
    #[serde(default)]
    ports: Vec<ServicePort>,
}

#[derive(Deserialize)]
struct ServicePort {
    #[serde(default)]
    name: String,
    port: u16,
}

impl ServiceView {
    /// The name of the port that is meant; a number must be one of the service's.
    fn port_name(&self, named: &Named<'_>) -> Result<String, Status> {
        let Some(number) = named.number() else {
            return Ok(named.port.to_owned());
        };
        let found = self.spec.ports.iter().find(|port| port.port == number);
        found.map(|port| port.name.clone()).ok_or_else(|| {
            unavailable(format!(
                "no service port {number} found for service {:?}",
                named.name
            ))
        })
    }
}

#[derive(Deserialize)]
struct SliceView {
    #[serde(default)]
    endpoints: Vec<Endpoint>,
    #[serde(default)]
    ports: Vec<SlicePort>,
}

#[derive(Deserialize)]
struct SlicePort {
    name: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
    node_name: Option<String>,
    target_ref: Option<TargetRef>,
}

#[derive(Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct TargetRef {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
}

impl Endpoint {
    /// The node and name of the pod behind it, where it is a pod.
    fn pod(&self) -> Option<(&str, &str)> {
        let target = self.target_ref.as_ref().filter(|it| it.kind == "Pod")?;
        Some((self.node_name.as_deref()?, &target.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_in_kubernetes() {
        let show = |text| Named::parse(text).map(|it| (it.https, it.name, it.port));
        assert_eq!(show("web"), Some((false, "web", "")));
        assert_eq!(show("web:80"), Some((false, "web", "80")));
        assert_eq!(show("http:web:http"), Some((false, "web", "http")));
        assert_eq!(show("https:web:"), Some((true, "web", "")));
        assert_eq!(show(":web:1"), Some((false, "web", "1")));
        for wrong in ["", ":80", "ftp:web:21", "a:b:c:d"] {
            assert_eq!(show(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_port_is_found_by_its_number_or_name() {
        let service: ServiceView = serde_json::from_str(
            r#"{"spec":{"ports":[{"name":"http","port":80},{"name":"admin","port":81}]}}"#,
        )
        .expect("a service");
        let name = |text| service.port_name(&Named::parse(text).expect("a name"));
        assert_eq!(name("web:81").expect("there"), "admin");
        assert_eq!(name("web:http").expect("there"), "http");
        assert_eq!(
            name("web:82").expect_err("absent").message,
            "no service port 82 found for service \"web\""
        );
    }

    #[test]
    fn only_ready_endpoints_with_the_port_are_candidates() {
        let slices: Vec<SliceView> = serde_json::from_str(
            r#"[{"endpoints":[{"addresses":["10.0.0.1"]},{"addresses":["10.0.0.2"],"conditions":{"ready":false}},
                 {"addresses":["10.0.0.3"],"conditions":{"ready":true},"nodeName":"n1","targetRef":{"kind":"Pod","name":"p"}}],
                "ports":[{"name":"http","port":8080}]},
                {"endpoints":[{"addresses":["10.0.0.4"]}],"ports":[{"name":"admin","port":1}]}]"#,
        )
        .expect("slices");
        let found = candidates(&slices, "http");
        let shown: Vec<_> = found
            .iter()
            .map(|(it, port)| (it.addresses[0].as_str(), *port, it.pod()))
            .collect();
        assert_eq!(
            shown,
            [
                ("10.0.0.1", 8080, None),
                ("10.0.0.3", 8080, Some(("n1", "p")))
            ]
        );
        assert!(candidates(&slices, "").is_empty());
    }

    #[test]
    fn the_masters_own_addresses_are_no_backends() {
        let allowed = |text: &str| is_allowed(&text.parse().expect("an address"));
        assert!(allowed("10.244.0.3") && allowed("fd00::1"));
        for wrong in [
            "127.0.0.1",
            "169.254.1.1",
            "0.0.0.0",
            "224.0.0.1",
            "::1",
            "fe80::1",
        ] {
            assert!(!allowed(wrong), "{wrong}");
        }
    }
}
