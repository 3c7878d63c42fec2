//! Writes: the commands of many clients go into one Raft entry, and each client gets its own reply.
//!
//! A batch takes what waits, without lingering. While one is on its way, what comes makes the next one larger, so that batches
//! grow with the load; it goes when the one before is answered, or when it is large by itself. A command is sent again only when it surely was not proposed;
//! otherwise its client is told that the outcome is unknown.

use super::Inner;
use super::entries::Arrived;
use super::rhythm::Rhythm;
use super::space::only_frees;
use crate::net::Purpose;
use crate::runtime;
use crate::stages::Stage;
use crate::types::{MemberId, Replies};
use bytes::Bytes;
use mvcc::{Batch, Command, Done, Op, Reply, StoreError, Txn};
use rpc::raft as proto;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// Batches on their way at once. A batch costs every member the same whatever its size, so all but the first must be
/// [large](BATCH_COMMANDS_LARGE).
const BATCHES_MAX: usize = 4;
/// With so many commands a batch does not wait for the one before.
const BATCH_COMMANDS_LARGE: usize = 128;
const BATCH_COMMANDS_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How soon to look again for a leader.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// A command that waits to be proposed.
pub(crate) struct Proposal {
    command: Command,
    reply: oneshot::Sender<Reply>,
    since: Instant,
}

/// What became of a batch that was handed to the leader.
pub(crate) enum Forwarded {
    /// One reply a command.
    Replies(Replies),
    /// Surely not proposed: that member does not lead.
    NotLeader,
    /// Surely not proposed: that member's disk is full.
    NoSpace,
    /// Perhaps proposed.
    Unknown(String),
}

impl Inner {
    /// Proposes a command and waits until it is applied.
    pub async fn propose(&self, command: Command) -> Reply {
        self.check_member()?;
        if !self
            .space
            .admits(&command, || self.leader.borrow().is_leader)
        {
            return Err(StoreError::NoSpace);
        }
        let since = Instant::now();
        let deadline = since + self.config.timings.request;
        let (reply, answer) = oneshot::channel();
        let proposal = Proposal {
            command,
            reply,
            since,
        };
        match timeout_at(deadline, self.proposals.send(proposal)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(StoreError::ShuttingDown),
            Err(_) => {
                return Err(StoreError::Busy);
            }
        }
        if self.waiting() == BATCH_COMMANDS_LARGE {
            self.many_proposals.notify_one();
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => Err(StoreError::Unavailable(
                "this member is shutting down".to_owned(),
            )),
            Err(_) => Err(StoreError::Unavailable(format!(
                "no answer within {:?}",
                self.config.timings.request
            ))),
        }
    }

    /// How many commands wait to be proposed.
    fn waiting(&self) -> usize {
        self.proposals.max_capacity() - self.proposals.capacity()
    }

    /// Proposes a batch on this member, which must lead.
    pub async fn propose_here(&self, batch: Bytes) -> Forwarded {
        if !self.space.admits_batch(&batch) {
            return Forwarded::NoSpace;
        }
        #[cfg(feature = "planted-bugs")]
        if let Some(replies) = crate::planted::answer_early(self, &batch) {
            return Forwarded::Replies(replies);
        }
        let Ok(commands) = Batch::count(&batch) else {
            return Forwarded::Unknown("the batch cannot be read".to_owned());
        };
        let (reply, answer) = oneshot::channel();
        let arrived = Arrived {
            batch,
            commands,
            reply,
        };
        match (self.arrivals.send(arrived).await, answer.await) {
            (Ok(()), Ok(forwarded)) => forwarded,
            _ => Forwarded::Unknown("the member is shutting down".to_owned()),
        }
    }

