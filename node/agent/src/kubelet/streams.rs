//! `/exec` and `/attach`: a command's streams joined with those of a process in a container.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use node_runtime::{ExecOptions, Output as ProcessOutput, Process};
use streams::{Outcome, RemoteCommand, Wants};

use super::answer::{self, Body};
use super::pods;
use super::query::Query;
use crate::context::Context;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A new process.
    Exec,
    /// The container's first process.
    Attach,
}

/// Whose process.
#[derive(Clone, Debug)]
struct Of {
    uid: String,
    id: String,
    tty: bool,
}

/// Upgrades the connection; the streams go on beside.
pub fn open(
    context: &Arc<Context>,
    kind: Kind,
    namespace: &str,
    pod: &str,
    container: &str,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let query = Query::parse(request.uri().query());
    let Some(status) = pods::find(context, namespace, pod) else {
        return answer::text(
            StatusCode::NOT_FOUND,
            format!("pod {pod:?} does not exist on this node"),
        );
    };
    let Some(found) = pods::running(&status, container) else {
        return answer::text(
            StatusCode::BAD_REQUEST,
            format!("container {container:?} of pod {pod:?} is not running"),
        );
    };
    let tty = if kind == Kind::Exec {
        query.is_set(&["tty"])
    } else {
        found.spec.tty
    };
    let wants = Wants {
        stdin: query.is_set(&["input", "stdin"]),
        stdout: query.is_set(&["output", "stdout"]),
        stderr: query.is_set(&["error", "stderr"]) && !tty,
        tty,
    };
    let of = Of {
        uid: status.spec.uid.clone(),
        id: found.id.clone(),
        tty,
    };
    let (response, opening) = match streams::accept(&mut request, wants) {
        Ok(accepted) => accepted,
        Err(rejected) => return answer::text(rejected.status, rejected.message),
    };
    let (context, command) = (context.clone(), query.all("command"));
    tokio::spawn(async move {
        match opening.await {
            Ok(remote) => drop(run(&context, kind, &of, &command, wants, remote).await),
            Err(error) => tracing::debug!(%error, "a client's streams did not open"),
        }
    });
    response.map(|empty| empty.map_err(|never| match never {}).boxed_unsync())
}

async fn run(
    context: &Context,
    kind: Kind,
    of: &Of,
    command: &[String],
    wants: Wants,
    mut remote: RemoteCommand,
) -> Result<(), streams::Gone> {
    let size = match remote.resize.as_mut().filter(|_| of.tty) {
        // The client sends its size first; a process should begin with it.
        Some(resize) => tokio::time::timeout(std::time::Duration::from_millis(300), resize.next())
            .await
            .ok()
            .flatten(),
        None => None,
    };
    let size = size.map(|size| (size.width, size.height));
    let started = match kind {
        Kind::Exec => {
            let options = ExecOptions {
                tty: of.tty,
                stdin: wants.stdin,
                size,
                ..ExecOptions::default()
            };
            context.pods.exec(&of.uid, &of.id, command, &options).await
        }
        Kind::Attach => context.pods.attach(&of.uid, &of.id, size).await,
    };
    let outcome = match started {
        Ok(process) => {
            let gone = remote.gone();
            tokio::select! {
                outcome = join(process, &mut remote) => outcome,
                // Dropping the process ends what only this client could see.
                () = gone => return Ok(()),
            }
        }
        Err(error) => Outcome::Failed(error.to_string()),
    };
    remote.finish(outcome).await
}

/// Moves bytes until the process ends.
async fn join(mut process: Process, remote: &mut RemoteCommand) -> Outcome {
    let input = process.input.clone();
    let (stdin, resize) = (remote.stdin.take(), remote.resize.take());
    let feeding = tokio::spawn(async move {
        let typed = async {
            let Some(mut stdin) = stdin else { return };
            while let Some(bytes) = stdin.recv().await {
                if input.write(bytes).await.is_err() {
                    return;
                }
            }
            // Ended already, or ends now.
            let _ = input.close().await;
        };
        let resized = async {
            let Some(mut resize) = resize else { return };
            while let Some(size) = resize.next().await {
                if input.resize(size.width, size.height).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(typed, resized);
    });
    let (stdout, stderr) = (remote.stdout.take(), remote.stderr.take());
    while let Some(output) = process.next().await {
        let (stream, bytes): (_, Bytes) = match output {
            ProcessOutput::Stdout(bytes) => (&stdout, bytes),
            ProcessOutput::Stderr(bytes) => (&stderr, bytes),
        };
        if let Some(stream) = stream
            && stream.send(bytes).await.is_err()
        {
            break;
        }
    }
    let outcome = match process.wait().await {
        Ok(code) => Outcome::Exited(code),
        Err(error) => Outcome::Failed(error.to_string()),
    };
    feeding.abort();
    outcome
}
