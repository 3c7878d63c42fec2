//! Admission webhooks: other programs may change what is written, one after the other in the order of their configurations' names,
//! and refuse it, all asked at once. Configurations of admission themselves are never shown to any, so that none can lock its
//! owner out. Rules and words: Kubernetes' dynamic admission control.

mod conditions;
mod hook;
mod review;
mod rule;

use super::round::Round;
use super::{Attributes, Operation};
use crate::pipeline::{Pipeline, body, scale, store};
use crate::{FieldValidation, ResourceDef, Target, WebhookClient, WriteOptions};
use conditions::Verdict;
use futures::future::join_all;
use hook::{Hook, Kind};
use mvcc::Consistency;
use objects::{GroupResource, Object, ObjectKey, Status, patch};
use review::Response;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const GROUP: &str = "admissionregistration.k8s.io";

/// Asks the webhooks that may change the object.
pub async fn mutate(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &mut Object,
) -> Result<Round, Status> {
    let mut round = Round::default();
    for (index, hook) in hooks(pipeline, asked, Kind::Mutating)
        .await?
        .iter()
        .enumerate()
    {
        let answered = ask_to_change(pipeline, asked, hook, object, (0, index)).await?;
        round.changed |= answered == Answered::Changed;
        if hook.reinvoked && answered != Answered::NotAsked {
            round.ask_again(&hook.configuration, &hook.name, object);
        }
    }
    Ok(round)
}

/// Asks those webhooks again that wish it and after which others changed the object.
pub async fn mutate_again(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &mut Object,
    round: Round,
) -> Result<(), Status> {
    let hooks = hooks(pipeline, asked, Kind::Mutating).await?;
    for (index, hook) in hooks.iter().enumerate() {
        if round.is_due(&hook.configuration, &hook.name, object) {
            ask_to_change(pipeline, asked, hook, object, (1, index)).await?;
        }
    }
    Ok(())
}

/// Asks the webhooks that may refuse, all at once.
pub async fn validate(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &Object,
) -> Result<(), Status> {
    let hooks = hooks(pipeline, asked, Kind::Validating).await?;
    let calls = hooks.iter().enumerate().map(async |(index, hook)| {
        match ask(pipeline, asked, hook, object).await {
            Ok(Some(response)) if !response.allowed => Err(response.refusal(hook)),
            Ok(_) => Ok(()),
            Err(failure) => let_pass(asked, hook, Kind::Validating, (0, index), failure),
        }
    });
    join_all(calls).await.into_iter().collect()
}

