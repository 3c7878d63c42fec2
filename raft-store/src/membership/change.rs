//! The changes, as they are handed to the leader and as it does them, one after the other.

use super::quorum::{self, Joining, find, is_gone};
use super::transfer::transfer_here;
use super::{CHANGE_MAX, MembershipError, member, members, promote};
use crate::net::Purpose;
use crate::store::{Inner, is_surely_not_done};
use crate::types::{MemberId, Node, Plan, TypeConfig};
use objects::cluster::{Member, MemberAdd};
use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use rpc::raft as proto;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a change may wait for the one before it.
const TURN_MAX: Duration = Duration::from_secs(5);

/// A change as it is handed to the leader.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Change {
    Add(MemberAdd),
    Remove(String),
    Transfer(Option<String>),
    AddLearner(MemberAdd),
    Join {
        member: MemberAdd,
        replaces: Option<String>,
    },
    Replace {
        name_or_id: String,
        by: String,
    },
    Promote(MemberId),
    Update {
        id: MemberId,
        peer_address: String,
        api_url: Option<String>,
    },
}

/// What a change comes to: Err(None) when this member does not lead.
pub(super) type Outcome<T> = Result<T, Option<MembershipError>>;

/// The member that was changed, for the changes that have one.
type Answer = Outcome<Option<Member>>;

/// Has a member do the change, if it leads.
pub(super) async fn change_at(inner: &Arc<Inner>, leader: MemberId, change: &Change) -> Answer {
    if leader == inner.identity.member_id {
        return change_here(inner, change).await;
    }
    let unavailable = |reason: String| Some(MembershipError::Unavailable(reason));
    let address = inner.address_of(leader).ok_or(None)?;
    let mut client = inner.peers.client(leader, &address, Purpose::Forward);
    let json = serde_json::to_vec(change)
        .expect("a change is plain data")
        .into();
    match timeout(CHANGE_MAX, client.change(proto::ChangeRequest { json })).await {
        Ok(Ok(response)) => serde_json::from_slice::<Answer>(&response.into_inner().json)
            .unwrap_or_else(|err| Err(unavailable(err.to_string()))),
        // A leader that died just now is followed soon.
        Ok(Err(status)) if is_surely_not_done(&status) => Err(None),
        Ok(Err(status)) => Err(unavailable(status.message().to_owned())),
        Err(_) => Err(unavailable(
            "the leader did not answer in time; look at the members".to_owned(),
        )),
    }
}

/// Does a change that came from another member.
pub(crate) async fn change_from(inner: &Arc<Inner>, json: &[u8]) -> Vec<u8> {
    let answer = match serde_json::from_slice(json) {
        Ok(change) => change_here(inner, &change).await,
        Err(err) => Err(Some(MembershipError::Unavailable(format!(
            "the change is not understood: {err}"
        )))),
    };
    serde_json::to_vec(&answer).expect("an answer is plain data")
}

async fn change_here(inner: &Arc<Inner>, change: &Change) -> Answer {
    if inner.raft.current_leader().await != Some(inner.identity.member_id) {
        return Err(None);
    }
    let Ok(_one_at_a_time) = timeout(TURN_MAX, inner.changing.lock()).await else {
        return Err(Some(MembershipError::InProgress));
    };
    match change {
        Change::Add(add) => admit(inner, add, Plan::default()).await.map(Some),
        Change::AddLearner(add) => {
            let plan = Plan {
                is_held: true,
                ..Plan::default()
            };
            admit(inner, add, plan).await.map(Some)
        }
        Change::Join { member, replaces } => {
            join(inner, member, replaces.as_deref()).await.map(Some)
        }
        Change::Remove(name_or_id) => remove(inner, name_or_id).await.map(|()| None),
        Change::Replace { name_or_id, by } => replace(inner, name_or_id, by).await.map(Some),
        Change::Promote(id) => promote::by_hand(inner, *id).await.map(Some),
        Change::Update {
            id,
            peer_address,
            api_url,
        } => update(inner, *id, peer_address, api_url.as_deref())
            .await
            .map(Some),
        Change::Transfer(to) => {
            let to = match to {
                Some(name_or_id) => Some(find(inner, name_or_id)?.id),
                None => None,
            };
            transfer_here(inner, to).await.map(|()| None).map_err(Some)
        }
    }
}

