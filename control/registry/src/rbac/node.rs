//! What a node's agent may do: its own node, lease and pods, what the pods on it name, and what every node needs to see.
//! Rule: Kubernetes' Node authoriser and the rules of its role `system:node`. What the path does not tell is admission's.

use super::Request;
use super::graph::Graph;
use crate::Caller;
use objects::identities::{NODE_USER_PREFIX, NODES_GROUP};

/// The namespace of nodes' leases.
pub const NODE_LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node whose agent the caller is.
pub fn node_of(caller: &Caller) -> Option<&str> {
    let is_node = caller.groups.iter().any(|name| name == NODES_GROUP);
    caller
        .user
        .strip_prefix(NODE_USER_PREFIX)
        .filter(|name| is_node && !name.is_empty())
}

/// Whether the node may; else why not, when more is known than that no rule allows it.
pub fn decide(graph: &Graph, node: &str, request: &Request<'_>) -> Result<bool, String> {
    if request.path.is_some() {
        return Ok(false);
    }
    let Request {
        verb,
        group,
        resource,
        subresource,
        namespace,
        name,
        ..
    } = *request;
    let own = name == node;
    let reads = matches!(verb, "get" | "list" | "watch");
    let changes = matches!(verb, "update" | "patch");
    Ok(match (group, resource, subresource) {
        ("", "secrets" | "configmaps", "") => {
            return named(graph, node, request, reads);
        }
        ("", "persistentvolumeclaims", "") => {
            return named(graph, node, request, verb == "get");
        }
        ("", "persistentvolumeclaims", "status") => {
            return named(graph, node, request, verb == "get" || changes);
        }
        ("", "persistentvolumes", "") => {
            verb == "get" && related(graph.mounts(node, name), node, request)?
        }
        ("", "serviceaccounts", "") => reads,
        ("", "serviceaccounts", "token") => {
            verb == "create" && related(graph.runs_as(node, namespace, name), node, request)?
        }
        ("", "nodes", "") => reads || verb == "create" || (own && changes),
        ("", "nodes", "status") => own && (verb == "get" || changes),
        ("", "pods", "") => match verb {
            "get" => related(is_bound(graph, node, request), node, request)?,
            "list" | "watch" if name.is_empty() => {
                if request.node_selected != node {
                    return Err(
                        "can only list/watch pods with spec.nodeName field selector".to_owned()
                    );
                }
                true
            }
            "list" | "watch" => related(is_bound(graph, node, request), node, request)?,
            "create" | "delete" => true,
            _ => false,
        },
        ("", "pods", "status") => verb == "get" || changes,
        ("", "pods", "eviction") => verb == "create",
        ("", "services" | "namespaces", "") => reads,
        ("networking.k8s.io", "networkpolicies", "") => reads,
        ("node.k8s.io", "runtimeclasses", "") => reads,
        ("discovery.k8s.io", "endpointslices", "") => reads,
        ("coordination.k8s.io", "leases", "") => {
            namespace == NODE_LEASE_NAMESPACE
                && (verb == "create" || (own && (verb == "get" || verb == "delete" || changes)))
        }
        ("storage.k8s.io", "csidrivers", "") => reads,
        ("storage.k8s.io", "csinodes", "") => {
            verb == "create" || (own && (verb == "get" || verb == "delete" || changes))
        }
        ("storage.k8s.io", "volumeattachments", "") => verb == "get",
        ("" | "events.k8s.io", "events", "") => verb == "create" || changes,
        ("certificates.k8s.io", "certificatesigningrequests", "") => reads || verb == "create",
        ("authentication.k8s.io", "tokenreviews", "") => verb == "create",
        ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", "") => {
            verb == "create"
        }
        _ => false,
    })
}

/// An object that a pod of the node names.
fn named(
    graph: &Graph,
    node: &str,
    request: &Request<'_>,
    allowed_verb: bool,
) -> Result<bool, String> {
    if !allowed_verb {
        return Err(format!(
            "can only read resources of this type by name, verb {:?} is not among what a node may",
            request.verb
        ));
    }
    if request.name.is_empty() {
        return Err("No Object name found".to_owned());
    }
    let known = graph.names(node, request.resource, request.namespace, request.name);
    related(known, node, request)
}

fn is_bound(graph: &Graph, node: &str, request: &Request<'_>) -> bool {
    graph
        .pod(request.namespace, request.name)
        .is_some_and(|pod| pod.node == node)
}

fn related(is_related: bool, node: &str, request: &Request<'_>) -> Result<bool, String> {
    match is_related {
        true => Ok(true),
        false => Err(format!(
            "no relationship found between node {node:?} and this object ({})",
            request.resource
        )),
    }
}
