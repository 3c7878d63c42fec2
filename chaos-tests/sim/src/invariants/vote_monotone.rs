//! A member's vote only goes forward, in a term it goes to one candidate only, and it is on disk before it is given.

use super::Invariant;
use crate::facts::Facts;
use crate::judge::{Event, Written};
use crate::switch::Message;
use openraft::vote::RaftLeaderId;
use raft_store::types::{MemberId, Vote};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Check {
    votes: BTreeMap<MemberId, Vote>,
}

impl Invariant for Check {
    fn name(&self) -> &'static str {
        "vote_monotone"
    }

    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Written {
                member, written, ..
            } => written.iter().try_for_each(|change| match change {
                Written::Vote(vote) => self.moves(*member, vote),
                _ => Ok(()),
            }),
            Event::Crashed { member, .. } => {
                match facts.members[member].durable.vote {
                    Some(vote) => self.votes.insert(*member, vote),
                    None => self.votes.remove(member),
                };
                Ok(())
            }
            Event::Sent {
                from,
                message: Message::Granted { term, candidate },
                ..
            } => is_on_disk(facts, *from, *term, Some(*candidate)),
            Event::Sent {
                from,
                message: Message::Append { term, .. },
                ..
            } => is_on_disk(facts, *from, *term, None),
            _ => Ok(()),
        }
    }
}

impl Check {
    fn moves(&mut self, member: MemberId, vote: &Vote) -> Result<(), String> {
        let Some(last) = self.votes.insert(member, *vote) else {
            return Ok(());
        };
        let (old, new) = (last.leader_id.term(), vote.leader_id.term());
        let is_same = last.leader_id.node_id() == vote.leader_id.node_id();
        // A candidate that others outvoted follows whom a quorum of its term elected.
        let is_decided = vote.committed && (is_same || !last.committed);
        match new > old || (new == old && (is_decided || (is_same && !last.committed))) {
            true => Ok(()),
            false => Err(format!("m{member} voted {last}, then {vote}")),
        }
    }
}

fn is_on_disk(
    facts: &Facts,
    member: MemberId,
    term: u64,
    candidate: Option<MemberId>,
) -> Result<(), String> {
    let durable = facts
        .members
        .get(&member)
        .and_then(|member| member.durable.vote);
    let is_covered = durable.is_some_and(|vote| {
        let is_his = candidate.is_none_or(|candidate| *vote.leader_id.node_id() == candidate);
        vote.leader_id.term() > term || (vote.leader_id.term() == term && is_his)
    });
    match is_covered {
        true => Ok(()),
        false => Err(format!(
            "m{member} acts on its vote in term {term}, but a power cut would make it forget: on its disk is {}",
            durable.map_or("none".to_owned(), |vote| vote.to_string())
        )),
    }
}
