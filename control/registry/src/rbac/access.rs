//! The decision: who may do what, by groups, by the nodes' rights, by roles; and the index that it reads. Fed by whoever
//! follows the store; one for the process.

use super::graph::{Graph, PodFacts};
use super::policy::{self, Policy, RoleRef};
use super::rule::Rule;
use super::{Request, node};
use crate::{Caller, Target, Verb};
use mvcc::{Event, KeyRange, KeyValue, RangeRequest, Store, StoreError};
use objects::identities::MASTERS_GROUP;
use objects::{Object, ObjectKey, Reason, Revision, Status, Uid};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The collections that the index is made of, as `group/resource` in the store's keys.
const COLLECTIONS: [(&str, &str); 7] = [
    ("", "pods"),
    ("", "serviceaccounts"),
    ("", "persistentvolumeclaims"),
    (policy::GROUP, "roles"),
    (policy::GROUP, "rolebindings"),
    (policy::GROUP, "clusterroles"),
    (policy::GROUP, "clusterrolebindings"),
];

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and why.
    Allowed(String),
    /// No rule allows it; what is known of why, or nothing.
    NotAllowed(String),
    /// Nothing can be said yet: the roles have not been read.
    Unknown,
}

impl Decision {
    /// Whether it is a yes.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allowed(_))
    }
}

/// Roles, bindings and pods as they are now, and the decisions over them.
#[derive(Default)]
pub struct Access {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    is_filled: bool,
    policy: Policy,
    graph: Graph,
}

impl State {
    fn set(&mut self, key: &ObjectKey, object: Option<&Object>) {
        match key.resource.group.as_str() {
            policy::GROUP => self.policy.set(key, object),
            _ => self.graph.set(key, object),
        }
    }
}

impl Access {
    /// Begins anew with what the store holds; answers with the revision from which on [`Access::apply`] must be told.
    pub async fn read_all(&self, store: &dyn Store) -> Result<Revision, StoreError> {
        let mut state = State {
            is_filled: true,
            ..State::default()
        };
        let mut revision = None;
        for (group, resource) in COLLECTIONS {
            let prefix = objects::resource_prefix(&objects::GroupResource::new(group, resource));
            let mut request = RangeRequest::new(KeyRange::prefix(prefix));
            request.revision = revision;
            let found = store.range(request).await?;
            revision.get_or_insert(found.revision);
            for kv in &found.kvs {
                if let Some((key, object)) = read(kv) {
                    state.set(&key, Some(&object));
                }
            }
        }
        *self.write() = state;
        Ok(revision.unwrap_or_default())
    }

    /// Takes in a change of the store; others than those of the index are left aside.
    pub fn apply(&self, event: &Event) {
        let Some(key) = ObjectKey::from_store_key(event.key()) else {
            return;
        };
        let of_index = COLLECTIONS.iter().any(|(group, resource)| {
            key.resource.group == *group && key.resource.resource == *resource
        });
        if !of_index {
            return;
        }
        match event {
            // What cannot be read grants nothing.
            Event::Put { kv, .. } => {
                let object = read(kv).map(|(_, object)| object);
                self.write().set(&key, object.as_ref());
            }
            Event::Delete { .. } => self.write().set(&key, None),
        }
    }

    /// Decides.
    pub fn decide(&self, caller: &Caller, request: &Request<'_>) -> Decision {
        if caller.groups.iter().any(|name| name == MASTERS_GROUP) {
            return Decision::Allowed(String::new());
        }
        let state = self.read();
        if !state.is_filled {
            return Decision::Unknown;
        }
        let mut why = Vec::new();
        if let Some(node) = node::node_of(caller) {
            match node::decide(&state.graph, node, request) {
                Ok(true) => return Decision::Allowed(String::new()),
                Ok(false) => {}
                Err(reason) => why.push(reason),
            }
        }
        match state.policy.allows(caller, request) {
            Some(grant) => Decision::Allowed(grant.reason()),
            None => {
                let missing = state.policy.missing_roles(caller, request.namespace);
                if !missing.is_empty() {
                    why.push(format!("RBAC: [{}]", missing.join(", ")));
                }
                Decision::NotAllowed(why.join(", "))
            }
        }
    }

    /// Says yes to a request, or answers 403 with what was asked by whom.
    pub fn check(&self, caller: &Caller, request: &Request<'_>) -> Result<(), Status> {
        match self.decide(caller, request) {
            Decision::Allowed(_) => Ok(()),
            Decision::NotAllowed(why) => Err(refusal(caller, request, &why)),
            Decision::Unknown => Err(Status::unavailable(
                "the roles have not been read yet; try again".to_owned(),
            )),
        }
    }

    /// Says yes to a verb on a target, or answers 403.
    pub fn authorize(&self, caller: &Caller, verb: Verb, target: &Target) -> Result<(), Status> {
        self.check(caller, &Request::on(verb, target))
    }

    /// Every rule that holds for the caller in a namespace.
    pub fn rules_for(&self, caller: &Caller, namespace: &str) -> Vec<Rule> {
        let mut rules = Vec::new();
        if caller.groups.iter().any(|name| name == MASTERS_GROUP) {
            let all = || vec!["*".to_owned()];
            rules.push(Rule {
                verbs: all(),
                api_groups: all(),
                resources: all(),
                ..Rule::default()
            });
            rules.push(Rule {
                verbs: all(),
                non_resource_urls: all(),
                ..Rule::default()
            });
        }
        for rule in self.read().policy.rules_for(caller, namespace) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        rules
    }

    /// The rules of a role; None when there is none of that name.
    pub fn role(&self, namespace: Option<&str>, role: &RoleRef) -> Option<Vec<Rule>> {
        let state = self.read();
        state
            .policy
            .rules(namespace, role)
            .map(|rules| rules.to_vec())
    }

    /// What is known of a pod.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<PodFacts> {
        self.read().graph.pod(namespace, name).cloned()
    }

    /// The identity of a service account.
    pub fn account(&self, namespace: &str, name: &str) -> Option<Uid> {
        self.read().graph.account(namespace, name).cloned()
    }

    /// Whether the roles have been read.
    pub fn is_filled(&self) -> bool {
        self.read().is_filled
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(kv: &KeyValue) -> Option<(ObjectKey, Object)> {
    let key = ObjectKey::from_store_key(&kv.key)?;
    let object = Object::from_stored(&kv.value, kv.mod_revision).ok()?;
    Some((key, object))
}

/// The 403 in apiserver's words.
pub fn refusal(caller: &Caller, request: &Request<'_>, why: &str) -> Status {
    let mut tail = String::new();
    if !why.is_empty() {
        tail = format!(": {why}");
    }
    if let Some(path) = request.path {
        return Status::failure(
            403,
            Reason::Forbidden,
            format!(
                "forbidden: User {:?} cannot {} path {path:?}{tail}",
                caller.user, request.verb
            ),
        );
    }
    let scope = match request.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let why = format!(
        "User {:?} cannot {} resource {:?} in API group {:?} {scope}{tail}",
        caller.user,
        request.verb,
        request.combined(),
        request.group
    );
    let resource = objects::GroupResource::new(request.group, request.resource);
    Status::forbidden(&resource, request.name, &why)
}
