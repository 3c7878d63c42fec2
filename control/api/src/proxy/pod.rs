//! Logs and streams of a pod: which container is meant, on which node it is, and what the kubelet calls it.
//!
//! Texts and the choice of the container: apiserver's pod strategy (`LogLocation`, `streamLocation`).

use super::dial;
use super::tunnel;
use crate::ApiServer;
use crate::answer::{Answer, Body, BodyError};
use crate::body::Upload;
use crate::flow::Place;
use crate::query::{Query, encode_component};
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, BodyStream, Empty, StreamBody};
use hyper::body::Incoming;
use objects::Status;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a log that is not followed may be silent.
const LOG_IDLE_MAX: Duration = Duration::from_secs(60);

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// `GET pods/NAME/log`
pub async fn log(
    server: &ApiServer,
    namespace: &str,
    name: &str,
    query: &Query,
    place: Place,
) -> Result<Answer, Status> {
    let pod = PodView::read(server, namespace, name).await?;
    let container = pod.container(query.text("container"))?;
    let Some(node) = pod.node() else {
        return Ok(Answer::text(StatusCode::OK, Bytes::new())); // Not placed: nothing has been said yet.
    };
    let node = server.node_address(node).await?;
    let options = query
        .filtered(|name| name != "container" && name != "pretty")
        .encode();
    let path = kubelet_path("containerLogs", namespace, name, Some(container), &options);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = path.parse().map_err(Status::internal)?;
    request
        .headers_mut()
        .insert(http::header::HOST, node.host_header()?);
    let mut sender = node.connect(server.node_tls()).await?;
    let response = node.send(&mut sender, request).await?;
    if response.status() != StatusCode::OK {
        return Err(dial::refusal(response).await);
    }
    let idle_max = (!query.flag("follow")).then_some(LOG_IDLE_MAX);
    let body = bounded(response.into_body(), idle_max, server, place);
    Ok(Answer::stream("text/plain", body))
}

/// `exec`, `attach` and `portforward`, which are `verb`.
pub async fn stream(
    server: &ApiServer,
    namespace: &str,
    name: &str,
    verb: &str,
    query: &Query,
    request: Request<Upload>,
    place: Place,
) -> Result<Answer, Status> {
    let pod = PodView::read(server, namespace, name).await?;
    let (endpoint, container) = match verb {
        "portforward" => ("portForward", None),
        verb => (verb, Some(pod.container(query.text("container"))?)),
    };
    let node = pod
        .node()
        .ok_or_else(|| Status::bad_request(format!("pod {name} does not have a host assigned")))?;
    let node = server.node_address(node).await?;
    let options = kubelet_options(query).encode();
    let path = kubelet_path(endpoint, namespace, name, container, &options);
    tunnel::open(
        &node,
        server.node_tls(),
        &path,
        request,
        place,
        server.draining(),
    )
    .await
}

fn kubelet_path(
    endpoint: &str,
    namespace: &str,
    pod: &str,
    container: Option<&str>,
    options: &str,
) -> String {
    let mut path = format!(
        "/{endpoint}/{}/{}",
        encode_component(namespace),
        encode_component(pod)
    );
    if let Some(container) = container {
        path.push('/');
        path.push_str(&encode_component(container));
    }
    if !options.is_empty() {
        path.push('?');
        path.push_str(options);
    }
    path
}

/// The API says stdin, stdout and stderr where the kubelet says input, output and error.
fn kubelet_options(query: &Query) -> Query {
    let mut options = query.filtered(|name| matches!(name, "command" | "port" | "ports"));
    for (ours, theirs) in [
        ("stdin", "input"),
        ("stdout", "output"),
        ("stderr", "error"),
        ("tty", "tty"),
    ] {
        if query.flag(ours) {
            options.push(theirs, "1");
        }
    }
    options
}

