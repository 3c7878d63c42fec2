//! openraft's messages as protobuf and back. A missing field that must be there is an error, never a default.

use crate::log::record;
use crate::types::{LogId, TypeConfig, Vote, log_id, term_of};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use openraft::vote::RaftLeaderId;
use rpc::raft as proto;

/// Why a message is not understood.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A field is missing.
    #[error("the message lacks its {0}")]
    Missing(&'static str),
    /// A log record is damaged.
    #[error("the message holds a log record that cannot be read")]
    Record(#[from] record::RecordError),
}

impl From<WireError> for tonic::Status {
    fn from(err: WireError) -> Self {
        tonic::Status::invalid_argument(err.to_string())
    }
}

pub fn from_log_id(log_id: &LogId) -> proto::LogId {
    proto::LogId {
        term: term_of(log_id),
        index: log_id.index,
    }
}

pub fn to_log_id(message: proto::LogId) -> LogId {
    log_id(message.term, message.index)
}

pub fn from_vote(vote: &Vote) -> proto::BallotVote {
    proto::BallotVote {
        term: vote.leader_id.term(),
        voted_for: *vote.leader_id.node_id(),
        committed: vote.committed,
    }
}

pub fn to_vote(message: Option<proto::BallotVote>) -> Result<Vote, WireError> {
    let proto::BallotVote {
        term,
        voted_for,
        committed,
    } = message.ok_or(WireError::Missing("vote"))?;
    Ok(match committed {
        true => Vote::new_committed(term, voted_for),
        false => Vote::new(term, voted_for),
    })
}

pub fn from_append(request: &AppendEntriesRequest<TypeConfig>) -> proto::AppendRequest {
    proto::AppendRequest {
        vote: Some(from_vote(&request.vote)),
        previous: request.prev_log_id.as_ref().map(from_log_id),
        leader_commit: request.leader_commit.as_ref().map(from_log_id),
        records: request.entries.iter().map(record::encode).collect(),
    }
}

pub fn to_append(
    message: proto::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    Ok(AppendEntriesRequest {
        vote: to_vote(message.vote)?,
        prev_log_id: message.previous.map(to_log_id),
        leader_commit: message.leader_commit.map(to_log_id),
        entries: message
            .records
            .iter()
            .map(record::decode)
            .collect::<Result<_, _>>()?,
    })
}

pub fn from_append_result(result: &StreamAppendResult<TypeConfig>) -> proto::AppendResponse {
    use proto::append_response::Result as Outcome;
    let outcome = match result {
        Ok(matching) => Outcome::Appended(proto::Appended {
            matching: matching.as_ref().map(from_log_id),
        }),
        Err(StreamAppendError::Conflict(log_id)) => Outcome::Conflict(from_log_id(log_id)),
        Err(StreamAppendError::HigherVote(vote)) => Outcome::HigherVote(from_vote(vote)),
    };
    proto::AppendResponse {
        result: Some(outcome),
    }
}

pub fn to_append_result(
    message: proto::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, WireError> {
    use proto::append_response::Result as Outcome;
    Ok(match message.result.ok_or(WireError::Missing("result"))? {
        Outcome::Appended(appended) => Ok(appended.matching.map(to_log_id)),
        Outcome::Conflict(log_id) => Err(StreamAppendError::Conflict(to_log_id(log_id))),
        Outcome::HigherVote(vote) => Err(StreamAppendError::HigherVote(to_vote(Some(vote))?)),
    })
}

pub fn from_vote_request(request: &VoteRequest<TypeConfig>) -> proto::VoteRequest {
    proto::VoteRequest {
        vote: Some(from_vote(&request.vote)),
        last_log: request.last_log_id.as_ref().map(from_log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

pub fn to_vote_request(message: proto::VoteRequest) -> Result<VoteRequest<TypeConfig>, WireError> {
    let mut request = VoteRequest::new(to_vote(message.vote)?, message.last_log.map(to_log_id));
    request.leadership_transfer = message.leadership_transfer;
    Ok(request)
}

pub fn from_vote_response(response: &VoteResponse<TypeConfig>) -> proto::VoteResponse {
    proto::VoteResponse {
        vote: Some(from_vote(&response.vote)),
        granted: response.vote_granted,
        last_log: response.last_log_id.as_ref().map(from_log_id),
    }
}

pub fn to_vote_response(
    message: proto::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, WireError> {
    Ok(VoteResponse::new(
        to_vote(message.vote)?,
        message.last_log.map(to_log_id),
        message.granted,
    ))
}

pub fn from_transfer(request: &TransferLeaderRequest<TypeConfig>) -> proto::TransferRequest {
    proto::TransferRequest {
        from_leader: Some(from_vote(request.from_leader())),
        to: *request.to_node_id(),
        last_log: request.last_log_id().map(from_log_id),
    }
}

pub fn to_transfer(
    message: proto::TransferRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    let from = to_vote(message.from_leader)?;
    Ok(TransferLeaderRequest::new(
        from,
        message.to,
        message.last_log.map(to_log_id),
    ))
}
