//! A cluster in memory, for the stories and the properties: it executes plans as the API server would, and its pods do what
//! the test says.

#![allow(dead_code, reason = "each test binary uses its part of the simulation")]

pub mod inputs;
pub mod script;

use objects::{GroupResource, Object, ObjectKey, Quantity, Timestamp, Uid};
use reconcile::horizontal::{History, PodUsage};
use reconcile::{Action, Plan, Precondition, Propagation, view};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// All objects, the revision, and the time.
pub struct World {
    pub objects: BTreeMap<ObjectKey, Object>,
    pub now: Timestamp,
    /// When the present leader's term began.
    pub term_since: Timestamp,
    /// When each node's lease was last renewed.
    pub leases_seen: BTreeMap<String, Timestamp>,
    /// Why the last plan for the object of this name failed.
    pub failures: BTreeMap<String, String>,
    /// What pods use, by name; else why that is not known.
    pub usage: Result<BTreeMap<String, PodUsage>, String>,
    /// What autoscalers did lately, by name.
    pub histories: RefCell<BTreeMap<String, History>>,
    revision: u64,
    uids: u64,
}

/// The resource of a kind.
pub fn resource_of(kind: &str) -> GroupResource {
    match kind {
        "Deployment" => view::resources::deployments(),
        "ReplicaSet" => view::resources::replicasets(),
        "EndpointSlice" => view::resources::endpointslices(),
        "Lease" => GroupResource::new("coordination.k8s.io", "leases"),
        "ConfigMap" => GroupResource::new("", "configmaps"),
        "StatefulSet" => view::resources::statefulsets(),
        "DaemonSet" => view::resources::daemonsets(),
        "ControllerRevision" => view::resources::controllerrevisions(),
        "ReplicationController" => view::resources::replicationcontrollers(),
        "PersistentVolumeClaim" => view::resources::persistentvolumeclaims(),
        "Endpoints" => view::resources::endpoints(),
        "Job" => view::resources::jobs(),
        "CronJob" => view::resources::cronjobs(),
        "HorizontalPodAutoscaler" => view::resources::horizontalpodautoscalers(),
        "PodDisruptionBudget" => view::resources::poddisruptionbudgets(),
        "Pod" | "Node" | "Service" | "Namespace" | "ServiceAccount" | "ResourceQuota"
        | "PersistentVolume" => GroupResource::new("", &format!("{}s", kind.to_lowercase())),
        "CustomResourceDefinition" => {
            GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions")
        }
        "Widget" => GroupResource::new("example.com", "widgets"),
        other => panic!("the simulation knows no {other}"),
    }
}

pub fn key_of(object: &Object) -> ObjectKey {
    ObjectKey {
        resource: resource_of(&object.types.kind),
        namespace: object.metadata.namespace.clone(),
        name: object.metadata.name.clone(),
    }
}

impl World {
    pub fn new() -> Self {
        let now = Timestamp::parse("2026-01-01T00:00:00Z").expect("a time");
        World {
            objects: BTreeMap::new(),
            now,
            term_since: now,
            leases_seen: BTreeMap::new(),
            failures: BTreeMap::new(),
            usage: Ok(BTreeMap::new()),
            histories: RefCell::default(),
            revision: 0,
            uids: 0,
        }
    }

    fn next_revision(&mut self) -> String {
        self.revision += 1;
        self.revision.to_string()
    }

    pub fn all(&self, resource: &GroupResource) -> Vec<&Object> {
        let of_resource = self
            .objects
            .iter()
            .filter(|(key, _)| key.resource == *resource);
        of_resource.map(|(_, object)| object).collect()
    }

    pub fn create(&mut self, mut object: Object) -> Result<(), String> {
        let key = key_of(&object);
        if self.objects.contains_key(&key) {
            return Err(format!("{key} already exists"));
        }
        self.uids += 1;
        if object.metadata.uid.0.is_empty() {
            object.metadata.uid = Uid(format!("uid-{}", self.uids));
        }
        object.metadata.resource_version = self.next_revision();
        object.metadata.generation = 1;
        object.metadata.creation_timestamp.get_or_insert(self.now);
        self.objects.insert(key, object);
        Ok(())
    }

