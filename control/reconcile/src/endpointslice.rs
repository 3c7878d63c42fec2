//! Keeps a Service's EndpointSlices: where its pods listen, and which of them are ready.
//!
//! Never touches slices that somebody else manages, nor Services without a selector. An endpoint stays in the slice that it
//! is in, so that one pod's change rewrites one slice. IPv4. Semantics: discovery.k8s.io/v1.

use crate::controller::{self, Asked, Change, Controller, World};
use crate::plan::{Action, Plan, Precondition};
use crate::view::{self, Viewed, resources};
use crate::{names, owners, pods};
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use objects::{
    GroupResource, GroupVersionKind, LabelSelector, Object, ObjectError, ObjectKey, ObjectMeta,
    Timestamp,
};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The most endpoints in one slice.
pub const ENDPOINTS_MAX: usize = 100;
/// The label by which a slice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label by which a slice names who manages it.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Us, under the name that clients know.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";

const HEADLESS: &str = "service.kubernetes.io/headless";

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The Service.
    pub service: Viewed<Service>,
    /// The pods of its namespace; those may be left out that its selector does not take.
    pub pods: Vec<Arc<Pod>>,
    /// The zone of each node that has one: its label `topology.kubernetes.io/zone`.
    pub zones: BTreeMap<String, String>,
    /// The EndpointSlices of its namespace; those of other Services may be left out.
    pub slices: Vec<Arc<Object>>,
}

/// Returns what must change for the slices to tell where the Service's pods listen.
pub fn reconcile(input: &Input, _now: Timestamp) -> Plan {
    let service = &input.service;
    let Some(spec) = service
        .view
        .spec
        .as_ref()
        .filter(|_| !service.is_deleting())
    else {
        return Plan::nothing(); // The garbage collector removes the slices.
    };
    let mut slices = own_slices(input);
    let selector = spec
        .selector
        .as_ref()
        .filter(|selector| !selector.is_empty());
    let external = spec.type_.as_deref() == Some("ExternalName");
    let Some(selector) = selector.filter(|_| !external) else {
        // Slices that we made while the Service still selected pods are stale.
        return Plan::of(
            slices
                .into_iter()
                .map(|slice| delete(&slice.object))
                .collect(),
        );
    };
    let selector = LabelSelector::from_labels(selector);
    let mut wanted = wanted_endpoints(input, spec, &selector);
    if wanted.is_empty() {
        // One empty slice says that there are no endpoints, rather than that nobody looked.
        let ports = slices
            .first()
            .map_or_else(|| json!([]), |slice| slice.ports.clone());
        wanted.push((ports, Vec::new()));
    }
    let mut placed: Vec<Slice> = Vec::new();
    for (ports, endpoints) in wanted {
        place(input, &mut slices, &mut placed, ports, endpoints);
    }
    let labels = labels(service, spec);
    let mut actions: Vec<Action> = placed
        .into_iter()
        .filter_map(|slice| slice.write(service, &labels))
        .collect();
    actions.extend(slices.into_iter().map(|slice| delete(&slice.object)));
    Plan::of(actions)
}

/// A slice as it is, and what shall be in it.
struct Slice {
    /// The object; of a new one only the name.
    object: Object,
    is_new: bool,
    ports: Value,
    endpoints: Vec<Value>,
}

/// The slices that we manage for the Service, in order of their names.
fn own_slices(input: &Input) -> Vec<Slice> {
    let own = |slice: &&Arc<Object>| {
        let label = |key: &str| slice.metadata.labels.get(key).map(String::as_str);
        label(SERVICE_NAME) == Some(input.service.name())
            && label(MANAGED_BY) == Some(MANAGER)
            && slice.metadata.namespace == input.service.object.metadata.namespace
            && !slice.metadata.is_deleting()
    };
    let mut slices: Vec<Slice> = input
        .slices
        .iter()
        .filter(own)
        .map(|slice| Slice {
            object: Object::clone(slice),
            is_new: false,
            ports: slice
                .body
                .get("ports")
                .cloned()
                .unwrap_or_else(|| json!([])),
            endpoints: list(slice, "endpoints"),
        })
        .collect();
    slices.sort_by(|a, b| a.object.metadata.name.cmp(&b.object.metadata.name));
    slices
}

