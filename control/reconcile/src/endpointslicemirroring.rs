//! Endpoints that people write for a Service without a selector stand in EndpointSlices too, for those who read only these.
//!
//! Never touches slices that somebody else manages, nor Endpoints that say `skip-mirror`, elect a leader, or were made out of slices.
//! Semantics: Kubernetes' EndpointSliceMirroring controller.

use crate::controller::{Asked, Change, Controller, World};
use crate::endpoints;
use crate::endpointslice::{MANAGED_BY, SERVICE_NAME};
use crate::plan::{Action, ObjectReference, Plan, Precondition};
use crate::view::resources;
use crate::{names, owners};
use objects::{GroupVersionKind, Object, ObjectError, ObjectKey, ObjectMeta};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The most addresses of one subset that are mirrored.
pub const ADDRESSES_MAX: usize = 1_000;

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Annotations that are about the Endpoints themselves.
const NOT_COPIED: [&str; 2] = [
    "endpoints.kubernetes.io/last-change-trigger-time",
    "kubectl.kubernetes.io/last-applied-configuration",
];

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The Endpoints, if they are there.
    pub endpoints: Option<Arc<Object>>,
    /// The Service of their name.
    pub service: Option<Arc<Object>>,
    /// The slices of that Service that this controller manages.
    pub slices: Vec<Arc<Object>>,
}

/// Returns what must change for the slices to say what the Endpoints say.
pub fn reconcile(input: &Input) -> Plan {
    let endpoints = input
        .endpoints
        .as_deref()
        .filter(|it| is_mirrored(it, input.service.as_deref()));
    let mut wanted = endpoints.map(slices).unwrap_or_default();
    let mut actions = Vec::new();
    for found in input
        .slices
        .iter()
        .filter(|slice| !slice.metadata.is_deleting())
    {
        let Some(slice) = wanted.remove(&found.metadata.name) else {
            actions.push(delete(found));
            continue;
        };
        let mut changed = Object::clone(found);
        changed.metadata.labels = slice.metadata.labels;
        changed.metadata.annotations = slice.metadata.annotations;
        changed.body.extend(slice.body);
        if changed != **found {
            actions.push(Action::Update(changed));
        }
    }
    actions.extend(wanted.into_values().map(Action::Create));
    Plan::of(actions)
}

fn is_mirrored(endpoints: &Object, service: Option<&Object>) -> bool {
    let metadata = &endpoints.metadata;
    let selects = |service: &Object| {
        let selector = service
            .body
            .get("spec")
            .and_then(|spec| spec.get("selector"));
        selector
            .and_then(Value::as_object)
            .is_some_and(|selector| !selector.is_empty())
    };
    !metadata.is_deleting()
        && !endpoints::is_ours(endpoints)
        && metadata.labels.get(SKIP).is_none_or(|word| word != "true")
        && !metadata.annotations.contains_key(LEADER)
        && service.is_some_and(|service| !service.metadata.is_deleting() && !selects(service))
}

/// A slice a subset and family of addresses, by name.
fn slices(endpoints: &Object) -> BTreeMap<String, Object> {
    let subsets = endpoints.body.get("subsets").and_then(Value::as_array);
    let mut slices = BTreeMap::new();
    for (index, subset) in subsets.into_iter().flatten().enumerate() {
        let mut families: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for (list, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            for address in subset[list].as_array().into_iter().flatten() {
                if let Some((family, endpoint)) = endpoint(address, ready) {
                    families.entry(family).or_default().push(endpoint);
                }
            }
        }
        for (family, mut told) in families {
            told.truncate(ADDRESSES_MAX);
            let slice = slice(endpoints, index, family, told, &subset["ports"]);
            slices.insert(slice.metadata.name.clone(), slice);
        }
    }
    slices
}

fn endpoint(address: &Value, ready: bool) -> Option<(&'static str, Value)> {
    let ip: IpAddr = address["ip"].as_str()?.parse().ok()?;
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    let mut endpoint = json!({"addresses": [ip.to_string()], "conditions": {"ready": ready}});
    for member in ["hostname", "nodeName", "targetRef"] {
        if let Some(value) = address.get(member).filter(|value| !value.is_null()) {
            endpoint[member] = value.clone();
        }
    }
    Some((family, endpoint))
}

fn slice(
    endpoints: &Object,
    index: usize,
    family: &str,
    told: Vec<Value>,
    ports: &Value,
) -> Object {
    let ObjectMeta {
        name,
        namespace,
        uid,
        ..
    } = &endpoints.metadata;
    let owner = ObjectReference {
        api_version: "v1".to_owned(),
        kind: "Endpoints".to_owned(),
        namespace: namespace.clone(),
        name: name.clone(),
        uid: uid.clone(),
    };
    let mut labels = endpoints.metadata.labels.clone();
    labels.remove(HEADLESS);
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone();
    annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    let ports = ports.as_array().into_iter().flatten().map(|port| {
        let mut port = port.clone();
        if let Some(port) = port.as_object_mut() {
            port.entry("name").or_insert_with(|| json!(""));
            port.entry("protocol").or_insert_with(|| json!("TCP"));
        }
        port
    });
    let ports: Vec<Value> = ports.collect();
    let mut body = Map::new();
    body.insert("addressType".to_owned(), json!(family));
    body.insert("endpoints".to_owned(), Value::Array(told));
    body.insert("ports".to_owned(), Value::Array(ports));
    Object {
        types: GroupVersionKind::new("discovery.k8s.io", "v1", "EndpointSlice"),
        metadata: ObjectMeta {
            name: names::child(name, &[uid.0.as_str(), &index.to_string(), family]),
            generate_name: format!("{name}-"),
            namespace: namespace.clone(),
            labels,
            annotations,
            owner_references: vec![owners::controller_reference(&owner)],
            ..ObjectMeta::default()
        },
        body,
    }
}