/// Admits a member whose name and address nobody has.
async fn admit(inner: &Inner, add: &MemberAdd, plan: Plan) -> Outcome<Member> {
    let members = members(&inner.raft);
    if let Some(taken) = members.iter().find(|member| member.name == add.name) {
        return Err(Some(MembershipError::NameTaken(taken.name.clone())));
    }
    check_address(&members, &add.peer_address)?;
    add_node(inner, add, plan, &[]).await
}

/// Admits a machine without data: a lost member of its name or address goes in the same step.
async fn join(inner: &Inner, add: &MemberAdd, replaces: Option<&str>) -> Outcome<Member> {
    let members = members(&inner.raft);
    let is_former =
        |member: &&Member| member.name == add.name || member.peer_address == add.peer_address;
    let former: Vec<&Member> = members.iter().filter(is_former).collect();
    for member in &former {
        if !is_gone(inner, member).await {
            return Err(Some(MembershipError::Alive(member.name.clone())));
        }
    }
    let is_former = |id: MemberId| former.iter().any(|member| member.id == id);
    let announced = members
        .iter()
        .find(|member| member.replaced_by.as_deref() == Some(&add.name));
    let inherited = former.iter().find_map(|member| member.replaces);
    let replaces = match replaces {
        Some(name_or_id) => Some(find(inner, name_or_id)?.id),
        None => announced.map(|member| member.id).or(inherited),
    };
    let plan = Plan {
        replaces: replaces.filter(|id| !is_former(*id)),
        ..Plan::default()
    };
    if former.iter().any(|member| member.voter) {
        quorum::check(inner, &former, Joining::Nobody)?;
    }
    add_node(inner, add, plan, &former).await
}

/// Adds a learner under a new id, and removes the `former` members in the same step.
async fn add_node(
    inner: &Inner,
    add: &MemberAdd,
    plan: Plan,
    former: &[&Member],
) -> Outcome<Member> {
    let id = next_id(inner).await?;
    let node = Node {
        name: add.name.clone(),
        peer_address: add.peer_address.clone(),
        api_url: add.api_url.clone(),
        plan,
    };
    let mut changes = removal(former);
    changes.push(ChangeMembers::AddNodes(BTreeMap::from([(
        id,
        node.clone(),
    )])));
    write(inner, changes).await?;
    for lost in former {
        tracing::warn!(
            member = lost.id,
            name = lost.name,
            "a lost member was removed: its machine comes back without its data, as a new member"
        );
    }
    tracing::info!(
        member = id,
        name = add.name,
        replaces = node.plan.replaces,
        "a member was added; it votes when it caught up"
    );
    Ok(member(id, &node, false))
}

/// An id that no member ever had.
async fn next_id(inner: &Inner) -> Outcome<MemberId> {
    let ever = inner.raft.with_state_machine(|state| {
        let ever = state.member_id_max();
        Box::pin(async move { ever })
    });
    let ever = ever
        .await
        .map_err(|err| Some(MembershipError::Unavailable(err.to_string())))?;
    let now = members(&inner.raft).iter().map(|member| member.id).max();
    Ok(now.unwrap_or(0).max(ever) + 1)
}

async fn remove(inner: &Inner, name_or_id: &str) -> Outcome<()> {
    let member = find(inner, name_or_id)?;
    if member.voter {
        quorum::check(inner, &[&member], Joining::Nobody)?;
    }
    if member.id == inner.identity.member_id {
        transfer_here(inner, None).await.map_err(Some)?;
        return Err(None);
    }
    write(inner, removal(&[&member])).await?;
    tracing::info!(
        member = member.id,
        name = member.name,
        "a member was removed"
    );
    Ok(())
}