fn list(object: &Object, field: &str) -> Vec<Value> {
    let list = object.body.get(field).and_then(Value::as_array);
    list.cloned().unwrap_or_default()
}

/// The endpoints, grouped by the ports that the pods listen on: named ports may differ from pod to pod.
fn wanted_endpoints(
    input: &Input,
    spec: &ServiceSpec,
    selector: &LabelSelector,
) -> Vec<(Value, Vec<Value>)> {
    let publish_unready = spec.publish_not_ready_addresses.unwrap_or(false);
    let mut groups: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    for pod in &input.pods {
        if !view::matches(selector, &pod.metadata) || pods::is_finished(pod) {
            continue;
        }
        let Some(address) = address(pod) else {
            continue; // It has not started yet.
        };
        let ports = ports(spec, pod);
        let group = groups
            .entry(ports.to_string())
            .or_insert_with(|| (ports, Vec::new()));
        group.1.push(endpoint(input, pod, address, publish_unready));
    }
    groups.into_values().collect()
}

fn address(pod: &Pod) -> Option<Ipv4Addr> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    all.chain(status.pod_ip.as_deref())
        .find_map(|ip| ip.parse().ok())
}

/// The Service's ports as this pod serves them; a named port that the pod has not is left out.
fn ports(spec: &ServiceSpec, pod: &Pod) -> Value {
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let number = target(port, pod)?;
        let mut map = Map::new();
        map.insert("name".to_owned(), json!(port.name.as_deref().unwrap_or("")));
        map.insert("protocol".to_owned(), json!(protocol(port)));
        map.insert("port".to_owned(), json!(number));
        if let Some(app_protocol) = &port.app_protocol {
            map.insert("appProtocol".to_owned(), json!(app_protocol));
        }
        Some(Value::Object(map))
    });
    Value::Array(ports.collect())
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|init| init.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let found = ports.find(|candidate| {
        candidate.name.as_ref() == Some(name)
            && candidate.protocol.as_deref().unwrap_or("TCP") == protocol(port)
    });
    found.map(|found| found.container_port)
}

fn endpoint(input: &Input, pod: &Pod, address: Ipv4Addr, publish_unready: bool) -> Value {
    let serving = pods::is_ready(pod);
    let terminating = pods::is_deleting(pod);
    let ready = publish_unready || (serving && !terminating);
    let mut map = Map::new();
    map.insert("addresses".to_owned(), json!([address.to_string()]));
    map.insert(
        "conditions".to_owned(),
        json!({
            "ready": ready,
            "serving": serving,
            "terminating": terminating,
        }),
    );
    let spec = pod.spec.as_ref();
    let hostname = spec.and_then(|spec| spec.hostname.as_deref());
    let subdomain = spec.and_then(|spec| spec.subdomain.as_deref());
    if let Some(hostname) = hostname.filter(|_| subdomain == Some(input.service.name())) {
        map.insert("hostname".to_owned(), json!(hostname));
    }
    map.insert(
        "targetRef".to_owned(),
        json!({
            "kind": "Pod",
            "namespace": pod.metadata.namespace,
            "name": pod.metadata.name,
            "uid": pod.metadata.uid,
        }),
    );
    if let Some(node) = pods::node_name(pod) {
        map.insert("nodeName".to_owned(), json!(node));
        let zone = input.zones.get(node);
        if let Some(zone) = zone {
            map.insert("zone".to_owned(), json!(zone));
        }
        if let Some(hints) = hints(input, node, zone).filter(|_| ready) {
            map.insert("hints".to_owned(), hints);
        }
    }
    Value::Object(map)
}

