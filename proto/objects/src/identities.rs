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

/// The user of a request that proves nothing.
pub const ANONYMOUS_USER: &str = "system:anonymous";
/// The group of requests that prove nothing.
pub const UNAUTHENTICATED_GROUP: &str = "system:unauthenticated";
/// The group of all service accounts.
pub const SERVICE_ACCOUNTS_GROUP: &str = "system:serviceaccounts";
/// What the name of a service account's user begins with; `NAMESPACE:NAME` follows.
pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// The user of a service account.
pub fn service_account_user(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}")
}

/// The namespace and name of the service account that a user is.
pub fn service_account_of(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// The groups of a namespace's service accounts.
pub fn service_account_groups(namespace: &str) -> Vec<String> {
    vec![
        SERVICE_ACCOUNTS_GROUP.to_owned(),
        format!("{SERVICE_ACCOUNTS_GROUP}:{namespace}"),
        AUTHENTICATED_GROUP.to_owned(),
    ]
}
