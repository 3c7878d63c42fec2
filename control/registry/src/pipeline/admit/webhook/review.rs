//! What a webhook is sent and what it answers: `AdmissionReview` of admission.k8s.io/v1. Rules and words: Kubernetes' request and
//! response, and its `ToStatusErr`.

use super::hook::Hook;
use crate::pipeline::admit::{Attributes, Operation, Options};
use crate::pipeline::scale;
use crate::{DeleteOptions, FieldValidation, Propagation, ResourceDef, Target, WriteOptions};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use objects::{GroupVersionKind, Object, Status, StatusDetails};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The request of a review: about this object, in this row's version.
pub fn request(
    asked: &Attributes<'_>,
    row: &ResourceDef,
    object: Option<&Object>,
    uid: &str,
) -> Value {
    let target = asked.target;
    let part = target.subresource_name();
    let own = &target.resource;
    let metadata = [object, asked.old].into_iter().flatten().next();
    let metadata = metadata.map(|object| &object.metadata);
    let named = metadata.map(|metadata| metadata.name.as_str());
    let named = named.filter(|name| !name.is_empty());
    let name = named.or(target.name.as_deref()).unwrap_or_default();
    let mut request = json!({
        "uid": uid,
        "kind": kind(&kind_of(row, part)),
        "resource": resource(row),
        "requestKind": kind(&kind_of(own, part)),
        "requestResource": resource(own),
        "name": name,
        "operation": asked.operation.as_str(),
        "userInfo": user(asked),
        "object": object.map(|object| shown(target, row, object)),
        "oldObject": asked.old.map(|object| shown(target, row, object)),
        "dryRun": asked.is_dry_run(),
        "options": options(asked),
    });
    if !part.is_empty() {
        request["subResource"] = json!(part);
        request["requestSubResource"] = json!(part);
    }
    // A namespace lies in itself, as Kubernetes' requests have it.
    let of_itself = (own.group.is_empty() && own.resource == "namespaces").then_some(name);
    let namespace = target.namespace.as_deref().filter(|_| own.namespaced);
    if let Some(namespace) = namespace.or(of_itself) {
        request["namespace"] = json!(namespace);
    }
    request
}

/// The whole review.
pub fn review(request: Value) -> Value {
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})
}

/// An object as a row's version, or its subresource, has it.
pub fn shown(target: &Target, row: &ResourceDef, object: &Object) -> Value {
    let part = target.subresource_name();
    if part == "scale" {
        return scale::of_object(target, object);
    }
    let mut value = object.to_value();
    if object.types != row.kind() && row.stored_as.is_none() && !part.is_empty() {
        // The options of a connection are no object that is stored.
        if let Value::Object(members) = &mut value {
            members.shift_remove("metadata");
        }
        return value;
    }
    crate::pipeline::versions::load(row, &mut value);
    value
}

fn kind_of(row: &ResourceDef, part: &str) -> GroupVersionKind {
    row.subresource(part)
        .map_or_else(|| row.kind(), |part| part.kind.clone())
}

fn kind(kind: &GroupVersionKind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn resource(row: &ResourceDef) -> Value {
    json!({"group": row.group, "version": row.version, "resource": row.resource})
}

fn user(asked: &Attributes<'_>) -> Value {
    let caller = asked.caller;
    let mut user = Map::new();
    user.insert("username".to_owned(), json!(caller.user));
    if !caller.uid.is_empty() {
        user.insert("uid".to_owned(), json!(caller.uid));
    }
    if !caller.groups.is_empty() {
        user.insert("groups".to_owned(), json!(caller.groups));
    }
    if !caller.extra.is_empty() {
        user.insert("extra".to_owned(), json!(caller.extra));
    }
    Value::Object(user)
}

fn options(asked: &Attributes<'_>) -> Value {
    match asked.options {
        _ if asked.operation == Operation::Connect => Value::Null,
        Options::Write(options) => write_options(asked, options),
        Options::Delete(options) => delete_options(options),
    }
}

fn write_options(asked: &Attributes<'_>, options: &WriteOptions) -> Value {
    let kind = match asked.operation {
        Operation::Create => "CreateOptions",
        _ => "UpdateOptions",
    };
    let mut shown = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if options.dry_run {
        shown["dryRun"] = json!(["All"]);
    }
    if let Some(manager) = &options.field_manager {
        shown["fieldManager"] = json!(manager);
    }
    shown["fieldValidation"] = match options.field_validation {
        FieldValidation::Ignore => json!("Ignore"),
        FieldValidation::Warn => json!("Warn"),
        FieldValidation::Strict => json!("Strict"),
    };
    shown
}

fn delete_options(options: &DeleteOptions) -> Value {
    let mut shown = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
    if options.dry_run {
        shown["dryRun"] = json!(["All"]);
    }
    if let Some(seconds) = options.grace_seconds {
        shown["gracePeriodSeconds"] = json!(seconds);
    }
    if let Some(propagation) = options.propagation {
        shown["propagationPolicy"] = match propagation {
            Propagation::Orphan => json!("Orphan"),
            Propagation::Background => json!("Background"),
            Propagation::Foreground => json!("Foreground"),
        };
    }
    shown
}

/// What a webhook decided.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Response {
    uid: String,
    /// Whether it lets the request pass.
    pub allowed: bool,
    status: Refusal,
    patch: Option<String>,
    patch_type: Option<String>,
    /// Notes for the audit log.
    pub audit_annotations: BTreeMap<String, String>,
    /// For the client.
    pub warnings: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    message: String,
    reason: String,
    code: u16,
    details: Option<StatusDetails>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    response: Option<Response>,
}

impl Response {
    /// Reads the answer to the review of this uid.
    pub fn read(answer: &[u8], uid: &str) -> Result<Self, String> {
        let review: Review = serde_json::from_slice(answer)
            .map_err(|error| format!("the answer is no AdmissionReview: {error}"))?;
        if review.kind != "AdmissionReview" || review.api_version != "admission.k8s.io/v1" {
            return Err(format!(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {}, Kind={}",
                review.api_version, review.kind
            ));
        }
        let response = review.response.ok_or("webhook response was absent")?;
        if response.uid != uid {
            return Err(format!(
                "expected response.uid={uid:?}, got {:?}",
                response.uid
            ));
        }
        Ok(response)
    }

    /// The patch, if there is one.
    pub fn patch(&self) -> Result<Option<Value>, String> {
        let Some(patch) = self.patch.as_deref().filter(|patch| !patch.is_empty()) else {
            return Ok(None);
        };
        match self.patch_type.as_deref() {
            Some("JSONPatch") => {}
            other => {
                return Err(format!(
                    "webhook returned response.patchType={:?}, which is not JSONPatch",
                    other.unwrap_or_default()
                ));
            }
        }
        let patch = STANDARD.decode(patch).map_err(|error| error.to_string())?;
        let patch = serde_json::from_slice(&patch).map_err(|error| error.to_string())?;
        Ok(Some(patch))
    }

    /// The refusal as the client sees it.
    pub fn refusal(&self, hook: &Hook) -> Status {
        let denied = format!("admission webhook {:?} denied the request", hook.name);
        let status = &self.status;
        let message = match (status.message.as_str(), status.reason.as_str()) {
            ("", "") => format!("{denied} without explanation"),
            ("", reason) => format!("{denied}: {reason}"),
            (message, _) => format!("{denied}: {message}"),
        };
        let reason = serde_json::from_value(json!(status.reason));
        let mut refusal = Status::failure(
            status.code.max(400),
            reason.unwrap_or(objects::Reason::Unknown),
            message,
        );
        refusal.details = status.details.clone();
        refusal
    }
}
