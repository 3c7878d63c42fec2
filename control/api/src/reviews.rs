//! Reviews: who somebody is, and what somebody may. Answered from the index and the tokens' keys; nothing is stored.
//! Kinds: Kubernetes' authentication.k8s.io/v1 and authorization.k8s.io/v1.

use crate::ApiServer;
use crate::tokens;
use objects::{Cause, Status};
use registry::rbac::{Decision, Request, Rule, node_of};
use registry::{Caller, Target, WriteOptions};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const AUTHORIZATION: &str = "authorization.k8s.io";

/// A review of the caller, as a row's kind names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Review {
    Token,
    SelfSubject,
    Access,
    SelfAccess,
    LocalAccess,
    SelfRules,
    /// The `token` subresource of a service account.
    TokenRequest,
}

impl Review {
    /// Which review a create of the target is, if it is one.
    pub fn of(target: &Target) -> Option<Review> {
        let row = &target.resource;
        let subresource = target.subresource.as_deref();
        match (&*row.group, &*row.kind, subresource) {
            ("authentication.k8s.io", "TokenReview", None) => Some(Review::Token),
            ("authentication.k8s.io", "SelfSubjectReview", None) => Some(Review::SelfSubject),
            (AUTHORIZATION, "SubjectAccessReview", None) => Some(Review::Access),
            (AUTHORIZATION, "SelfSubjectAccessReview", None) => Some(Review::SelfAccess),
            (AUTHORIZATION, "LocalSubjectAccessReview", None) => Some(Review::LocalAccess),
            (AUTHORIZATION, "SelfSubjectRulesReview", None) => Some(Review::SelfRules),
            ("", "ServiceAccount", Some("token")) => Some(Review::TokenRequest),
            _ => None,
        }
    }
}

/// Answers the review with its status filled in; `body` is in the form of its kind.
pub async fn answer(
    server: &ApiServer,
    caller: &Caller,
    target: &Target,
    review: Review,
    mut body: Value,
    options: &WriteOptions,
) -> Result<Value, Status> {
    let status = match review {
        Review::TokenRequest => {
            return tokens::grant(server, caller, target, body, options.dry_run).await;
        }
        Review::Token => token(server, &body).await?,
        Review::SelfSubject => json!({"userInfo": user_info(caller)}),
        Review::SelfRules => rules(server, caller, &body)?,
        Review::Access | Review::SelfAccess | Review::LocalAccess => {
            access(server, caller, target, review, &body).await?
        }
    };
    let metadata = body.get("metadata").cloned();
    body["metadata"] = metadata.unwrap_or_else(|| json!({}));
    if review == Review::SelfSubject {
        body["metadata"]["creationTimestamp"] = json!(server.pipeline().shell().now());
    }
    body["status"] = status;
    Ok(body)
}

async fn token(server: &ApiServer, body: &Value) -> Result<Value, Status> {
    let spec = body.get("spec").unwrap_or(&Value::Null);
    let token = spec.get("token").and_then(Value::as_str);
    let Some(token) = token.filter(|token| !token.is_empty()) else {
        return Err(Status::bad_request(
            "token is required for TokenReview in authentication",
        ));
    };
    let audiences: Vec<String> = spec
        .get("audiences")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    Ok(match server.review_token(token, &audiences).await {
        Ok(known) => json!({
            "authenticated": true, "user": user_info(&known.caller), "audiences": known.audiences,
        }),
        Err(why) => json!({"authenticated": false, "error": why}),
    })
}

fn user_info(caller: &Caller) -> Value {
    let mut info = json!({"username": caller.user, "groups": caller.groups});
    if !caller.uid.is_empty() {
        info["uid"] = json!(caller.uid);
    }
    if !caller.extra.is_empty() {
        info["extra"] = json!(caller.extra);
    }
    info
}

