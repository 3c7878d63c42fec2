//! What each signer lets a certificate say. Rules: the documentation of Kubernetes' built-in signers.

use crate::pki::Requested;
use objects::identities::{MASTERS_GROUP, NODE_USER_PREFIX, NODES_GROUP};

/// A signer of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// `kubernetes.io/kube-apiserver-client`: users and programs.
    Client,
    /// `kubernetes.io/kube-apiserver-client-kubelet`: nodes, towards the API.
    NodeClient,
    /// `kubernetes.io/kubelet-serving`: nodes, towards the masters.
    NodeServing,
}

impl Signer {
    /// The signer of a name; None for one that others serve.
    pub fn of(name: &str) -> Option<Signer> {
        match name {
            "kubernetes.io/kube-apiserver-client" => Some(Signer::Client),
            "kubernetes.io/kube-apiserver-client-kubelet" => Some(Signer::NodeClient),
            "kubernetes.io/kubelet-serving" => Some(Signer::NodeServing),
            _ => None,
        }
    }

    fn usages(self) -> (&'static str, [&'static str; 3]) {
        const KEYS: [&str; 2] = ["digital signature", "key encipherment"];
        match self {
            Signer::Client | Signer::NodeClient => {
                ("client auth", [KEYS[0], KEYS[1], "client auth"])
            }
            Signer::NodeServing => ("server auth", [KEYS[0], KEYS[1], "server auth"]),
        }
    }
}

/// Whether the signer signs such a certificate; the error says what it may not say.
pub fn check(
    signer: Signer,
    requested: &Requested,
    usages: &[String],
    requester: &str,
) -> Result<(), String> {
    let (needed, allowed) = signer.usages();
    if let Some(other) = usages
        .iter()
        .find(|usage| !allowed.contains(&usage.as_str()))
    {
        return Err(format!("usage {other:?} is not allowed by this signer"));
    }
    if !usages.iter().any(|usage| usage == needed) {
        return Err(format!("usage {needed:?} is needed by this signer"));
    }
    let organizations = &requested.organizations;
    if requested.common_name.is_empty() {
        return Err("the subject has no common name".to_owned());
    }
    if organizations.iter().any(|group| group == MASTERS_GROUP) {
        return Err(format!(
            "the group {MASTERS_GROUP:?} is never given by a request"
        ));
    }
    if signer == Signer::Client {
        return Ok(());
    }
    if requested.organizations != [NODES_GROUP] {
        return Err(format!("the organization must be {NODES_GROUP:?} alone"));
    }
    let name = requested.common_name.strip_prefix(NODE_USER_PREFIX);
    if name.is_none_or(str::is_empty) {
        return Err(format!(
            "the common name must begin with {NODE_USER_PREFIX:?}"
        ));
    }
    let names = requested.alternative_names();
    match signer {
        Signer::NodeServing if names.is_empty() => {
            Err("a serving certificate needs a DNS name or an IP address".to_owned())
        }
        Signer::NodeServing if requested.has_other_names => {
            Err("only DNS names and IP addresses are allowed".to_owned())
        }
        Signer::NodeServing if requested.common_name != requester => Err(format!(
            "the certificate is for {:?}, and {requester:?} asks",
            requested.common_name
        )),
        Signer::NodeClient if !names.is_empty() || requested.has_other_names => {
            Err("a client's certificate has no alternative names".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(user: &str, organizations: &[&str], names: &[&str]) -> Requested {
        Requested::of_test(user, organizations, names)
    }

    #[test]
    fn each_signer_has_its_rules() {
        let client: Vec<String> = vec!["digital signature".into(), "client auth".into()];
        let server: Vec<String> = vec!["digital signature".into(), "server auth".into()];
        let node = "system:node:n1";
        let ok = |signer, requested: Requested, usages: &[String]| {
            check(signer, &requested, usages, node).is_ok()
        };
        assert!(ok(
            Signer::Client,
            requested("ann", &["devs"], &[]),
            &client
        ));
        assert!(!ok(
            Signer::Client,
            requested("ann", &["devs"], &[]),
            &server
        ));
        assert!(!ok(
            Signer::Client,
            requested("ann", &["system:masters"], &[]),
            &client
        ));
        assert!(!ok(Signer::Client, requested("", &[], &[]), &client));
        assert!(ok(
            Signer::NodeClient,
            requested(node, &["system:nodes"], &[]),
            &client
        ));
        assert!(!ok(
            Signer::NodeClient,
            requested(node, &["system:nodes"], &["n1"]),
            &client
        ));
        assert!(!ok(
            Signer::NodeClient,
            requested("ann", &["system:nodes"], &[]),
            &client
        ));
        assert!(!ok(
            Signer::NodeClient,
            requested(node, &["system:nodes", "x"], &[]),
            &client
        ));
        assert!(ok(
            Signer::NodeServing,
            requested(node, &["system:nodes"], &["n1"]),
            &server
        ));
        assert!(!ok(
            Signer::NodeServing,
            requested(node, &["system:nodes"], &[]),
            &server
        ));
        let other = requested("system:node:n2", &["system:nodes"], &["n2"]);
        assert!(!ok(Signer::NodeServing, other, &server));
    }
}
