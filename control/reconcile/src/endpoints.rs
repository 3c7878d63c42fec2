//! Keeps a Service's Endpoints for clients that do not read EndpointSlices: what the slices say, in the older form.
//!
//! Only for Services with a selector and for the API's own; Endpoints that people write themselves are left alone. Semantics:
//! core/v1 and Kubernetes' endpoints controller.

use crate::controller::{self, Asked, Change, Controller, World};
use crate::endpointslice::SERVICE_NAME;
use crate::plan::{Action, Plan, Precondition};
use crate::view::{Viewed, resources};
use k8s_openapi::api::core::v1::Service;
use objects::{GroupVersionKind, Object, ObjectError, ObjectKey, ObjectMeta, Timestamp};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The most addresses of one object; the rest is cut off, and an annotation says so.
pub const ADDRESSES_MAX: usize = 1000;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// The service of the API itself, whose slice the masters keep.
const API_SERVICE: (&str, &str) = ("default", "kubernetes");

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The Service's name and namespace.
    pub key: ObjectKey,
    /// The Service; None when it is gone.
    pub service: Option<Viewed<Service>>,
    /// Its EndpointSlices.
    pub slices: Vec<Arc<Object>>,
    /// Its Endpoints as they are.
    pub endpoints: Option<Arc<Object>>,
}

/// Returns what must change for the Endpoints to say what the slices say.
pub fn reconcile(input: &Input, _now: Timestamp) -> Plan {
    let service = input
        .service
        .as_ref()
        .filter(|service| !service.is_deleting());
    let Some(service) = service else {
        let stale = input.endpoints.as_ref().filter(|found| is_ours(found));
        return Plan::of(
            stale
                .map(|found| delete(&input.key, found))
                .into_iter()
                .collect(),
        );
    };
    let is_api = (service.namespace(), service.name()) == API_SERVICE;
    let selects = service
        .spec("selector")
        .and_then(Value::as_object)
        .is_some_and(|selector| !selector.is_empty());
    let external = service.spec("type") == Some(&json!("ExternalName"));
    if !(is_api || selects) || external || input.slices.is_empty() {
        return Plan::nothing(); // Nobody's to keep, or nobody has looked for its pods yet.
    }
    let before = input.endpoints.as_deref();
    let mut object = before.cloned().unwrap_or_else(|| new(service));
    let (subsets, is_cut) = subsets(&input.slices, service);
    object.body.insert("subsets".to_owned(), subsets);
    let mut labels = service.object.metadata.labels.clone();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if service.spec("clusterIP") == Some(&json!("None")) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    object.metadata.labels = labels;
    let annotations = &mut object.metadata.annotations;
    match is_cut {
        true => drop(annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned())),
        false => drop(annotations.remove(OVER_CAPACITY)),
    }
    match before {
        None => Plan::of(vec![Action::Create(object)]),
        Some(before) if same(before, &object) => Plan::nothing(),
        Some(_) => Plan::of(vec![Action::Update(object)]),
    }
}

/// Whether nothing has to be written; no subsets and an empty list of them are the same.
fn same(before: &Object, object: &Object) -> bool {
    let subsets = |object: &Object| match object.body.get("subsets") {
        Some(Value::Array(subsets)) => subsets.clone(),
        _ => Vec::new(),
    };
    before.metadata == object.metadata && subsets(before) == subsets(object)
}

/// Whether this controller made it.
pub fn is_ours(endpoints: &Object) -> bool {
    endpoints
        .metadata
        .labels
        .get(MANAGED_BY)
        .map(String::as_str)
        == Some(MANAGER)
}

