//! openraft's view of the other members: sends what it asks, and tells soon when a member does not answer.

use super::peers::{Client, Peers};
use super::transport::Purpose;
use super::wire::{self, WireError};
use crate::archive;
use crate::runtime;
use crate::state::SnapshotData;
use crate::types::{MemberId, Node, TypeConfig, Vote};
use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::alias::SnapshotOf;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use rpc::raft as proto;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

/// Chunks that may wait for the network.
const CHUNKS: usize = 4;

type AppendStream<'s> = BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>;

/// Makes the connections that openraft asks for.
pub struct Network {
    peers: Arc<Peers>,
    cluster_id: Arc<str>,
    append_limit: Duration,
}

impl Network {
    /// `append_limit`: how long a member may take to answer an append, its fsync included.
    pub fn new(peers: Arc<Peers>, cluster_id: &str, append_limit: Duration) -> Self {
        Network {
            peers,
            cluster_id: cluster_id.into(),
            append_limit,
        }
    }

    fn link(&self, target: MemberId, node: &Node, purpose: Purpose) -> Link {
        Link {
            peers: self.peers.clone(),
            cluster_id: self.cluster_id.clone(),
            target,
            address: node.peer_address.clone(),
            purpose,
            append_limit: self.append_limit,
            last_answer: Instant::now(),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: MemberId, node: &Node) -> Link {
        self.link(target, node, Purpose::Log)
    }

    async fn new_heartbeat_client(&mut self, target: MemberId, node: &Node) -> Link {
        self.link(target, node, Purpose::Pulse)
    }

    async fn new_snapshot_client(&mut self, target: MemberId, node: &Node) -> Link {
        self.link(target, node, Purpose::Snapshot)
    }
}

/// One connection to one member.
pub struct Link {
    peers: Arc<Peers>,
    cluster_id: Arc<str>,
    target: MemberId,
    address: String,
    purpose: Purpose,
    append_limit: Duration,
    last_answer: Instant,
}

impl Link {
    fn client(&self, purpose: Purpose) -> Client {
        self.peers.client(self.target, &self.address, purpose)
    }

    /// Waits for an answer for at most `limit`. A connection on which nothing was answered for long is made anew.
    async fn call<T>(
        &mut self,
        action: RPCTypes,
        purpose: Purpose,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, RPCError<TypeConfig>> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => {
                self.last_answer = Instant::now();
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => {
                self.peers.traffic().with(self.target).failed();
                if self.last_answer.elapsed() >= self.append_limit {
                    self.peers.reset(self.target, purpose);
                    self.last_answer = Instant::now();
                }
                Err(self.timed_out(action, limit))
            }
        }
    }

    fn failed(&self, status: &tonic::Status) -> RPCError<TypeConfig> {
        self.peers.traffic().with(self.target).failed();
        if status.code() == tonic::Code::PermissionDenied {
            self.peers.refused(self.target, status.message());
        }
        RPCError::Unreachable(Unreachable::from_string(format!(
            "{} at {}: {status}",
            self.target, self.address
        )))
    }

    fn timed_out(&self, action: RPCTypes, timeout: Duration) -> RPCError<TypeConfig> {
        RPCError::Timeout(Timeout {
            action,
            id: self.peers.member_id(),
            target: self.target,
            timeout,
        })
    }

    async fn heartbeat<S>(
        &mut self,
        mut input: S,
        option: RPCOption,
    ) -> Result<AppendStream<'_>, RPCError<TypeConfig>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let Some(request) = input.next().await else {
            return Ok(Box::pin(futures::stream::empty()));
        };
        let response = self.append_once(&request, option.soft_ttl()).await?;
        Ok(Box::pin(futures::stream::iter([Ok(response)])))
    }

    async fn append_once(
        &mut self,
        request: &AppendEntriesRequest<TypeConfig>,
        limit: Duration,
    ) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client(Purpose::Pulse);
        let message = wire::from_append(request);
        let (counts, begun) = (self.peers.traffic().with(self.target), Instant::now());
        let response = self
            .call(
                RPCTypes::AppendEntries,
                Purpose::Pulse,
                limit,
                client.heartbeat(message),
            )
            .await;
        match &response {
            Ok(_) => counts.round_trip(begun.elapsed()),
            Err(_) => counts.heartbeat_failed(),
        }
        let response = response?;
        wire::to_append_result(response).map_err(not_understood)
    }

    /// Sends appends without waiting for the answers of those before.
    async fn pipeline<S>(&mut self, mut input: S) -> Result<AppendStream<'_>, RPCError<TypeConfig>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        // openraft waits out its backoff within this stream, so it must be asked before a call that may fail at once.
        let Some(first) = input.next().await else {
            return Ok(Box::pin(futures::stream::empty()));
        };
        let sent = Arc::new(AtomicU64::new(0));
        let requests = futures::stream::iter([first]).chain(input).map({
            let sent = sent.clone();
            move |request| {
                sent.fetch_add(1, Ordering::Relaxed);
                wire::from_append(&request)
            }
        });
        let limit = self.append_limit;
        let mut client = self.client(Purpose::Log);
        let responses = self
            .call(
                RPCTypes::AppendEntries,
                Purpose::Log,
                limit,
                client.append(requests),
            )
            .await?;
        let pipeline = Pipeline {
            link: self,
            sent,
            received: 0,
            responses,
        };
        Ok(Box::pin(futures::stream::unfold(
            Some(pipeline),
            Pipeline::next,
        )))
    }

    async fn send_snapshot(
        &mut self,
        vote: Vote,
        db: Arc<crate::db::Db>,
    ) -> Result<Vote, StreamingError<TypeConfig>> {
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let cluster_id = self.cluster_id.clone();
        let writing = runtime::spawn_blocking(move || {
            archive::write(
                &db.view(),
                archive::Origin::transfer(&cluster_id),
                archive::ChunkWriter::new(sender),
            )
        });
        let mut vote = Some(wire::from_vote(&vote));
        // A writer that fails drops its end, and the member refuses what is cut short.
        let chunks = ReceiverStream::new(chunks).filter_map(|chunk| std::future::ready(chunk.ok()));
        let chunks = chunks.map(move |data| {
            let crc32c = crc32c::crc32c(&data);
            proto::SnapshotChunk {
                vote: vote.take(),
                data,
                crc32c,
            }
        });
        let mut client = self.client(Purpose::Snapshot);
        let sent = client.snapshot(chunks).await;
        if let Ok(Err(err @ archive::ArchiveError::State(_))) = writing.await {
            tracing::error!(error = %err, "a snapshot for another member cannot be read");
        }
        match sent {
            Ok(response) => {
                wire::to_vote(response.into_inner().vote).map_err(|err| not_understood(err).into())
            }
            Err(status) => Err(self.failed(&status).into()),
        }
    }
}