    async fn propose_at(&self, leader: MemberId, batch: Bytes, deadline: Instant) -> Forwarded {
        use proto::propose_response::Result as Outcome;
        if leader == self.identity.member_id {
            return self.propose_here(batch).await;
        }
        let Some(address) = self.address_of(leader) else {
            return Forwarded::NotLeader;
        };
        let mut client = self.peers.client(leader, &address, Purpose::Forward);
        let response =
            match timeout_at(deadline, client.propose(proto::ProposeRequest { batch })).await {
                Ok(Ok(response)) => response.into_inner(),
                Ok(Err(status)) if is_surely_not_done(&status) => return Forwarded::NotLeader,
                Ok(Err(status)) => return Forwarded::Unknown(status.message().to_owned()),
                Err(_) => {
                    self.peers.reset(leader, Purpose::Forward);
                    return Forwarded::Unknown("the leader did not answer in time".to_owned());
                }
            };
        match response.result {
            Some(Outcome::Replies(frame)) => match mvcc::codec::decode(&frame) {
                Ok(replies) => Forwarded::Replies(replies),
                Err(err) => Forwarded::Unknown(err.to_string()),
            },
            Some(Outcome::NotLeader(_)) => Forwarded::NotLeader,
            Some(Outcome::NoSpace(true)) => Forwarded::NoSpace,
            Some(Outcome::NoSpace(false)) => {
                Forwarded::Unknown("the leader contradicts itself".to_owned())
            }
            Some(Outcome::Unknown(reason)) => Forwarded::Unknown(reason),
            None => Forwarded::Unknown("the leader's answer was empty".to_owned()),
        }
    }

