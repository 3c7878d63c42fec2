//! The scheduler's loop: keeps the snapshot by the store's changes, decides for all waiting pods at once, and binds.
//!
//! A pod that fits nowhere waits until something changes that could help it: a node, or a pod that leaves one. The decision
//! itself is `schedule`'s.

use crate::cache::{Applied, Cache};
use crate::execute::Executor;
use crate::world::SharedWorld;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use objects::{GroupResource, NodeName, Object, ObjectKey, Status, Uid};
use reconcile::controller::World;
use reconcile::{EventType, ObjectReference};
use registry::{Caller, Patch, PatchKind, WriteOptions};
use schedule::{Decision, Snapshot};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

const NAME: &str = "default-scheduler";
/// Bindings under way at a time.
const BINDINGS_MAX: usize = 64;
/// A failed binding is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// Without any change, waiting pods are looked at again after this.
const IDLE: Duration = Duration::from_secs(30);

/// The scheduler of one term. Who takes both locks takes the world's before this one's.
pub struct Scheduler {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    snapshot: Snapshot,
    /// To be decided now.
    active: BTreeSet<ObjectKey>,
    /// Fitted nowhere when last looked at.
    waiting: BTreeSet<ObjectKey>,
    /// Could not be bound, and when each is tried again.
    refused: BTreeMap<ObjectKey, Instant>,
    /// How often something changed that may help those who wait.
    changes: u64,
    round: u64,
}

/// A decision that is to be carried out.
struct Decided {
    key: ObjectKey,
    pod: Pod,
    decision: Decision,
    /// `State::changes` when it was made.
    changes: u64,
}

impl Scheduler {
    /// A scheduler that knows what the cache holds.
    pub fn new(cache: &Cache) -> Self {
        Scheduler {
            state: Mutex::new(State::of(cache)),
            wake: Notify::new(),
        }
    }

    /// Takes in a change that `cache` already shows.
    pub fn notice(&self, applied: &Applied, cache: &Cache) {
        if !["pods", "nodes", "namespaces"]
            .iter()
            .any(|resource| is_core(&applied.key, resource))
        {
            return;
        }
        let uid = applied.before.as_ref().map(|record| &record.uid);
        self.state().notice(&applied.key, uid, cache);
        self.wake.notify_one();
    }

    /// Decides and binds, for ever; whoever calls drops it when the term is over.
    pub async fn run(self: Arc<Self>, world: SharedWorld, executor: Executor) {
        loop {
            let batch = self.decide(&world);
            if batch.is_empty() {
                self.wait().await;
                continue;
            }
            stream::iter(batch)
                .for_each_concurrent(BINDINGS_MAX, async |decided| {
                    let outcome = carry_out(&executor, &decided).await;
                    self.settle(decided, outcome);
                })
                .await;
            world.caught_up().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Waits for a change, or until a refused binding is due, or for a good while.
    async fn wait(&self) {
        let due = self.state().refused.values().min().copied();
        let wait = due.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()));
        let changed = tokio::time::timeout(wait, self.wake.notified()).await;
        if changed.is_err() && due.is_none() {
            self.state().look_again();
        }
    }

    /// Decides for every active pod; each decision is assumed in the snapshot.
    fn decide(&self, world: &SharedWorld) -> Vec<Decided> {
        let cache = world.read();
        let mut state = self.state();
        state.try_refused(Instant::now());
        let active = std::mem::take(&mut state.active);
        let (keys, found): (Vec<ObjectKey>, Vec<Pod>) = active
            .into_iter()
            .filter_map(|key| {
                let pod: Pod = view(&key, &cache)?;
                let placed = state.snapshot.is_placed(&uid_of(&pod));
                (schedule::is_pending(&pod) && !placed).then_some((key, pod))
            })
            .unzip();
        drop(cache);
        state.round += 1;
        let (seed, changes) = (state.round, state.changes);
        let decisions = schedule::decide_batch(&found, &mut state.snapshot, seed);
        keys.into_iter()
            .zip(found)
            .zip(decisions)
            .map(|((key, pod), decision)| Decided {
                key,
                pod,
                decision,
                changes,
            })
            .collect()
    }

    /// Keeps what could not be done for later.
    fn settle(&self, decided: Decided, outcome: Result<(), Status>) {
        let Decided {
            key,
            pod,
            decision,
            changes,
        } = decided;
        let mut state = self.state();
        match (decision, outcome) {
            (Decision::Bind(_), Ok(())) => {}
            (Decision::Bind(node), Err(status)) => {
                state.snapshot.forget(&uid_of(&pod));
                if status.code == 404 {
                    return; // The pod is gone.
                }
                tracing::warn!(%key, %node, error = %status, "a pod could not be bound; trying again");
                state.refused.insert(key, Instant::now() + RETRY);
            }
            (Decision::Unschedulable { .. }, outcome) => {
                if let Err(status) = outcome {
                    tracing::debug!(%key, error = %status, "why a pod waits could not be written");
                }
                if state.changes == changes {
                    state.waiting.insert(key);
                } else {
                    state.active.insert(key); // What changed since it was decided may help it.
                }
            }
        }
    }
}

