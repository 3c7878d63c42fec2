//! `Status`: how the API says that something went wrong. Texts and codes: Kubernetes' apimachinery `errors` package.

use crate::GroupResource;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The machine-readable reason of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are Kubernetes' StatusReason values")]
pub enum Reason {
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Expired,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    ServiceUnavailable,
    /// A command's own failure, as kubelets tell it at the end of an exec.
    NonZeroExitCode,
    /// None, or one that this program does not know.
    #[serde(rename = "", other)]
    Unknown,
}

/// One fault, at one field where it has one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, `FieldManagerConflict`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The path: `spec.containers[0].name`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What the failure is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDetails {
    /// The object's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource (or kind, for `Invalid`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The object's uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Every fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to try again, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// A failure (or, for a delete, a success) as the API answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename = "Status")]
pub struct Status {
    /// Always `v1`.
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// A list's metadata; carries `continue` when a page expired.
    #[serde(default)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// `Failure` or `Success`.
    pub status: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// For machines; None in a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    /// The HTTP status code.
    #[serde(default)]
    pub code: u16,
}

impl Status {
    /// A failure without details.
    pub fn failure(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Status {
            api_version: "v1".to_owned(),
            metadata: serde_json::Map::new(),
            status: "Failure".to_owned(),
            message: message.into(),
            reason: Some(reason),
            details: None,
            code,
        }
    }

    /// `Success`, with what was deleted.
    pub fn success(details: StatusDetails) -> Self {
        Status {
            status: "Success".to_owned(),
            reason: None,
            details: Some(details),
            ..Status::failure(200, Reason::Unknown, "")
        }
    }

    /// 404: `pods "web" not found`.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Status::failure(
            404,
            Reason::NotFound,
            format!("{resource} {name:?} not found"),
        )
        .about(resource, name)
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Status::failure(
            409,
            Reason::AlreadyExists,
            format!("{resource} {name:?} already exists"),
        )
        .about(resource, name)
    }

    /// 409: somebody else wrote in between, or a precondition does not hold.
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Status::failure(409, Reason::Conflict, message).about(resource, name)
    }

    /// 422 with every fault; `kind` is the object's kind and `group` its group.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let faults: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let faults = match &faults[..] {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let what = GroupResource::new(group, kind);
        let mut status = Status::failure(
            422,
            Reason::Invalid,
            format!("{what} {name:?} is invalid: {faults}"),
        );
        status.details = Some(StatusDetails {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes,
            ..StatusDetails::default()
        });
        status
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Status::failure(400, Reason::BadRequest, message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Status::failure(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 403: `pods "web" is forbidden: …`.
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} {name:?} is forbidden: {why}")
        };
        Status::failure(403, Reason::Forbidden, message).about(resource, name)
    }

    /// 410: the revision asked for is compacted away.
    pub fn expired(message: impl Into<String>) -> Self {
        Status::failure(410, Reason::Expired, message)
    }

    /// 500. The cause belongs in the log; the message says what was tried.
    pub fn internal(message: impl fmt::Display) -> Self {
        Status::failure(
            500,
            Reason::InternalError,
            format!("Internal error occurred: {message}"),
        )
    }

    /// 503, to be tried again after a second.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let mut status = Status::failure(503, Reason::ServiceUnavailable, message);
        status.details = Some(StatusDetails {
            retry_after_seconds: Some(1),
            ..StatusDetails::default()
        });
        status
    }

    /// 504: not done in time; whether it took effect is unknown.
    pub fn timeout(message: impl Into<String>) -> Self {
        let mut status = Status::failure(504, Reason::Timeout, message);
        status.details = Some(StatusDetails {
            retry_after_seconds: Some(1),
            ..StatusDetails::default()
        });
        status
    }

    /// The same failure, told of an object.
    #[must_use]
    pub fn about(mut self, resource: &GroupResource, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        details.name = name.to_owned();
        details.group = resource.group.clone();
        details.kind = resource.resource.clone();
        self
    }

    /// Whether the reason is `reason`.
    pub fn is(&self, reason: Reason) -> bool {
        self.reason == Some(reason)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_kubernetes_writes() {
        let deployments = GroupResource::new("apps", "deployments");
        let status = Status::not_found(&deployments, "web");
        assert_eq!(status.message, r#"deployments.apps "web" not found"#);
        let json = serde_json::to_string(&status).expect("plain data");
        assert_eq!(
            json,
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"deployments.apps \"web\" not found","reason":"NotFound","details":{"name":"web","group":"apps","kind":"deployments"},"code":404}"#
        );
        assert_eq!(
            serde_json::from_str::<Status>(&json).expect("parses"),
            status
        );
    }
}
