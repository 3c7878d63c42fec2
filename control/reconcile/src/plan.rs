//! What a controller decided: the writes, in order, the new status, and when to look again.
//!
//! A plan prints one action a line; `ctl explain` shows it and the script tests compare it. It never holds a choice: the
//! executor performs the actions in order, stops at the first failure, and asks the controller again.

use objects::{Object, ObjectKey, Timestamp, Uid};
use serde_json::Value;
use std::fmt;

/// What must change, and when to look again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The writes, to be executed in this order.
    pub actions: Vec<Action>,
    /// The object's new status; None when the status it has is right. Written after the actions.
    pub status: Option<StatusUpdate>,
    /// When to reconcile again even if nothing changes before.
    pub wake_at: Option<Timestamp>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Creates an object. A name already taken is a failure: somebody else, or an earlier try of the same plan, was there.
    Create(Object),
    /// Replaces an object; `metadata.resourceVersion` is the precondition.
    Update(Object),
    /// Merges a JSON merge patch (RFC 7396) into an object or into one of its subresources.
    Patch {
        /// What is patched.
        key: ObjectKey,
        /// What must still hold.
        precondition: Precondition,
        /// The merge patch.
        merge: Value,
        /// `status`, `finalize`, …; None for the object itself.
        subresource: Option<&'static str>,
    },
    /// Deletes an object.
    Delete {
        /// What is deleted.
        key: ObjectKey,
        /// What must still hold; always names the uid.
        precondition: Precondition,
        /// Seconds given for a graceful end; None leaves it to the object.
        grace_seconds: Option<i64>,
        /// What happens to dependents; None leaves it to the kind's default.
        propagation: Option<Propagation>,
    },
    /// Tells people about it. A failure to record an event stops nothing.
    Event {
        /// What it is about.
        regarding: ObjectReference,
        /// Normal or a warning.
        event_type: EventType,
        /// One word for machines: `ScalingReplicaSet`.
        reason: &'static str,
        /// For people.
        message: String,
    },
}

/// A status to write through the `status` subresource: it replaces the whole status.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusUpdate {
    /// Whose status.
    pub key: ObjectKey,
    /// What must still hold.
    pub precondition: Precondition,
    /// The whole new status.
    pub status: Value,
}

/// What must still hold when a write is done; else it fails with a conflict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// The object is still this one.
    pub uid: Option<Uid>,
    /// The object has not been changed since.
    pub resource_version: Option<String>,
}

/// What happens to the dependents of a deleted object. Kubernetes' `propagationPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They stay, without the owner.
    Orphan,
    /// They go after it.
    Background,
    /// They go before it.
    Foreground,
}

impl Propagation {
    /// The word in `DeleteOptions.propagationPolicy`.
    pub fn as_str(self) -> &'static str {
        match self {
            Propagation::Orphan => "Orphan",
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
        }
    }
}

/// Whether an event is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Somebody may have to look.
    Warning,
}

impl EventType {
    /// The word in `Event.type`.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// The object that an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectReference {
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace; None for a cluster-wide kind.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: Uid,
}

impl Plan {
    /// Nothing to do.
    pub fn nothing() -> Self {
        Plan::default()
    }

    /// Only these actions.
    pub fn of(actions: Vec<Action>) -> Self {
        Plan {
            actions,
            ..Plan::default()
        }
    }

    /// Whether it writes nothing; it may still ask to be woken.
    pub fn is_nothing(&self) -> bool {
        self.actions.is_empty() && self.status.is_none()
    }

    /// Looks again at `at` at the latest.
    pub fn wake_by(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

impl Precondition {
    /// Still the same object, whatever its state.
    pub fn uid(uid: &str) -> Self {
        Precondition {
            uid: Some(Uid::from(uid)),
            resource_version: None,
        }
    }

    /// Still the same object in the same state.
    pub fn unchanged(uid: &str, resource_version: &str) -> Self {
        Precondition {
            uid: Some(Uid::from(uid)),
            resource_version: Some(resource_version.to_owned()),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_nothing() && self.wake_at.is_none() {
            return writeln!(f, "nothing");
        }
        for action in &self.actions {
            writeln!(f, "{action}")?;
        }
        if let Some(status) = &self.status {
            writeln!(f, "{status}")?;
        }
        if let Some(at) = self.wake_at {
            writeln!(f, "wake at {at}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Create(object) => write_object(f, "create", object),
            Action::Update(object) => write_object(f, "update", object),
            Action::Patch {
                key,
                merge,
                subresource,
                ..
            } => match subresource {
                Some(subresource) => write!(f, "patch {key} ({subresource}) {merge}"),
                None => write!(f, "patch {key} {merge}"),
            },
            Action::Delete {
                key,
                grace_seconds,
                propagation,
                ..
            } => {
                write!(f, "delete {key}")?;
                if let Some(seconds) = grace_seconds {
                    write!(f, " grace={seconds}s")?;
                }
                if let Some(propagation) = propagation {
                    write!(f, " propagation={}", propagation.as_str())?;
                }
                Ok(())
            }
            Action::Event {
                regarding,
                event_type,
                reason,
                message,
            } => {
                let event_type = event_type.as_str();
                write!(f, "event {event_type} {reason} on {regarding}: {message}")
            }
        }
    }
}

/// `create ReplicaSet default/web-5b4c replicas=3`: the name, and of the body what tells most.
fn write_object(f: &mut fmt::Formatter<'_>, verb: &str, object: &Object) -> fmt::Result {
    write!(f, "{verb} {} ", object.types.kind)?;
    if let Some(namespace) = &object.metadata.namespace {
        write!(f, "{namespace}/")?;
    }
    f.write_str(&object.metadata.name)?;
    if let Some(replicas) = object
        .body
        .get("spec")
        .and_then(|spec| spec.get("replicas"))
    {
        write!(f, " replicas={replicas}")?;
    }
    if let Some(Value::Array(endpoints)) = object.body.get("endpoints") {
        write!(f, " endpoints={}", endpoints.len())?;
    }
    Ok(())
}

impl fmt::Display for StatusUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {} {}", self.key, self.status)
    }
}

impl fmt::Display for ObjectReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}
