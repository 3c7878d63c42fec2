//! Keeps a StatefulSet's pods: each has a number, a name, and claims of its own that outlive it.
//!
//! ```text
//!  ordered:  0 ready ─▶ 1 ready ─▶ 2 …      scaling up, one after the other
//!            2 gone  ─▶ 1 gone …            scaling down, and updating, from the end
//! ```
//!
//! Never deletes a claim: the garbage collector does, where the retention policy makes the set or the pod its owner.
//! Semantics: Kubernetes' `stateful_set_control`.

use crate::children;
use crate::controller::{self, Asked, Change, Controller, World};
use crate::history::History;
use crate::owners;
use crate::plan::{Action, EventType, ObjectReference, Plan, Precondition, StatusUpdate};
use crate::pods;
use crate::scaled::{Round, scaled_field};
use crate::status::StatusEdit;
use crate::view::{self, Viewed, resources};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use objects::{GroupVersionKind, Object, ObjectError, ObjectKey, Timestamp};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const REVISION_LABEL: &str = "controller-revision-hash";
const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";
const HISTORY_LIMIT: i64 = 10;

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The set.
    pub set: Viewed<StatefulSet>,
    /// The pods of its namespace; those may be left out that others control.
    pub pods: Vec<Arc<Pod>>,
    /// The ControllerRevisions of its namespace.
    pub revisions: Vec<Arc<Object>>,
    /// The claims of its namespace.
    pub claims: Vec<Arc<Object>>,
}

/// Returns what must change for the set to have its pods.
pub fn reconcile(input: &Input, now: Timestamp) -> Plan {
    let set = &input.set;
    let (Some(selector), Some(template)) = (set.selector(), set.spec("template")) else {
        return Plan::nothing();
    };
    let owner = set.reference();
    let history = History::of(&owner, &input.revisions);
    let ordinal_of = |pod: &Pod| ordinal(set.name(), view::name(&pod.metadata));
    let named = input.pods.iter().filter(|pod| ordinal_of(pod).is_some());
    let (mut actions, owned) = children::claim(set, &selector, named, |_| true);
    let owned: BTreeMap<usize, &Pod> = owned
        .into_iter()
        .filter_map(|pod| Some((ordinal_of(pod)?, pod)))
        .collect();
    if set.is_deleting() {
        return Plan::of(actions); // The garbage collector removes the pods.
    }
    let (update, settle) = history.settle(template);
    actions.extend(settle);
    let known = set
        .object
        .body
        .get("status")
        .and_then(|status| status.get("currentRevision"));
    let known = known.and_then(Value::as_str);
    let old = known.and_then(|name| Some((name.to_owned(), history.template(name)?)));
    let (current, old_template) = old.unwrap_or_else(|| (update.clone(), template.clone()));
    let work = Work {
        input,
        now,
        update: &update,
        current: &current,
        template,
        old_template: &old_template,
        owned: &owned,
    };
    actions.extend(work.actions());
    let status = work.status();
    let mut live: BTreeSet<&str> = owned.values().filter_map(|pod| revision(pod)).collect();
    live.extend([update.as_str(), current.as_str()]);
    let limit = spec_number(set, "revisionHistoryLimit", HISTORY_LIMIT);
    actions.extend(history.prune(&live, limit));
    Plan {
        actions,
        status,
        wake_at: work.next_available_at(),
    }
}

fn spec_number(set: &Viewed<StatefulSet>, name: &str, default: i64) -> usize {
    let number = set.spec(name).and_then(Value::as_i64);
    usize::try_from(number.unwrap_or(default)).unwrap_or(0)
}

fn revision(pod: &Pod) -> Option<&str> {
    view::label(&pod.metadata, REVISION_LABEL)
}

/// The number in a pod's name, if it is one of the set's names.
fn ordinal(set: &str, pod: &str) -> Option<usize> {
    let number = pod.strip_prefix(set)?.strip_prefix('-')?;
    number
        .parse()
        .ok()
        .filter(|ordinal: &usize| ordinal.to_string() == number)
}

/// One look at the set.
struct Work<'a> {
    input: &'a Input,
    now: Timestamp,
    /// The revision of the present template, and that of the one before while it is replaced.
    update: &'a str,
    current: &'a str,
    template: &'a Value,
    old_template: &'a Value,
    owned: &'a BTreeMap<usize, &'a Pod>,
}

