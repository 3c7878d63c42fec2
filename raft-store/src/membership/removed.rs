//! A member that was removed and still runs: nobody sends it anything any more, so it asks.
//!
//! It asks when it hears no leader for a while, or when the members that it knows are without it. Whoever has applied a membership
//! without it, and has seen its id before, knows for good: what is applied is committed, and ids are never used again.

use super::ask::{Question, Reply, ask};
use super::members;
use crate::store::Inner;
use crate::types::MemberId;
use mvcc::StoreError;
use objects::cluster::Member;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often a member looks whether it hears a leader.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long it waits before it asks: an election is over by then.
const SILENT: Duration = Duration::from_secs(3);
const ASK_MAX: Duration = Duration::from_secs(1);
/// How often a removed member says so again in its log.
const TELL_EVERY: Duration = Duration::from_secs(600);

/// Asks whether this member was removed, as long as it runs.
pub(crate) async fn look(inner: Arc<Inner>) {
    let mut heard = Instant::now();
    loop {
        sleep(LOOK_EVERY).await;
        if is_member(&inner) && inner.hears_leader().await {
            heard = Instant::now();
        }
        if heard.elapsed() < SILENT {
            continue;
        }
        if let Some(members) = ask_others(&inner).await {
            inner.was_removed(members);
            break;
        }
    }
    while let Err(error) = inner.check_member() {
        tracing::error!(%error, member = inner.identity.member_id, "this member was removed and still runs");
        sleep(TELL_EVERY).await;
    }
}

/// The members as they are, if one of the others knows that this one is none.
async fn ask_others(inner: &Inner) -> Option<Vec<Member>> {
    let id = inner.identity.member_id;
    let question = Question::IsMember { id };
    for member in members(&inner.raft) {
        if member.id == id {
            continue;
        }
        match ask(inner, &member, &question, ASK_MAX).await {
            Ok(Reply::Removed { members }) => return Some(members),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, asked = member.name, "nobody said yet whether this member was removed");
            }
        }
    }
    None
}

/// Answers another one's question.
pub(super) async fn answer(inner: &Inner, id: MemberId) -> Reply {
    let known = inner.raft.with_state_machine(move |state| {
        let known = state.is_removed(id);
        Box::pin(async move { known })
    });
    match known.await {
        Ok(true) => Reply::Removed {
            members: members(&inner.raft),
        },
        Ok(false) => Reply::Member,
        Err(error) => Reply::Refused(error.to_string()),
    }
}

fn is_member(inner: &Inner) -> bool {
    let members = members(&inner.raft);
    members
        .iter()
        .any(|member| member.id == inner.identity.member_id)
}

impl Inner {
    /// Fails on a member that was removed: what it has is old, and nobody takes what it proposes.
    pub fn check_member(&self) -> Result<(), StoreError> {
        match self.removed.get() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Refused(reason.clone())),
        }
    }

    fn was_removed(&self, members: Vec<Member>) {
        let members = members
            .iter()
            .map(|member| format!("{} ({})", member.name, member.api_url));
        let members: Vec<String> = members.collect();
        let reason = format!(
            "this master, {}, was removed from the cluster and is no member any more; ask one of the masters {}. Stop this one; to \
             take it back, start it with an empty data directory and --join",
            self.config.name,
            members.join(", "),
        );
        if self.removed.set(reason).is_ok() {
            // Whoever watches here turns to another member.
            self.hub.close();
        }
    }
}
