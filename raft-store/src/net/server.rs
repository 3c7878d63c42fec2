//! What a member answers the others.

use super::wire;
use super::{Answers, Incoming, MESSAGE_BYTES_MAX, PeerIo};
use crate::archive;
use crate::membership;
use crate::runtime;
use crate::state::SnapshotData;
use crate::store::{Forwarded, Inner};
use crate::types::{SnapshotMeta, Vote};
use futures::StreamExt;
use futures::stream::BoxStream;
use rpc::raft as proto;
use rpc::raft::raft_server::{Raft, RaftServer};
use std::fs::File;
use std::io::{BufReader, Write};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tempfile::{NamedTempFile, TempPath};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};
use tower::ServiceExt;

/// A sender of a snapshot may be silent for so long.
const CHUNK_MAX: Duration = Duration::from_secs(30);
/// Calls of one connection that are worked on at once.
const CALLS_A_CONNECTION: u32 = 1024;

/// Serves the connections as long as the member runs.
pub(crate) async fn run(
    inner: Arc<Inner>,
    incoming: Incoming,
    connections: mpsc::Receiver<std::io::Result<PeerIo>>,
) {
    let service = service(&inner, incoming);
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(1)))
        .http2_keepalive_timeout(Some(Duration::from_secs(2)))
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(8 << 20)
        .max_concurrent_streams(CALLS_A_CONNECTION)
        .add_service(service)
        .serve_with_incoming(ReceiverStream::new(connections));
    // The task that serves must not keep the member alive either.
    drop(inner);
    if let Err(err) = server.await {
        tracing::error!(error = %err, "the members' port is served no longer");
    }
}

fn service(
    inner: &Arc<Inner>,
    incoming: Incoming,
) -> InterceptedService<RaftServer<Service>, Incoming> {
    let service = RaftServer::new(Service {
        inner: Arc::downgrade(inner),
    })
    .max_decoding_message_size(MESSAGE_BYTES_MAX)
    .max_encoding_message_size(MESSAGE_BYTES_MAX);
    InterceptedService::new(service, incoming)
}

/// The same service without a port, for a simulated network.
pub(crate) fn answers(inner: &Arc<Inner>, incoming: Incoming) -> Answers {
    let service = service(inner, incoming);
    let service = ServiceExt::<http::Request<Body>>::map_response(service, |response| {
        response.map(Body::new)
    });
    let clock = inner.steady;
    let service = ServiceExt::<http::Request<Body>>::map_future(service, move |answering| {
        clock.times(answering)
    });
    Answers::new(service)
}

/// A connection outlives the member that it was made to; it then answers that nobody is there.
struct Service {
    inner: Weak<Inner>,
}

