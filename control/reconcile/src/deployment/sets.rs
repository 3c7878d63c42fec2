//! The sets of a deployment: which is new, making it, its annotations and revision, and cleaning up old ones.

use super::bounds::{DESIRED_REPLICAS, MAX_REPLICAS};
use super::{Note, Rollout, Step, revision_of, rolling, set_annotation, size, status_of};
use crate::plan::{Action, Precondition};
use crate::view::{Viewed, resources};
use crate::{names, owners};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use objects::{GroupVersionKind, Object, ObjectMeta};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Counts templates: the set with the largest has the present one.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const HASH_LABEL: &str = "pod-template-hash";
const HISTORY_LIMIT: i32 = 10;
/// Kubernetes' bound on the text of [`REVISION_HISTORY`].
const HISTORY_LENGTH_MAX: usize = 2000;

/// A deployment's annotations that its sets do not inherit.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// Where the set with the deployment's template is, among sets ordered by age.
pub fn position_of_new(
    deployment: &Viewed<Deployment>,
    sets: &[&Viewed<ReplicaSet>],
) -> Option<usize> {
    let template = deployment.spec("template")?;
    sets.iter().position(|set| {
        set.spec("template")
            .is_some_and(|its| names::same_template(its, template))
    })
}

fn next_revision(rollout: &Rollout<'_>) -> i64 {
    let revisions = rollout
        .old
        .iter()
        .map(|set| revision_of(set_annotation(set, REVISION)));
    revisions.max().unwrap_or(0) + 1
}

/// Brings the new set's annotations, `minReadySeconds` and the deployment's revision up to date.
pub fn sync_new(rollout: &Rollout<'_>) -> Vec<Action> {
    let Some(new) = rollout.new else {
        return Vec::new();
    };
    let mut merge = Map::new();
    let annotations = annotations_for(rollout, Some(new));
    let changed: Map<String, Value> = annotations
        .into_iter()
        .filter(|(key, value)| new.object.metadata.annotations.get(key) != Some(value))
        .map(|(key, value)| (key, value.into()))
        .collect();
    if !changed.is_empty() {
        merge.insert("metadata".to_owned(), json!({ "annotations": changed }));
    }
    let min_ready = rollout.spec.min_ready_seconds.unwrap_or(0);
    let has = new
        .view
        .spec
        .as_ref()
        .and_then(|spec| spec.min_ready_seconds);
    if has.unwrap_or(0) != min_ready {
        merge.insert("spec".to_owned(), json!({ "minReadySeconds": min_ready }));
    }
    if !merge.is_empty() {
        return vec![Action::Patch {
            key: new.key(resources::replicasets()),
            precondition: new.unchanged(),
            merge: Value::Object(merge),
            subresource: None,
        }];
    }
    let revision = set_annotation(new, REVISION);
    let deployment = rollout.deployment();
    if deployment
        .object
        .metadata
        .annotations
        .get(REVISION)
        .map(String::as_str)
        == revision
    {
        return Vec::new();
    }
    vec![Action::Patch {
        key: deployment.key(resources::deployments()),
        precondition: deployment.unchanged(),
        merge: json!({ "metadata": { "annotations": { REVISION: revision } } }),
        subresource: None,
    }]
}

/// What the new set must be annotated with: the deployment's annotations and its revision.
fn annotations_for(
    rollout: &Rollout<'_>,
    existing: Option<&Viewed<ReplicaSet>>,
) -> BTreeMap<String, String> {
    let mut annotations = rollout.deployment().object.metadata.annotations.clone();
    annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    let next = next_revision(rollout);
    let Some(set) = existing else {
        annotations.insert(REVISION.to_owned(), next.to_string());
        return annotations;
    };
    let before = set_annotation(set, REVISION);
    if revision_of(before) < next {
        annotations.insert(REVISION.to_owned(), next.to_string());
        if let Some(before) = before {
            let history = set_annotation(set, REVISION_HISTORY);
            annotations.insert(REVISION_HISTORY.to_owned(), appended(history, before));
        }
    }
    annotations
}

