//! Admission policies: gathers what their expressions see, asks them, and does what their bindings want. Rules and words:
//! Kubernetes' ValidatingAdmissionPolicy and MutatingAdmissionPolicy plugins.

use super::round::Round;
use super::{Attributes, Operation, Remarks, webhook};
use crate::pipeline::store::{self, status_of};
use crate::pipeline::{Pipeline, fields};
use crate::policy::{self, Asked, Binding, Failure, Inputs, Policy, Verdict};
use crate::rbac::{Decision, Request};
use crate::{Access, Caller, ListOptions, Target};
use cel::{AccessQuery, Authorizer, Budget};
use mvcc::{Consistency, KeyRange, RangeRequest};
use objects::{GroupResource, LabelSelector, Object, ObjectKey, Reason, Status};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::PoisonError;

/// The resources that no policy judges: a wrong policy could not be mended otherwise.
const EXEMPT: [&str; 6] = [
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
];
/// What policies and their bindings are: first those that judge, then those that change.
const COLLECTIONS: [&str; 4] = [EXEMPT[0], EXEMPT[1], EXEMPT[2], EXEMPT[3]];
/// The parts of an object that policies may change, beside the object itself.
const PARTS: [&str; 4] = ["", "status", "ephemeralcontainers", "resize"];
/// How many parameters of a selector are judged.
const PARAMS_MAX: usize = 1_000;
const NOTE: &str = "validation.policy.admission.k8s.io/validation_failure";

/// A write on its way to the store.
pub struct Write<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// For what.
    pub target: &'a Target,
    /// `CREATE`, `UPDATE`, `DELETE`.
    pub operation: &'a str,
    /// The object as it shall be; None for a delete.
    pub object: Option<&'a Object>,
    /// The object as it is; None for a create.
    pub old: Option<&'a Object>,
    /// Whether nothing is committed.
    pub dry_run: bool,
}

/// Asks every policy that is bound to such writes; the first that denies refuses. What they leave beside that goes to `remarks`.
pub async fn ask_policies(
    pipeline: &Pipeline,
    write: &Write<'_>,
    remarks: &Remarks,
) -> Result<(), Status> {
    let policies = pipeline
        .policies
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let row = &write.target.resource;
    if policies.validating().len() == 0
        || (row.group == policy::GROUP && EXEMPT.contains(&row.resource.as_str()))
    {
        return Ok(());
    }
    let mut notes = Notes::default();
    let judged = judge_all(pipeline, write, &policies, remarks, &mut notes).await;
    notes.tell(remarks);
    judged
}

async fn judge_all(
    pipeline: &Pipeline,
    write: &Write<'_>,
    policies: &policy::Policies,
    remarks: &Remarks,
    notes: &mut Notes,
) -> Result<(), Status> {
    let seen = Seen::of(pipeline, write).await?;
    let asked = seen.asked(write);
    let mut budget = Budget::new(cel::REQUEST_UNITS_MAX);
    for (policy, binding) in policies.validating() {
        let means = policy::matches_resources(&policy.constraints, &asked)
            && policy::matches_resources(&binding.resources, &asked);
        if !means {
            continue;
        }
        let params = params(pipeline, write, policy, binding).await;
        let params = match params {
            Ok(params) => params,
            Err(why) => {
                let verdict = Verdict {
                    errors: vec![why],
                    ..Verdict::default()
                };
                act(write, policy, binding, verdict, remarks, notes)?;
                continue;
            }
        };
        for params in &params {
            let authorizer = By {
                access: &pipeline.access,
                caller: write.caller,
            };
            let inputs = Inputs {
                object: &seen.object,
                old: &seen.old,
                request: &seen.request,
                namespace: &seen.namespace,
                params,
                authorizer: &authorizer,
                access: &seen.access,
            };
            let verdict = policy::judge(policy, &inputs, &mut budget);
            act(write, policy, binding, verdict, remarks, notes)?;
        }
    }
    Ok(())
}

/// What goes to the audit log.
#[derive(Default)]
struct Notes {
    /// Failures of bindings that want them noted.
    failures: Vec<Value>,
    /// The policies' own annotations, each with its different values.
    annotations: BTreeMap<String, Vec<String>>,
}

