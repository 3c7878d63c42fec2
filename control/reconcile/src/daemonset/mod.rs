//! Keeps one pod of a DaemonSet on every node that it is meant for.
//!
//! A pod is bound to its node by affinity, so that the scheduler still decides whether the node has room. Never touches pods
//! that the set does not own. Semantics: Kubernetes' daemon controller.

mod fit;

use crate::children;
use crate::controller::{self, Asked, Change, Controller, Record, World};
use crate::history::History;
use crate::plan::{Action, EventType, Plan, Precondition, StatusUpdate};
use crate::scaled::{Round, scaled_field};
use crate::status::StatusEdit;
use crate::view::{self, Viewed, resources};
use crate::{names, pods};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use objects::{Object, ObjectError, ObjectKey, Timestamp};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const REVISION_LABEL: &str = "controller-revision-hash";
const HISTORY_LIMIT: usize = 10;
/// Troubles of a node that its own pods bear: the taint, its effect.
const BORNE: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// The one more that pods of the host's network bear.
const BORNE_BY_HOST: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The set.
    pub set: Viewed<DaemonSet>,
    /// All nodes.
    pub nodes: Vec<Arc<Node>>,
    /// The pods of its namespace; those may be left out that others control.
    pub pods: Vec<Arc<Pod>>,
    /// The ControllerRevisions of its namespace.
    pub revisions: Vec<Arc<Object>>,
}

/// Returns what must change for every node to have its pod.
pub fn reconcile(input: &Input, now: Timestamp) -> Plan {
    let set = &input.set;
    let (Some(selector), Some(template)) = (set.selector(), set.spec("template")) else {
        return Plan::nothing();
    };
    let owner = set.reference();
    let history = History::of(&owner, &input.revisions);
    let (mut actions, owned) = children::claim(set, &selector, &input.pods, |_| true);
    if set.is_deleting() {
        return Plan::of(actions); // The garbage collector removes the pods.
    }
    let (update, settle) = history.settle(template);
    actions.extend(settle);
    let mut by_node: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in &owned {
        if let Some(node) = meant_for(pod) {
            by_node.entry(node).or_default().push(pod);
        }
    }
    let work = Work {
        input,
        now,
        template: bear_troubles(template),
        update: &update,
        by_node,
    };
    actions.extend(work.actions());
    let mut live: BTreeSet<&str> = owned.iter().filter_map(|pod| revision(pod)).collect();
    live.insert(&update);
    let limit = set.spec("revisionHistoryLimit").and_then(Value::as_u64);
    let limit = limit.map_or(HISTORY_LIMIT, |limit| usize::try_from(limit).unwrap_or(0));
    actions.extend(history.prune(&live, limit));
    Plan {
        actions,
        status: work.status(),
        wake_at: work.next_available_at(),
    }
}

fn revision(pod: &Pod) -> Option<&str> {
    view::label(&pod.metadata, REVISION_LABEL)
}

/// The node that a pod is on, or that its affinity names.
fn meant_for(pod: &Pod) -> Option<&str> {
    pods::node_name(pod).or_else(|| {
        let affinity = pod
            .spec
            .as_ref()?
            .affinity
            .as_ref()?
            .node_affinity
            .as_ref()?;
        let required = affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()?;
        let fields = required
            .node_selector_terms
            .first()?
            .match_fields
            .as_ref()?;
        let mut names = fields.iter().filter(|field| field.key == "metadata.name");
        names.next()?.values.as_ref()?.first().map(String::as_str)
    })
}

/// The template with the tolerations that every daemon's pod has.
fn bear_troubles(template: &Value) -> Value {
    let mut template = template.clone();
    let host = template.pointer("/spec/hostNetwork") == Some(&json!(true));
    let borne = BORNE.into_iter().chain(host.then_some(BORNE_BY_HOST));
    let tolerations: Vec<Value> = borne
        .map(|(key, effect)| json!({ "key": key, "operator": "Exists", "effect": effect }))
        .collect();
    if let Some(Value::Object(spec)) = template.get_mut("spec") {
        let list = spec.entry("tolerations").or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            let missing = tolerations.into_iter().filter(|new| !list.contains(new));
            let missing: Vec<Value> = missing.collect();
            list.extend(missing);
        }
    }
    template
}

/// One look at the set.
struct Work<'a> {
    input: &'a Input,
    now: Timestamp,
    template: Value,
    update: &'a str,
    by_node: BTreeMap<&'a str, Vec<&'a Pod>>,
}

