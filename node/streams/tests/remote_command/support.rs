//! A server with one pod whose container is this machine: what `kubectl exec` asks for, over plain HTTP, with the command
//! run as a local process. And kubectl itself, in every version that is installed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::{Output as Finished, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kubectls::Kubectl;
use streams::{Outcome, Output, Rejected, RemoteCommand, Size, Wants};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// From this minor version on, exec speaks WebSocket unless told otherwise.
const WEBSOCKET_SINCE: u32 = 30;

/// What the server saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Upgrade(String),
    Resize(Size),
    Gone,
    Finished(Result<(), streams::Gone>),
}

/// A running server; it ends with the test's runtime.
pub struct Server {
    address: SocketAddr,
    pub seen: mpsc::UnboundedReceiver<Seen>,
    home: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (seen_by, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let seen_by = seen_by.clone();
                let service = hyper::service::service_fn(move |request| {
                    let answer = answer(request, seen_by.clone());
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .with_upgrades(),
                );
            }
        });
        let home = tempfile::tempdir().expect("a folder for kubectl's cache");
        Self {
            address,
            seen,
            home,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// kubectl's command line up to its own arguments.
    pub fn kubectl(&self, kubectl: &Kubectl, arguments: &[&str]) -> Command {
        let mut command = Command::new(&kubectl.program);
        command
            .args(["--server", &format!("http://{}", self.address)])
            .args(arguments)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", "/dev/null")
            .kill_on_drop(true);
        command
    }

    /// Runs kubectl to its end with this input.
    pub async fn run(&self, kubectl: &Kubectl, arguments: &[&str], input: &[u8]) -> Finished {
        let mut child = self
            .kubectl(kubectl, arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        tokio::spawn(async move {
            // A command that does not read its input may be gone by now.
            let _ = stdin.write_all(&input).await;
        });
        timeout(Duration::from_secs(60), child.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("{} {arguments:?} hangs", kubectl.program.display()))
            .expect("kubectl runs")
    }

    /// The next thing that the server saw.
    pub async fn next_seen(&mut self) -> Seen {
        timeout(Duration::from_secs(10), self.seen.recv())
            .await
            .expect("the server sees something")
            .expect("the server runs")
    }
}

/// Whether this kubectl's exec speaks WebSocket by itself; older ones speak SPDY.
pub fn speaks_websocket(kubectl: &Kubectl) -> bool {
    kubectl.minor >= WEBSOCKET_SINCE
}

/// For what takes long: the newest kubectl of each protocol.
pub fn one_of_each_protocol() -> Vec<Kubectl> {
    let (websocket, spdy): (Vec<_>, Vec<_>) =
        kubectls::all().into_iter().partition(speaks_websocket);
    [spdy, websocket]
        .into_iter()
        .filter_map(|mut of| of.pop())
        .collect()
}

type Body = BoxBody<Bytes, Infallible>;

fn answer(request: Request<Incoming>, seen: mpsc::UnboundedSender<Seen>) -> Response<Body> {
    match request.uri().path() {
        "/api" => json(
            StatusCode::OK,
            r#"{"kind":"APIVersions","versions":["v1"]}"#,
        ),
        "/apis" => json(
            StatusCode::OK,
            r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[]}"#,
        ),
        "/api/v1" => json(StatusCode::OK, RESOURCES),
        "/api/v1/namespaces/default/pods/p1" => json(StatusCode::OK, POD),
        "/api/v1/namespaces/default/pods/p1/exec" => exec(request, seen),
        _ => json(
            StatusCode::NOT_FOUND,
            r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}"#,
        ),
    }
}

const RESOURCES: &str = r#"{"kind":"APIResourceList","groupVersion":"v1","resources":
    [{"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["get"]}]}"#;

const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p1","namespace":"default"},
    "spec":{"containers":[{"name":"main","image":"i"}]},"status":{"phase":"Running"}}"#;

fn json(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes())).boxed();
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(body)
        .expect("a right response")
}

fn exec(mut request: Request<Incoming>, seen: mpsc::UnboundedSender<Seen>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let pairs: Vec<(String, String)> = query.split('&').filter_map(pair).collect();
    let is = |name: &str| {
        pairs
            .iter()
            .any(|(key, value)| key == name && value == "true")
    };
    let wants = Wants {
        stdin: is("stdin"),
        stdout: is("stdout"),
        stderr: is("stderr"),
        tty: is("tty"),
    };
    let upgrade = request.headers().get("upgrade").cloned();
    match streams::accept(&mut request, wants) {
        Err(Rejected { status, message }) => json(
            status,
            &format!(
                r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":{message:?},"code":{}}}"#,
                status.as_u16()
            ),
        ),
        Ok((response, opening)) => {
            let upgrade = upgrade.map(|value| value.to_str().unwrap_or("?").to_owned());
            let _ = seen.send(Seen::Upgrade(upgrade.unwrap_or_default()));
            let words: Vec<String> = pairs
                .into_iter()
                .filter(|(key, _)| key == "command")
                .map(|(_, value)| value)
                .collect();
            tokio::spawn(async move {
                let command = opening.await.expect("the client opens its streams");
                run(command, words, seen).await;
            });
            response.map(BodyExt::boxed)
        }
    }
}

fn pair(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    let value = value.replace('+', " ");
    let value = percent_encoding::percent_decode_str(&value).decode_utf8_lossy();
    Some((key.to_owned(), value.into_owned()))
}

/// Runs the words as a process between the client's streams; `abandon` is an owner that gives the command up.
async fn run(mut remote: RemoteCommand, words: Vec<String>, seen: mpsc::UnboundedSender<Seen>) {
    if words == ["abandon"] {
        return;
    }
    let spawned = Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let message = format!("cannot run {:?}: {error}", words[0]);
            let finished = remote.finish(Outcome::Failed(message)).await;
            let _ = seen.send(Seen::Finished(finished));
            return;
        }
    };
    let stdin = child.stdin.take().expect("piped");
    tokio::spawn(copy_input(remote.stdin.take(), stdin));
    if let Some(mut resize) = remote.resize.take() {
        let seen = seen.clone();
        tokio::spawn(async move {
            while let Some(size) = resize.next().await {
                let _ = seen.send(Seen::Resize(size));
            }
        });
    }
    let outputs = futures::future::join(
        copy_output(child.stdout.take().expect("piped"), remote.stdout.take()),
        copy_output(child.stderr.take().expect("piped"), remote.stderr.take()),
    );
    let gone = remote.gone();
    let ended = async {
        outputs.await;
        child.wait().await.expect("a child can be waited for")
    };
    tokio::select! {
        () = gone => { let _ = seen.send(Seen::Gone); }
        status = ended => {
            let finished = remote.finish(Outcome::Exited(status.code().unwrap_or(137))).await;
            let _ = seen.send(Seen::Finished(finished));
        }
    }
}

async fn copy_input(from: Option<mpsc::Receiver<Bytes>>, mut to: ChildStdin) {
    let Some(mut from) = from else { return };
    while let Some(bytes) = from.recv().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn copy_output(mut from: impl AsyncRead + Unpin, to: Option<Output>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if let Some(to) = &to
                    && to
                        .send(Bytes::copy_from_slice(&buffer[..count]))
                        .await
                        .is_err()
                {
                    return;
                }
            }
        }
    }
}

/// Bytes without a pattern that a shifted copy could match, the same each time.
pub fn noise(length: usize) -> Arc<[u8]> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(length)
    .collect()
}