/// The webhooks of a kind, in the order in which they are asked; none for configurations of admission.
async fn hooks(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    kind: Kind,
) -> Result<Vec<Hook>, Status> {
    if asked.target.resource.group == GROUP {
        return Ok(Vec::new());
    }
    let resource = GroupResource::new(GROUP, kind.resource());
    let configurations = store::all(pipeline, &resource, None).await?;
    let hooks = configurations
        .iter()
        .flat_map(|configuration| Hook::all_of(&configuration.object));
    Ok(hooks.collect())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answered {
    NotAsked,
    Unchanged,
    Changed,
}

async fn ask_to_change(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    hook: &Hook,
    object: &mut Object,
    at: (usize, usize),
) -> Result<Answered, Status> {
    let response = match ask(pipeline, asked, hook, object).await {
        Ok(None) => return Ok(Answered::NotAsked),
        Ok(Some(response)) => response,
        Err(failure) => {
            let_pass(asked, hook, Kind::Mutating, at, failure)?;
            return Ok(Answered::NotAsked);
        }
    };
    if !response.allowed {
        return Err(response.refusal(hook));
    }
    let changed = match response.patch() {
        Ok(Some(patch)) if !matches!(asked.operation, Operation::Delete | Operation::Connect) => {
            apply(pipeline, asked, hook, object, &patch)
        }
        Ok(_) => Ok(false),
        Err(why) => Err(why),
    };
    let changed = match changed {
        Ok(changed) => changed,
        Err(why) => {
            let_pass(asked, hook, Kind::Mutating, at, Failure::Call(why))?;
            false
        }
    };
    let (round, index) = at;
    asked.remarks().annotate(
        format!("mutation.webhook.admission.k8s.io/round_{round}_index_{index}"),
        json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": changed})
            .to_string(),
    );
    Ok(match changed {
        true => Answered::Changed,
        false => Answered::Unchanged,
    })
}

/// Why a webhook could not be asked.
enum Failure {
    /// It did not answer, or with nothing that can be understood.
    Call(String),
    /// Its conditions could not be evaluated.
    Condition(String),
}

/// Whether a failure is let pass, as the webhook's policy says.
fn let_pass(
    asked: &Attributes<'_>,
    hook: &Hook,
    kind: Kind,
    at: (usize, usize),
    failure: Failure,
) -> Result<(), Status> {
    if hook.ignores_failure {
        let (word, (round, index)) = (kind.word(), at);
        asked.remarks().annotate(
            format!("failed-open.{word}.webhook.admission.k8s.io/round_{round}_index_{index}"),
            hook.name.clone(),
        );
        return Ok(());
    }
    match failure {
        Failure::Call(why) => Err(Status::internal(format_args!(
            "failed calling webhook {:?}: {why}",
            hook.name
        ))),
        Failure::Condition(why) => {
            let name = asked.target.name.as_deref().unwrap_or_default();
            Err(asked.forbidden(name, &why))
        }
    }
}

/// Asks one webhook, if it is to be asked.
async fn ask(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    hook: &Hook,
    object: &Object,
) -> Result<Option<Response>, Failure> {
    let Some(row) = rule::matched(hook, &pipeline.registry(), asked) else {
        return Ok(None);
    };
    let object = (asked.operation != Operation::Delete).then_some(object);
    let namespace = namespace_labels(pipeline, asked, object).await;
    let namespace = namespace.map_err(|status| Failure::Call(status.message))?;
    if !rule::selected(hook, object, asked.old, namespace.as_ref()) {
        return Ok(None);
    }
    let uid = pipeline.shell.uid();
    let request = review::request(asked, &row, object, &uid.0);
    if !hook.conditions.is_empty() {
        match hook.conditions.judge(pipeline, asked, &request) {
            Verdict::Holds => {}
            Verdict::No => return Ok(None),
            Verdict::Failed(why) => return Err(Failure::Condition(why)),
        }
    }
    if asked.is_dry_run() && !hook.takes_dry_run {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(Failure::Call(why));
    }
    let client = hook.client.as_ref();
    let client = client.ok_or_else(|| Failure::Call("it names no url or service".to_owned()))?;
    let response = call(pipeline, hook, client, request, &uid.0)
        .await
        .map_err(Failure::Call)?;
    for (key, value) in &response.audit_annotations {
        let key = format!("{}/{key}", hook.name);
        asked.remarks().annotate(key, value.clone());
    }
    for warning in &response.warnings {
        asked.remarks().warn(warning.clone());
    }
    Ok(Some(response))
}

async fn call(
    pipeline: &Pipeline,
    hook: &Hook,
    client: &WebhookClient,
    request: Value,
    uid: &str,
) -> Result<Response, String> {
    let Some(webhooks) = &pipeline.webhooks else {
        return Err("this server calls no webhooks".to_owned());
    };
    let body = review::review(request).to_string().into();
    let answer = webhooks.call(client, body, hook.timeout).await;
    let answer = answer.map_err(|why| format!("failed to call webhook: {why}"))?;
    Response::read(&answer, uid)
}

/// The labels of the namespace by which the request is selected: a namespace's own, or those of the one where the object lies.
async fn namespace_labels(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: Option<&Object>,
) -> Result<Option<BTreeMap<String, String>>, Status> {
    let row = &asked.target.resource;
    if row.group.is_empty() && row.resource == "namespaces" {
        let object = object.or(asked.old);
        return Ok(object.map(|object| object.metadata.labels.clone()));
    }
    let namespace = asked.target.namespace.as_deref();
    let Some(namespace) = namespace.filter(|_| row.namespaced) else {
        return Ok(None);
    };
    let key = ObjectKey::new(GroupResource::new("", "namespaces"), None, namespace);
    for consistency in [Consistency::Stale, Consistency::Linearizable] {
        if let Some(stored) = store::read(pipeline, &key, consistency).await? {
            return Ok(Some(stored.object.metadata.labels));
        }
    }
    Ok(Some(BTreeMap::new()))
}

/// Applies a webhook's patch; tells whether it changed anything.
fn apply(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    hook: &Hook,
    object: &mut Object,
    json_patch: &Value,
) -> Result<bool, String> {
    let row: Arc<ResourceDef> = rule::matched(hook, &pipeline.registry(), asked)
        .unwrap_or_else(|| asked.target.resource.clone());
    let part = asked.target.subresource_name();
    let mut value = review::shown(asked.target, &row, object);
    let before = value.clone();
    patch::json_patch(&mut value, json_patch).map_err(|error| error.to_string())?;
    if value == before {
        return Ok(false);
    }
    if part == "scale" {
        *object = scale::put(asked.target, object, &value).map_err(|status| status.message)?;
        return Ok(true);
    }
    *object = put(pipeline, asked.target, row, object, value)?;
    Ok(true)
}

/// The object that a changed value in the row's version stands for.
pub fn put(
    pipeline: &Pipeline,
    target: &Target,
    row: Arc<ResourceDef>,
    object: &Object,
    value: Value,
) -> Result<Object, String> {
    let old = object.metadata.clone();
    let target = Target {
        resource: row,
        subresource: None,
        ..target.clone()
    };
    let options = WriteOptions {
        field_validation: FieldValidation::Ignore,
        ..WriteOptions::default()
    };
    let read = body::read(pipeline, &target, value, &options);
    let mut changed = read.map_err(|status| status.message)?.object;
    // What makes the object this one is not admission's to change.
    let metadata = &mut changed.metadata;
    (metadata.name, metadata.namespace) = (old.name, old.namespace);
    metadata.uid = old.uid;
    metadata.resource_version = old.resource_version;
    metadata.creation_timestamp = old.creation_timestamp;
    metadata.generation = old.generation;
    metadata.deletion_timestamp = old.deletion_timestamp;
    metadata.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    metadata.managed_fields = old.managed_fields;
    Ok(changed)
}