/// What an access review asks.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AccessSpec {
    user: String,
    groups: Option<Vec<String>>,
    uid: String,
    extra: Option<BTreeMap<String, Vec<String>>>,
    resource_attributes: Option<ResourceAttributes>,
    non_resource_attributes: Option<PathAttributes>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResourceAttributes {
    namespace: String,
    verb: String,
    group: String,
    resource: String,
    subresource: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PathAttributes {
    path: String,
    verb: String,
}

async fn access(
    server: &ApiServer,
    caller: &Caller,
    target: &Target,
    review: Review,
    body: &Value,
) -> Result<Value, Status> {
    let kind = &target.resource.kind;
    let invalid = |field: &str, message: String, reason: &str| {
        let cause = Cause {
            reason: reason.to_owned(),
            message,
            field: field.to_owned(),
        };
        Status::invalid(AUTHORIZATION, kind, "", vec![cause])
    };
    let spec = body.get("spec").cloned().unwrap_or_else(|| json!({}));
    let spec: AccessSpec = serde_json::from_value(spec)
        .map_err(|error| Status::bad_request(format!("{kind} is malformed: {error}")))?;
    let subject = match review {
        Review::SelfAccess => caller.clone(),
        _ => Caller {
            user: spec.user.clone(),
            groups: spec.groups.clone().unwrap_or_default(),
            uid: spec.uid.clone(),
            extra: spec.extra.clone().unwrap_or_default(),
            fence: None,
        },
    };
    if subject.user.is_empty() && subject.groups.is_empty() {
        let why = "at least one of user or group must be specified";
        return Err(invalid(
            "spec.user",
            format!("Required value: {why}"),
            "FieldValueRequired",
        ));
    }
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let request = match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(asked), None) => {
            if review == Review::LocalAccess && asked.namespace != namespace {
                let why = format!(
                    "Invalid value: {:?}: must match metadata.namespace: must be {namespace}",
                    asked.namespace
                );
                return Err(invalid(
                    "spec.resourceAttributes.namespace",
                    why,
                    "FieldValueInvalid",
                ));
            }
            Request {
                verb: &asked.verb,
                group: &asked.group,
                resource: &asked.resource,
                subresource: &asked.subresource,
                namespace: &asked.namespace,
                name: &asked.name,
                ..Request::default()
            }
        }
        (None, Some(asked)) if review != Review::LocalAccess => {
            Request::path(&asked.verb, &asked.path)
        }
        (None, Some(_)) => {
            let why = "Forbidden: disallowed on this kind of request".to_owned();
            return Err(invalid(
                "spec.nonResourceAttributes",
                why,
                "FieldValueForbidden",
            ));
        }
        _ => {
            let why = "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified";
            return Err(invalid(
                "spec.resourceAttributes",
                why.to_owned(),
                "FieldValueInvalid",
            ));
        }
    };
    let access = server.pipeline().access();
    let mut decision = access.decide(&subject, &request);
    if !decision.is_allowed() {
        server.caught_up().await;
        decision = access.decide(&subject, &request);
    }
    Ok(match decision {
        Decision::Allowed(reason) if reason.is_empty() => json!({"allowed": true}),
        Decision::Allowed(reason) => json!({"allowed": true, "reason": reason}),
        Decision::NotAllowed(reason) if reason.is_empty() => json!({"allowed": false}),
        Decision::NotAllowed(reason) => json!({"allowed": false, "reason": reason}),
        Decision::Unknown => {
            return Err(Status::unavailable(
                "the roles have not been read yet; try again",
            ));
        }
    })
}

fn rules(server: &ApiServer, caller: &Caller, body: &Value) -> Result<Value, Status> {
    let namespace = body.pointer("/spec/namespace").and_then(Value::as_str);
    let Some(namespace) = namespace.filter(|namespace| !namespace.is_empty()) else {
        return Err(Status::bad_request("no namespace on request"));
    };
    let rules = server.pipeline().access().rules_for(caller, namespace);
    let (paths, resources): (Vec<Rule>, Vec<Rule>) = rules
        .into_iter()
        .partition(|rule| !rule.non_resource_urls.is_empty());
    let mut status = json!({
        "resourceRules": resources, "nonResourceRules": paths, "incomplete": false,
    });
    if node_of(caller).is_some() {
        status["incomplete"] = json!(true);
        status["evaluationError"] = json!("node authorizer does not support user rule resolution");
    }
    Ok(status)
}