impl Notes {
    fn annotate(&mut self, key: String, value: String) {
        let values = self.annotations.entry(key).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    }

    fn tell(self, remarks: &Remarks) {
        if !self.failures.is_empty() {
            remarks.annotate(NOTE, Value::Array(self.failures).to_string());
        }
        for (key, values) in self.annotations {
            remarks.annotate(key, values.join(", "));
        }
    }
}

/// Lets the policies that are bound to such writes change the object. After a round `before` only those are asked again that wish
/// it and after which others changed the object.
pub async fn mutate(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &mut Object,
    before: Option<&Round>,
) -> Result<Round, Status> {
    let policies = pipeline
        .policies
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let row = &asked.target.resource;
    let mut round = Round::default();
    let may_change = matches!(asked.operation, Operation::Create | Operation::Update)
        && PARTS.contains(&asked.target.subresource_name())
        && !(row.group == policy::GROUP && EXEMPT.contains(&row.resource.as_str()));
    if policies.mutating().len() == 0 || !may_change {
        return Ok(round);
    }
    let mut budget = Budget::new(cel::REQUEST_UNITS_MAX);
    for (policy, binding) in policies.mutating() {
        if before.is_some_and(|before| !before.is_due(&policy.name, &binding.name, object)) {
            continue;
        }
        let made = change(pipeline, asked, (policy, binding), object, &mut budget).await?;
        let Some(made) = made else {
            continue;
        };
        round.changed |= made != *object;
        *object = made;
        if policy.is_reinvoked {
            round.ask_again(&policy.name, &binding.name, object);
        }
    }
    Ok(round)
}

/// The object as one policy makes it; None when it does not mean the write.
async fn change(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    (policy, binding): (&Policy, &Binding),
    object: &Object,
    budget: &mut Budget,
) -> Result<Option<Object>, Status> {
    let write = Write {
        caller: asked.caller,
        target: asked.target,
        operation: asked.operation.as_str(),
        object: Some(object),
        old: asked.old,
        dry_run: asked.is_dry_run(),
    };
    let seen = Seen::of(pipeline, &write).await?;
    let named = seen.asked(&write);
    if !policy::matches_resources(&policy.constraints, &named)
        || !policy::matches_resources(&binding.resources, &named)
    {
        return Ok(None);
    }
    let made = made(pipeline, &write, (policy, binding), &seen, budget).await;
    let made = made.and_then(|made| match made {
        None => Ok(None),
        Some(made) if made == seen.object => Ok(Some(object.clone())),
        Some(made) => {
            let row = asked.target.resource.clone();
            webhook::put(pipeline, asked.target, row, object, made).map(Some)
        }
    });
    match made {
        Ok(made) => Ok(made),
        Err(_) if !policy.fails_closed => Ok(None),
        Err(why) => {
            let told = format!(
                "policy '{}' with binding '{}' denied request: {why}",
                policy.name, binding.name
            );
            Err(refusal(&write, &told, ""))
        }
    }
}