/// Appends on their way, with their answers.
struct Pipeline<'s> {
    link: &'s mut Link,
    sent: Arc<AtomicU64>,
    received: u64,
    responses: tonic::Streaming<proto::AppendResponse>,
}

impl<'s> Pipeline<'s> {
    /// The next answer. Without requests on their way it waits for as long as it takes.
    async fn next(
        pipeline: Option<Self>,
    ) -> Option<(
        Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>,
        Option<Self>,
    )> {
        let mut pipeline = pipeline?;
        let limit = pipeline.link.append_limit;
        loop {
            let sent = pipeline.sent.load(Ordering::Relaxed);
            let result = match tokio::time::timeout(limit, pipeline.responses.message()).await {
                Err(_) if sent == pipeline.received => continue,
                Err(_) => {
                    pipeline
                        .link
                        .peers
                        .reset(pipeline.link.target, Purpose::Log);
                    Err(pipeline.link.timed_out(RPCTypes::AppendEntries, limit))
                }
                Ok(Ok(None)) => return None,
                Ok(Ok(Some(response))) => wire::to_append_result(response).map_err(not_understood),
                Ok(Err(status)) => Err(pipeline.link.failed(&status)),
            };
            pipeline.received += 1;
            let goes_on = matches!(result, Ok(Ok(_)));
            return Some((result, goes_on.then_some(pipeline)));
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let result = self.append_once(&request, option.soft_ttl()).await?;
        Ok(result.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendStream<'s>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        match self.purpose {
            Purpose::Pulse => Box::pin(self.heartbeat(input, option)),
            _ => Box::pin(self.pipeline(input)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client(Purpose::Pulse);
        let message = wire::from_vote_request(&request);
        let response = self
            .call(
                RPCTypes::Vote,
                Purpose::Pulse,
                option.soft_ttl(),
                client.vote(message),
            )
            .await?;
        wire::to_vote_response(response).map_err(not_understood)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client(Purpose::Pulse);
        let message = wire::from_vote_request(&request);
        let response = self
            .call(
                RPCTypes::Vote,
                Purpose::Pulse,
                option.soft_ttl(),
                client.pre_vote(message),
            )
            .await?;
        wire::to_vote_response(response).map_err(not_understood)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotData::Live(db) = snapshot.snapshot else {
            return Err(
                NetworkError::from_string("a received snapshot is installed, never sent").into(),
            );
        };
        let (target, limit) = (self.target, option.soft_ttl());
        tracing::info!(
            member = target,
            "sending the state as a snapshot, since the member's log is too far behind"
        );
        let timed_out = self.timed_out(RPCTypes::InstallSnapshot, limit);
        let vote = tokio::select! {
            biased;
            sent = self.send_snapshot(vote, db) => sent?,
            closed = cancel => return Err(closed.into()),
            () = tokio::time::sleep(limit) => return Err(timed_out.into()),
        };
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client(Purpose::Pulse);
        let message = wire::from_transfer(&request);
        let limit = option.soft_ttl();
        let response = self
            .call(
                RPCTypes::TransferLeader,
                Purpose::Pulse,
                limit,
                client.transfer_leader(message),
            )
            .await?;
        match response.refused.is_empty() {
            true => Ok(Ok(())),
            false => serde_json::from_str(&response.refused)
                .map(Err)
                .map_err(|err| RPCError::Network(NetworkError::new(&err))),
        }
    }
}

fn not_understood(err: WireError) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(&err))
}
