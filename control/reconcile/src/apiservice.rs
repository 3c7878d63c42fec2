//! Every group and version that the masters serve themselves has an API service, which is always available.
//!
//! Never touches one that names a server: whoever installs it answers for the group, even for one of the masters' own. Semantics:
//! kube-aggregator's registration of local API services.

use crate::conditions::{self, Condition};
use crate::controller::{Asked, Change, Controller, World};
use crate::plan::{Action, Plan};
use crate::status::StatusEdit;
use crate::view::Viewed;
use objects::{
    GroupResource, GroupVersionKind, Object, ObjectError, ObjectKey, ObjectMeta, Timestamp,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const GROUP: &str = "apiregistration.k8s.io";
/// Says that the masters made it: `onstart` for what is built in, `true` for what a definition adds.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const BUILT_IN: &str = "onstart";
const DEFINED: &str = "true";
/// The priorities of what definitions add.
const DEFINED_PRIORITIES: (i64, i64) = (1_000, 100);

fn services() -> GroupResource {
    GroupResource::new(GROUP, "apiservices")
}

fn definitions() -> GroupResource {
    GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions")
}

/// A group and version that the masters serve without any definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltIn {
    /// `VERSION.GROUP`; the core group's is `v1.`.
    pub name: String,
    /// Of the group, of the version.
    pub priorities: (i64, i64),
}

/// What an API service of the masters says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Of the group, of the version.
    pub priorities: (i64, i64),
    /// Whether a definition adds it.
    pub is_defined: bool,
}

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input<'a> {
    /// `VERSION.GROUP`; the core group's is `v1.`.
    pub name: &'a str,
    /// What is served under it, if anything is.
    pub wanted: Option<Wanted>,
    /// The API service, if there is one.
    pub found: Option<Viewed<Value>>,
}

/// Creates what is missing, removes what no definition adds any more, and says that the rest is available.
pub fn reconcile(input: &Input<'_>, now: Timestamp) -> Plan {
    let Some(found) = &input.found else {
        let made = input
            .wanted
            .as_ref()
            .and_then(|wanted| create(input.name, wanted));
        return Plan::of(made.into_iter().collect());
    };
    let place = found
        .object
        .body
        .get("spec")
        .and_then(|spec| spec.get("service"));
    if place.is_some_and(Value::is_object) || found.is_deleting() {
        return Plan::nothing();
    }
    let labels = &found.object.metadata.labels;
    let is_ours = labels.get(MANAGED).is_some_and(|value| value == DEFINED);
    if input.wanted.is_none() && is_ours {
        return Plan::of(vec![Action::Delete {
            key: found.key(services()),
            precondition: found.unchanged(),
            grace_seconds: None,
            propagation: None,
        }]);
    }
    let mut edit = StatusEdit::of(found);
    let mut all = edit.conditions();
    let available = Condition {
        condition_type: "Available",
        status: "True",
        reason: "Local",
        message: "Local APIServices are always available",
    };
    conditions::set(&mut all, &available, now);
    edit.set_conditions(all);
    Plan {
        status: edit.into_update(found, services()),
        ..Plan::default()
    }
}

fn create(name: &str, wanted: &Wanted) -> Option<Action> {
    let (version, group) = name.split_once('.')?;
    let (of_group, of_version) = wanted.priorities;
    let Value::Object(body) = json!({"spec": {
        "group": group, "version": version,
        "groupPriorityMinimum": of_group, "versionPriority": of_version,
    }}) else {
        return None;
    };
    let managed = if wanted.is_defined { DEFINED } else { BUILT_IN };
    Some(Action::Create(Object {
        types: GroupVersionKind::new(GROUP, "v1", "APIService"),
        metadata: ObjectMeta {
            name: name.to_owned(),
            labels: [(MANAGED.to_owned(), managed.to_owned())]
                .into_iter()
                .collect(),
            ..ObjectMeta::default()
        },
        body,
    }))
}

/// Runs [`reconcile`] for every group and version.
pub struct ApiServiceController {
    built_in: BTreeMap<String, Wanted>,
}

impl ApiServiceController {
    /// For these, beside those that definitions add.
    pub fn new(built_in: &[BuiltIn]) -> Self {
        let built_in = built_in.iter().map(|built_in| {
            let wanted = Wanted {
                priorities: built_in.priorities,
                is_defined: false,
            };
            (built_in.name.clone(), wanted)
        });
        ApiServiceController {
            built_in: built_in.collect(),
        }
    }

    fn wanted(&self, name: &str, world: &dyn World) -> Option<Wanted> {
        if let Some(built_in) = self.built_in.get(name) {
            return Some(built_in.clone());
        }
        let (_, group) = name.split_once('.')?;
        defined(group, world).contains(name).then_some(Wanted {
            priorities: DEFINED_PRIORITIES,
            is_defined: true,
        })
    }
}

