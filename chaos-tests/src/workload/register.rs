//! A register is a ConfigMap: GET reads, PUT writes, PUT with a resourceVersion compares and swaps.
//! Kubernetes' rule: a PUT with an outdated resourceVersion answers 409 and changes nothing.

use crate::check::register::INITIAL;
use crate::history::{Failure, Outcome, Reply, Request, Told};
use client::{Client, Deadline, Error, Payload};
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// A request without an answer by then is given up.
const DEADLINE: Deadline = Deadline(Duration::from_secs(1));

/// Registers through one client.
pub struct Api<'a> {
    client: &'a Client,
    stale_reads: bool,
}

impl<'a> Api<'a> {
    /// Through a client.
    pub fn new(client: &'a Client) -> Self {
        Api {
            client,
            stale_reads: false,
        }
    }

    /// Whether reads are content with what the asked master has: `resourceVersion=0`.
    pub fn with_stale_reads(mut self, stale_reads: bool) -> Self {
        self.stale_reads = stale_reads;
        self
    }

    /// Makes the register; its revision, also where it is there already.
    pub async fn create(&self, key: &str) -> Option<u64> {
        let payload = Payload::json(&object(key, INITIAL, None));
        let made = self
            .client
            .call::<Value>(Method::POST, MAPS, payload, DEADLINE);
        match made.await {
            Ok(made) => revision_of(&made),
            Err(error) if error.is_code(409) => {
                let path = format!("{MAPS}/{key}");
                let found = self
                    .client
                    .call::<Value>(Method::GET, &path, Payload::Empty, DEADLINE);
                revision_of(&found.await.ok()?)
            }
            Err(_) => None,
        }
    }

    /// One request, sent once.
    pub async fn ask(&self, request: &Request) -> Outcome {
        match request {
            Request::Read { key, .. } => self.read(key).await,
            Request::Write { key, value } => self.write(object(key, *value, None), key).await,
            Request::Cas {
                key,
                value,
                revision,
                ..
            } => self.write(object(key, *value, Some(*revision)), key).await,
            _ => Outcome::Fail(Failure::new("unsupported", "ConfigMaps are registers")),
        }
    }

    async fn read(&self, key: &str) -> Outcome {
        let query = if self.stale_reads {
            "?resourceVersion=0"
        } else {
            ""
        };
        let path = format!("{MAPS}/{key}{query}");
        let call = self
            .client
            .call::<Value>(Method::GET, &path, Payload::Empty, DEADLINE);
        let told = match call.await {
            Ok(found) => match (value_of(&found), revision_of(&found)) {
                (Some(value), Some(revision)) => Told::Value {
                    value: Some(value),
                    changed: Some(revision),
                },
                _ => {
                    let text = format!("no register: {found}");
                    return Outcome::Fail(Failure::new("unreadable", text));
                }
            },
            // No object, though it was made before: an answer like any other, for the checkers.
            Err(error) if error.is_code(404) => Told::Value {
                value: None,
                changed: None,
            },
            Err(error) => return Outcome::Fail(failure(&error)),
        };
        let revision = None;
        Outcome::Ok(Reply { revision, told })
    }

    async fn write(&self, object: Value, key: &str) -> Outcome {
        let path = format!("{MAPS}/{key}");
        let is_compare = object.pointer("/metadata/resourceVersion").is_some();
        let call = self
            .client
            .call::<Value>(Method::PUT, &path, Payload::json(&object), DEADLINE);
        match call.await {
            Ok(written) => {
                let revision = revision_of(&written);
                let told = if is_compare {
                    Told::Held { held: true }
                } else {
                    Told::Done
                };
                Outcome::Ok(Reply { revision, told })
            }
            Err(error) if error.is_code(409) && is_compare => Outcome::Ok(Reply {
                revision: None,
                told: Told::Held { held: false },
            }),
            Err(error) if error.is_ambiguous() || matches!(error, Error::Unreadable { .. }) => {
                Outcome::Info(failure(&error))
            }
            Err(error) => Outcome::Fail(failure(&error)),
        }
    }
}

fn object(key: &str, value: u64, revision: Option<u64>) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": key, "namespace": "default"},
        "data": {"value": value.to_string()},
    });
    if let Some(revision) = revision {
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
    }
    object
}

fn value_of(object: &Value) -> Option<u64> {
    object.pointer("/data/value")?.as_str()?.parse().ok()
}

fn revision_of(object: &Value) -> Option<u64> {
    let revision = object.pointer("/metadata/resourceVersion")?;
    revision.as_str()?.parse().ok()
}

fn failure(error: &Error) -> Failure {
    let class = match error {
        Error::Api(status) => status.code.to_string(),
        Error::Unreachable { .. } => "unreachable".to_owned(),
        Error::Untrusted { .. } => "untrusted".to_owned(),
        Error::Interrupted { .. } => "interrupted".to_owned(),
        Error::Unreadable { .. } => "unreadable".to_owned(),
        Error::Config(_) => "config".to_owned(),
    };
    Failure {
        class,
        text: error.to_string(),
    }
}