/// What a policy's mutations make of the object, with one parameter after the other; None when its conditions hold for none.
async fn made(
    pipeline: &Pipeline,
    write: &Write<'_>,
    (policy, binding): (&Policy, &Binding),
    seen: &Seen,
    budget: &mut Budget,
) -> Result<Option<Value>, String> {
    let authorizer = By {
        access: &pipeline.access,
        caller: write.caller,
    };
    let r#type = fields::type_of(&write.target.resource);
    let mut made = None;
    for params in &params(pipeline, write, policy, binding).await? {
        let inputs = Inputs {
            object: made.as_ref().unwrap_or(&seen.object),
            old: &seen.old,
            request: &seen.request,
            namespace: &seen.namespace,
            params,
            authorizer: &authorizer,
            access: &seen.access,
        };
        let changed = policy::change(policy, &inputs, r#type, budget)?;
        made = changed.or(made);
    }
    Ok(made)
}

/// What expressions see of a write.
struct Seen {
    object: Value,
    old: Value,
    request: Value,
    namespace: Value,
    access: AccessQuery,
}

impl Seen {
    async fn of(pipeline: &Pipeline, write: &Write<'_>) -> Result<Seen, Status> {
        let target = write.target;
        let row = &target.resource;
        let shown = |object: Option<&Object>| {
            let mut value = object.map_or(Value::Null, Object::to_value);
            crate::pipeline::versions::load(row, &mut value);
            value
        };
        let (object, old) = (shown(write.object), shown(write.old));
        let name = write
            .object
            .or(write.old)
            .map(|object| object.metadata.name.as_str())
            .unwrap_or_default();
        let namespace = target.namespace.as_deref().filter(|_| row.namespaced);
        let kind = json!({"group": row.group, "version": row.version, "kind": row.kind});
        let resource =
            json!({"group": row.group, "version": row.version, "resource": row.resource});
        let request = json!({
            "uid": pipeline.shell.uid(),
            "kind": kind,
            "resource": resource,
            "subResource": target.subresource_name(),
            "requestKind": kind,
            "requestResource": resource,
            "requestSubResource": target.subresource_name(),
            "name": name,
            "namespace": namespace.unwrap_or_default(),
            "operation": write.operation,
            "userInfo": {
                "username": write.caller.user,
                "uid": write.caller.uid,
                "groups": write.caller.groups,
                "extra": write.caller.extra,
            },
            "dryRun": write.dry_run,
        });
        let access = AccessQuery {
            group: row.group.clone(),
            resource: row.resource.clone(),
            subresource: target.subresource_name().to_owned(),
            namespace: namespace.unwrap_or_default().to_owned(),
            name: name.to_owned(),
            ..AccessQuery::default()
        };
        let namespace = match namespace {
            Some(name) => read(pipeline, &GroupResource::new("", "namespaces"), None, name).await?,
            None => None,
        };
        Ok(Seen {
            namespace: namespace.unwrap_or_default(),
            object,
            old,
            request,
            access,
        })
    }

    fn asked<'a>(&'a self, write: &'a Write<'a>) -> Asked<'a> {
        Asked {
            row: &write.target.resource,
            subresource: write.target.subresource_name(),
            operation: write.operation,
            name: &self.access.name,
            object: &self.object,
            old: &self.old,
            namespace: &self.namespace,
        }
    }
}

async fn read(
    pipeline: &Pipeline,
    resource: &GroupResource,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<Value>, Status> {
    let key = ObjectKey::new(resource.clone(), namespace, name);
    let stored = store::read(pipeline, &key, Consistency::Stale).await?;
    Ok(stored.map(|stored| stored.object.to_value()))
}

/// The parameters of a binding: one null where the policy takes none.
async fn params(
    pipeline: &Pipeline,
    write: &Write<'_>,
    policy: &Policy,
    binding: &Binding,
) -> Result<Vec<Value>, String> {
    let Some((api_version, kind)) = &policy.param_kind else {
        return Ok(vec![Value::Null]);
    };
    let wanted = &binding.param_ref;
    if wanted.is_null() {
        return Ok(vec![Value::Null]);
    }
    let registry = pipeline.registry();
    let row = registry
        .iter()
        .find(|row| row.kind == *kind && row.api_version() == *api_version);
    let row = row.ok_or_else(|| {
        format!("failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'")
    })?;
    let namespace = wanted["namespace"]
        .as_str()
        .or(write.target.namespace.as_deref())
        .filter(|_| row.namespaced);
    if row.namespaced && namespace.is_none() {
        return Err(
            "paramRef.namespace must be set for objects that live in no namespace".to_owned(),
        );
    }
    let found = match wanted["name"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => {
            let found = read(pipeline, &row.storage_resource(), namespace, name).await;
            found
                .map_err(|status| status.message)?
                .into_iter()
                .collect()
        }
        None => {
            let options = ListOptions {
                label_selector: LabelSelector::from_value(&wanted["selector"])
                    .map_err(|error| error.to_string())?,
                limit: Some(PARAMS_MAX),
                ..ListOptions::stale()
            };
            let list = crate::pipeline::read::list(
                pipeline,
                &Target::collection(row, namespace),
                &options,
            )
            .await;
            let items = list.map_err(|status| status.message)?.items;
            items
                .iter()
                .filter_map(|item| serde_json::from_slice(item).ok())
                .collect::<Vec<Value>>()
        }
    };
    match (found.is_empty(), wanted["parameterNotFoundAction"].as_str()) {
        (true, Some("Allow")) => Ok(Vec::new()),
        (true, _) => {
            Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned())
        }
        (false, _) => Ok(found),
    }
}

