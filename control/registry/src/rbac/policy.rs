//! Roles and bindings as they are stored, indexed for a decision. Semantics: Kubernetes' RBAC authoriser: rules only add up,
//! nothing denies.

use super::Request;
use super::rule::Rule;
use crate::Caller;
use objects::{Object, ObjectKey};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// To whom a binding grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Subject {
    /// `User`, `Group` or `ServiceAccount`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The namespace of a service account.
    pub namespace: String,
}

impl Subject {
    /// Whether the caller is it, or in it; `home` is the binding's namespace.
    fn is(&self, caller: &Caller, home: Option<&str>) -> bool {
        match self.kind.as_str() {
            "User" => caller.user == self.name,
            "Group" => caller.groups.contains(&self.name),
            "ServiceAccount" => {
                let namespace = match self.namespace.as_str() {
                    "" => home.unwrap_or_default(),
                    namespace => namespace,
                };
                objects::identities::service_account_of(&caller.user)
                    == Some((namespace, self.name.as_str()))
            }
            _ => false,
        }
    }

    fn shown(&self) -> String {
        match self.kind.as_str() {
            "ServiceAccount" => {
                let name = format!("{}/{}", self.name, self.namespace);
                format!("{} {name:?}", self.kind)
            }
            _ => format!("{} {:?}", self.kind, self.name),
        }
    }
}

/// Which role a binding grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RoleRef {
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Binding {
    subjects: Option<Vec<Subject>>,
    #[serde(rename = "roleRef")]
    role: RoleRef,
}

type Scope = Option<String>;

/// Roles and bindings.
#[derive(Default)]
pub struct Policy {
    /// By namespace (None for cluster roles) and name.
    roles: BTreeMap<(Scope, String), Arc<[Rule]>>,
    bindings: BTreeMap<Scope, BTreeMap<String, Binding>>,
}

/// Why a request is allowed.
pub struct Grant<'a> {
    namespace: Option<&'a str>,
    binding: &'a str,
    role: &'a RoleRef,
    subject: &'a Subject,
}

impl Grant<'_> {
    /// In Kubernetes' words.
    pub fn reason(&self) -> String {
        let (kind, place) = match self.namespace {
            None => ("ClusterRoleBinding", self.binding.to_owned()),
            Some(namespace) => ("RoleBinding", format!("{}/{namespace}", self.binding)),
        };
        format!(
            "RBAC: allowed by {kind} {place:?} of {} {:?} to {}",
            self.role.kind,
            self.role.name,
            self.subject.shown()
        )
    }
}

impl Policy {
    /// Takes in an object of the group, or that it is gone.
    pub fn set(&mut self, key: &ObjectKey, object: Option<&Object>) {
        let place = (key.namespace.clone(), key.name.clone());
        match key.resource.resource.as_str() {
            "roles" | "clusterroles" => match object {
                Some(object) => drop(self.roles.insert(place, rules_of(object).into())),
                None => drop(self.roles.remove(&place)),
            },
            "rolebindings" | "clusterrolebindings" => {
                let bindings = self.bindings.entry(place.0.clone()).or_default();
                match object.map(binding_of) {
                    Some(binding) => drop(bindings.insert(place.1, binding)),
                    None => drop(bindings.remove(&place.1)),
                }
                if bindings.is_empty() {
                    self.bindings.remove(&place.0);
                }
            }
            _ => {}
        }
    }

    /// The first grant that allows the request.
    pub fn allows<'a>(&'a self, caller: &'a Caller, request: &Request<'a>) -> Option<Grant<'a>> {
        self.grants(caller, request.namespace)
            .find(|(_, rules)| rules.iter().any(|rule| rule.allows(request)))
            .map(|(grant, _)| grant)
    }

    /// The roles that are granted to the caller but do not exist, as a refusal names them.
    pub fn missing_roles(&self, caller: &Caller, namespace: &str) -> Vec<String> {
        let mut missing: Vec<String> = self
            .granted(caller, namespace)
            .filter(|grant| self.rules(grant.namespace, grant.role).is_none())
            .map(|grant| {
                let kind = grant.role.kind.to_lowercase();
                format!("{kind}.{GROUP} {:?} not found", grant.role.name)
            })
            .collect();
        missing.sort();
        missing.dedup();
        missing
    }

    /// Every rule that holds for the caller in the namespace; only the cluster-wide ones for an empty one.
    pub fn rules_for(&self, caller: &Caller, namespace: &str) -> Vec<Rule> {
        self.grants(caller, namespace)
            .flat_map(|(_, rules)| rules.iter().cloned())
            .collect()
    }

    /// The rules of a role that a binding in `namespace` names; None when there is no such role.
    pub fn rules(&self, namespace: Option<&str>, role: &RoleRef) -> Option<&Arc<[Rule]>> {
        let scope = match role.kind.as_str() {
            "Role" => Some(namespace?.to_owned()),
            _ => None,
        };
        self.roles.get(&(scope, role.name.clone()))
    }

    fn grants<'a>(
        &'a self,
        caller: &'a Caller,
        namespace: &'a str,
    ) -> impl Iterator<Item = (Grant<'a>, &'a [Rule])> {
        self.granted(caller, namespace).filter_map(|grant| {
            let rules = self.rules(grant.namespace, grant.role)?;
            Some((grant, &rules[..]))
        })
    }

    /// The bindings of the cluster and of the namespace that name the caller.
    fn granted<'a>(
        &'a self,
        caller: &'a Caller,
        namespace: &str,
    ) -> impl Iterator<Item = Grant<'a>> {
        let scopes = [
            None,
            Some(namespace.to_owned()).filter(|name| !name.is_empty()),
        ];
        let in_scope = scopes
            .into_iter()
            .enumerate()
            .filter(|(index, scope)| *index == 0 || scope.is_some())
            .filter_map(|(_, scope)| self.bindings.get_key_value(&scope));
        in_scope.flat_map(move |(scope, bindings)| {
            bindings.iter().filter_map(move |(name, binding)| {
                let mut subjects = binding.subjects.iter().flatten();
                let subject = subjects.find(|subject| subject.is(caller, scope.as_deref()))?;
                Some(Grant {
                    namespace: scope.as_deref(),
                    binding: name,
                    role: &binding.role,
                    subject,
                })
            })
        })
    }
}

/// The rules of a role object; one that cannot be read grants nothing.
pub fn rules_of(object: &Object) -> Vec<Rule> {
    let rules = object.body.get("rules").cloned().unwrap_or(Value::Null);
    serde_json::from_value(rules).unwrap_or_default()
}

/// The role that a binding object grants.
pub fn role_ref_of(object: &Object) -> RoleRef {
    binding_of(object).role
}

fn binding_of(object: &Object) -> Binding {
    serde_json::from_value(Value::Object(object.body.clone())).unwrap_or_default()
}
