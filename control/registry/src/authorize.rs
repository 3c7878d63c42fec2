//! Who may do what: the built-in groups. Never looks into an object; admission checks what the path does not tell.
//! Rule: masters may everything; a node may what its agent needs, as Kubernetes' Node authoriser grants it; nobody else anything.

use crate::{Caller, Target, Verb};
use objects::Status;
use objects::identities::{MASTERS_GROUP, NODE_USER_PREFIX, NODES_GROUP};

/// The namespace of nodes' leases.
pub const NODE_LEASE_NAMESPACE: &str = "kube-node-lease";

/// Says yes, or answers 403 with what was asked by whom.
pub fn authorize(caller: &Caller, verb: Verb, target: &Target) -> Result<(), Status> {
    let member = |group: &str| caller.groups.iter().any(|name| name == group);
    if member(MASTERS_GROUP) {
        return Ok(());
    }
    let node = caller
        .user
        .strip_prefix(NODE_USER_PREFIX)
        .filter(|_| member(NODES_GROUP));
    match node {
        Some(node) if node_may(node, verb, target) => Ok(()),
        _ => Err(refusal(caller, verb, target)),
    }
}

fn node_may(node: &str, verb: Verb, target: &Target) -> bool {
    use Verb::{Create, Delete, Get, Patch, Update};
    let row = &target.resource;
    let subresource = target.subresource.as_deref();
    let own = target.name.as_deref() == Some(node);
    match (row.group.as_str(), row.resource.as_str(), subresource) {
        ("", "nodes", None) => {
            verb.is_read() || verb == Create || (own && matches!(verb, Update | Patch))
        }
        ("", "nodes", Some("status")) => own && matches!(verb, Get | Update | Patch),
        ("", "pods", None) => verb.is_read() || matches!(verb, Create | Delete),
        ("", "pods", Some("status")) => matches!(verb, Get | Update | Patch),
        ("", "services" | "configmaps" | "secrets" | "namespaces" | "serviceaccounts", None) => {
            verb.is_read()
        }
        ("discovery.k8s.io", "endpointslices", None) => verb.is_read(),
        ("coordination.k8s.io", "leases", None) => {
            let leases = target.namespace.as_deref() == Some(NODE_LEASE_NAMESPACE);
            leases && (verb == Create || (own && matches!(verb, Get | Update | Patch | Delete)))
        }
        ("" | "events.k8s.io", "events", None) => matches!(verb, Create | Update | Patch),
        _ => false,
    }
}

fn refusal(caller: &Caller, verb: Verb, target: &Target) -> Status {
    let row = &target.resource;
    let resource = match &target.subresource {
        Some(subresource) => format!("{}/{subresource}", row.resource),
        None => row.resource.clone(),
    };
    let scope = match &target.namespace {
        Some(namespace) => format!("in the namespace {namespace:?}"),
        None => "at the cluster scope".to_owned(),
    };
    let why = format!(
        "User {:?} cannot {verb} resource {resource:?} in API group {:?} {scope}",
        caller.user, row.group
    );
    let name = target.name.as_deref().unwrap_or_default();
    Status::forbidden(&target.group_resource(), name, &why)
}