    /// Merges a JSON merge patch; a changed spec is a new generation.
    pub fn merge(&mut self, key: &ObjectKey, patch: &Value) -> Result<(), String> {
        let revision = self.next_revision();
        let object = self
            .objects
            .get_mut(key)
            .ok_or(format!("{key} not found"))?;
        let mut value = object.to_value();
        merge(&mut value, patch);
        let mut merged = Object::from_value(value).map_err(|error| error.to_string())?;
        if merged.body.get("spec") != object.body.get("spec") {
            merged.metadata.generation += 1;
        }
        merged.metadata.resource_version = revision;
        *object = merged;
        self.collect(key);
        Ok(())
    }

    /// Asks for deletion: pods get a moment, finalizers hold, all else goes at once.
    pub fn delete(&mut self, key: &ObjectKey, at_once: bool, propagation: Option<Propagation>) {
        let (revision, now) = (self.next_revision(), self.now);
        let Some(object) = self.objects.get_mut(key) else {
            return;
        };
        object.metadata.resource_version = revision;
        object.metadata.deletion_timestamp.get_or_insert(now);
        let finalizer = match propagation {
            Some(Propagation::Foreground) => Some("foregroundDeletion"),
            Some(Propagation::Orphan) => Some("orphan"),
            _ => None,
        };
        object
            .metadata
            .finalizers
            .extend(finalizer.map(str::to_owned));
        let is_running_pod = key.resource.resource == "pods" && !at_once;
        if !is_running_pod {
            self.collect(key);
        }
    }

    /// Removes a deleted object that nothing holds.
    fn collect(&mut self, key: &ObjectKey) {
        let gone = self.objects.get(key).is_some_and(|object| {
            object.metadata.is_deleting()
                && object.metadata.finalizers.is_empty()
                && key.resource.resource != "pods"
                && object
                    .body
                    .get("spec")
                    .and_then(|spec| spec.get("finalizers")?.as_array())
                    .is_none_or(Vec::is_empty)
        });
        if gone {
            self.objects.remove(key);
        }
    }

    /// Lets time pass; pods that were being deleted are gone after it.
    pub fn tick(&mut self, duration: Duration) {
        self.now = self.now.plus(duration);
        self.objects.retain(|key, object| {
            key.resource.resource != "pods"
                || !object.metadata.is_deleting()
                || !object.metadata.finalizers.is_empty()
        });
    }

    fn check(&self, key: &ObjectKey, precondition: &Precondition) -> Result<(), String> {
        let object = self.objects.get(key).ok_or(format!("{key} not found"))?;
        let uid_differs = precondition
            .uid
            .as_ref()
            .is_some_and(|uid| *uid != object.metadata.uid);
        let changed = precondition
            .resource_version
            .as_ref()
            .is_some_and(|revision| *revision != object.metadata.resource_version);
        if uid_differs || changed {
            return Err(format!("{key} was changed in between"));
        }
        Ok(())
    }

    /// Executes a plan as the runtime does: in order, up to the first failure.
    pub fn execute(&mut self, plan: &Plan) -> Result<(), String> {
        for action in &plan.actions {
            self.perform(action)?;
        }
        if let Some(update) = &plan.status {
            self.check(&update.key, &update.precondition)?;
            self.merge(&update.key, &json!({ "status": null }))?;
            self.merge(&update.key, &json!({ "status": update.status }))?;
        }
        Ok(())
    }