/// For whom the endpoint is kept, where the Service asks for short ways: its own node or zone. Proxies take others while
/// there is none for them.
fn hints(input: &Input, node: &str, zone: Option<&String>) -> Option<Value> {
    let spec = input.service.view.spec.as_ref()?;
    let for_zones = zone.map(|zone| json!([{ "name": zone }]));
    match spec.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => Some(json!({ "forZones": for_zones? })),
        "PreferSameNode" => {
            let mut hints = json!({ "forNodes": [{ "name": node }] });
            if let Some(for_zones) = for_zones {
                hints["forZones"] = for_zones;
            }
            Some(hints)
        }
        _ => None,
    }
}

/// What an endpoint stands for: the pod, else the address.
fn identity(endpoint: &Value) -> String {
    let uid = endpoint.pointer("/targetRef/uid");
    uid.or_else(|| endpoint.pointer("/addresses/0"))
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned()
}

/// Puts the endpoints of one group of ports into slices: each where it is already, new ones where there is room.
fn place(
    input: &Input,
    slices: &mut Vec<Slice>,
    placed: &mut Vec<Slice>,
    ports: Value,
    endpoints: Vec<Value>,
) {
    let (mut group, others): (Vec<Slice>, Vec<Slice>) =
        slices.drain(..).partition(|slice| slice.ports == ports);
    *slices = others;
    let mut wanted: BTreeMap<String, Value> = endpoints
        .into_iter()
        .map(|endpoint| (identity(&endpoint), endpoint))
        .collect();
    for slice in &mut group {
        let kept = slice.endpoints.drain(..);
        slice.endpoints = kept
            .filter_map(|endpoint| wanted.remove(&identity(&endpoint)))
            .collect();
    }
    let mut missing = wanted.into_values().peekable();
    for slice in &mut group {
        while slice.endpoints.len() < ENDPOINTS_MAX && missing.peek().is_some() {
            slice.endpoints.extend(missing.next());
        }
    }
    let wants_one = group.is_empty() && missing.peek().is_none();
    while missing.peek().is_some() || (wants_one && group.is_empty()) {
        let names = group.iter().chain(placed.iter()).chain(slices.iter());
        let slice = new_slice(
            input,
            names,
            &ports,
            missing.by_ref().take(ENDPOINTS_MAX).collect(),
        );
        group.push(slice);
    }
    let keep_empty = group.iter().all(|slice| slice.endpoints.is_empty());
    let mut kept_one = false;
    for slice in group {
        let keep = !slice.endpoints.is_empty() || (keep_empty && !kept_one);
        if keep {
            kept_one = true;
            placed.push(slice);
        } else {
            slices.push(slice); // What is left in `slices` is deleted.
        }
    }
}

fn new_slice<'a>(
    input: &Input,
    others: impl Iterator<Item = &'a Slice>,
    ports: &Value,
    endpoints: Vec<Value>,
) -> Slice {
    let there = input
        .slices
        .iter()
        .map(|slice| slice.metadata.name.as_str());
    let taken: BTreeSet<&str> = others
        .map(|slice| slice.object.metadata.name.as_str())
        .chain(there)
        .collect();
    let service = &input.service;
    let name = (0usize..)
        .map(|index| names::child(service.name(), &[&service.uid().0, &index.to_string()]))
        .find(|name| !taken.contains(name.as_str()))
        .expect("finitely many names are taken");
    let metadata = ObjectMeta {
        name,
        namespace: service.object.metadata.namespace.clone(),
        owner_references: vec![owners::controller_reference(&service.reference())],
        ..ObjectMeta::default()
    };
    Slice {
        object: Object {
            types: GroupVersionKind::new("discovery.k8s.io", "v1", "EndpointSlice"),
            metadata,
            body: Map::new(),
        },
        is_new: true,
        ports: ports.clone(),
        endpoints,
    }
}

