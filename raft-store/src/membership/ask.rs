//! What members ask each other beside the consensus: the hash of their data, to step back because it is damaged, and whether one
//! was removed.

use super::quorum::{self, Joining};
use super::transfer::transfer_here;
use crate::net::Purpose;
use crate::store::{Inner, hash_here};
use crate::types::MemberId;
use objects::Revision;
use objects::cluster::Member;
use rpc::raft as proto;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::timeout;

const CONDEMN_MAX: Duration = Duration::from_secs(3);

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// The hash of all that can be read up to a revision.
    Hash { revision: Revision },
    /// Your data are damaged: step back, and come again without them.
    Condemn { reason: String },
    /// Am I, the member of this id, one still?
    IsMember { id: MemberId },
}

/// Its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Hash {
        hash: u32,
        revision: Revision,
        compacted: Revision,
    },
    Condemned,
    Member,
    Removed {
        members: Vec<Member>,
    },
    Refused(String),
}

/// Asks another member; Err tells why it does not answer.
pub(crate) async fn ask(
    inner: &Inner,
    member: &Member,
    question: &Question,
    limit: Duration,
) -> Result<Reply, String> {
    let mut client = inner
        .peers
        .client(member.id, &member.peer_address, Purpose::Forward);
    let json = serde_json::to_vec(question)
        .expect("a question is plain data")
        .into();
    match timeout(limit, client.ask(proto::AskRequest { json })).await {
        Ok(Ok(response)) => {
            serde_json::from_slice(&response.into_inner().json).map_err(|err| err.to_string())
        }
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err(format!("it did not answer within {limit:?}")),
    }
}

/// Answers another member.
pub(crate) async fn answer(inner: &Inner, json: &[u8]) -> Vec<u8> {
    let reply = match serde_json::from_slice(json) {
        Ok(Question::Hash { revision }) => match hash_here(inner, revision).await {
            Ok(hash) => Reply::Hash {
                hash: hash.hash,
                revision: hash.revision,
                compacted: hash.compacted,
            },
            Err(err) => Reply::Refused(err.to_string()),
        },
        Ok(Question::Condemn { reason }) => {
            inner.condemned(&reason);
            Reply::Condemned
        }
        Ok(Question::IsMember { id }) => super::removed::answer(inner, id).await,
        Err(err) => Reply::Refused(format!("the question is not understood: {err}")),
    };
    serde_json::to_vec(&reply).expect("a reply is plain data")
}

/// Has a member with damaged data step back, if the others are a quorum without it. The leader hands over first.
pub(crate) async fn condemn(inner: &Inner, member: &Member, reason: &str) {
    if member.voter
        && let Err(err) = quorum::check(inner, &[member], Joining::Nobody)
    {
        tracing::error!(
            member = member.id, reason, error = %err,
            "a member's data are damaged, and it cannot be spared now"
        );
        return;
    }
    tracing::error!(
        member = member.id,
        name = member.name,
        reason,
        "a member's data are damaged: it will be fed again as a new member"
    );
    if member.id == inner.identity.member_id {
        match transfer_here(inner, None).await {
            Ok(()) => inner.condemned(reason),
            Err(err) => tracing::error!(error = %err, "the damaged member still leads"),
        }
        return;
    }
    let question = Question::Condemn {
        reason: reason.to_owned(),
    };
    if let Err(err) = ask(inner, member, &question, CONDEMN_MAX).await {
        tracing::warn!(
            member = member.id,
            error = err,
            "the damaged member does not answer"
        );
    }
}