    fn perform(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Create(object) => self.create(object.clone()),
            Action::Update(object) => {
                let key = key_of(object);
                let revision = &object.metadata.resource_version;
                self.check(
                    &key,
                    &Precondition::unchanged(&object.metadata.uid.0, revision),
                )?;
                let mut object = object.clone();
                object.metadata.resource_version = self.next_revision();
                self.objects.insert(key, object);
                Ok(())
            }
            Action::Patch {
                key,
                precondition,
                merge,
                ..
            } => {
                self.check(key, precondition)?;
                self.merge(key, merge)
            }
            Action::Delete {
                key,
                precondition,
                grace_seconds,
                propagation,
            } => {
                self.check(key, precondition)?;
                self.delete(key, *grace_seconds == Some(0), *propagation);
                if *grace_seconds == Some(0) {
                    self.tick(Duration::ZERO);
                }
                Ok(())
            }
            Action::Event { .. } => Ok(()),
        }
    }

    /// Sets a pod's phase and condition `Ready`.
    pub fn set_pod(&mut self, key: &ObjectKey, phase: &str, ready: bool) {
        let condition = json!({ "type": "Ready", "status": if ready { "True" } else { "False" },
            "lastTransitionTime": self.now });
        let status = json!({ "status": { "phase": phase, "conditions": [condition] } });
        self.merge(key, &status).expect("the pod is there");
    }

    /// Notes that a pod uses so much CPU, measured over the last half minute.
    pub fn use_cpu(&mut self, pod: &str, cpu: &str) {
        let cpu = Quantity::parse(cpu).expect("a quantity");
        let usage = PodUsage {
            name: pod.to_owned(),
            at: Some(self.now),
            window: Duration::from_secs(30),
            containers: [("c".to_owned(), [("cpu".to_owned(), cpu)].into())].into(),
        };
        let known = match &mut self.usage {
            Ok(known) => known,
            unknown => {
                *unknown = Ok(BTreeMap::new());
                unknown.as_mut().expect("set above")
            }
        };
        known.insert(pod.to_owned(), usage);
    }

    /// Ends a pod, its one container with it.
    pub fn finish_pod(&mut self, key: &ObjectKey, phase: &str) {
        let code = i32::from(phase != "Succeeded");
        let ended = json!({ "exitCode": code, "finishedAt": self.now });
        let container = json!({ "name": "c", "image": "i", "imageID": "", "ready": false,
            "restartCount": 0, "state": { "terminated": ended } });
        self.set_pod(key, phase, false);
        let status = json!({ "status": { "containerStatuses": [container] } });
        self.merge(key, &status).expect("the pod is there");
    }

    /// Keys of the pods that count as replicas, oldest first.
    pub fn active_pods(&self) -> Vec<ObjectKey> {
        let mut pods: Vec<&Object> = self.all(&view::resources::pods());
        pods.retain(|pod| {
            !pod.metadata.is_deleting() && !matches!(phase(pod), "Failed" | "Succeeded")
        });
        pods.sort_by_key(|pod| (pod.metadata.creation_timestamp, pod.metadata.name.clone()));
        pods.into_iter().map(key_of).collect()
    }

    pub fn is_ready(&self, key: &ObjectKey) -> bool {
        let pod = self.objects.get(key);
        pod.and_then(|pod| {
            pod.body
                .get("status")?
                .pointer("/conditions/0/status")
                .cloned()
        })
        .is_some_and(|status| status == "True")
    }

    /// Makes up to `count` pods ready, oldest first.
    pub fn make_ready(&mut self, count: usize) {
        let unready: Vec<ObjectKey> = self
            .active_pods()
            .into_iter()
            .filter(|key| !self.is_ready(key))
            .take(count)
            .collect();
        for key in unready {
            self.set_pod(&key, "Running", true);
        }
    }
}

pub fn phase(pod: &Object) -> &str {
    let status = pod.body.get("status");
    let phase = status.and_then(|status| status.get("phase"));
    phase.and_then(Value::as_str).unwrap_or("Pending")
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let map = target.as_object_mut().expect("made a map above");
    for (name, value) in patch {
        if value.is_null() {
            map.remove(name);
        } else {
            merge(map.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}