fn delete(slice: &Object) -> Action {
    let ObjectMeta {
        name,
        namespace,
        uid,
        ..
    } = &slice.metadata;
    Action::Delete {
        key: ObjectKey::new(resources::endpointslices(), namespace.as_deref(), name),
        precondition: Precondition::uid(&uid.0),
        grace_seconds: None,
        propagation: None,
    }
}

/// Runs [`reconcile`] for all Endpoints.
pub struct MirroringController;

impl Controller for MirroringController {
    fn name(&self) -> &'static str {
        "endpointslicemirroring"
    }

    fn keys_for(&self, change: &Change<'_>, _world: &dyn World) -> Vec<ObjectKey> {
        let namespace = change.key.namespace.as_deref();
        let name = match change.key.resource.resource.as_str() {
            "endpoints" | "services" if change.key.resource.group.is_empty() => {
                Some(&change.key.name)
            }
            "endpointslices" => {
                let labels = change.latest().map(|record| &record.labels);
                let labels = labels.filter(|it| it.get(MANAGED_BY).is_some_and(|by| by == MANAGER));
                labels.and_then(|labels| labels.get(SERVICE_NAME))
            }
            _ => None,
        };
        name.map(|name| ObjectKey::new(resources::endpoints(), namespace, name))
            .into_iter()
            .collect()
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let ObjectKey {
            namespace, name, ..
        } = asked.key;
        let namespace = namespace.as_deref();
        let is_own = |labels: &BTreeMap<String, String>| {
            labels.get(SERVICE_NAME) == Some(name)
                && labels.get(MANAGED_BY).is_some_and(|by| by == MANAGER)
        };
        Ok(reconcile(&Input {
            endpoints: asked.world.get(asked.key),
            service: asked
                .world
                .get(&ObjectKey::new(resources::services(), namespace, name)),
            slices: asked
                .world
                .list(&resources::endpointslices(), namespace, &|record| {
                    is_own(&record.labels)
                }),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Arc<Object> {
        Arc::new(Object::from_value(value).expect("an object"))
    }

    fn input(labels: Value, selector: Value, slices: Vec<Arc<Object>>) -> Input {
        Input {
            endpoints: Some(object(json!({
                "kind": "Endpoints", "apiVersion": "v1",
                "metadata": {"name": "one", "namespace": "a", "uid": "u", "labels": labels},
                "subsets": [{
                    "addresses": [{"ip": "10.1.2.3", "nodeName": "n1"}], "notReadyAddresses": [{"ip": "fd00::1"}],
                    "ports": [{"name": "http", "port": 80}],
                }],
            }))),
            service: Some(object(json!({
                "kind": "Service", "apiVersion": "v1", "metadata": {"name": "one", "namespace": "a"},
                "spec": {"selector": selector},
            }))),
            slices,
        }
    }

    #[test]
    fn each_family_of_a_subset_has_a_slice_that_is_then_left_alone() {
        let plan = reconcile(&input(json!({"x": "y"}), json!({}), vec![]));
        let made: Vec<Arc<Object>> = plan
            .actions
            .iter()
            .map(|action| match action {
                Action::Create(object) => Arc::new(object.clone()),
                other => panic!("only creates: {other}"),
            })
            .collect();
        let families: Vec<&Value> = made
            .iter()
            .map(|slice| &slice.body["addressType"])
            .collect();
        assert_eq!(made.len(), 2, "{families:?}");
        let of_four = made
            .iter()
            .find(|slice| slice.body["addressType"] == "IPv4")
            .expect("one");
        assert_eq!(
            of_four.body["endpoints"],
            json!([{"addresses": ["10.1.2.3"], "conditions": {"ready": true}, "nodeName": "n1"}])
        );
        assert_eq!(
            of_four.body["ports"],
            json!([{"name": "http", "port": 80, "protocol": "TCP"}])
        );
        assert_eq!(of_four.metadata.labels[SERVICE_NAME], "one");
        assert_eq!(of_four.metadata.labels["x"], "y");
        assert!(reconcile(&input(json!({"x": "y"}), json!({}), made.clone())).is_nothing());
        let mut gone = input(json!({}), json!({}), made);
        gone.endpoints = None;
        assert_eq!(reconcile(&gone).actions.len(), 2);
    }

    #[test]
    fn what_is_made_of_slices_or_asks_for_it_is_not_mirrored() {
        for labels in [
            json!({SKIP: "true"}),
            json!({"endpoints.kubernetes.io/managed-by": "endpoint-controller"}),
        ] {
            assert!(reconcile(&input(labels, json!({}), vec![])).is_nothing());
        }
        assert!(reconcile(&input(json!({}), json!({"app": "x"}), vec![])).is_nothing());
    }
}