impl State {
    /// What the cache holds, taken in as though it were new.
    fn of(cache: &Cache) -> Self {
        let mut state = State::default();
        for resource in ["namespaces", "nodes", "pods"] {
            for key in cache.keys(&GroupResource::new("", resource), None, &|_| true) {
                state.notice(&key, None, cache);
            }
        }
        state
    }

    fn notice(&mut self, key: &ObjectKey, former_uid: Option<&Uid>, cache: &Cache) {
        if is_core(key, "namespaces") {
            match cache.record(key) {
                Some(record) => self.snapshot.set_namespace(&key.name, &record.labels),
                None => self.snapshot.remove_namespace(&key.name),
            }
            return self.look_again();
        }
        if is_core(key, "nodes") {
            match view::<Node>(key, cache) {
                Some(node) => self.snapshot.set_node(&node),
                None => self.snapshot.remove_node(&key.name),
            }
            return self.look_again();
        }
        let pod: Option<Pod> = view(key, cache);
        let replaced = |uid: &&Uid| pod.as_ref().is_none_or(|pod| uid_of(pod) != **uid);
        if let Some(gone) = former_uid.filter(replaced) {
            self.snapshot.remove_pod(gone);
            self.active.remove(key);
            self.leave(key);
            self.look_again();
        }
        let Some(pod) = pod else { return };
        let was_placed = self.snapshot.is_placed(&uid_of(&pod));
        self.snapshot.set_pod(&pod);
        if schedule::is_pending(&pod) {
            if !self.waiting.contains(key) && !self.refused.contains_key(key) {
                self.active.insert(key.clone());
            }
        } else {
            self.leave(key);
            if was_placed && !self.snapshot.is_placed(&uid_of(&pod)) {
                self.look_again(); // It ended, and left room.
            }
        }
    }

    /// The pod waits no longer.
    fn leave(&mut self, key: &ObjectKey) {
        self.waiting.remove(key);
        self.refused.remove(key);
    }

    /// What waits may fit now.
    fn look_again(&mut self) {
        self.changes += 1;
        self.active.append(&mut self.waiting);
    }

    /// What was refused and is due by now counts as active.
    fn try_refused(&mut self, now: Instant) {
        let due = self.refused.extract_if(.., |_, at| *at <= now);
        self.active.extend(due.map(|(key, _)| key));
    }
}

/// Binds the pod, or writes down why it waits.
async fn carry_out(executor: &Executor, decided: &Decided) -> Result<(), Status> {
    let Decided { key, pod, .. } = decided;
    match &decided.decision {
        Decision::Bind(node) => {
            bind(executor, key, pod, node).await?;
            let message = format!("Successfully assigned {} to {node}", place(key));
            tell(executor, key, pod, EventType::Normal, "Scheduled", &message).await;
        }
        Decision::Unschedulable { reason, message } if !already_told(pod, reason, message) => {
            write_down(executor, key, pod, reason, message).await?;
            let event_type = EventType::Warning;
            tell(executor, key, pod, event_type, "FailedScheduling", message).await;
        }
        Decision::Unschedulable { .. } => {}
    }
    Ok(())
}

async fn bind(
    executor: &Executor,
    key: &ObjectKey,
    pod: &Pod,
    node: &NodeName,
) -> Result<(), Status> {
    let target = executor.object(key)?.subresource("binding");
    let binding = json!({
        "kind": "Binding", "apiVersion": "v1",
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": pod.metadata.uid},
        "target": {"kind": "Node", "apiVersion": "v1", "name": node},
    });
    let (caller, options) = (caller(executor), WriteOptions::default());
    let bound = executor
        .pipeline
        .create(&caller, &target, binding, &options);
    bound.await.map(drop)
}

async fn write_down(
    executor: &Executor,
    key: &ObjectKey,
    pod: &Pod,
    reason: &str,
    message: &str,
) -> Result<(), Status> {
    let target = executor.object(key)?.subresource("status");
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
        "lastTransitionTime": executor.shell.now(),
    });
    let patch = Patch {
        kind: PatchKind::Strategic,
        value: json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": [condition]},
        }),
    };
    let (caller, options) = (caller(executor), WriteOptions::default());
    let written = executor.pipeline.patch(&caller, &target, &patch, &options);
    written.await.map(drop)
}

fn caller(executor: &Executor) -> Caller {
    Caller::controller(NAME, executor.term)
}