impl Work<'_> {
    fn set(&self) -> &Viewed<DaemonSet> {
        &self.input.set
    }

    fn min_ready(&self) -> Duration {
        let seconds = self.set().spec("minReadySeconds").and_then(Value::as_u64);
        Duration::from_secs(seconds.unwrap_or(0))
    }

    fn on(&self, node: &str) -> &[&Pod] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }

    fn should_run(&self, node: &Node) -> bool {
        fit::should_run(&self.template, node)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        !pods::is_deleting(pod) && pods::is_available(pod, self.min_ready(), self.now)
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        revision(pod) == Some(self.update)
    }

    fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut known = BTreeSet::new();
        for node in &self.input.nodes {
            let name = view::name(&node.metadata);
            known.insert(name);
            let should = self.should_run(node);
            let keeps = should || fit::may_stay(&self.template, node);
            self.look_at(name, should, keeps, &mut actions);
        }
        for (node, pods) in &self.by_node {
            if !known.contains(node) {
                self.delete_all(pods.iter().copied(), &mut actions);
            }
        }
        self.roll(&mut actions);
        actions
    }

    /// Creates the node's pod, or deletes what is too much there.
    fn look_at(&self, node: &str, should: bool, keeps: bool, actions: &mut Vec<Action>) {
        let pods = self.on(node);
        let alive = || pods.iter().copied().filter(|pod| !pods::is_deleting(pod));
        if !keeps {
            return self.delete_all(alive(), actions);
        }
        // One that ended is made anew.
        self.delete_all(alive().filter(|pod| pods::is_finished(pod)), actions);
        let mut active: Vec<&Pod> = alive().filter(|pod| pods::is_active(pod)).collect();
        if active.is_empty() {
            if should && pods.is_empty() {
                actions.extend(self.create(node));
            }
            return;
        }
        // With a surge one of the old and one of the new template may be there; else the oldest of each stays.
        active.sort_by_key(|pod| {
            (
                view::created(&pod.metadata),
                view::name(&pod.metadata).to_owned(),
            )
        });
        let (new, old): (Vec<&Pod>, Vec<&Pod>) =
            active.into_iter().partition(|pod| self.is_updated(pod));
        let old_is_needed = self.surge_max() > 0 && !new.iter().any(|pod| self.is_available(pod));
        let keep_old = usize::from(new.is_empty() || old_is_needed);
        self.delete_all(old.into_iter().skip(keep_old), actions);
        self.delete_all(new.into_iter().skip(1), actions);
    }

    fn delete_all<'p>(&self, pods: impl Iterator<Item = &'p Pod>, actions: &mut Vec<Action>) {
        for pod in pods {
            actions.push(Action::Delete {
                key: view::key(resources::pods(), &pod.metadata),
                precondition: Precondition::uid(view::uid(&pod.metadata)),
                grace_seconds: None,
                propagation: None,
            });
            let message = format!("Deleted pod: {}", view::name(&pod.metadata));
            actions.push(self.event("SuccessfulDelete", message));
        }
    }

    fn create(&self, node: &str) -> Vec<Action> {
        let set = self.set();
        let uid = &set.uid().0;
        let taken: BTreeSet<&str> = self
            .input
            .pods
            .iter()
            .map(|pod| view::name(&pod.metadata))
            .collect();
        let mut free = (0..)
            .map(|index| names::pod(set.name(), &format!("{uid}/{node}"), index))
            .filter(|name| !taken.contains(name.as_str()));
        let Some(name) = free.next() else {
            return Vec::new();
        };
        let mut pod = children::pod(&set.reference(), Some(&self.template), name.clone());
        let labels = &mut pod.metadata.labels;
        labels.insert(REVISION_LABEL.to_owned(), self.update.to_owned());
        let generation = set.object.metadata.generation.to_string();
        labels.insert("pod-template-generation".to_owned(), generation);
        if let Some(spec) = pod.body.get_mut("spec") {
            fit::bind(spec, node);
        }
        let message = format!("Created pod: {name}");
        vec![Action::Create(pod), self.event("SuccessfulCreate", message)]
    }

    fn event(&self, reason: &'static str, message: String) -> Action {
        Action::Event {
            regarding: self.set().reference(),
            event_type: EventType::Normal,
            reason,
            message,
        }
    }

    fn wanted_nodes(&self) -> impl Iterator<Item = &str> {
        let nodes = self.input.nodes.iter();
        let wanted = nodes.filter(|node| self.should_run(node));
        wanted.map(|node| view::name(&node.metadata))
    }

    fn rolling(&self, name: &str, default: i64) -> usize {
        let strategy = self.set().spec("updateStrategy");
        let value = strategy.and_then(|strategy| strategy.get("rollingUpdate")?.get(name));
        let wanted = self.wanted_nodes().count();
        value.map_or(usize::try_from(default).unwrap_or(0), |value| {
            scaled_field(value, wanted, Round::Up)
        })
    }

    fn surge_max(&self) -> usize {
        if self.is_on_delete() {
            0
        } else {
            self.rolling("maxSurge", 0)
        }
    }

    fn is_on_delete(&self) -> bool {
        let strategy = self.set().spec("updateStrategy");
        strategy.is_some_and(|strategy| strategy.get("type") == Some(&json!("OnDelete")))
    }

    /// Replaces pods of older templates: by a second one beside them where the strategy surges, else by deleting, as many as
    /// may be unavailable.
    fn roll(&self, actions: &mut Vec<Action>) {
        if self.is_on_delete() {
            return;
        }
        let surge = self.surge_max();
        let mut budget = if surge > 0 {
            surge
        } else {
            self.rolling("maxUnavailable", 1)
        };
        let active = |node: &str| -> Vec<&Pod> {
            let pods = self.on(node).iter().copied();
            pods.filter(|pod| pods::is_active(pod)).collect()
        };
        let mut outdated: Vec<(&str, &Pod, bool)> = Vec::new();
        for node in self.wanted_nodes() {
            let pods = active(node);
            let available = pods.iter().any(|pod| self.is_available(pod));
            let new = pods.iter().any(|pod| self.is_updated(pod));
            if new {
                // It counts while it is not available, or while the old one is still beside it.
                if !available || (surge > 0 && pods.len() > 1) {
                    budget = budget.saturating_sub(1);
                }
                continue;
            }
            match pods.first() {
                Some(pod) => outdated.push((node, pod, available)),
                None => budget = budget.saturating_sub(1),
            }
        }
        // Those that serve nobody are replaced first, and cost nothing.
        outdated.sort_by_key(|(_, _, available)| *available);
        for (node, pod, available) in outdated {
            if available && budget == 0 {
                return;
            }
            budget = budget.saturating_sub(usize::from(available));
            if surge > 0 && available {
                actions.extend(self.create(node));
            } else {
                self.delete_all(std::iter::once(pod), actions);
            }
        }
    }

    fn status(&self) -> Option<StatusUpdate> {
        let set = self.set();
        let mut counts = BTreeMap::from([("desiredNumberScheduled", 0i64)]);
        let mut add = |name: &'static str, is: bool| {
            *counts.entry(name).or_default() += i64::from(is);
        };
        for node in &self.input.nodes {
            let pods = self.on(view::name(&node.metadata)).iter();
            let mut pods: Vec<&&Pod> = pods.filter(|pod| pods::is_active(pod)).collect();
            if !self.should_run(node) {
                add("numberMisscheduled", !pods.is_empty());
                continue;
            }
            add("desiredNumberScheduled", true);
            pods.sort_by_key(|pod| view::created(&pod.metadata));
            let any = |is: &dyn Fn(&Pod) -> bool| pods.iter().any(|pod| is(pod));
            add("currentNumberScheduled", !pods.is_empty());
            add("numberReady", any(&pods::is_ready));
            add("numberAvailable", any(&|pod| self.is_available(pod)));
            add("updatedNumberScheduled", any(&|pod| self.is_updated(pod)));
        }
        let count = |name: &str| counts.get(name).copied().unwrap_or(0);
        let mut edit = StatusEdit::of(set);
        for name in [
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
        ] {
            edit.set_count(name, count(name));
        }
        edit.set_nonzero("observedGeneration", set.object.metadata.generation);
        edit.set_nonzero("updatedNumberScheduled", count("updatedNumberScheduled"));
        let available = count("numberAvailable");
        edit.set_nonzero("numberAvailable", available);
        edit.set_nonzero(
            "numberUnavailable",
            count("desiredNumberScheduled") - available,
        );
        edit.into_update(set, resources::daemonsets())
    }

    fn next_available_at(&self) -> Option<Timestamp> {
        let pods = self.by_node.values().flatten();
        let due = pods.filter_map(|pod| pods::available_at(pod, self.min_ready()));
        due.filter(|at| *at > self.now).min()
    }
}

