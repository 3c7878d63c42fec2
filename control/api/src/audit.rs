//! The audit log: who asked what, and what came of it, as a policy says. Policy and events: Kubernetes' audit.k8s.io/v1.
//!
//! ```text
//! request ──> RequestReceived ──> ResponseStarted (what goes on: a watch) or ResponseComplete ──> bounded queue ──> the binary's file
//! ```
//!
//! The first rule that fits a request decides; without one nothing is noted. Never writes a file, never holds a request up: an
//! event that finds the queue full is lost, and that is counted and logged.

use crate::answer::{Answer, Content};
use crate::auth::{Identified, Peer};
use crate::path::Route;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Method, Uri};
use objects::{Status, Timestamp};
use registry::{Caller, Remarks};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tracing::warn;

/// How much of a request is noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who, what and when.
    Metadata,
    /// The request's object too.
    Request,
    /// The answer's object too.
    RequestResponse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

/// What is noted, as an administrator writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Policy {
    api_version: String,
    kind: String,
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    level: Level,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<Stage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Resources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It is not readable.
    #[error("the audit policy cannot be read: {0}")]
    Malformed(String),
    /// It is of another kind.
    #[error(
        "the audit policy must be of kind Policy in audit.k8s.io/v1, not {kind:?} in {version:?}"
    )]
    Kind {
        /// The `apiVersion` given.
        version: String,
        /// The kind given.
        kind: String,
    },
}

/// The audit log of a server.
pub struct Audit {
    policy: Policy,
    lines: mpsc::Sender<Bytes>,
    lost: AtomicU64,
}

/// What a request is about, for rules and events.
#[derive(Clone, Debug, Default)]
struct Subject {
    verb: String,
    path: String,
    /// Group, version, resource, subresource, namespace, name; None for a path.
    object: Option<ObjectRef>,
}

#[derive(Clone, Debug, Default)]
struct ObjectRef {
    group: String,
    version: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

/// What is noted of one request on its way.
#[derive(Clone, Default)]
pub struct Note(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    level: Level,
    omitted: Vec<Stage>,
    /// What every event of the request says.
    common: Value,
    object: Option<Value>,
    /// What admission says of it, as it goes on.
    remarks: Remarks,
}

impl Note {
    /// Keeps the request's object, if it is to be noted.
    pub fn object(&self, object: &Value) {
        let mut noted = self.lock();
        if noted.level >= Level::Request {
            noted.object = Some(object.clone());
        }
    }

    /// Keeps what admission will say of the request.
    pub fn remarks(&self, remarks: &Remarks) {
        self.lock().remarks = remarks.clone();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request as it came.
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its address.
    pub uri: &'a Uri,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its id.
    pub id: &'a str,
    /// From where.
    pub peer: &'a Peer,
}

impl Audit {
    /// A log by this policy (YAML or JSON); each line goes into `lines`, whose bound is the queue's.
    pub fn new(policy: &str, lines: mpsc::Sender<Bytes>) -> Result<Self, AuditError> {
        let policy: Policy = serde_saphyr::from_str(policy)
            .map_err(|error| AuditError::Malformed(error.to_string()))?;
        if policy.api_version != "audit.k8s.io/v1" || policy.kind != "Policy" {
            return Err(AuditError::Kind {
                version: policy.api_version,
                kind: policy.kind,
            });
        }
        Ok(Audit {
            policy,
            lines,
            lost: AtomicU64::new(0),
        })
    }

    /// A request is known: its level is decided, and that it came is noted.
    pub fn received(
        &self,
        note: &Note,
        asked: &Asked<'_>,
        route: &Route,
        identified: &Identified,
        now: Timestamp,
    ) {
        let subject = subject(asked, route);
        let rule = self
            .policy
            .rules
            .iter()
            .find(|rule| rule.fits(&subject, &identified.user));
        let Some(rule) = rule.filter(|rule| rule.level > Level::None) else {
            return;
        };
        let mut noted = note.lock();
        noted.level = rule.level;
        noted.omitted = [&self.policy.omit_stages[..], &rule.omit_stages].concat();
        noted.common = common(asked, &subject, identified, rule.level, now);
        self.tell(
            &noted,
            Stage::RequestReceived,
            json!({"stageTimestamp": now.to_micro_time()}),
        );
    }

    /// A request was answered.
    pub fn answered(&self, note: &Note, answer: &Result<&Answer, &Status>, now: Timestamp) {
        let noted = note.lock();
        if noted.level == Level::None {
            return;
        }
        let mut more = json!({"stageTimestamp": now.to_micro_time()});
        if let Some(object) = &noted.object {
            more["requestObject"] = object.clone();
        }
        let mut annotations = noted.remarks.annotations();
        let mut stage = Stage::ResponseComplete;
        match answer {
            Ok(answer) => {
                more["responseStatus"] = json!({"metadata": {}, "code": answer.code.as_u16()});
                match &answer.content {
                    Content::Stream(_) => stage = Stage::ResponseStarted,
                    Content::Whole(body) if noted.level == Level::RequestResponse => {
                        let json = answer.headers.get(CONTENT_TYPE);
                        let json = json.and_then(|it| it.to_str().ok());
                        if json.is_some_and(|it| it.starts_with("application/json"))
                            && let Ok(object) = serde_json::from_slice::<Value>(body)
                        {
                            more["responseObject"] = object;
                        }
                    }
                    Content::Whole(_) => {}
                }
            }
            Err(status) => {
                more["responseStatus"] = json!(status);
                // Admission is asked of nothing that is forbidden: what it noted it refused itself.
                if status.code == 403 && annotations.is_empty() {
                    let decision = "authorization.k8s.io/decision".to_owned();
                    annotations.insert(decision, "forbid".to_owned());
                }
            }
        }
        if !annotations.is_empty() {
            more["annotations"] = json!(annotations);
        }
        self.tell(&noted, stage, more);
    }

