//! What checks ask with: the API, a namespace of their own, and words for what is wrong.

use bytes::Bytes;
use client::{Client, Deadline, Error, PatchKind, Payload, WatchEvent, WatchKind, WatchStream};
use futures::StreamExt;
use http::Method;
use objects::Status;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const CALL_DEADLINE: Deadline = Deadline(Duration::from_secs(30));
const POLL: Duration = Duration::from_millis(150);
/// What controllers have to do is done within this time.
pub const SOON: Duration = Duration::from_secs(30);
/// An event comes within this time.
const EVENT_MAX: Duration = Duration::from_secs(20);
/// Of an object in a message.
const SHOWN_MAX: usize = 600;

/// Why a check did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The cluster serves nothing of the kind.
    NotSupported(String),
    /// The cluster behaves otherwise.
    Wrong(String),
    /// The cluster had no time or no leader to answer: nothing is known of the behaviour.
    Unavailable(String),
}

/// What checks give on the way.
pub type Asked<T> = Result<T, Failure>;

/// The failure of a behaviour.
pub fn wrong<T>(why: impl Into<String>) -> Asked<T> {
    Err(Failure::Wrong(why.into()))
}

/// Fails with the message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return $crate::context::wrong(format!($($message)+));
        }
    };
}
pub(crate) use ensure;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match &error {
            Error::Api(status) if is_unknown_path(status) => {
                Failure::NotSupported("the cluster does not serve the resource".to_owned())
            }
            Error::Api(status) if matches!(status.code, 429 | 503 | 504) => {
                Failure::Unavailable(error.to_string())
            }
            Error::Unreachable { .. } | Error::Interrupted { .. } => {
                Failure::Unavailable(error.to_string())
            }
            _ => Failure::Wrong(error.to_string()),
        }
    }
}

/// Kubernetes' answer where no resource of the path is served; one that names an object has details.
fn is_unknown_path(status: &Status) -> bool {
    let texts = [
        "could not find the requested resource",
        "404 page not found",
    ];
    status.code == 404 && texts.iter().any(|text| status.message.contains(text))
}

/// A check's means.
pub struct Context {
    client: Client,
    namespace: RefCell<Option<String>>,
    /// Paths of cluster-wide objects to delete at the end, the newest first.
    made: RefCell<Vec<String>>,
}

impl Context {
    pub(crate) fn new(client: Client) -> Self {
        Context {
            client,
            namespace: RefCell::new(None),
            made: RefCell::new(Vec::new()),
        }
    }

    /// The client itself.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A name that no other check has.
    pub fn unique(&self, what: &str) -> String {
        format!("{what}-{:08x}", rand::random::<u32>())
    }

