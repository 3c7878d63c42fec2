//! What is asked of leases by way of any member: only the leader's clock tells their time, so the leader stamps their commands.
//!
//! A member that stamped a keep-alive with what it last saw of that clock would let the lease end too early.

use super::Inner;
use crate::net::Purpose;
use crate::types::MemberId;
use mvcc::{Command, Done, LeaseId, Reply, StoreError};
use rpc::raft as proto;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Status;

/// How soon to look again for a leader.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// What the leader answered: the reply, if there was a command, and its clock.
struct Answer {
    reply: Option<Reply>,
    now_ms: u64,
}

/// Why there is no answer.
enum Failure {
    /// Surely not proposed.
    NotLeader,
    /// Perhaps proposed.
    Unknown(String),
}

impl Inner {
    /// Creates a lease.
    pub async fn lease_grant(&self, id: LeaseId, ttl_ms: u64) -> Reply {
        self.lease_command(Command::LeaseGrant {
            id,
            ttl_ms,
            now_ms: 0,
        })
        .await
    }

    /// Lets a lease live for its whole time to live again.
    pub async fn lease_keep_alive(&self, id: LeaseId) -> Reply {
        self.lease_command(Command::LeaseKeepAlive { id, now_ms: 0 })
            .await
    }

    /// What the leader's clock of leases shows.
    pub async fn leader_lease_clock_ms(&self) -> Result<u64, StoreError> {
        self.ask_leader(None).await.map(|answer| answer.now_ms)
    }

    async fn lease_command(&self, command: Command) -> Reply {
        let answer = self.ask_leader(Some(&command)).await?;
        answer.reply.unwrap_or_else(|| {
            Err(StoreError::Unavailable(
                "the leader answered without a reply".to_owned(),
            ))
        })
    }

    async fn ask_leader(&self, command: Option<&Command>) -> Result<Answer, StoreError> {
        let deadline = Instant::now() + self.config.timings.request;
        while Instant::now() < deadline {
            if let Some(leader) = self.raft.current_leader().await {
                match self.ask_member(leader, command, deadline).await {
                    Ok(answer) => return Ok(answer),
                    Err(Failure::Unknown(reason)) => return Err(StoreError::Unavailable(reason)),
                    Err(Failure::NotLeader) => {}
                }
            }
            sleep(RETRY_AFTER).await;
        }
        Err(StoreError::Unavailable("no leader is known".to_owned()))
    }

    async fn ask_member(
        &self,
        leader: MemberId,
        command: Option<&Command>,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        use proto::lease_response::Result as Outcome;
        if leader == self.identity.member_id {
            return self.lease_here(command.cloned()).await;
        }
        let address = self.address_of(leader).ok_or(Failure::NotLeader)?;
        let mut client = self.peers.client(leader, &address, Purpose::Forward);
        let command = match command {
            Some(command) => mvcc::codec::encode(command).map_err(unknown)?,
            None => bytes::Bytes::new(),
        };
        let call = client.lease(proto::LeaseRequest { command });
        let response = match timeout_at(deadline, call).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) if super::propose::is_surely_not_done(&status) => {
                return Err(Failure::NotLeader);
            }
            Ok(Err(status)) => return Err(Failure::Unknown(status.message().to_owned())),
            Err(_) => {
                self.peers.reset(leader, Purpose::Forward);
                return Err(unknown("the leader did not answer in time"));
            }
        };
        let reply = match response.result {
            Some(Outcome::NotLeader(_)) => return Err(Failure::NotLeader),
            Some(Outcome::Reply(frame)) if frame.is_empty() => None,
            Some(Outcome::Reply(frame)) => Some(mvcc::codec::decode(&frame).map_err(unknown)?),
            None => return Err(unknown("the leader's answer was empty")),
        };
        Ok(Answer {
            reply,
            now_ms: response.now_ms,
        })
    }

    /// Does a lease's command on this member, if it leads.
    async fn lease_here(&self, command: Option<Command>) -> Result<Answer, Failure> {
        if !self.leader.borrow().is_leader {
            return Err(Failure::NotLeader);
        }
        let now_ms = self.lease_now_ms();
        let reply = match command.map(|command| stamp(command, now_ms)) {
            Some(command) => Some(self.propose(command).await),
            None => None,
        };
        Ok(Answer { reply, now_ms })
    }

    /// Does what another member was asked.
    pub async fn lease_for_other(&self, frame: &[u8]) -> Result<proto::LeaseResponse, Status> {
        use proto::lease_response::Result as Outcome;
        let command = match frame.is_empty() {
            true => None,
            false => Some(
                mvcc::codec::decode(frame)
                    .map_err(|err| Status::invalid_argument(err.to_string()))?,
            ),
        };
        let (result, now_ms) = match self.lease_here(command).await {
            Ok(Answer { reply, now_ms }) => {
                let frame = match reply.as_ref().map(mvcc::codec::encode).transpose() {
                    Ok(frame) => frame.unwrap_or_default(),
                    Err(err) => return Err(Status::internal(err.to_string())),
                };
                (Outcome::Reply(frame), now_ms)
            }
            Err(Failure::NotLeader) => {
                let leader = self.raft.current_leader().await.unwrap_or(0);
                (Outcome::NotLeader(leader), 0)
            }
            Err(Failure::Unknown(reason)) => return Err(Status::unavailable(reason)),
        };
        Ok(proto::LeaseResponse {
            result: Some(result),
            now_ms,
        })
    }
}

/// The command with the time at which it is proposed.
fn stamp(command: Command, now_ms: u64) -> Command {
    match command {
        Command::LeaseGrant { id, ttl_ms, .. } => Command::LeaseGrant { id, ttl_ms, now_ms },
        Command::LeaseKeepAlive { id, .. } => Command::LeaseKeepAlive { id, now_ms },
        other => other,
    }
}

/// How long a lease still lives, whose end is known, by the leader's clock.
pub(super) fn remaining_ms(ends_ms: u64, now_ms: u64) -> u64 {
    ends_ms.saturating_sub(now_ms)
}

fn unknown(reason: impl ToString) -> Failure {
    Failure::Unknown(reason.to_string())
}

/// Whether the reply says that a lease lives, and for how long.
pub(super) fn ttl_ms(reply: Reply) -> Result<u64, StoreError> {
    match reply? {
        Done::Lease { ttl_ms, .. } => Ok(ttl_ms),
        other => Err(StoreError::Unavailable(format!(
            "a lease's command was answered with {other:?}"
        ))),
    }
}
