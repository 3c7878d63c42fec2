//! Carries out a plan through the registry's write pipeline. It has no choice to make: actions are done in order, the first
//! failure ends the plan, and the controller is asked again.

use objects::{GroupVersionKind, ObjectKey, Reason, Revision, Status, Term};
use reconcile::{Action, EventType, ObjectReference, Plan, Precondition, StatusUpdate};
use registry::{
    Caller, DeleteOptions, Patch, PatchKind, Pipeline, Propagation, Shell, Target, WriteOptions,
};
use serde_json::{Value, json};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Writes in the name of controllers.
#[derive(Clone)]
pub struct Executor {
    /// The write pipeline.
    pub pipeline: Arc<Pipeline>,
    /// Time for events.
    pub shell: Arc<dyn Shell>,
    /// The term under which this master leads.
    pub term: Term,
}

impl Executor {
    /// Carries out `plan` for the controller `name`.
    pub async fn execute(&self, name: &'static str, plan: &Plan) -> Result<(), Status> {
        let caller = Caller::controller(name, self.term);
        for action in &plan.actions {
            self.perform(&caller, name, action).await?;
        }
        match &plan.status {
            Some(update) => self.write_status(&caller, update).await,
            None => Ok(()),
        }
    }

    async fn perform(
        &self,
        caller: &Caller,
        name: &'static str,
        action: &Action,
    ) -> Result<(), Status> {
        match action {
            Action::Create(object) => {
                let target =
                    self.collection(&object.types, object.metadata.namespace.as_deref())?;
                self.pipeline
                    .create(caller, &target, object.to_value(), &options(name))
                    .await
                    .map(drop)
            }
            Action::Update(object) => {
                let mut target =
                    self.collection(&object.types, object.metadata.namespace.as_deref())?;
                target.name = Some(object.metadata.name.clone());
                self.pipeline
                    .update(caller, &target, object.to_value(), &options(name))
                    .await
                    .map(drop)
            }
            Action::Patch {
                key,
                precondition,
                merge,
                subresource,
            } => {
                let mut target = self.object(key)?;
                target.subresource = subresource.map(str::to_owned);
                let patch = Patch {
                    kind: PatchKind::Merge,
                    value: guarded(merge, precondition),
                };
                self.pipeline
                    .patch(caller, &target, &patch, &options(name))
                    .await
                    .map(drop)
            }
            Action::Delete {
                key,
                precondition,
                grace_seconds,
                propagation,
            } => {
                let options = DeleteOptions {
                    grace_seconds: *grace_seconds,
                    propagation: propagation.map(propagation_of),
                    uid: precondition.uid.clone(),
                    resource_version: revision_of(precondition)?,
                    ..DeleteOptions::default()
                };
                match self
                    .pipeline
                    .delete(caller, &self.object(key)?, &options)
                    .await
                {
                    Err(status) if status.is(Reason::NotFound) => Ok(()), // It is gone, as was wanted.
                    done => done.map(drop),
                }
            }
            Action::Event {
                regarding,
                event_type,
                reason,
                message,
            } => {
                if let Err(status) = self
                    .record(caller, name, regarding, *event_type, reason, message)
                    .await
                {
                    tracing::debug!(controller = name, %reason, error = %status, "an event could not be recorded");
                }
                Ok(())
            }
        }
    }

    /// Replaces an object's whole status.
    async fn write_status(&self, caller: &Caller, update: &StatusUpdate) -> Result<(), Status> {
        let target = self.object(&update.key)?.subresource("status");
        let mut steps = vec![json!({"op": "add", "path": "/status", "value": update.status})];
        if let Some(uid) = &update.precondition.uid {
            steps.push(json!({"op": "add", "path": "/metadata/uid", "value": uid}));
        }
        if let Some(version) = &update.precondition.resource_version {
            steps.push(json!({"op": "add", "path": "/metadata/resourceVersion", "value": version}));
        }
        let patch = Patch {
            kind: PatchKind::Json,
            value: Value::Array(steps),
        };
        self.pipeline
            .patch(caller, &target, &patch, &WriteOptions::default())
            .await
            .map(drop)
    }

