//! Nobody grants what he does not have: a role holds at most what its writer may, and a binding names a role that its writer
//! may or is allowed to bind. Rules and words: the escalation checks of Kubernetes' RBAC registry.

use crate::pipeline::Pipeline;
use crate::rbac::{Request, RoleRef, Rule, covers, role_ref_of, rules_of};
use crate::{Caller, Target};
use objects::{Object, Status};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Whether the caller may write this role or binding; other objects are left aside.
pub fn may_grant(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    object: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    if target.resource.group != GROUP {
        return Ok(());
    }
    match target.resource.resource.as_str() {
        "roles" | "clusterroles" => may_write_role(pipeline, caller, target, object, old),
        "rolebindings" | "clusterrolebindings" => may_bind(pipeline, caller, target, object, old),
        _ => Ok(()),
    }
}

fn may_write_role(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    object: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    let wanted = rules_of(object);
    let aggregation = |role: &Object| role.body.get("aggregationRule").cloned();
    let aggregates = aggregation(object).is_some_and(|rule| !rule.is_null());
    let same = old.is_some_and(|old| {
        rules_of(old) == wanted && (!aggregates || aggregation(old) == aggregation(object))
    });
    if same || is_allowed(pipeline, caller, target, "escalate", &object.metadata.name) {
        return Ok(());
    }
    if aggregates {
        // What will be gathered is not known: only who may everything may ask for it.
        let all = || vec!["*".to_owned()];
        let everything = [
            Rule {
                verbs: all(),
                api_groups: all(),
                resources: all(),
                ..Rule::default()
            },
            Rule {
                verbs: all(),
                non_resource_urls: all(),
                ..Rule::default()
            },
        ];
        let owned = pipeline.access().rules_for(caller, "");
        if covers(&owned, &everything).is_err() {
            let why = "must have cluster-admin privileges to use an aggregationRule";
            return Err(Status::forbidden(
                &target.group_resource(),
                &object.metadata.name,
                why,
            ));
        }
    }
    hold(pipeline, caller, target, object, &wanted)
}

fn may_bind(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    object: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    let role = role_ref_of(object);
    let subjects = |binding: &Object| binding.body.get("subjects").cloned();
    if old.is_some_and(|old| role_ref_of(old) == role && subjects(old) == subjects(object)) {
        return Ok(());
    }
    let namespace = target.namespace.as_deref();
    let request = Request {
        verb: "bind",
        group: GROUP,
        resource: if role.kind == "Role" {
            "roles"
        } else {
            "clusterroles"
        },
        namespace: namespace.unwrap_or_default(),
        name: &role.name,
        ..Request::default()
    };
    if pipeline.access().decide(caller, &request).is_allowed() {
        return Ok(());
    }
    let wanted = pipeline
        .access()
        .role(namespace, &role)
        .ok_or_else(|| missing(&role))?;
    hold(pipeline, caller, target, object, &wanted)
}

fn missing(role: &RoleRef) -> Status {
    let resource = format!("{}s", role.kind.to_lowercase());
    Status::not_found(&objects::GroupResource::new(GROUP, &resource), &role.name)
}

/// Whether the caller holds all of `wanted` where the object holds.
fn hold(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    object: &Object,
    wanted: &[Rule],
) -> Result<(), Status> {
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let owned = pipeline.access().rules_for(caller, namespace);
    let Err(lacking) = covers(&owned, wanted) else {
        return Ok(());
    };
    let shown: Vec<String> = lacking.iter().map(Rule::to_string).collect();
    let groups = caller.groups.iter().map(|group| format!("{group:?}"));
    let groups: Vec<String> = groups.collect();
    let why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        caller.user,
        groups.join(" "),
        shown.join("\n")
    );
    let name = &object.metadata.name;
    Err(Status::forbidden(&target.group_resource(), name, &why))
}

fn is_allowed(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    verb: &str,
    name: &str,
) -> bool {
    let request = Request {
        verb,
        group: GROUP,
        resource: &target.resource.resource,
        namespace: target.namespace.as_deref().unwrap_or_default(),
        name,
        ..Request::default()
    };
    pipeline.access().decide(caller, &request).is_allowed()
}