/// Runs [`reconcile`] for every DaemonSet.
pub struct DaemonSetController;

impl Controller for DaemonSetController {
    fn name(&self) -> &'static str {
        "daemonset"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        let sets = resources::daemonsets();
        if change.key.resource == sets {
            return vec![change.key.clone()];
        }
        if change.is_of("", "nodes") {
            return world.keys(&sets, None, &|_| true);
        }
        let is_child = change.is_of("", "pods") || change.is_of("apps", "controllerrevisions");
        if is_child {
            return controller::controllers_or_adopters(change, world, &sets);
        }
        Vec::new()
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(set) = asked.object::<DaemonSet>()? else {
            return Ok(Plan::nothing());
        };
        let uid = set.uid().clone();
        let namespace = asked.key.namespace.as_deref();
        let near = |record: &Record| children::is_near(record, &uid);
        let nodes = asked.world.list(&resources::nodes(), None, &|_| true);
        let input = Input {
            nodes: nodes
                .iter()
                .map(|node| node.view().map(Arc::new))
                .collect::<Result<_, _>>()?,
            pods: children::pods_near(asked, &uid)?,
            revisions: asked
                .world
                .list(&resources::controllerrevisions(), namespace, &near),
            set,
        };
        Ok(reconcile(&input, asked.now))
    }
}
