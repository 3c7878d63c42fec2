//! Admission: what the path alone does not decide. Namespaces that are missing or ending take no new objects; a node writes
//! only what is its own; nobody grants what he does not have. Rules and words: Kubernetes' NamespaceLifecycle and NodeRestriction
//! plugins, and the escalation checks of its RBAC and certificates registries.

mod account;
mod grant;
mod node;
mod policy;
mod sign;

pub use account::inject_account;
pub use grant::may_grant;
pub use node::node_may_change;
pub use policy::{Write, ask_policies, read_policies};
pub use sign::may_sign;

use super::Pipeline;
use super::commit::Demands;
use super::store;
use crate::{Caller, Target, Verb};
use mvcc::Consistency;
use objects::{Cause, GroupResource, Object, ObjectKey, Status};
use serde_json::Value;

/// Namespaces that are never deleted.
const IMMORTAL_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

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