/// The history with one more revision, the oldest dropped when it grows too long.
fn appended(history: Option<&str>, revision: &str) -> String {
    let mut all: Vec<&str> = history
        .unwrap_or("")
        .split(',')
        .filter(|revision| !revision.is_empty())
        .collect();
    all.push(revision);
    while all.len() > 1
        && all.iter().map(|revision| revision.len() + 1).sum::<usize>() > HISTORY_LENGTH_MAX
    {
        all.remove(0);
    }
    all.join(",")
}

/// Creates the set of the present template, at the size that the strategy allows at once.
pub fn create_new(rollout: &Rollout<'_>) -> Step {
    let deployment = rollout.deployment();
    let Some(template) = deployment.spec("template") else {
        return Step::default(); // Validation refuses it.
    };
    let status = deployment.view.status.as_ref();
    let collisions = status
        .and_then(|status| status.collision_count)
        .unwrap_or(0);
    let hash = names::template_hash(template, collisions);
    let name = format!("{}-{hash}", deployment.name());
    if rollout.input.sets.iter().any(|set| set.name() == name) {
        return Step {
            actions: Vec::new(),
            note: Some(Note::Collision),
        };
    }
    let replicas = rolling::new_size(rollout, 0);
    let mut actions = vec![Action::Create(new_set(
        rollout, template, &name, &hash, replicas,
    ))];
    if replicas > 0 {
        actions.push(rollout.scaled_event(&name, 0, replicas));
    }
    Step {
        actions,
        note: Some(Note::Created(name)),
    }
}

fn new_set(
    rollout: &Rollout<'_>,
    template: &Value,
    name: &str,
    hash: &str,
    replicas: i32,
) -> Object {
    let deployment = rollout.deployment();
    let mut template = template.clone();
    put(&mut template, &["metadata", "labels", HASH_LABEL], hash);
    let labels = template.pointer("/metadata/labels").cloned();
    let mut selector = deployment.spec("selector").cloned().unwrap_or_default();
    put(&mut selector, &["matchLabels", HASH_LABEL], hash);
    let mut spec = json!({ "replicas": replicas, "selector": selector, "template": template });
    if let Some(seconds) = rollout
        .spec
        .min_ready_seconds
        .filter(|seconds| *seconds != 0)
    {
        spec["minReadySeconds"] = json!(seconds);
    }
    let mut annotations = annotations_for(rollout, None);
    let notes = rollout.bounds.annotations();
    annotations.extend(notes.map(|(key, value)| (key.to_owned(), value)));
    Object {
        types: GroupVersionKind::new("apps", "v1", "ReplicaSet"),
        metadata: ObjectMeta {
            name: name.to_owned(),
            namespace: deployment.object.metadata.namespace.clone(),
            labels: labels
                .and_then(|labels| serde_json::from_value(labels).ok())
                .unwrap_or_default(),
            annotations,
            owner_references: vec![owners::controller_reference(&deployment.reference())],
            ..ObjectMeta::default()
        },
        body: [("spec".to_owned(), spec)].into_iter().collect(),
    }
}

/// Sets a text deep in a value, making the maps on the way.
fn put(value: &mut Value, path: &[&str], text: &str) {
    let [first, rest @ ..] = path else {
        *value = json!(text);
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    put(&mut value[*first], rest, text);
}

/// Deletes the oldest empty sets beyond the history limit.
pub fn clean_history(rollout: &Rollout<'_>) -> Vec<Action> {
    let limit = rollout.spec.revision_history_limit.unwrap_or(HISTORY_LIMIT);
    if limit == i32::MAX {
        return Vec::new();
    }
    let mut sets: Vec<&Viewed<ReplicaSet>> = rollout
        .old
        .iter()
        .copied()
        .filter(|set| !set.is_deleting())
        .collect();
    sets.sort_by_key(|set| revision_of(set_annotation(set, REVISION)));
    let surplus = sets
        .len()
        .saturating_sub(usize::try_from(limit).unwrap_or(0));
    let gone = sets.into_iter().take(surplus).filter(|set| {
        let seen = set
            .view
            .status
            .as_ref()
            .and_then(|status| status.observed_generation);
        size(set) == 0
            && status_of(set).0 == 0
            && seen.unwrap_or(0) >= set.object.metadata.generation
    });
    gone.map(|set| Action::Delete {
        key: set.key(resources::replicasets()),
        precondition: Precondition::unchanged(&set.uid().0, &set.object.metadata.resource_version),
        grace_seconds: None,
        propagation: None,
    })
    .collect()
}
