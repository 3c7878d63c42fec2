//! Every cluster address of a Service is an IPAddress object, which says whose it is.
//!
//! Never decides who gets an address: the registry does, in the write itself. One that a Service holds no more goes. Semantics:
//! networking.k8s.io/v1 and Kubernetes' repair of IPAddresses.

use crate::controller::{Asked, Change, Controller, World};
use crate::plan::{Action, Plan, Precondition};
use crate::view::resources;
use objects::{
    GroupResource, GroupVersionKind, Object, ObjectError, ObjectKey, ObjectMeta, Timestamp,
};
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const GROUP: &str = "networking.k8s.io";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// The Service's uid, by which its addresses are found once it is gone.
const HOLDER: &str = "ipaddress.trireme/service-uid";

/// How soon to look again whether the former holder's object is gone.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

fn addresses() -> GroupResource {
    GroupResource::new(GROUP, "ipaddresses")
}

/// What a Service needs: those of its addresses that have no object. `find` looks one up. One that is still another's goes soon.
pub fn reconcile_service(
    service: &Object,
    find: impl Fn(&ObjectKey) -> Option<Arc<Object>>,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::nothing();
    if service.metadata.is_deleting() {
        return plan;
    }
    for address in held(service) {
        match find(&ObjectKey::new(addresses(), None, &address.to_string())) {
            None => plan.actions.push(create(service, address)),
            Some(found) if is_ours(&found) && holder(&found) != Some(&service.metadata.uid.0) => {
                plan.wake_by(now.plus(AGAIN_AFTER));
            }
            Some(_) => {}
        }
    }
    plan
}

fn is_ours(address: &Object) -> bool {
    let by = address.metadata.labels.get(MANAGED_BY);
    by.is_some_and(|by| by == MANAGER)
}

fn holder(address: &Object) -> Option<&String> {
    address.metadata.labels.get(HOLDER)
}

/// Whether an address's object stays: it goes when its Service is gone or holds another one. What others made is left alone.
pub fn reconcile_address(address: &Object, service: Option<&Object>) -> Plan {
    let metadata = &address.metadata;
    let is_held = service.is_some_and(|service| {
        let mut held = held(service).into_iter();
        holder(address) == Some(&service.metadata.uid.0)
            && held.any(|address| address.to_string() == metadata.name)
    });
    if !is_ours(address) || is_held || metadata.is_deleting() {
        return Plan::nothing();
    }
    Plan::of(vec![Action::Delete {
        key: ObjectKey::new(addresses(), None, &metadata.name),
        precondition: Precondition::uid(&metadata.uid.0),
        grace_seconds: None,
        propagation: None,
    }])
}

/// The cluster addresses of a Service.
fn held(service: &Object) -> Vec<IpAddr> {
    let spec = service.body.get("spec");
    let external = spec.is_some_and(|spec| spec["type"] == "ExternalName");
    let list = spec.and_then(|spec| spec.get("clusterIPs")?.as_array());
    let texts = list.into_iter().flatten().filter(|_| !external);
    texts
        .filter_map(|text| text.as_str()?.parse().ok())
        .collect()
}

fn create(service: &Object, address: IpAddr) -> Action {
    let ObjectMeta {
        name,
        namespace,
        uid,
        ..
    } = &service.metadata;
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let labels = [
        (MANAGED_BY, MANAGER),
        (FAMILY, family),
        (HOLDER, uid.0.as_str()),
    ];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let spec = json!({"parentRef": {
        "group": "", "resource": "services", "namespace": namespace, "name": name,
    }});
    Action::Create(Object {
        types: GroupVersionKind::new(GROUP, "v1", "IPAddress"),
        metadata: ObjectMeta {
            name: address.to_string(),
            labels: labels.into_iter().collect(),
            ..ObjectMeta::default()
        },
        body: [("spec".to_owned(), spec)].into_iter().collect(),
    })
}

/// The Service that an address's object names.
fn parent(address: &Object) -> Option<ObjectKey> {
    let parent = address.body.get("spec")?.get("parentRef")?;
    let text = |member: &str| parent[member].as_str();
    (parent["resource"] == "services").then(|| {
        ObjectKey::new(
            resources::services(),
            text("namespace"),
            text("name").unwrap_or_default(),
        )
    })
}

/// Runs [`reconcile_service`] for every Service and [`reconcile_address`] for every IPAddress.
pub struct IpAddressController;

impl Controller for IpAddressController {
    fn name(&self) -> &'static str {
        "ipaddress"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        if change.key.resource == addresses() {
            return vec![change.key.clone()];
        }
        if !change.is_of("", "services") {
            return Vec::new();
        }
        // A new one holds nothing yet that could have to go.
        let before = change.before.map(|record| &record.uid.0);
        let known = before.map(|uid| {
            world.keys(&addresses(), None, &|record| {
                record.labels.get(HOLDER) == Some(uid)
            })
        });
        let mut keys = known.unwrap_or_default();
        keys.extend(change.after.map(|_| change.key.clone()));
        keys
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(object) = asked.world.get(asked.key) else {
            return Ok(Plan::nothing());
        };
        if asked.key.resource != addresses() {
            return Ok(reconcile_service(
                &object,
                |key| asked.world.get(key),
                asked.now,
            ));
        }
        let service = parent(&object).and_then(|key| asked.world.get(&key));
        Ok(reconcile_address(&object, service.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(uid: &str, ip: &str) -> Object {
        Object::from_value(json!({
            "kind": "Service", "apiVersion": "v1", "metadata": {"name": "one", "namespace": "a", "uid": uid},
            "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip]},
        }))
        .expect("a service")
    }

    #[test]
    fn an_address_is_made_once_and_goes_with_its_service() {
        let one = service("u", "10.96.3.4");
        let now = Timestamp::from_unix(1);
        let plan = reconcile_service(&one, |_| None, now);
        let [Action::Create(made)] = &plan.actions[..] else {
            panic!("one is created: {plan}");
        };
        assert_eq!(made.metadata.name, "10.96.3.4");
        assert_eq!(
            made.body["spec"]["parentRef"],
            json!({"group": "", "resource": "services", "namespace": "a", "name": "one"})
        );
        let found = Arc::new(made.clone());
        assert_eq!(
            reconcile_service(&one, |_| Some(found.clone()), now),
            Plan::nothing()
        );
        // A Service that gets the address before it is free looks again.
        let next = service("next", "10.96.3.4");
        let waits = reconcile_service(&next, |_| Some(found.clone()), now);
        assert!(waits.is_nothing() && waits.wake_at.is_some(), "{waits}");
        assert!(reconcile_address(made, Some(&one)).is_nothing());
        for holder in [
            None,
            Some(&service("other", "10.96.3.4")),
            Some(&service("u", "None")),
        ] {
            assert_eq!(reconcile_address(made, holder).actions.len(), 1);
        }
        assert!(reconcile_service(&service("u", "None"), |_| None, now).is_nothing());
    }

    #[test]
    fn what_others_made_stays() {
        let address = json!({"kind": "IPAddress", "apiVersion": "networking.k8s.io/v1", "metadata": {"name": "10.96.3.4"},
            "spec": {"parentRef": {"resource": "services", "namespace": "a", "name": "one"}}});
        let address = Object::from_value(address).expect("an address");
        assert!(reconcile_address(&address, None).is_nothing());
    }
}
