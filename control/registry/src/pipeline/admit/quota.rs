//! Quotas: what a write uses is charged to them in the same transaction. Rules and words: Kubernetes' ResourceQuota plugin; who
//! keeps a quota's status otherwise is its controller.

use super::{Attributes, Operation};
use crate::pipeline::commit::{self, Charge};
use crate::pipeline::{Pipeline, store};
use crate::strategy::{edit, field_value};
use mvcc::{Consistency, KeyRange, RangeRequest};
use objects::quota::{self, Amounts, Quota};
use objects::{GroupResource, Object, ObjectKey, Status, namespace_prefix};
use serde_json::{Value, json};

/// The charges of a write; 403 when a quota does not have what it needs.
pub async fn charge(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &Object,
    consistency: Consistency,
) -> Result<Vec<Charge>, Status> {
    let resource = asked.target.resource.storage_resource();
    let Some(namespace) = object.metadata.namespace.as_deref() else {
        return Ok(Vec::new());
    };
    if !may_cost(asked, &resource) {
        return Ok(Vec::new());
    }
    let quotas = GroupResource::new("", "resourcequotas");
    let mut request = RangeRequest::new(KeyRange::prefix(namespace_prefix(&quotas, namespace)));
    request.consistency = consistency;
    let response = pipeline.store.range(request).await;
    let mut charges = Vec::new();
    for kv in response.map_err(store::status_of)?.kvs {
        let stored = store::parse(kv)?;
        let charged = charge_one(pipeline, asked, &resource, object, stored.object).await?;
        if let Some(quota) = charged {
            let name = &quota.metadata.name;
            charges.push(Charge {
                key: ObjectKey::new(quotas.clone(), Some(namespace), name).to_store_key(),
                revision: stored.revision,
                bytes: commit::encode(&quota)?,
            });
        }
    }
    Ok(charges)
}

/// Whether the write may use more than before.
fn may_cost(asked: &Attributes<'_>, resource: &GroupResource) -> bool {
    let part = asked.target.subresource_name();
    let core = resource.group.is_empty();
    match (asked.operation, part) {
        (Operation::Create, "") => resource.resource != "events",
        (Operation::Update, "") => {
            core && matches!(
                resource.resource.as_str(),
                "services" | "persistentvolumeclaims"
            )
        }
        (Operation::Update, "resize") => true,
        _ => false,
    }
}

/// The quota with the write counted in; None when it uses nothing of it.
async fn charge_one(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    resource: &GroupResource,
    object: &Object,
    mut stored: Object,
) -> Result<Option<Object>, Status> {
    let quota = Quota::of(&stored);
    if !quota.limits(resource) || !quota.covers(resource, object) {
        return Ok(None);
    }
    let name = stored.metadata.name.clone();
    let refused = |why: String| Err(asked.forbidden(&object.metadata.name, &why));
    if resource.group.is_empty() && resource.resource == "pods" {
        let missing = quota::missing(&quota.hard, object);
        let told: Vec<String> = missing
            .iter()
            .map(|(name, containers)| format!("{name} for: {}", containers.join(",")))
            .collect();
        if !told.is_empty() {
            return refused(format!(
                "failed quota: {name}: must specify {}",
                told.join("; ")
            ));
        }
    }
    let now = pipeline.shell.now();
    let mut wanted = quota.cost(resource, object, now);
    let before = asked.old.map(|old| quota.cost(resource, old, now));
    for (name, before) in before.into_iter().flatten() {
        if let Some(amount) = wanted.get_mut(&name) {
            *amount = amount.minus(before);
        }
    }
    wanted.retain(|_, amount| !amount.is_zero() && !amount.is_negative());
    if wanted.is_empty() {
        return Ok(None);
    }
    let at = |path: &str| quota::amounts(field_value(&stored.body, path));
    let (mut hard, mut used) = (at("status.hard"), at("status.used"));
    let is_known = |name: &String| hard.contains_key(name) && used.contains_key(name);
    if !wanted.keys().all(is_known) {
        // Nobody has counted yet: done here, a quota holds from its first moment.
        (hard, used) = (quota.hard.clone(), count(pipeline, &quota, &stored).await?);
        let status = json!({"hard": quota::to_value(&hard), "used": quota::to_value(&used)});
        stored.body.insert("status".to_owned(), status);
    }
    let before = used.clone();
    quota::add(&mut used, &wanted);
    let exceeded = |name: &&String| used.get(*name) > hard.get(*name);
    let exceeded: Vec<&String> = wanted.keys().filter(exceeded).collect();
    if !exceeded.is_empty() {
        let of = |amounts: &Amounts| {
            let mut amounts = amounts.clone();
            amounts.retain(|name, _| exceeded.contains(&name));
            quota::shown(&amounts)
        };
        return refused(format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            of(&wanted),
            of(&before),
            of(&hard)
        ));
    }
    if let Some(status) = edit::map_at(&mut stored.body, "status") {
        let mut shown = status
            .get("used")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        for name in wanted.keys() {
            let amount = used.get(name).copied().unwrap_or_default();
            shown.insert(name.clone(), Value::String(amount.to_string()));
        }
        status.insert("used".to_owned(), Value::Object(shown));
    }
    Ok(Some(stored))
}

/// What the namespace's objects use of the quota. They are read after the quota: whatever comes later is charged to it, so that
/// a commit over the quota that was read loses nothing.
async fn count(pipeline: &Pipeline, quota: &Quota, stored: &Object) -> Result<Amounts, Status> {
    let namespace = stored.metadata.namespace.as_deref();
    let now = pipeline.shell.now();
    let mut used = quota.used([], now);
    let registry = pipeline.registry();
    for row in registry.stored().filter(|row| row.namespaced) {
        let resource = row.group_resource();
        if !quota.limits(&resource) {
            continue;
        }
        for found in store::all(pipeline, &resource, namespace).await? {
            quota::add(&mut used, &quota.cost(&resource, &found.object, now));
        }
    }
    Ok(used)
}