    /// The check's own namespace; it is made at the first call and deleted at the end.
    pub async fn namespace(&self) -> Asked<String> {
        if let Some(name) = self.namespace.borrow().clone() {
            return Ok(name);
        }
        let name = self.unique("conformance");
        let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}});
        self.create("/api/v1/namespaces", &namespace).await?;
        self.made
            .borrow_mut()
            .push(format!("/api/v1/namespaces/{name}"));
        *self.namespace.borrow_mut() = Some(name.clone());
        Ok(name)
    }

    /// The path of a collection in the check's own namespace: `of("apps/v1", "deployments")`.
    pub async fn of(&self, group_version: &str, plural: &str) -> Asked<String> {
        let namespace = self.namespace().await?;
        Ok(format!(
            "{}/namespaces/{namespace}/{plural}",
            root(group_version)
        ))
    }

    /// Remembers a cluster-wide object, to delete it at the end.
    pub fn clean_up(&self, path: String) {
        self.made.borrow_mut().push(path);
    }

    pub(crate) async fn clean(&self) {
        let made = std::mem::take(&mut *self.made.borrow_mut());
        for path in made.iter().rev() {
            // It may be gone already; what cannot be deleted is named after the check, and stays.
            let _ = self.client.delete(path, &json!({})).await;
        }
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Asked<Value> {
        Ok(self.client.get(path).await?)
    }

    /// `POST`.
    pub async fn create(&self, path: &str, object: &Value) -> Asked<Value> {
        Ok(self.client.post(path, object).await?)
    }

    /// `PUT`.
    pub async fn replace(&self, path: &str, object: &Value) -> Asked<Value> {
        Ok(self.client.put(path, object).await?)
    }

    /// `PATCH` by RFC 7386.
    pub async fn merge(&self, path: &str, patch: &Value) -> Asked<Value> {
        Ok(self.client.patch(path, PatchKind::Merge, patch).await?)
    }

    /// `PATCH` by Kubernetes' strategy.
    pub async fn strategic(&self, path: &str, patch: &Value) -> Asked<Value> {
        Ok(self.client.patch(path, PatchKind::Strategic, patch).await?)
    }

    /// `PATCH` by RFC 6902.
    pub async fn json_patch(&self, path: &str, patch: &Value) -> Asked<Value> {
        Ok(self.client.patch(path, PatchKind::Json, patch).await?)
    }

    /// Server-side apply.
    pub async fn apply(
        &self,
        path: &str,
        manager: &str,
        force: bool,
        object: &Value,
    ) -> Asked<Value> {
        let path = format!("{path}?fieldManager={manager}&force={force}");
        let body = Bytes::from(object.to_string());
        self.call(Method::PATCH, &path, "application/apply-patch+yaml", body)
            .await
    }

    /// Any request with a body of any type.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Asked<Value> {
        let payload = if body.is_empty() {
            Payload::Empty
        } else {
            Payload::Bytes(content_type, body)
        };
        Ok(self
            .client
            .call(method, path, payload, CALL_DEADLINE)
            .await?)
    }

    /// `GET` of another representation.
    pub async fn get_as(&self, path: &str, accept: &'static str) -> Asked<Value> {
        Ok(self.client.get_accepting(path, accept).await?)
    }

    /// `GET` of a text.
    pub async fn text(&self, path: &str) -> Asked<String> {
        use http_body_util::BodyExt;
        let body = self
            .client
            .open(Method::GET, path, Payload::Empty, CALL_DEADLINE)
            .await?;
        match timeout(CALL_DEADLINE.0, body.collect()).await {
            Ok(Ok(body)) => Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned()),
            Ok(Err(error)) => wrong(format!("GET {path} broke off: {error}")),
            Err(_) => wrong(format!("GET {path} does not end")),
        }
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Asked<Value> {
        self.delete_with(path, &json!({})).await
    }

    /// `DELETE` with options.
    pub async fn delete_with(&self, path: &str, options: &Value) -> Asked<Value> {
        Ok(self.client.delete(path, options).await?)
    }

    /// Whether there is nothing at a path.
    pub async fn is_gone(&self, path: &str) -> Asked<bool> {
        match self.client.get::<Value>(path).await {
            Ok(_) => Ok(false),
            Err(error) if error.is_code(404) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until there is nothing at a path.
    pub async fn wait_gone(&self, path: &str) -> Asked<()> {
        let question = async || Ok(self.is_gone(path).await?.then_some(()));
        self.until(&format!("the end of {path}"), SOON, question)
            .await
    }

    /// Waits until an object is as wanted.
    pub async fn wait(
        &self,
        what: &str,
        path: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Asked<Value> {
        let seen = RefCell::new(Value::Null);
        let question = async || {
            let object = self.get(path).await?;
            let found = wanted(&object).then(|| object.clone());
            *seen.borrow_mut() = object;
            Ok(found)
        };
        match self.until(what, SOON, question).await {
            Err(Failure::Wrong(why)) => {
                wrong(format!("{why}; last seen {}", shown(&seen.borrow())))
            }
            asked => asked,
        }
    }

    /// Asks until there is an answer.
    pub async fn until<T>(
        &self,
        what: &str,
        within: Duration,
        mut question: impl AsyncFnMut() -> Asked<Option<T>>,
    ) -> Asked<T> {
        let end = Instant::now() + within;
        loop {
            if let Some(answer) = question().await? {
                return Ok(answer);
            }
            if Instant::now() > end {
                return wrong(format!("{what}: not within {} s", within.as_secs()));
            }
            sleep(POLL).await;
        }
    }

    /// Watches; the path carries the query, without `watch=true`.
    pub async fn watch(&self, path: &str) -> Asked<Events> {
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{joint}watch=true");
        let stream = self.client.watch(&path).await?;
        Ok(Events { stream, path })
    }

    /// The items of a list.
    pub async fn items(&self, path: &str) -> Asked<Vec<Value>> {
        Ok(items(&self.get(path).await?))
    }

    /// Whether the cluster serves a resource, by discovery.
    pub async fn serves(&self, group_version: &str, plural: &str) -> Asked<bool> {
        let list = match self.client.get::<Value>(&root(group_version)).await {
            Ok(list) => list,
            Err(error) if error.is_code(404) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let resources = list["resources"].as_array().into_iter().flatten();
        Ok(resources.clone().any(|it| it["name"] == plural))
    }

    /// Not supported unless the resource is served.
    pub async fn need(&self, group_version: &str, plural: &str) -> Asked<()> {
        if self.serves(group_version, plural).await? {
            return Ok(());
        }
        Err(Failure::NotSupported(format!(
            "{plural} of {group_version} are not served"
        )))
    }
}

/// `/api/v1`, `/apis/apps/v1`.
pub fn root(group_version: &str) -> String {
    match group_version.contains('/') {
        true => format!("/apis/{group_version}"),
        false => format!("/api/{group_version}"),
    }
}

/// The items of a list.
pub fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().cloned().unwrap_or_default()
}

/// A text of an object; empty where it has none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// An object's name.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// An object's resource version.
pub fn version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

/// An object as a message shows it.
pub fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > SHOWN_MAX {
        let cut = (0..=SHOWN_MAX).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(cut.unwrap_or_default());
        text.push('…');
    }
    text
}

/// The API's refusal with this code; anything else is a failure of the behaviour.
pub fn refused(what: &str, asked: Result<Value, Error>, code: u16) -> Asked<Status> {
    match asked {
        Err(Error::Api(status)) if status.code == code => Ok(*status),
        Err(error) => match Failure::from(error) {
            Failure::Wrong(why) => wrong(format!("{what}: {code} is wanted, not: {why}")),
            other => Err(other),
        },
        Ok(object) => wrong(format!(
            "{what}: a refusal by {code} is wanted, but the answer is {}",
            shown(&object)
        )),
    }
}

/// A running watch.
pub struct Events {
    stream: WatchStream,
    path: String,
}

impl Events {
    /// The next event but bookmarks.
    pub async fn next(&mut self) -> Asked<WatchEvent> {
        loop {
            match timeout(EVENT_MAX, self.stream.next()).await {
                Ok(Some(Ok(event))) if event.kind == WatchKind::Bookmark => continue,
                Ok(Some(event)) => return Ok(event?),
                Ok(None) => return wrong(format!("the watch {} ended", self.path)),
                Err(_) => {
                    return wrong(format!(
                        "the watch {} told nothing for {} s",
                        self.path,
                        EVENT_MAX.as_secs()
                    ));
                }
            }
        }
    }

    /// The next event, which must be of this kind and about this object.
    pub async fn expect(&mut self, kind: WatchKind, object: &str) -> Asked<Value> {
        let event = self.next().await?;
        ensure!(
            event.kind == kind && name(&event.object) == object,
            "{kind:?} of {object} is wanted, the watch {} told {:?} of {}",
            self.path,
            event.kind,
            shown(&event.object)
        );
        Ok(event.object)
    }

    /// Waits for an event of this kind about this object, whatever comes before it.
    pub async fn wait(&mut self, kind: WatchKind, object: &str) -> Asked<Value> {
        loop {
            let event = self.next().await?;
            if event.kind == kind && name(&event.object) == object {
                return Ok(event.object);
            }
        }
    }

    /// Nothing comes within a second.
    pub async fn silent(&mut self) -> Asked<()> {
        match timeout(Duration::from_secs(1), self.next()).await {
            Err(_) => Ok(()),
            Ok(event) => {
                let event = event?;
                wrong(format!(
                    "nothing more is wanted, the watch told {:?} of {}",
                    event.kind,
                    shown(&event.object)
                ))
            }
        }
    }
}