async fn tell(
    executor: &Executor,
    key: &ObjectKey,
    pod: &Pod,
    event_type: EventType,
    reason: &str,
    message: &str,
) {
    let regarding = ObjectReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        uid: uid_of(pod),
    };
    if let Err(status) = executor
        .record(
            &caller(executor),
            NAME,
            &regarding,
            event_type,
            reason,
            message,
        )
        .await
    {
        tracing::debug!(%key, %reason, error = %status, "an event could not be recorded");
    }
}

/// Why a pod cannot be on each node, for a person.
pub fn explain(pod: &Object, cache: &Cache) -> Vec<String> {
    let state = State::of(cache);
    let Ok(pod) = pod.view::<Pod>() else {
        return Vec::new();
    };
    if state.snapshot.nodes().next().is_none() {
        return vec!["there are no nodes: start one with `node run`".to_owned()];
    }
    let line = |(node, reasons): (objects::NodeName, Vec<String>)| match &reasons[..] {
        [] => format!("node {node} would take it"),
        reasons => format!("node {node} cannot take it: {}", reasons.join(", ")),
    };
    schedule::explain(&pod, &state.snapshot)
        .into_iter()
        .map(line)
        .collect()
}

fn already_told(pod: &Pod, reason: &str, message: &str) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions.iter().any(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some(reason)
            && condition.message.as_deref() == Some(message)
    })
}

fn view<T: for<'de> serde::Deserialize<'de>>(key: &ObjectKey, cache: &Cache) -> Option<T> {
    let object = cache.get(key)?;
    object
        .view()
        .inspect_err(
            |error| tracing::error!(%key, %error, "cannot be read; the scheduler does not see it"),
        )
        .ok()
}

fn uid_of(pod: &Pod) -> Uid {
    Uid::from(pod.metadata.uid.as_deref().unwrap_or_default())
}

fn place(key: &ObjectKey) -> String {
    format!(
        "{}/{}",
        key.namespace.as_deref().unwrap_or_default(),
        key.name
    )
}

fn is_core(key: &ObjectKey, resource: &str) -> bool {
    key.resource.group.is_empty() && key.resource.resource == resource
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use mvcc::MemStore;

    const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"x","uid":"p"},
        "spec":{"containers":[{"name":"c","image":"i"}]},"status":{"phase":"Pending"}}"#;
    const NODE: &str = r#"{"kind":"Node","apiVersion":"v1","metadata":{"name":"n","uid":"n"},
        "status":{"allocatable":{"cpu":"4","memory":"8Gi","pods":"110"},"conditions":[{"type":"Ready","status":"True"}]}}"#;

    /// A scheduler that decided for a pod while there was no node, with the world that it follows.
    async fn decided_too_early(store: &MemStore) -> (Arc<Scheduler>, SharedWorld, Decided) {
        testing::put(store, "/registry/core/pods/x/a", POD).await;
        let (world, watch) = testing::world(store).await;
        let scheduler = Arc::new(Scheduler::new(&world.read()));
        let (following, noticing) = (world.clone(), scheduler.clone());
        tokio::spawn(async move {
            following
                .follow(watch, |applied, cache| noticing.notice(applied, cache))
                .await
        });
        let mut batch = scheduler.decide(&world);
        let decided = batch.pop().expect("one pod waits");
        assert!(matches!(decided.decision, Decision::Unschedulable { .. }));
        (scheduler, world, decided)
    }

    #[tokio::test]
    async fn a_node_that_comes_while_a_refusal_is_written_is_not_missed() {
        let store = MemStore::new();
        let (scheduler, world, decided) = decided_too_early(&store).await;
        testing::put(&store, "/registry/core/nodes/n", NODE).await;
        world.caught_up().await;
        scheduler.settle(decided, Ok(()));
        let batch = scheduler.decide(&world);
        assert!(matches!(
            batch[..],
            [Decided {
                decision: Decision::Bind(_),
                ..
            }]
        ));
    }

    #[tokio::test]
    async fn a_refused_binding_waits_for_its_turn_and_holds_nobody_up() {
        let store = MemStore::new();
        let (scheduler, world, decided) = decided_too_early(&store).await;
        testing::put(&store, "/registry/core/nodes/n", NODE).await;
        world.caught_up().await;
        scheduler.settle(decided, Ok(()));
        let bound = scheduler.decide(&world).pop().expect("it fits");
        scheduler.settle(bound, Err(Status::unavailable("no quorum")));
        let other = POD.replace("\"a\"", "\"b\"").replace("\"p\"", "\"q\"");
        testing::put(&store, "/registry/core/pods/x/b", &other).await;
        world.caught_up().await;
        let batch = scheduler.decide(&world);
        let names: Vec<&str> = batch
            .iter()
            .map(|decided| decided.key.name.as_str())
            .collect();
        assert_eq!(names, ["b"]);
        scheduler.state().try_refused(Instant::now() + RETRY);
        assert_eq!(scheduler.decide(&world).len(), 1);
    }
}