/// Notes whose place a learner takes, or, when it has not joined yet, who will take it.
async fn replace(inner: &Inner, name_or_id: &str, by: &str) -> Outcome<Member> {
    let leaving = find(inner, name_or_id)?;
    let learner = find(inner, by)
        .ok()
        .filter(|member| member.id != leaving.id);
    if let Some(voter) = learner.as_ref().filter(|member| member.voter) {
        return Err(Some(MembershipError::VotesAlready(voter.name.clone())));
    }
    if leaving.voter {
        quorum::check(inner, &[&leaving], Joining::Heard)?;
    }
    let (id, set): (_, fn(&mut Plan, &Member, &str)) = match &learner {
        Some(learner) => (learner.id, |plan, leaving, _| {
            *plan = Plan {
                replaces: Some(leaving.id),
                ..Plan::default()
            };
        }),
        None => (leaving.id, |plan, _, by| {
            plan.replaced_by = Some(by.to_owned());
        }),
    };
    let mut node = node_of(inner, id)?;
    set(&mut node.plan, &leaving, by);
    set_node(inner, id, node).await?;
    tracing::info!(
        member = leaving.id,
        name = leaving.name,
        by,
        "a member will be replaced"
    );
    Ok(leaving)
}

async fn update(
    inner: &Inner,
    id: MemberId,
    peer_address: &str,
    api_url: Option<&str>,
) -> Outcome<Member> {
    let mut members = members(&inner.raft);
    let Some(at) = members.iter().position(|member| member.id == id) else {
        return Err(Some(MembershipError::Unknown(id.to_string())));
    };
    let voter = members.remove(at).voter;
    check_address(&members, peer_address)?;
    let mut node = node_of(inner, id)?;
    peer_address.clone_into(&mut node.peer_address);
    if let Some(api_url) = api_url {
        api_url.clone_into(&mut node.api_url);
    }
    set_node(inner, id, node.clone()).await?;
    tracing::info!(member = id, peer_address, "a member has another address");
    Ok(member(id, &node, voter))
}

fn check_address(members: &[Member], peer_address: &str) -> Result<(), MembershipError> {
    match members
        .iter()
        .find(|member| member.peer_address == peer_address)
    {
        None => Ok(()),
        Some(member) => Err(MembershipError::AddressTaken(
            member.name.clone(),
            peer_address.to_owned(),
        )),
    }
}

pub(super) fn node_of(inner: &Inner, id: MemberId) -> Result<Node, MembershipError> {
    let metrics = inner.raft.server_metrics();
    let membership = metrics.borrow_watched().membership_config.clone();
    let node = membership.get_node(&id).cloned();
    node.ok_or_else(|| MembershipError::Unknown(id.to_string()))
}

async fn set_node(inner: &Inner, id: MemberId, node: Node) -> Outcome<()> {
    let nodes = BTreeMap::from([(id, node)]);
    write(inner, vec![ChangeMembers::SetNodes(nodes)]).await
}

/// What removes members. A voter's node goes by itself when it votes no longer.
pub(super) fn removal(leaving: &[&Member]) -> Vec<ChangeMembers<MemberId, Node>> {
    let ids = |voter: bool| -> BTreeSet<MemberId> {
        let those = leaving.iter().filter(|member| member.voter == voter);
        those.map(|member| member.id).collect()
    };
    let mut changes = Vec::new();
    if !ids(true).is_empty() {
        changes.push(ChangeMembers::RemoveVoters(ids(true)));
    }
    if !ids(false).is_empty() {
        changes.push(ChangeMembers::RemoveNodes(ids(false)));
    }
    changes
}

/// Changes the members in one step and waits until a quorum has it.
pub(super) async fn write(
    inner: &Inner,
    changes: Vec<ChangeMembers<MemberId, Node>>,
) -> Outcome<()> {
    let change = inner
        .raft
        .change_membership(ChangeMembers::Batch(changes), false);
    written(timeout(CHANGE_MAX, change).await)
}

type WriteResult = Result<
    openraft::raft::ClientWriteResponse<TypeConfig>,
    RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
>;

fn written(result: Result<WriteResult, tokio::time::error::Elapsed>) -> Outcome<()> {
    use ClientWriteError::ChangeMembershipError as Refused;
    match result {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Err(None),
        Ok(Err(RaftError::APIError(Refused(ChangeMembershipError::InProgress(_))))) => {
            Err(Some(MembershipError::InProgress))
        }
        Ok(Err(err)) => Err(Some(MembershipError::Unavailable(err.to_string()))),
        Err(_) => Err(Some(MembershipError::Unavailable(
            "no quorum answered in time; look at the members".to_owned(),
        ))),
    }
}
