//! Admission: what the path alone does not decide. Namespaces that are missing or ending take no new objects; a node writes
//! only what is its own; nobody grants what he does not have; then the built-in rules in Kubernetes' order, first those that
//! change the object, then, when it is valid, those that refuse it, and the quotas at last. Rules and words: Kubernetes' admission
//! plugins, a file or a function each, and the escalation checks of its RBAC and certificates registries.

mod account;
mod attributes;
mod class;
mod grant;
mod limits;
mod node;
mod policy;
mod quota;
mod round;
mod security;
mod sign;
mod taint;
mod webhook;

pub use attributes::{Attributes, Operation, Options, Remarks};
pub use grant::may_grant;
pub use node::node_may_change;
pub use policy::read_policies;
pub use quota::charge;
pub use sign::may_sign;

use super::Pipeline;
use super::commit::Demands;
use super::{priority, store};
use crate::{Caller, Target, Verb};
use mvcc::Consistency;
use objects::{Cause, GroupResource, Object, ObjectKey, Status};
use serde_json::Value;

/// Namespaces that are never deleted.
const IMMORTAL_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Lets the rules that change objects change this one: the built-in ones in Kubernetes' order, then policies, then webhooks. What
/// these changed is looked at once more by those before them. Tells whether one did.
pub async fn mutate(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &mut Object,
) -> Result<bool, Status> {
    mutate_built_in(pipeline, asked, object).await?;
    let policies = policy::mutate(pipeline, asked, object, None).await?;
    let round = webhook::mutate(pipeline, asked, object).await?;
    if !policies.changed && !round.changed {
        return Ok(false);
    }
    asked.target.resource.strategy.default_fields(object);
    mutate_built_in(pipeline, asked, object).await?;
    policy::mutate(pipeline, asked, object, Some(&policies)).await?;
    webhook::mutate_again(pipeline, asked, object, round).await?;
    Ok(true)
}

/// Asks webhooks about something that is opened to an object.
pub async fn connect(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    options: &Object,
) -> Result<(), Status> {
    webhook::mutate(pipeline, asked, &mut options.clone()).await?;
    webhook::validate(pipeline, asked, options).await
}

async fn mutate_built_in(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &mut Object,
) -> Result<(), Status> {
    limits::mutate(pipeline, asked, object).await?;
    if asked.creates("", "pods") {
        account::inject_account(pipeline, asked.target, object).await?;
    }
    taint::mutate(asked, object);
    if asked.creates("", "pods") {
        priority::resolve(pipeline, object).await?;
    }
    class::default_storage(pipeline, asked, object).await?;
    class::protect(asked, object);
    class::apply_runtime(pipeline, asked, object).await?;
    class::default_ingress(pipeline, asked, object).await
}

/// Asks the rules that refuse, in Kubernetes' order, and webhooks; a delete brings the object as it is.
pub async fn validate(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &Object,
) -> Result<(), Status> {
    limits::validate(pipeline, asked, object).await?;
    security::validate(pipeline, asked, object).await?;
    class::one_default_priority(pipeline, asked, object).await?;
    class::may_resize(pipeline, asked, object).await?;
    class::check_runtime(pipeline, asked, object).await?;
    sign::may_ask(asked, object)?;
    ask_policies(pipeline, asked, object).await?;
    webhook::validate(pipeline, asked, object).await
}

async fn ask_policies(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &Object,
) -> Result<(), Status> {
    let write = policy::Write {
        caller: asked.caller,
        target: asked.target,
        operation: asked.operation.as_str(),
        object: (asked.operation != Operation::Delete).then_some(object),
        old: asked.old,
        dry_run: asked.is_dry_run(),
    };
    policy::ask_policies(pipeline, &write, asked.remarks()).await
}

/// Whether the object's namespace takes new objects, and what the commit must demand of it. A refusal always rests on a
/// quorum's word; a yes may rest on the local replica, since the commit demands that the namespace is still the same.
pub async fn into_namespace(
    pipeline: &Pipeline,
    target: &Target,
    object: &Object,
    consistency: Consistency,
) -> Result<Demands, Status> {
    let Some(namespace) = target
        .namespace
        .as_deref()
        .filter(|_| target.resource.namespaced)
    else {
        return Ok(Demands::default());
    };
    let key = ObjectKey::new(GroupResource::new("", "namespaces"), None, namespace);
    let mut answer = Err(Status::not_found(&key.resource, namespace));
    for consistency in [consistency, Consistency::Linearizable] {
        answer = match store::read(pipeline, &key, consistency).await? {
            None => Err(Status::not_found(&key.resource, namespace)),
            Some(stored) if is_ending(&stored.object) => {
                Err(terminating(target, namespace, &object.metadata.name))
            }
            Some(stored) => Ok(Demands {
                namespace: Some((key.to_store_key(), stored.revision)),
                charges: Vec::new(),
            }),
        };
        if answer.is_ok() || consistency == Consistency::Linearizable {
            break;
        }
    }
    answer
}

fn is_ending(namespace: &Object) -> bool {
    let phase = namespace
        .body
        .get("status")
        .and_then(|status| status.get("phase"));
    namespace.metadata.is_deleting() || phase.and_then(Value::as_str) == Some("Terminating")
}

fn terminating(target: &Target, namespace: &str, name: &str) -> Status {
    let why = format!(
        "unable to create new content in namespace {namespace} because it is being terminated"
    );
    let mut status = Status::forbidden(&target.group_resource(), name, &why);
    status.details.get_or_insert_default().causes.push(Cause {
        reason: "NamespaceTerminating".to_owned(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".to_owned(),
    });
    status
}

/// Whether the caller may do this to this object; `object` is as it is, or as it shall be when it is new.
pub fn caller_may(
    caller: &Caller,
    verb: Verb,
    target: &Target,
    object: &Object,
) -> Result<(), Status> {
    if verb == Verb::Delete && target.resource.kind == "Namespace" {
        check_mortal(target, object)?;
    }
    node::may(caller, verb, target, object)
}

fn check_mortal(target: &Target, object: &Object) -> Result<(), Status> {
    let name = object.metadata.name.as_str();
    if !IMMORTAL_NAMESPACES.contains(&name) {
        return Ok(());
    }
    Err(Status::forbidden(
        &target.group_resource(),
        name,
        "this namespace may not be deleted",
    ))
}