/// Does what a binding wants with a verdict.
fn act(
    write: &Write<'_>,
    policy: &Policy,
    binding: &Binding,
    verdict: Verdict,
    remarks: &Remarks,
    notes: &mut Notes,
) -> Result<(), Status> {
    let Policy {
        name, fails_closed, ..
    } = policy;
    for (key, value) in verdict.annotations {
        notes.annotate(format!("{name}/{key}"), value);
    }
    let errors = verdict.errors.into_iter().filter(|_| *fails_closed);
    let errors = errors.map(|message| Failure {
        message,
        ..Failure::default()
    });
    for failure in verdict.failures.into_iter().chain(errors) {
        let message = &failure.message;
        if binding.wants("Audit") {
            notes.failures.push(json!({
                "message": message,
                "policy": name,
                "binding": binding.name,
                "expressionIndex": failure.index,
                "validationActions": binding.actions,
            }));
        }
        if binding.wants("Deny") {
            let told = format!(
                "ValidatingAdmissionPolicy '{name}' with binding '{}' denied request: {message}",
                binding.name
            );
            return Err(refusal(write, &told, &failure.reason));
        }
        if binding.wants("Warn") {
            remarks.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{}': {message}",
                binding.name
            ));
        }
    }
    Ok(())
}

/// The refusal, with the reason that the policy gives; without one it is invalid.
fn refusal(write: &Write<'_>, told: &str, reason: &str) -> Status {
    let name = write
        .object
        .or(write.old)
        .map(|object| object.metadata.name.as_str())
        .unwrap_or_default();
    let mut status = Status::forbidden(&write.target.group_resource(), name, told);
    let (code, reason) = match reason {
        "Unauthorized" => (401, Reason::Unauthorized),
        "Forbidden" => (403, Reason::Forbidden),
        "RequestEntityTooLarge" => (413, Reason::RequestEntityTooLarge),
        _ => (422, Reason::Invalid),
    };
    status.code = code;
    status.reason = Some(reason);
    status
}

/// Asks in the name of a caller, or of a service account that an expression names.
struct By<'a> {
    access: &'a Access,
    caller: &'a Caller,
}

impl Authorizer for By<'_> {
    fn decide(&self, query: &AccessQuery) -> cel::Decision {
        let account = query
            .service_account
            .as_ref()
            .map(|(namespace, name)| Caller {
                user: format!("system:serviceaccount:{namespace}:{name}"),
                groups: vec![
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated".to_owned(),
                ],
                ..Caller::default()
            });
        let request = Request {
            verb: &query.verb,
            group: &query.group,
            resource: &query.resource,
            subresource: &query.subresource,
            namespace: &query.namespace,
            name: &query.name,
            path: query.path.as_deref(),
            ..Request::default()
        };
        match self
            .access
            .decide(account.as_ref().unwrap_or(self.caller), &request)
        {
            Decision::Allowed(reason) => cel::Decision {
                allowed: true,
                reason,
            },
            Decision::NotAllowed(reason) => cel::Decision {
                allowed: false,
                reason,
            },
            Decision::Unknown => cel::Decision::default(),
        }
    }
}

/// Reads all policies and bindings of the store at one revision; answers with them and that revision.
pub async fn read_policies(
    pipeline: &Pipeline,
) -> Result<(policy::Policies, objects::Revision), Status> {
    let mut revision = None;
    let mut lists = Vec::new();
    for resource in COLLECTIONS {
        let prefix = objects::resource_prefix(&GroupResource::new(policy::GROUP, resource));
        let mut request = RangeRequest::new(KeyRange::prefix(prefix));
        request.revision = revision;
        let found = pipeline.store.range(request).await.map_err(status_of)?;
        revision.get_or_insert(found.revision);
        let values = found
            .kvs
            .iter()
            .filter_map(|kv| serde_json::from_slice(&kv.value).ok());
        lists.push(values.collect::<Vec<Value>>());
    }
    Ok((
        policy::Policies::new([&lists[0], &lists[1]], [&lists[2], &lists[3]]),
        revision.unwrap_or_default(),
    ))
}