/// A slice carries the Service's labels, and ours.
fn labels(service: &Viewed<Service>, spec: &ServiceSpec) -> BTreeMap<String, String> {
    let mut labels = service.object.metadata.labels.clone();
    labels.insert(SERVICE_NAME.to_owned(), service.name().to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if spec.cluster_ip.as_deref() == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

impl Slice {
    /// The write that makes the object so; None when it is so.
    fn write(self, service: &Viewed<Service>, labels: &BTreeMap<String, String>) -> Option<Action> {
        let mut object = self.object.clone();
        object.metadata.labels.clone_from(labels);
        object.body.insert("addressType".to_owned(), json!("IPv4"));
        object
            .body
            .insert("endpoints".to_owned(), Value::Array(self.endpoints));
        object.body.insert("ports".to_owned(), self.ports);
        let owner = owners::controller_reference(&service.reference());
        if object.metadata.controller().is_none() {
            object.metadata.owner_references.push(owner);
        }
        if self.is_new {
            Some(Action::Create(object))
        } else {
            (object != self.object).then_some(Action::Update(object))
        }
    }
}

fn delete(slice: &Object) -> Action {
    let metadata = &slice.metadata;
    Action::Delete {
        key: ObjectKey::new(
            resources::endpointslices(),
            metadata.namespace.as_deref(),
            &metadata.name,
        ),
        precondition: Precondition::unchanged(&metadata.uid.0, &metadata.resource_version),
        grace_seconds: None,
        propagation: None,
    }
}

/// Runs [`reconcile`] for every Service.
pub struct EndpointSliceController;

impl Controller for EndpointSliceController {
    fn name(&self) -> &'static str {
        "endpointslice"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        let namespace = change.key.namespace.as_deref();
        if change.is_of("", "services") {
            return vec![change.key.clone()];
        }
        if change.is_of("discovery.k8s.io", "endpointslices") {
            let service = change
                .latest()
                .and_then(|record| record.labels.get(SERVICE_NAME));
            return service
                .map(|name| ObjectKey::new(services(), namespace, name))
                .into_iter()
                .collect();
        }
        if !change.is_of("", "pods") {
            return Vec::new();
        }
        let labels = [change.before, change.after]
            .into_iter()
            .flatten()
            .map(|record| &record.labels);
        let labels: Vec<&BTreeMap<String, String>> = labels.collect();
        let mut keys = world.keys(&services(), namespace, &|_| true);
        keys.retain(|key| {
            selector_of(world, key)
                .is_some_and(|selector| labels.iter().any(|labels| takes(&selector, labels)))
        });
        keys
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(service) = asked.object::<Service>()? else {
            return Ok(Plan::nothing());
        };
        let selector = selector_of(asked.world, asked.key).unwrap_or_default();
        let pods = asked.neighbours(&controller::pods(), &|record| {
            !selector.is_empty() && takes(&selector, &record.labels)
        })?;
        let name = service.name().to_owned();
        let is_own = |record: &controller::Record| record.labels.get(SERVICE_NAME) == Some(&name);
        let resource = GroupResource::new("discovery.k8s.io", "endpointslices");
        let slices = asked
            .world
            .list(&resource, asked.key.namespace.as_deref(), &is_own);
        let zone_of = |key: ObjectKey| {
            Some((
                key.name.clone(),
                asked.world.record(&key)?.labels.get(ZONE)?.clone(),
            ))
        };
        let zones = asked
            .world
            .keys(&controller::nodes(), None, &|_| true)
            .into_iter()
            .filter_map(zone_of)
            .collect();
        Ok(reconcile(
            &Input {
                service,
                pods,
                zones,
                slices,
            },
            asked.now,
        ))
    }
}

const ZONE: &str = "topology.kubernetes.io/zone";

fn services() -> GroupResource {
    GroupResource::new("", "services")
}

fn selector_of(world: &dyn World, key: &ObjectKey) -> Option<BTreeMap<String, String>> {
    let service = world.get(key)?;
    let selector = service.body.get("spec")?.get("selector")?;
    serde_json::from_value(selector.clone()).ok()
}

fn takes(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector
        .iter()
        .all(|(name, value)| labels.get(name) == Some(value))
}