impl Work<'_> {
    fn set(&self) -> &Viewed<StatefulSet> {
        &self.input.set
    }

    fn start(&self) -> usize {
        let ordinals = self.set().spec("ordinals");
        let start = ordinals.and_then(|ordinals| ordinals.get("start")?.as_u64());
        usize::try_from(start.unwrap_or(0)).unwrap_or(0)
    }

    fn wanted(&self) -> std::ops::Range<usize> {
        let start = self.start();
        start..start + spec_number(self.set(), "replicas", 1)
    }

    fn is_ordered(&self) -> bool {
        self.set().spec("podManagementPolicy") != Some(&json!("Parallel"))
    }

    fn min_ready(&self) -> Duration {
        Duration::from_secs(spec_number(self.set(), "minReadySeconds", 0) as u64)
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        !pods::is_deleting(pod) && pods::is_available(pod, self.min_ready(), self.now)
    }

    fn actions(&self) -> Vec<Action> {
        let mut actions = self.claim_owners();
        for ordinal in self.wanted() {
            let waits = match self.owned.get(&ordinal) {
                None => {
                    actions.extend(self.create(ordinal));
                    true
                }
                Some(pod) if pods::is_deleting(pod) => true,
                Some(pod) if pods::is_finished(pod) => {
                    actions.extend(self.delete(pod));
                    true
                }
                Some(pod) => !self.is_healthy(pod),
            };
            if waits && self.is_ordered() {
                return actions;
            }
        }
        if self.scale_down(&mut actions) {
            return actions;
        }
        self.roll(&mut actions);
        actions
    }

    /// Deletes pods beyond the wanted ones from the end; says whether an ordered set must wait for that.
    fn scale_down(&self, actions: &mut Vec<Action>) -> bool {
        let wanted = self.wanted();
        let surplus: Vec<&&Pod> = self
            .owned
            .iter()
            .filter(|(ordinal, _)| !wanted.contains(ordinal))
            .map(|(_, pod)| pod)
            .collect();
        for pod in surplus.iter().rev() {
            if !pods::is_deleting(pod) {
                actions.extend(self.delete(pod));
            }
            if self.is_ordered() {
                return true;
            }
        }
        false
    }

    /// Replaces pods of an older template from the end, no more at a time than may be unavailable.
    fn roll(&self, actions: &mut Vec<Action>) {
        let strategy = self.set().spec("updateStrategy");
        let text = |name: &str| strategy.and_then(|strategy| strategy.get(name)?.as_str());
        if text("type") == Some("OnDelete") {
            return;
        }
        let first = self.start() + self.partition();
        let unhealthy = |ordinal: &usize| {
            let pod = self.owned.get(ordinal);
            pod.is_none_or(|pod| !self.is_healthy(pod))
        };
        let mut unavailable = self.wanted().filter(unhealthy).count();
        for ordinal in self.wanted().rev().filter(|ordinal| *ordinal >= first) {
            let Some(pod) = self.owned.get(&ordinal) else {
                continue;
            };
            if revision(pod) == Some(self.update) || pods::is_deleting(pod) {
                continue;
            }
            // One that is away already costs nothing more.
            if self.is_healthy(pod) {
                if unavailable >= self.unavailable_max() {
                    return;
                }
                unavailable += 1;
            }
            actions.extend(self.delete(pod));
        }
    }

    fn rolling(&self, name: &str) -> Option<&Value> {
        let strategy = self.set().spec("updateStrategy")?;
        strategy.get("rollingUpdate")?.get(name)
    }

    fn partition(&self) -> usize {
        let partition = self.rolling("partition").and_then(Value::as_u64);
        usize::try_from(partition.unwrap_or(0)).unwrap_or(usize::MAX / 2)
    }

    fn unavailable_max(&self) -> usize {
        let total = self.wanted().len();
        let wanted = self.rolling("maxUnavailable");
        wanted.map_or(1, |wanted| scaled_field(wanted, total, Round::Down).max(1))
    }

    /// Claims that are missing, then the pod.
    fn create(&self, ordinal: usize) -> Vec<Action> {
        let set = self.set();
        let name = format!("{}-{ordinal}", set.name());
        let mut actions = self.missing_claims(ordinal);
        let old = ordinal < self.start() + self.partition() && self.is_rolling();
        let (template, revision) = if old {
            (self.old_template, self.current)
        } else {
            (self.template, self.update)
        };
        let mut pod = children::pod(&set.reference(), Some(template), name.clone());
        let labels = [
            (REVISION_LABEL, revision.to_owned()),
            (NAME_LABEL, name.clone()),
            (INDEX_LABEL, ordinal.to_string()),
        ];
        for (key, value) in labels {
            pod.metadata.labels.insert(key.to_owned(), value);
        }
        let spec = pod.body.entry("spec").or_insert_with(|| json!({}));
        spec["hostname"] = json!(name);
        let service = set.spec("serviceName").and_then(Value::as_str);
        if let Some(service) = service.filter(|service| !service.is_empty()) {
            spec["subdomain"] = json!(service);
        }
        self.mount_claims(ordinal, spec);
        actions.push(Action::Create(pod));
        let message = format!("create Pod {name} in StatefulSet {} successful", set.name());
        actions.push(self.event("SuccessfulCreate", message));
        actions
    }

    fn is_rolling(&self) -> bool {
        let strategy = self.set().spec("updateStrategy");
        strategy.is_none_or(|strategy| strategy.get("type") != Some(&json!("OnDelete")))
    }

    fn claim_templates(&self) -> impl Iterator<Item = (&str, &Value)> {
        let templates = self.set().spec("volumeClaimTemplates");
        let templates = templates.and_then(Value::as_array).into_iter().flatten();
        templates.filter_map(|template| {
            let name = template.pointer("/metadata/name")?.as_str()?;
            Some((name, template))
        })
    }

    fn claim_name(&self, template: &str, ordinal: usize) -> String {
        format!("{template}-{}-{ordinal}", self.set().name())
    }

    fn missing_claims(&self, ordinal: usize) -> Vec<Action> {
        let set = self.set();
        let mut actions = Vec::new();
        for (template, value) in self.claim_templates() {
            let name = self.claim_name(template, ordinal);
            let exists = |claim: &Arc<Object>| claim.metadata.name == name;
            if self.input.claims.iter().any(exists) {
                continue;
            }
            let mut claim = children::of_template(&set.reference(), Some(value), name.clone());
            claim.types = GroupVersionKind::new("", "v1", "PersistentVolumeClaim");
            claim.metadata.labels.extend(self.selected_labels());
            if self.keeps("whenDeleted") {
                claim.metadata.owner_references = Vec::new();
            }
            actions.push(Action::Create(claim));
            let pod = format!("{}-{ordinal}", set.name());
            let message = format!(
                "create Claim {name} Pod {pod} in StatefulSet {} success",
                set.name()
            );
            actions.push(self.event("SuccessfulCreate", message));
        }
        actions
    }

    /// The labels by which the set finds what is its own.
    fn selected_labels(&self) -> BTreeMap<String, String> {
        let labels = self.set().spec("selector");
        let labels = labels.and_then(|selector| selector.get("matchLabels")?.as_object());
        let labels = labels.into_iter().flat_map(Map::iter);
        labels
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect()
    }

    /// A volume for each claim, in the place of one of the same name.
    fn mount_claims(&self, ordinal: usize, spec: &mut Value) {
        let volumes: Vec<Value> = self
            .claim_templates()
            .map(|(template, _)| {
                let claim = self.claim_name(template, ordinal);
                json!({ "name": template, "persistentVolumeClaim": { "claimName": claim } })
            })
            .collect();
        if volumes.is_empty() {
            return;
        }
        let others = spec.get("volumes").and_then(Value::as_array).cloned();
        let mut all = volumes;
        let taken: Vec<Value> = all.iter().map(|volume| volume["name"].clone()).collect();
        let others = others.unwrap_or_default().into_iter();
        all.extend(others.filter(|volume| !taken.contains(&volume["name"])));
        spec["volumes"] = Value::Array(all);
    }

    /// Whether the retention policy leaves claims alone then.
    fn keeps(&self, when: &str) -> bool {
        let policy = self.set().spec("persistentVolumeClaimRetentionPolicy");
        policy.is_none_or(|policy| policy.get(when) != Some(&json!("Delete")))
    }

    /// Makes set or pod the owner of claims as the retention policy says, and takes it from them where it says otherwise.
    fn claim_owners(&self) -> Vec<Action> {
        let set = self.set();
        let mut actions = Vec::new();
        for (ordinal, pod) in self.owned {
            let unwanted = !self.wanted().contains(ordinal);
            let pod_reference = ObjectReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                namespace: set.object.metadata.namespace.clone(),
                name: view::name(&pod.metadata).to_owned(),
                uid: view::uid(&pod.metadata).into(),
            };
            let by_pod = unwanted && !self.keeps("whenScaled");
            let by_set = !by_pod && !self.keeps("whenDeleted");
            for (template, _) in self.claim_templates() {
                let name = self.claim_name(template, *ordinal);
                let mut claims = self.input.claims.iter();
                let Some(claim) = claims.find(|claim| claim.metadata.name == name) else {
                    continue;
                };
                let mut owners = claim.metadata.owner_references.clone();
                owners.retain(|owner| owner.uid != *set.uid() && owner.uid != pod_reference.uid);
                if by_set {
                    owners.push(owners::controller_reference(&set.reference()));
                }
                if by_pod {
                    owners.push(owners::controller_reference(&pod_reference));
                }
                if owners != claim.metadata.owner_references {
                    actions.push(own_claim(claim, &owners));
                }
            }
        }
        actions
    }

    fn delete(&self, pod: &Pod) -> Vec<Action> {
        let name = view::name(&pod.metadata);
        let message = format!(
            "delete Pod {name} in StatefulSet {} successful",
            self.set().name()
        );
        vec![
            Action::Delete {
                key: view::key(resources::pods(), &pod.metadata),
                precondition: Precondition::uid(view::uid(&pod.metadata)),
                grace_seconds: None,
                propagation: None,
            },
            self.event("SuccessfulDelete", message),
        ]
    }

    fn event(&self, reason: &'static str, message: String) -> Action {
        Action::Event {
            regarding: self.set().reference(),
            event_type: EventType::Normal,
            reason,
            message,
        }
    }

    fn status(&self) -> Option<StatusUpdate> {
        let set = self.set();
        let count = |is: &dyn Fn(&Pod) -> bool| {
            let pods = self.owned.values().filter(|pod| is(pod)).count();
            i64::try_from(pods).unwrap_or(i64::MAX)
        };
        let of =
            |name: &str| count(&|pod: &Pod| !pods::is_deleting(pod) && revision(pod) == Some(name));
        let (all, ready) = (count(&|_| true), count(&pods::is_ready));
        let (updated, mut on_current) = (of(self.update), of(self.current));
        let mut current = self.current;
        let wanted = i64::try_from(self.wanted().len()).unwrap_or(i64::MAX);
        // The rollout is complete: what was new is what is.
        if self.is_rolling() && updated == all && ready == all && all == wanted {
            current = self.update;
            on_current = updated;
        }
        let mut edit = StatusEdit::of(set);
        edit.set_nonzero("observedGeneration", set.object.metadata.generation);
        edit.set_count("replicas", all);
        edit.set_nonzero("readyReplicas", ready);
        edit.set_nonzero("currentReplicas", on_current);
        edit.set_nonzero("updatedReplicas", updated);
        edit.set_count(
            "availableReplicas",
            count(&|pod| pods::is_available(pod, self.min_ready(), self.now)),
        );
        edit.set("currentRevision", json!(current));
        edit.set("updateRevision", json!(self.update));
        edit.set_count("collisionCount", edit.count("collisionCount"));
        edit.into_update(set, resources::statefulsets())
    }

    fn next_available_at(&self) -> Option<Timestamp> {
        let pods = self.owned.values();
        let due = pods.filter_map(|pod| pods::available_at(pod, self.min_ready()));
        due.filter(|at| *at > self.now).min()
    }
}