    /// Answering a request broke.
    pub fn panicked(&self, note: &Note, now: Timestamp) {
        let noted = note.lock();
        if noted.level > Level::None {
            self.tell(
                &noted,
                Stage::Panic,
                json!({"stageTimestamp": now.to_micro_time()}),
            );
        }
    }

    fn tell(&self, noted: &Noted, stage: Stage, more: Value) {
        if noted.omitted.contains(&stage) {
            return;
        }
        let mut event = noted.common.clone();
        event["stage"] = json!(format!("{stage:?}"));
        if let (Value::Object(event), Value::Object(more)) = (&mut event, more) {
            event.extend(more);
        }
        let line = Bytes::from(format!("{event}\n"));
        if self.lines.try_send(line).is_err() {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
            // The first, and then ever fewer.
            if lost.is_power_of_two() {
                warn!(lost, "the audit log cannot keep up: events are lost");
            }
        }
    }
}

impl Rule {
    fn fits(&self, subject: &Subject, caller: &Caller) -> bool {
        let any = |list: &[String], word: &str| list.is_empty() || list.iter().any(|it| it == word);
        if !any(&self.users, &caller.user) || !any(&self.verbs, &subject.verb) {
            return false;
        }
        let in_group = |group: &String| caller.groups.contains(group);
        if !self.user_groups.is_empty() && !self.user_groups.iter().any(in_group) {
            return false;
        }
        match &subject.object {
            _ if self.resources.is_empty()
                && self.namespaces.is_empty()
                && self.non_resource_urls.is_empty() =>
            {
                true
            }
            Some(object) => {
                self.non_resource_urls.is_empty()
                    && any(&self.namespaces, &object.namespace)
                    && (self.resources.is_empty()
                        || self.resources.iter().any(|it| it.names(object)))
            }
            None => self
                .non_resource_urls
                .iter()
                .any(|url| match url.strip_suffix('*') {
                    Some(prefix) => subject.path.starts_with(prefix),
                    None => *url == subject.path,
                }),
        }
    }
}

impl Resources {
    fn names(&self, object: &ObjectRef) -> bool {
        if self.group != object.group {
            return false;
        }
        if !self.resource_names.is_empty() && !self.resource_names.contains(&object.name) {
            return false;
        }
        let combined = match &*object.subresource {
            "" => object.resource.clone(),
            subresource => format!("{}/{subresource}", object.resource),
        };
        let fits = |wanted: &String| {
            *wanted == combined
                || wanted == "*"
                || wanted
                    .strip_prefix("*/")
                    .is_some_and(|subresource| subresource == object.subresource)
                || wanted.strip_suffix("/*") == Some(&*object.resource)
        };
        self.resources.is_empty() || self.resources.iter().any(fits)
    }
}

fn subject(asked: &Asked<'_>, route: &Route) -> Subject {
    let path = asked.uri.path().to_owned();
    let Route::Resource(resource) = route else {
        return Subject {
            verb: asked.method.as_str().to_ascii_lowercase(),
            path,
            object: None,
        };
    };
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    Subject {
        verb: resource.verb.as_str().to_owned(),
        path,
        object: Some(ObjectRef {
            group: resource.group.clone(),
            version: resource.version.clone(),
            resource: resource.resource.clone(),
            subresource: text(&resource.subresource),
            namespace: text(&resource.namespace),
            name: text(&resource.name),
        }),
    }
}

fn common(
    asked: &Asked<'_>,
    subject: &Subject,
    identified: &Identified,
    level: Level,
    now: Timestamp,
) -> Value {
    let mut event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": format!("{level:?}"), "auditID": asked.id,
        "requestURI": asked.uri.path_and_query().map_or(subject.path.as_str(), |it| it.as_str()),
        "verb": subject.verb, "user": user(&identified.user),
        "sourceIPs": [asked.peer.address.ip().to_string()],
        "requestReceivedTimestamp": now.to_micro_time(),
    });
    if let Some(acting) = &identified.acting {
        event["impersonatedUser"] = user(acting);
    }
    let agent = asked.headers.get(USER_AGENT);
    if let Some(agent) = agent.and_then(|agent| agent.to_str().ok()) {
        event["userAgent"] = json!(agent);
    }
    if let Some(object) = &subject.object {
        let parts = [
            ("resource", &object.resource),
            ("namespace", &object.namespace),
            ("name", &object.name),
            ("apiGroup", &object.group),
            ("apiVersion", &object.version),
            ("subresource", &object.subresource),
        ];
        let told = parts.into_iter().filter(|(_, text)| !text.is_empty());
        event["objectRef"] = told
            .map(|(name, text)| (name.to_owned(), json!(text)))
            .collect();
    }
    event
}

fn user(caller: &Caller) -> Value {
    let mut user = json!({"username": caller.user, "groups": caller.groups});
    if !caller.uid.is_empty() {
        user["uid"] = json!(caller.uid);
    }
    if !caller.extra.is_empty() {
        user["extra"] = json!(caller.extra);
    }
    user
}
