//! An upgraded connection passed through: the client's upgrade is asked of the node, then bytes are copied both ways.
//!
//! Bounds: a tunnel over which nothing passes for [`IDLE_MAX`] is cut, as the kubelet cuts its streams; once one side has
//! closed, the other has [`LINGER_MAX`] of silence to say the rest.

use super::backend::Backend;
use super::dial::{self, NodeAddress};
use crate::answer::{Answer, Content};
use crate::body::Upload;
use crate::flow::Place;
use crate::tls::NodeClientTls;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use objects::Status;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio_util::sync::CancellationToken;
use tracing::debug;

const IDLE_MAX: Duration = Duration::from_hours(4);
const LINGER_MAX: Duration = Duration::from_secs(30);
const UPGRADE_DEADLINE: Duration = Duration::from_secs(30);
const REFUSAL_BYTES_MAX: usize = 64 * 1024;
const BUFFER_BYTES: usize = 32 * 1024;

/// Asks `node` for the same upgrade at `uri` and joins both connections; any answer but 101 becomes the client's answer.
pub async fn open(
    node: &NodeAddress,
    tls: &NodeClientTls,
    uri: &str,
    mut request: Request<Upload>,
    place: Place,
    cut: CancellationToken,
) -> Result<Answer, Status> {
    if !request.headers().contains_key(UPGRADE) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let to_node = upgrade_request(node, uri, request.method(), request.headers())?;
    let mut sender = node.connect(tls).await?;
    let mut response = node.send(&mut sender, to_node).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(dial::refusal(response).await);
    }
    let headers = upgrade_headers(response.headers());
    let client = hyper::upgrade::on(&mut request);
    let node = hyper::upgrade::on(&mut response);
    tokio::spawn(join_until(client, node, place, cut));
    Ok(switching(headers))
}

/// Passes a request for an upgrade on as it is; any answer but 101 becomes the client's answer.
pub async fn pass(
    mut sender: SendRequest<Empty<Bytes>>,
    backend: &Backend,
    mut request: Request<Upload>,
    place: Place,
    cut: CancellationToken,
) -> Result<Answer, Status> {
    let client = hyper::upgrade::on(&mut request);
    let (mut parts, _) = request.into_parts();
    // An upgrade has no body; what the client says of one would make the backend wait for it.
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(TRANSFER_ENCODING);
    let asked = sender.send_request(Request::from_parts(parts, Empty::new()));
    let mut response = match tokio::time::timeout(UPGRADE_DEADLINE, asked).await {
        Ok(answered) => answered.map_err(|error| backend.unreachable(error))?,
        Err(_) => return Err(backend.unreachable("no answer to the upgrade in 30 s")),
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(refused(response).await);
    }
    let node = hyper::upgrade::on(&mut response);
    let headers = response.headers().clone();
    tokio::spawn(join_until(client, node, place, cut));
    Ok(switching(headers))
}

fn switching(headers: HeaderMap) -> Answer {
    Answer {
        code: StatusCode::SWITCHING_PROTOCOLS,
        headers,
        content: Content::Whole(Bytes::new()),
        turn: None,
    }
}

/// A backend's refusal of an upgrade; what is longer than a page is cut.
async fn refused(response: Response<Incoming>) -> Answer {
    let (mut parts, body) = response.into_parts();
    let body = Limited::new(body, REFUSAL_BYTES_MAX).collect();
    let body = match tokio::time::timeout(LINGER_MAX, body).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        _ => Bytes::new(),
    };
    super::remove_hop_headers(&mut parts.headers);
    parts.headers.remove(CONTENT_LENGTH);
    Answer {
        code: parts.status,
        headers: parts.headers,
        content: Content::Whole(body),
        turn: None,
    }
}

async fn join_until(client: OnUpgrade, node: OnUpgrade, place: Place, cut: CancellationToken) {
    match tokio::try_join!(client, node) {
        Ok((client, node)) => tokio::select! {
            () = join(client, node) => (),
            () = cut.cancelled() => (),
        },
        Err(error) => debug!(%error, "an upgrade was not completed"),
    }
    drop(place);
}

fn upgrade_request(
    node: &NodeAddress,
    uri: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Request<Empty<Bytes>>, Status> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri.parse().map_err(Status::internal)?;
    *request.headers_mut() = upgrade_headers(headers);
    request.headers_mut().insert(HOST, node.host_header()?);
    Ok(request)
}

/// Of a message that upgrades, what the upgrade is about.
fn upgrade_headers(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    kept.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let about = |name: &str| {
        name == "upgrade" || name.starts_with("sec-websocket-") || name.starts_with("x-stream-")
    };
    for (name, value) in headers.iter().filter(|(name, _)| about(name.as_str())) {
        kept.append(name, value.clone());
    }
    kept
}

/// Copies both ways until both sides have closed, one has failed, or nothing passes any more.
async fn join(client: Upgraded, node: Upgraded) {
    let activity = Activity::new();
    let (client_read, client_write) = split(TokioIo::new(client));
    let (node_read, node_write) = split(TokioIo::new(node));
    let up = copy(client_read, node_write, &activity);
    let down = copy(node_read, client_write, &activity);
    let outcome = tokio::select! {
        outcome = async { tokio::try_join!(up, down).map(|_| ()) } => outcome,
        () = activity.silence() => Err(std::io::ErrorKind::TimedOut.into()),
    };
    if let Err(error) = outcome {
        debug!(%error, "a tunnel ended");
    }
}

/// Copies to the end of `from`, then closes `to`.
async fn copy<S: AsyncRead + AsyncWrite>(
    mut from: ReadHalf<S>,
    mut to: WriteHalf<S>,
    activity: &Activity,
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            activity.closed();
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
        activity.seen();
    }
}

/// When something last passed, and whether a side has closed.
struct Activity(Mutex<(Instant, bool)>);

impl Activity {
    fn new() -> Self {
        Activity(Mutex::new((Instant::now(), false)))
    }

    fn seen(&self) {
        self.lock().0 = Instant::now();
    }

    fn closed(&self) {
        *self.lock() = (Instant::now(), true);
    }

    /// Returns when the tunnel has been silent for too long.
    async fn silence(&self) {
        loop {
            let (since, closed) = *self.lock();
            let bound = if closed { LINGER_MAX } else { IDLE_MAX };
            let left = bound.saturating_sub(since.elapsed());
            if left.is_zero() {
                return;
            }
            // A side may close meanwhile, which shortens the bound.
            tokio::time::sleep(left.min(LINGER_MAX)).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Instant, bool)> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_upgrade_is_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("x-stream-protocol-version", "v3.channel.k8s.io"),
            ("sec-websocket-key", "abc"),
            ("authorization", "Bearer secret"),
            ("cookie", "x"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let kept = upgrade_headers(&headers);
        assert_eq!(kept.len(), 5);
        assert_eq!(kept.get_all("x-stream-protocol-version").iter().count(), 2);
        assert!(!kept.contains_key("authorization"));
    }
}
