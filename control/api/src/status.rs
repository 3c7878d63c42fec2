//! `GET /cluster/v1/status?watch=true`: the cluster's status, a JSON line whenever it differs from what was told before.
//!
//! The masters tell nobody of their own accord how they are: the server asks them while somebody watches.

use crate::ApiServer;
use crate::answer::{Answer, BodyError};
use crate::body::Upload;
use crate::{cluster, socket};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use objects::Status;
use registry::Caller;
use registry::flow::Class;
use std::time::Duration;

const ASK_EVERY: Duration = Duration::from_secs(2);

/// Answers the watch; it ends when the server drains or cannot tell the status.
pub async fn watch(
    server: &ApiServer,
    caller: &Caller,
    class: &Class,
    request: Request<Upload>,
) -> Result<Answer, Status> {
    let (parts, body) = request.into_parts();
    cluster::authorize(server, caller, &parts, &["status"]).await?;
    let request = Request::from_parts(parts, body);
    let place = server.flow().stream(class)?;
    if socket::is_asked(request.headers()) {
        return socket::answer(request, lines(server), place);
    }
    let frames = lines(server).map(move |line| {
        let _held = &place;
        Ok::<_, BodyError>(Frame::data(line))
    });
    let body = StreamBody::new(frames).boxed_unsync();
    Ok(Answer::stream("application/json", body))
}

fn lines(server: &ApiServer) -> BoxStream<'static, Bytes> {
    let (cluster, draining) = (server.shared_cluster(), server.draining());
    let first = (cluster, draining, Bytes::new());
    let lines = futures::stream::unfold(first, |(cluster, draining, told)| async move {
        loop {
            if !told.is_empty() {
                tokio::select! {
                    () = tokio::time::sleep(ASK_EVERY) => (),
                    () = draining.cancelled() => return None,
                }
            }
            let mut line = serde_json::to_vec(&cluster.status().await.ok()?).ok()?;
            line.push(b'\n');
            if told != line {
                let line = Bytes::from(line);
                return Some((line.clone(), (cluster, draining, line)));
            }
        }
    });
    lines.boxed()
}