    /// Records an event, or counts it up when the same was told before.
    pub async fn record(
        &self,
        caller: &Caller,
        source: &str,
        regarding: &ObjectReference,
        event_type: EventType,
        reason: &str,
        message: &str,
    ) -> Result<(), Status> {
        let now = self.shell.now();
        let namespace = regarding.namespace.as_deref().unwrap_or("default");
        let name = event_name(regarding, reason, message);
        let kind = GroupVersionKind::new("", "v1", "Event");
        let event = json!({
            "kind": "Event", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": regarding.api_version, "kind": regarding.kind, "namespace": regarding.namespace,
                "name": regarding.name, "uid": regarding.uid,
            },
            "reason": reason, "message": message, "type": event_type.as_str(), "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": source}, "reportingComponent": source, "reportingInstance": "",
        });
        let mut target = self.collection(&kind, Some(namespace))?;
        match self
            .pipeline
            .create(caller, &target, event, &options(source))
            .await
        {
            Err(status) if status.is(Reason::AlreadyExists) => {}
            done => return done.map(drop),
        }
        target.name = Some(name);
        let known = self.pipeline.get(&target, None).await?;
        let known: Value = serde_json::from_slice(&known).map_err(Status::internal)?;
        let count = known["count"].as_i64().unwrap_or(0) + 1;
        let patch = Patch {
            kind: PatchKind::Merge,
            value: json!({"count": count, "lastTimestamp": now}),
        };
        self.pipeline
            .patch(caller, &target, &patch, &options(source))
            .await
            .map(drop)
    }

    /// The target of an object's key.
    pub fn object(&self, key: &ObjectKey) -> Result<Target, Status> {
        let unknown = || Status::internal(format_args!("there is no resource {}", key.resource));
        let registry = self.pipeline.registry();
        let row = registry.by_resource(&key.resource).ok_or_else(unknown)?;
        Ok(Target::object(row, key.namespace.as_deref(), &key.name))
    }

    fn collection(
        &self,
        kind: &GroupVersionKind,
        namespace: Option<&str>,
    ) -> Result<Target, Status> {
        let unknown = || {
            Status::internal(format_args!(
                "there is no kind {} {}",
                kind.api_version(),
                kind.kind
            ))
        };
        let registry = self.pipeline.registry();
        let row = registry.by_kind(kind).ok_or_else(unknown)?;
        Ok(Target::collection(row, namespace))
    }
}

fn options(manager: &str) -> WriteOptions {
    WriteOptions {
        field_manager: Some(manager.to_owned()),
        ..WriteOptions::default()
    }
}

/// The merge patch with what must still hold: the pipeline refuses a patch that would change uid or resource version.
fn guarded(merge: &Value, precondition: &Precondition) -> Value {
    let mut merge = merge.clone();
    if let Some(uid) = &precondition.uid {
        merge["metadata"]["uid"] = json!(uid);
    }
    if let Some(version) = &precondition.resource_version {
        merge["metadata"]["resourceVersion"] = json!(version);
    }
    merge
}

fn revision_of(precondition: &Precondition) -> Result<Option<Revision>, Status> {
    precondition
        .resource_version
        .as_deref()
        .map_or(Ok(None), registry::parse_resource_version)
}

fn propagation_of(propagation: reconcile::Propagation) -> Propagation {
    match propagation {
        reconcile::Propagation::Orphan => Propagation::Orphan,
        reconcile::Propagation::Background => Propagation::Background,
        reconcile::Propagation::Foreground => Propagation::Foreground,
    }
}

/// The same news about the same object has the same name, so that it is counted rather than repeated.
fn event_name(regarding: &ObjectReference, reason: &str, message: &str) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    (&regarding.uid, &regarding.kind, reason, message).hash(&mut hasher);
    let name: String = regarding.name.chars().take(200).collect();
    format!("{name}.{:016x}", hasher.finish())
}