    /// Brings a batch to whoever leads, until the deadline.
    async fn deliver(&self, batch: Bytes) -> Result<Replies, StoreError> {
        let deadline = Instant::now() + self.config.timings.request;
        while Instant::now() < deadline {
            if let Some(leader) = self.raft.current_leader().await {
                let attempt = self.propose_at(leader, batch.clone(), deadline);
                match timeout_at(deadline, attempt).await {
                    Ok(Forwarded::Replies(replies)) => return Ok(replies),
                    Ok(Forwarded::Unknown(reason)) => return Err(StoreError::Unavailable(reason)),
                    Ok(Forwarded::NoSpace) => {
                        self.space.told_full(Instant::now());
                        return Err(StoreError::NoSpace);
                    }
                    Ok(Forwarded::NotLeader) => {}
                    Err(_) => {
                        return Err(StoreError::Unavailable(
                            "no quorum answered in time".to_owned(),
                        ));
                    }
                }
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
        Err(StoreError::Unavailable("no leader is known".to_owned()))
    }

    /// The leader has no room and did nothing of a batch: refuses what would take some, and brings it the rest.
    async fn deliver_what_frees(
        &self,
        Batch(commands): Batch,
        replies: Vec<oneshot::Sender<Reply>>,
    ) -> (Vec<oneshot::Sender<Reply>>, Result<Replies, StoreError>) {
        let both = commands.into_iter().zip(replies);
        let (freeing, refused): (Vec<_>, Vec<_>) =
            both.partition(|(command, _)| only_frees(command));
        let (_, refused): (Vec<Command>, Vec<_>) = refused.into_iter().unzip();
        answer(refused, Err(StoreError::NoSpace));
        let (commands, replies): (Vec<Command>, Vec<_>) = freeing.into_iter().unzip();
        if commands.is_empty() {
            return (replies, Err(StoreError::NoSpace));
        }
        let outcome = match Batch(commands).encode() {
            Ok(frame) => self.deliver(frame).await,
            Err(err) => Err(StoreError::Refused(err.to_string())),
        };
        (replies, outcome)
    }

    /// Where a member is reached.
    pub fn address_of(&self, member: MemberId) -> Option<String> {
        use openraft::type_config::async_runtime::watch::WatchReceiver;
        let metrics = self.raft.server_metrics();
        let membership = metrics.borrow_watched().membership_config.clone();
        membership
            .get_node(&member)
            .map(|node| node.peer_address.clone())
    }
}

/// Takes what waits and sends it on its way, as long as the member runs.
pub(crate) async fn run(inner: Arc<Inner>, mut proposals: mpsc::Receiver<Proposal>) {
    let on_their_way = Arc::new(Semaphore::new(BATCHES_MAX));
    let rhythm = Arc::new(Rhythm::default());
    while let Some(first) = proposals.recv().await {
        runtime::let_others_ask().await;
        let Some(permit) = turn(&inner, &on_their_way).await else {
            return;
        };
        let (batch, replies) = collect(&inner, &rhythm, first, &mut proposals).await;
        let (member, rhythm) = (inner.clone(), rhythm.clone());
        inner.spawn(async move {
            let _permit = permit;
            let commands = replies.len();
            let count = commands as u64;
            member.metrics.proposed(count);
            let stages = &member.metrics.stages;
            let began = Instant::now();
            let frame = batch.encode();
            let encoded = Instant::now();
            stages.passed(Stage::Encode, encoded - began);
            let outcome = match frame {
                Ok(frame) => member.deliver(frame).await,
                Err(err) => Err(StoreError::Refused(err.to_string())),
            };
            let (replies, outcome) = match outcome {
                Err(StoreError::NoSpace) => member.deliver_what_frees(batch, replies).await,
                outcome => (replies, outcome),
            };
            stages.passed(Stage::Agree, encoded.elapsed());
            member.metrics.answered(count);
            if outcome.is_err() {
                member.metrics.failed(count);
            }
            rhythm.answered(commands + member.waiting(), began, Instant::now());
            answer(replies, outcome);
        });
    }
}

/// Waits until the batch that gathers may go.
async fn turn(inner: &Inner, on_their_way: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let all = u32::try_from(BATCHES_MAX).expect("a few batches");
    tokio::select! {
        biased;
        permits = on_their_way.clone().acquire_many_owned(all) => permits.ok()?.split(1),
        () = inner.many_proposals.notified() => on_their_way.clone().acquire_owned().await.ok(),
    }
}

async fn collect(
    inner: &Inner,
    rhythm: &Rhythm,
    first: Proposal,
    proposals: &mut mpsc::Receiver<Proposal>,
) -> (Batch, Vec<oneshot::Sender<Reply>>) {
    let mut commands = Vec::new();
    let mut replies = Vec::new();
    let mut bytes = 0;
    let mut queued = Duration::ZERO;
    let mut gathering = rhythm.gather();
    let mut next = Some(first);
    while let Some(Proposal {
        command,
        reply,
        since,
    }) = next.take()
    {
        queued += since.elapsed();
        // A client that went away before its command was proposed needs none.
        if !reply.is_closed() {
            bytes += size(&command);
            commands.push(command);
            replies.push(reply);
        }
        if bytes < BATCH_BYTES_MAX && commands.len() < BATCH_COMMANDS_MAX {
            next = gathering.next(commands.len(), proposals).await;
        }
    }
    let stages = &inner.metrics.stages;
    stages.passed_by(Stage::Queue, commands.len() as u64, queued);
    (Batch(commands), replies)
}

fn answer(waiting: Vec<oneshot::Sender<Reply>>, outcome: Result<Replies, StoreError>) {
    let replies: Vec<Result<Done, StoreError>> = match outcome {
        Ok(Replies(replies)) if replies.len() == waiting.len() => replies,
        Ok(Replies(replies)) => {
            let text = format!(
                "{} replies came for {} commands",
                replies.len(),
                waiting.len()
            );
            vec![Err(StoreError::Unavailable(text)); waiting.len()]
        }
        Err(err) => vec![Err(err); waiting.len()],
    };
    for (client, reply) in waiting.into_iter().zip(replies) {
        // A client that no longer waits has been told that the outcome is unknown.
        let _ = client.send(reply);
    }
}

/// About how many bytes a command takes.
fn size(command: &Command) -> usize {
    match command {
        Command::Txn(txn) => txn_size(txn),
        _ => 64,
    }
}

fn txn_size(txn: &Txn) -> usize {
    let op_size = |op: &Op| match op {
        Op::Put { key, value, .. } => key.len() + value.len() + 16,
        Op::Txn(txn) => txn_size(txn),
        Op::Sign(author) => author.text_bytes() + 16,
        Op::Update { key, value, .. } => key.len() + value.as_ref().map_or(0, Bytes::len) + 16,
        Op::DeleteRange { range, .. } | Op::Range { range, .. } => range.start.len() + 32,
        Op::Query(query) => query.range.start.len() + 64,
    };
    let compares: usize = txn
        .compare
        .iter()
        .map(|compare| compare.range.start.len() + 32)
        .sum();
    compares
        + txn
            .success
            .iter()
            .chain(&txn.failure)
            .map(op_size)
            .sum::<usize>()
}

/// Whether a failed call never reached the other member's consensus.
pub(crate) fn is_surely_not_done(status: &tonic::Status) -> bool {
    if status.code() == tonic::Code::PermissionDenied {
        return true;
    }
    let mut source = std::error::Error::source(status);
    while let Some(err) = source {
        if err.is::<tonic::ConnectError>() {
            return true;
        }
        source = err.source();
    }
    false
}
