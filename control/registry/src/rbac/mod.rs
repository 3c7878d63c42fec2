//! Who may do what: roles and bindings, the nodes' rights, and the one decision over them.
//!
//! Pure: an index of roles, bindings and pods that somebody feeds ([`Access`]), so that a decision reads no store. Never
//! looks into a request's body; admission checks what the path does not tell. Rule: Kubernetes' RBAC and Node authorisers.

mod access;
mod defaults;
mod graph;
mod node;
mod policy;
mod rule;

pub use access::{Access, Decision, refusal};
pub use defaults::{DefaultObject, Mend, default_objects};
pub use graph::{MIRROR_ANNOTATION, PodFacts, names_anything};
pub use node::{NODE_LEASE_NAMESPACE, node_of};
pub use policy::{RoleRef, Subject, role_ref_of, rules_of};
pub use rule::{Rule, covers};

use crate::{Target, Verb};

/// What a decision is about: a verb on a resource, or on a path that is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// The verb, in lower case; for a path the HTTP method.
    pub verb: &'a str,
    /// The group, empty for core.
    pub group: &'a str,
    /// The plural.
    pub resource: &'a str,
    /// The subresource; empty for the resource itself.
    pub subresource: &'a str,
    /// The namespace; empty for the cluster's scope and for all namespaces.
    pub namespace: &'a str,
    /// The object's name; empty for a collection.
    pub name: &'a str,
    /// The node that a field selector `spec.nodeName` picks.
    pub node_selected: &'a str,
    /// The path, for what is no resource.
    pub path: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// A verb on a target.
    pub fn on(verb: Verb, target: &'a Target) -> Self {
        let row = &target.resource;
        let text = |part: &'a Option<String>| part.as_deref().unwrap_or_default();
        // As apiserver reads it, an object of the namespaces themselves lies in the namespace of its name.
        let namespace = match (row.group.as_str(), row.resource.as_str()) {
            ("", "namespaces") => text(&target.name),
            _ => text(&target.namespace),
        };
        Request {
            verb: verb.as_str(),
            group: &row.group,
            resource: &row.resource,
            subresource: text(&target.subresource),
            namespace,
            name: text(&target.name),
            ..Request::default()
        }
    }

    /// A method on a path.
    pub fn path(verb: &'a str, path: &'a str) -> Self {
        Request {
            verb,
            path: Some(path),
            ..Request::default()
        }
    }

    /// The resource with its subresource, as rules name it.
    pub(crate) fn combined(&self) -> String {
        match self.subresource {
            "" => self.resource.to_owned(),
            subresource => format!("{}/{subresource}", self.resource),
        }
    }
}