/// A node's body as an answer: it ends at shutdown, and breaks off after too long a silence where one is given.
pub(crate) fn bounded(
    body: Incoming,
    idle_max: Option<Duration>,
    server: &ApiServer,
    place: Place,
) -> Body {
    let draining = server.draining();
    let frames = BodyStream::new(body).map(|frame| frame.map_err(BodyError::new));
    let frames = futures::stream::unfold((frames, place), move |(mut frames, place)| async move {
        let next = match idle_max {
            None => frames.next().await,
            Some(bound) => match tokio::time::timeout(bound, frames.next()).await {
                Ok(next) => next,
                Err(_) => Some(Err(BodyError::new("the node stopped sending"))),
            },
        };
        next.map(|frame| (frame, (frames, place)))
    });
    let frames = frames.take_until(async move { draining.cancelled().await });
    StreamBody::new(frames).boxed_unsync()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodView {
    metadata: PodMeta,
    spec: PodSpec,
}

#[derive(Deserialize)]
struct PodMeta {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    #[serde(default)]
    node_name: String,
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default)]
    init_containers: Vec<Container>,
    #[serde(default)]
    ephemeral_containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    name: String,
}

impl PodView {
    async fn read(server: &ApiServer, namespace: &str, name: &str) -> Result<Self, Status> {
        let json = server.read("", "v1", "pods", Some(namespace), name).await?;
        serde_json::from_slice(&json).map_err(Status::internal)
    }

    fn node(&self) -> Option<&str> {
        Some(self.spec.node_name.as_str()).filter(|name| !name.is_empty())
    }

    /// The container that is meant: the named one, the default, or the only one.
    fn container<'a>(&'a self, named: Option<&'a str>) -> Result<&'a str, Status> {
        let pod = &self.metadata.name;
        if let Some(named) = named {
            return if self.has(named) {
                Ok(named)
            } else {
                Err(Status::bad_request(format!(
                    "container {named} is not valid for pod {pod}"
                )))
            };
        }
        let default = self.metadata.annotations.get(DEFAULT_CONTAINER);
        if let Some(default) = default.filter(|default| self.has(default)) {
            return Ok(default);
        }
        if let [only] = &self.spec.containers[..] {
            return Ok(&only.name);
        }
        let mut message = format!(
            "a container name must be specified for pod {pod}, choose one of: {}",
            names(&self.spec.containers)
        );
        if !self.spec.init_containers.is_empty() {
            message.push_str(&format!(
                " or one of the init containers: {}",
                names(&self.spec.init_containers)
            ));
        }
        Err(Status::bad_request(message))
    }

    fn has(&self, name: &str) -> bool {
        let PodSpec {
            containers,
            init_containers,
            ephemeral_containers,
            ..
        } = &self.spec;
        [containers, init_containers, ephemeral_containers]
            .into_iter()
            .flatten()
            .any(|container| container.name == name)
    }
}

/// Names as Go prints a list: `[a b]`.
fn names(containers: &[Container]) -> String {
    let names: Vec<&str> = containers.iter().map(|it| it.name.as_str()).collect();
    format!("[{}]", names.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: &str) -> PodView {
        serde_json::from_str(json).expect("a pod")
    }

    #[test]
    fn the_container_is_chosen_as_in_kubernetes() {
        let one = pod(r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"a"}]}}"#);
        assert_eq!(one.container(None).expect("the only one"), "a");
        assert_eq!(
            one.container(Some("x")).expect_err("unknown").message,
            "container x is not valid for pod p"
        );
        let two = pod(
            r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"a"},{"name":"b"}],"initContainers":[{"name":"i"}]}}"#,
        );
        assert_eq!(two.container(Some("i")).expect("it has it"), "i");
        assert_eq!(
            two.container(None).expect_err("which?").message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        let default = pod(
            r#"{"metadata":{"name":"p","annotations":{"kubectl.kubernetes.io/default-container":"b"}},"spec":{"containers":[{"name":"a"},{"name":"b"}]}}"#,
        );
        assert_eq!(default.container(None).expect("annotated"), "b");
    }

    #[test]
    fn options_are_translated() {
        let query = Query::parse(
            "command=sh&command=-c&container=a&stdin=true&stdout=true&stderr=false&tty=1",
        );
        assert_eq!(
            kubelet_options(&query).encode(),
            "command=sh&command=-c&input=1&output=1&tty=1"
        );
    }
}
