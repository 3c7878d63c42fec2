//! The users and groups that the cluster's own certificates name: who issues them, who reads them and who decides by them
//! must mean the same. The forms are Kubernetes'; what begins with `trireme` is ours.

/// The group that may do everything.
pub const MASTERS_GROUP: &str = "system:masters";
/// The group of nodes' agents.
pub const NODES_GROUP: &str = "system:nodes";
/// The group of everybody with a certificate.
pub const AUTHENTICATED_GROUP: &str = "system:authenticated";
/// The user under which masters speak to nodes and to one another, and make what every cluster has.
pub const MASTER_USER: &str = "system:trireme:control";
/// The user of the kubeconfig that a master writes.
pub const ADMIN_USER: &str = "trireme:admin";
/// What the name of a node's user begins with; the node's name follows.
pub const NODE_USER_PREFIX: &str = "system:node:";

/// The user of a node's agent.
pub fn node_user(node: &str) -> String {
    format!("{NODE_USER_PREFIX}{node}")
}

/// The user under which a controller writes.
pub fn controller_user(controller: &str) -> String {
    format!("system:trireme:controller:{controller}")
}