fn own_claim(claim: &Object, owners: &[objects::OwnerReference]) -> Action {
    let metadata = &claim.metadata;
    Action::Patch {
        key: ObjectKey::new(
            resources::persistentvolumeclaims(),
            metadata.namespace.as_deref(),
            &metadata.name,
        ),
        precondition: Precondition::unchanged(&metadata.uid.0, &metadata.resource_version),
        merge: json!({ "metadata": { "ownerReferences": owners } }),
        subresource: None,
    }
}

/// Runs [`reconcile`] for every StatefulSet.
pub struct StatefulSetController;

impl Controller for StatefulSetController {
    fn name(&self) -> &'static str {
        "statefulset"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        let sets = resources::statefulsets();
        if change.key.resource == sets {
            return vec![change.key.clone()];
        }
        let is_child = change.is_of("", "pods") || change.is_of("apps", "controllerrevisions");
        if is_child {
            return controller::controllers_or_adopters(change, world, &sets);
        }
        Vec::new()
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(set) = asked.object::<StatefulSet>()? else {
            return Ok(Plan::nothing());
        };
        let uid = set.uid().clone();
        let namespace = asked.key.namespace.as_deref();
        let near = |record: &controller::Record| children::is_near(record, &uid);
        let input = Input {
            pods: children::pods_near(asked, &uid)?,
            revisions: asked
                .world
                .list(&resources::controllerrevisions(), namespace, &near),
            claims: asked
                .world
                .list(&resources::persistentvolumeclaims(), namespace, &|_| true),
            set,
        };
        Ok(reconcile(&input, asked.now))
    }
}