fn new(service: &Viewed<Service>) -> Object {
    Object {
        types: GroupVersionKind::new("", "v1", "Endpoints"),
        metadata: ObjectMeta {
            name: service.name().to_owned(),
            namespace: service.object.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        body: Map::new(),
    }
}

/// What listens on one set of ports.
#[derive(Default)]
struct Subset {
    ready: BTreeMap<String, Value>,
    unready: BTreeMap<String, Value>,
}

/// The subsets, and whether addresses were cut off.
fn subsets(slices: &[Arc<Object>], service: &Viewed<Service>) -> (Value, bool) {
    let publishes_all = service.spec("publishNotReadyAddresses") == Some(&json!(true));
    let mut groups: BTreeMap<String, (Value, Subset)> = BTreeMap::new();
    let mut count = 0;
    let mut is_cut = false;
    for slice in slices {
        let list = |name: &str| slice.body.get(name).and_then(Value::as_array);
        let ports: Vec<Value> = list("ports").into_iter().flatten().map(port).collect();
        let ports = Value::Array(ports);
        for endpoint in list("endpoints").into_iter().flatten() {
            let says =
                |name: &str| endpoint.pointer(&format!("/conditions/{name}")) == Some(&json!(true));
            if says("terminating") && !publishes_all {
                continue;
            }
            let addresses = endpoint.get("addresses").and_then(Value::as_array);
            for ip in addresses.into_iter().flatten().filter_map(Value::as_str) {
                if count == ADDRESSES_MAX {
                    is_cut = true;
                    continue;
                }
                count += 1;
                let (_, subset) = groups
                    .entry(ports.to_string())
                    .or_insert_with(|| (ports.clone(), Subset::default()));
                // An endpoint that says nothing is ready.
                let unready = endpoint.pointer("/conditions/ready") == Some(&json!(false));
                let addresses = match unready {
                    true => &mut subset.unready,
                    false => &mut subset.ready,
                };
                addresses.insert(ip.to_owned(), address(ip, endpoint));
            }
        }
    }
    let subsets = groups.into_values().map(|(ports, subset)| {
        let mut map = Map::new();
        for (name, addresses) in [
            ("addresses", subset.ready),
            ("notReadyAddresses", subset.unready),
        ] {
            if !addresses.is_empty() {
                map.insert(name.to_owned(), addresses.into_values().collect());
            }
        }
        if ports != json!([]) {
            map.insert("ports".to_owned(), ports);
        }
        Value::Object(map)
    });
    (subsets.collect(), is_cut)
}

fn address(ip: &str, endpoint: &Value) -> Value {
    let mut address = Map::from_iter([("ip".to_owned(), json!(ip))]);
    for name in ["hostname", "nodeName", "targetRef"] {
        if let Some(value) = endpoint.get(name) {
            address.insert(name.to_owned(), value.clone());
        }
    }
    Value::Object(address)
}

fn port(port: &Value) -> Value {
    let mut shown = Map::new();
    for name in ["name", "port", "protocol", "appProtocol"] {
        if let Some(value) = port.get(name).filter(|value| **value != json!("")) {
            shown.insert(name.to_owned(), value.clone());
        }
    }
    Value::Object(shown)
}

fn delete(key: &ObjectKey, endpoints: &Object) -> Action {
    let metadata = &endpoints.metadata;
    Action::Delete {
        key: ObjectKey {
            resource: resources::endpoints(),
            ..key.clone()
        },
        precondition: Precondition::unchanged(&metadata.uid.0, &metadata.resource_version),
        grace_seconds: None,
        propagation: None,
    }
}

/// Runs [`reconcile`] for every Service.
pub struct EndpointsController;

impl Controller for EndpointsController {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn keys_for(&self, change: &Change<'_>, _world: &dyn World) -> Vec<ObjectKey> {
        let service = |name: &str| {
            ObjectKey::new(resources::services(), change.key.namespace.as_deref(), name)
        };
        if change.is_of("", "services") || change.is_of("", "endpoints") {
            return vec![service(&change.key.name)];
        }
        if !change.is_of("discovery.k8s.io", "endpointslices") {
            return Vec::new();
        }
        let records = [change.before, change.after].into_iter().flatten();
        let names: BTreeSet<&String> = records
            .filter_map(|record| record.labels.get(SERVICE_NAME))
            .collect();
        names.into_iter().map(|name| service(name)).collect()
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let name = &asked.key.name;
        let is_own = |record: &controller::Record| record.labels.get(SERVICE_NAME) == Some(name);
        let namespace = asked.key.namespace.as_deref();
        let slices = asked
            .world
            .list(&resources::endpointslices(), namespace, &is_own);
        let endpoints = ObjectKey::new(resources::endpoints(), namespace, name);
        let input = Input {
            key: asked.key.clone(),
            service: asked.object::<Service>()?,
            slices,
            endpoints: asked.world.get(&endpoints),
        };
        Ok(reconcile(&input, asked.now))
    }
}
