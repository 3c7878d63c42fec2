//! Tells the API what happens to pods, as events. Best effort: an event that cannot be posted is dropped.
//!
//! An event's name follows from what it says, so that the same again counts up one object instead of making another.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{Client, Deadline, Payload};
use http::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::clock;

/// Events that wait to be posted; further ones are dropped.
const QUEUED_MAX: usize = 256;
/// Events whose count is remembered.
const COUNTED_MAX: usize = 512;
const DEADLINE: Deadline = Deadline(Duration::from_secs(3));

/// What an event is about.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
}

#[derive(Debug)]
struct Note {
    subject: Subject,
    container: Option<String>,
    warning: bool,
    reason: String,
    message: String,
}

/// Takes events. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Note>,
}

impl Recorder {
    /// Starts posting as `node`.
    pub fn start(client: Client, node: String) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUED_MAX);
        tokio::spawn(post_all(client, node, receiver));
        Self { sender }
    }

    /// `Normal`.
    pub fn normal(
        &self,
        subject: &Subject,
        container: Option<&str>,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.send(subject, container, false, reason, message.into());
    }

    /// `Warning`.
    pub fn warning(
        &self,
        subject: &Subject,
        container: Option<&str>,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.send(subject, container, true, reason, message.into());
    }

    fn send(
        &self,
        subject: &Subject,
        container: Option<&str>,
        warning: bool,
        reason: &str,
        message: String,
    ) {
        let note = Note {
            subject: subject.clone(),
            container: container.map(str::to_owned),
            warning,
            reason: reason.to_owned(),
            message,
        };
        if self.sender.try_send(note).is_err() {
            tracing::debug!(%reason, "too many events; one is dropped");
        }
    }
}

async fn post_all(client: Client, node: String, mut notes: mpsc::Receiver<Note>) {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    while let Some(note) = notes.recv().await {
        let name = name(&note);
        if counts.len() > COUNTED_MAX {
            counts.clear();
        }
        let count = counts
            .entry(name.clone())
            .and_modify(|count| *count += 1)
            .or_insert(1);
        if let Err(error) = post(&client, &node, &name, &note, *count).await {
            tracing::debug!(%error, reason = %note.reason, "an event could not be posted");
        }
    }
}

async fn post(
    client: &Client,
    node: &str,
    name: &str,
    note: &Note,
    count: u32,
) -> Result<(), client::Error> {
    let path = format!("/api/v1/namespaces/{}/events", note.subject.namespace);
    let event = event(node, name, note, count);
    if count == 1 {
        match client
            .call::<Value>(Method::POST, &path, Payload::json(&event), DEADLINE)
            .await
        {
            Err(error) if error.is_code(409) => {}
            other => return other.map(drop),
        }
    }
    let more = json!({ "count": count.max(2), "lastTimestamp": event["lastTimestamp"] });
    let patch = Payload::Bytes("application/merge-patch+json", more.to_string().into());
    client
        .call::<Value>(Method::PATCH, &format!("{path}/{name}"), patch, DEADLINE)
        .await
        .map(drop)
}

fn name(note: &Note) -> String {
    let mut hash = Sha256::new();
    for part in [
        &note.subject.uid,
        note.container.as_deref().unwrap_or_default(),
        &note.reason,
        &note.message,
    ] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    format!(
        "{}.{}",
        note.subject.name,
        hex::encode(&hash.finalize()[..8])
    )
}

fn event(node: &str, name: &str, note: &Note, count: u32) -> Value {
    let now = clock::now();
    let subject = &note.subject;
    let mut involved = json!({ "apiVersion": "v1", "kind": "Pod", "namespace": subject.namespace, "name": subject.name, "uid": subject.uid });
    if let Some(container) = &note.container {
        involved["fieldPath"] = format!("spec.containers{{{container}}}").into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "name": name, "namespace": subject.namespace },
        "involvedObject": involved,
        "reason": note.reason,
        "message": note.message,
        "type": if note.warning { "Warning" } else { "Normal" },
        "source": { "component": "kubelet", "host": node },
        "reportingComponent": "kubelet",
        "reportingInstance": node,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": count,
    })
}