#[tonic::async_trait]
impl Raft for Service {
    type AppendStream = BoxStream<'static, Result<proto::AppendResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<proto::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let inner = self.inner()?;
        // A request that is not understood ends the stream; the leader then starts a new one.
        let requests = request
            .into_inner()
            .map(|message| wire::to_append(message?).map_err(Status::from));
        let requests = requests.take_while(|request| {
            if let Err(status) = request {
                tracing::warn!(error = status.message(), "the stream of appends ended");
            }
            std::future::ready(request.is_ok())
        });
        let requests = requests.filter_map(|request| std::future::ready(request.ok()));
        // The stream lives as long as the leader that sends on it, unless the network breaks it.
        let suspicion = inner.suspicion.clone();
        let requests = requests.chain(futures::stream::poll_fn(move |_| {
            suspicion.notify_one();
            std::task::Poll::Ready(None)
        }));
        let responses = inner
            .raft
            .stream_append(requests)
            .map(|result| match result {
                Ok(result) => Ok(wire::from_append_result(&result)),
                Err(fatal) => Err(Status::unavailable(fatal.to_string())),
            });
        let stopped = inner.stop.clone().cancelled_owned();
        Ok(Response::new(responses.take_until(stopped).boxed()))
    }

    async fn heartbeat(
        &self,
        request: Request<proto::AppendRequest>,
    ) -> Result<Response<proto::AppendResponse>, Status> {
        let inner = self.inner()?;
        let request = wire::to_append(request.into_inner())?;
        let (previous, last) = (
            request.prev_log_id,
            request.entries.last().map(|entry| entry.log_id),
        );
        let response = inner
            .raft
            .append_entries(request)
            .await
            .map_err(unavailable)?;
        let result = response.into_stream_result(previous, last.or(previous));
        if result.is_ok() {
            inner.contact.heard();
        }
        Ok(Response::new(wire::from_append_result(&result)))
    }

    async fn vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        let inner = self.inner()?;
        let request = wire::to_vote_request(request.into_inner())?;
        let response = inner.raft.vote(request).await.map_err(unavailable)?;
        Ok(Response::new(wire::from_vote_response(&response)))
    }

    async fn pre_vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        let inner = self.inner()?;
        let request = wire::to_vote_request(request.into_inner())?;
        let response = inner.raft.pre_vote(request).await.map_err(unavailable)?;
        Ok(Response::new(wire::from_vote_response(&response)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<proto::SnapshotChunk>>,
    ) -> Result<Response<proto::SnapshotResponse>, Status> {
        let inner = self.inner()?;
        let (vote, path) = self.receive(request.into_inner()).await?;
        let (header, path) = runtime::spawn_blocking(move || check(path))
            .await
            .map_err(unavailable)??;
        if header.cluster_id != inner.identity.cluster_id {
            return Err(Status::permission_denied(
                "the snapshot is of another cluster",
            ));
        }
        let meta = SnapshotMeta {
            last_log_id: header.applied,
            last_membership: header.membership,
        };
        let snapshot = openraft::Snapshot {
            meta,
            snapshot: SnapshotData::Received(path),
        };
        let response = inner
            .raft
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(unavailable)?;
        Ok(Response::new(proto::SnapshotResponse {
            vote: Some(wire::from_vote(&response.vote)),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferRequest>,
    ) -> Result<Response<proto::TransferResponse>, Status> {
        let inner = self.inner()?;
        let request = wire::to_transfer(request.into_inner())?;
        let refused = match inner
            .raft
            .handle_transfer_leader(request)
            .await
            .map_err(unavailable)?
        {
            Ok(()) => String::new(),
            Err(err) => serde_json::to_string(&err).map_err(unavailable)?,
        };
        Ok(Response::new(proto::TransferResponse { refused }))
    }

    async fn propose(
        &self,
        request: Request<proto::ProposeRequest>,
    ) -> Result<Response<proto::ProposeResponse>, Status> {
        let inner = self.inner()?;
        use proto::propose_response::Result as Outcome;
        let result = match inner.propose_here(request.into_inner().batch).await {
            Forwarded::Replies(replies) => match mvcc::codec::encode(&replies) {
                Ok(frame) => Outcome::Replies(frame),
                Err(err) => Outcome::Unknown(format!("the replies cannot be sent: {err}")),
            },
            Forwarded::NotLeader => {
                Outcome::NotLeader(inner.raft.current_leader().await.unwrap_or(0))
            }
            Forwarded::NoSpace => Outcome::NoSpace(true),
            Forwarded::Unknown(reason) => Outcome::Unknown(reason),
        };
        Ok(Response::new(proto::ProposeResponse {
            result: Some(result),
        }))
    }

    async fn read_index(
        &self,
        _: Request<proto::ReadIndexRequest>,
    ) -> Result<Response<proto::ReadIndexResponse>, Status> {
        let inner = self.inner()?;
        use proto::read_index_response::Result as Outcome;
        let result = match inner.read_index_here().await {
            Ok(log_id) => Outcome::LogId(wire::from_log_id(&log_id)),
            Err(reason) => Outcome::Unavailable(reason),
        };
        Ok(Response::new(proto::ReadIndexResponse {
            result: Some(result),
        }))
    }

    async fn lease(
        &self,
        request: Request<proto::LeaseRequest>,
    ) -> Result<Response<proto::LeaseResponse>, Status> {
        let inner = self.inner()?;
        let frame = request.into_inner().command;
        Ok(Response::new(inner.lease_for_other(&frame).await?))
    }

    async fn status(
        &self,
        _: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        let inner = self.inner()?;
        let json = serde_json::to_vec(&membership::own_status(&inner)).map_err(unavailable)?;
        Ok(Response::new(proto::StatusResponse { json: json.into() }))
    }

    async fn change(
        &self,
        request: Request<proto::ChangeRequest>,
    ) -> Result<Response<proto::ChangeResponse>, Status> {
        let inner = self.inner()?;
        let json = membership::change_from(&inner, &request.into_inner().json).await;
        Ok(Response::new(proto::ChangeResponse { json: json.into() }))
    }

    async fn ask(
        &self,
        request: Request<proto::AskRequest>,
    ) -> Result<Response<proto::AskResponse>, Status> {
        let inner = self.inner()?;
        let json = membership::answer(&inner, &request.into_inner().json).await;
        Ok(Response::new(proto::AskResponse { json: json.into() }))
    }
}

impl Service {
    fn inner(&self) -> Result<Arc<Inner>, Status> {
        let inner = self
            .inner
            .upgrade()
            .filter(|inner| !inner.stop.is_cancelled());
        inner.ok_or_else(|| Status::unavailable("this member is shutting down"))
    }

    /// Writes the chunks to a file; nothing of it is used before the whole was checked.
    async fn receive(
        &self,
        mut chunks: Streaming<proto::SnapshotChunk>,
    ) -> Result<(Vote, TempPath), Status> {
        let tmp_dir = crate::identity::tmp_dir(&self.inner()?.config.data_dir);
        let mut file = NamedTempFile::new_in(tmp_dir).map_err(unavailable)?;
        let mut vote = None;
        loop {
            let next = tokio::time::timeout(CHUNK_MAX, chunks.message()).await;
            let Some(chunk) =
                next.map_err(|_| Status::deadline_exceeded("the snapshot stopped coming"))??
            else {
                break;
            };
            if crc32c::crc32c(&chunk.data) != chunk.crc32c {
                return Err(Status::data_loss(
                    "a chunk of the snapshot was damaged on its way",
                ));
            }
            if chunk.vote.is_some() {
                vote = Some(wire::to_vote(chunk.vote)?);
            }
            // Writing waits for the disk; another thread does it, so that heartbeats are answered meanwhile.
            file = runtime::spawn_blocking(move || file.write_all(&chunk.data).map(|()| file))
                .await
                .map_err(unavailable)?
                .map_err(unavailable)?;
        }
        let vote = vote.ok_or_else(|| {
            Status::invalid_argument("the snapshot came without the leader's vote")
        })?;
        Ok((vote, file.into_temp_path()))
    }
}

fn check(path: TempPath) -> Result<(archive::Header, TempPath), Status> {
    let file = File::open(&path).map_err(unavailable)?;
    let summary = archive::verify(BufReader::with_capacity(1 << 20, file))
        .map_err(|err| Status::data_loss(format!("the snapshot did not arrive whole: {err}")))?;
    Ok((summary.header, path))
}

fn unavailable(err: impl std::fmt::Display) -> Status {
    Status::unavailable(err.to_string())
}