/// The names of what the definitions of a group add.
fn defined(group: &str, world: &dyn World) -> BTreeSet<String> {
    let keys = world.keys(&definitions(), None, &|record| !record.deleting);
    let of_group = keys.iter().filter(|key| group_of(&key.name) == group);
    let objects = of_group.filter_map(|key| world.get(key));
    objects
        .flat_map(|definition| versions(&definition, group))
        .collect()
}

/// A definition is named `PLURAL.GROUP`.
fn group_of(definition: &str) -> &str {
    definition.split_once('.').map_or("", |(_, group)| group)
}

fn versions(definition: &Arc<Object>, group: &str) -> Vec<String> {
    let read = |at: &str| {
        let (part, list) = at.split_once('/').unwrap_or_default();
        let found = definition.body.get(part).and_then(|part| part.get(list));
        found.and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let established = read("status/conditions");
    let established = conditions::find(&established, "Established")
        .is_some_and(|condition| conditions::text(condition, "status") == "True");
    let served = read("spec/versions").into_iter();
    let served = served.filter(|version| established && version["served"] == true);
    served
        .filter_map(|version| Some(format!("{}.{group}", version["name"].as_str()?)))
        .collect()
}

impl Controller for ApiServiceController {
    fn name(&self) -> &'static str {
        "apiservice"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        let key = |name: String| ObjectKey::new(services(), None, &name);
        if change.key.resource == services() {
            return vec![change.key.clone()];
        }
        if change.key.resource == definitions() {
            let group = group_of(&change.key.name);
            let known = world.keys(&services(), None, &|_| true).into_iter();
            let known = known.filter(|key| group_of(&key.name) == group);
            return known
                .chain(defined(group, world).into_iter().map(key))
                .collect();
        }
        // Every cluster has this namespace from its first minute: what is built in is looked at with it.
        match change.is_of("", "namespaces") && change.key.name == "kube-system" {
            true => self.built_in.keys().cloned().map(key).collect(),
            false => Vec::new(),
        }
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let name = asked.key.name.as_str();
        let input = Input {
            name,
            wanted: self.wanted(name, asked.world),
            found: asked.object()?,
        };
        Ok(reconcile(&input, asked.now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value, managed: Option<&str>, status: Value) -> Viewed<Value> {
        let mut object = json!({
            "kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1",
            "metadata": {"name": "v1.x.io", "uid": "u", "resourceVersion": "7"},
            "spec": spec, "status": status,
        });
        if let Some(managed) = managed {
            object["metadata"]["labels"] = json!({MANAGED: managed});
        }
        Viewed::new(Object::from_value(object).expect("an object")).expect("a view")
    }

    fn plan(wanted: Option<Wanted>, found: Option<Viewed<Value>>) -> Plan {
        let input = Input {
            name: "v1.x.io",
            wanted,
            found,
        };
        reconcile(&input, Timestamp::from_unix(1))
    }

    fn wanted() -> Option<Wanted> {
        Some(Wanted {
            priorities: (1_000, 100),
            is_defined: true,
        })
    }

    #[test]
    fn what_is_served_has_one_that_is_available() {
        let created = plan(wanted(), None);
        let [Action::Create(object)] = &created.actions[..] else {
            panic!("one is created: {created}");
        };
        let spec = json!({"group": "x.io", "version": "v1", "groupPriorityMinimum": 1_000, "versionPriority": 100});
        assert_eq!(object.body["spec"], spec);
        let told = plan(
            wanted(),
            Some(service(spec.clone(), Some(DEFINED), json!({}))),
        );
        let status = told.status.expect("its condition is written").status;
        assert_eq!(status["conditions"][0]["reason"], "Local");
        assert!(plan(wanted(), Some(service(spec, Some(DEFINED), status))).is_nothing());
    }

    #[test]
    fn what_no_definition_adds_goes_unless_somebody_made_it() {
        let spec = json!({"group": "x.io", "version": "v1"});
        let gone = plan(None, Some(service(spec.clone(), Some(DEFINED), json!({}))));
        assert!(
            matches!(&gone.actions[..], [Action::Delete { .. }]),
            "{gone}"
        );
        let kept = plan(None, Some(service(spec, None, json!({}))));
        assert!(kept.actions.is_empty(), "{kept}");
    }

    #[test]
    fn one_that_names_a_server_is_left_alone() {
        let spec =
            json!({"group": "x.io", "version": "v1", "service": {"namespace": "a", "name": "b"}});
        for wanted in [None, wanted()] {
            assert!(
                plan(
                    wanted,
                    Some(service(spec.clone(), Some(DEFINED), json!({})))
                )
                .is_nothing()
            );
        }
    }
}
